"""Errors a user can act on: where, what, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room on the disk, then start again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "ask for the right to, or give another place"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "close other programs, or allow more open files"),
}
"""What to do where the system refuses a file."""


@dataclass
class Problem:
    """One mistake in one place of one file.

    ``key`` is the dotted path inside the file, ``line`` counts from 1 (None where the file has no such line).
    """

    message: str
    path: str | Path | None = None
    line: int | None = None
    key: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = str(self.path) if self.path is not None else ""
        if place and self.line is not None:
            place += f":{self.line}"
        where = " ".join(part for part in (place, self.key) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.hint})" if self.hint else text


@dataclass
class ScenarioError(Exception):
    """Bad input. Carries every problem found, so that a file is mended in one pass."""

    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def one(
        cls,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        key: str = "",
        hint: str = "",
    ) -> "ScenarioError":
        return cls([Problem(message, path, line, key, hint)])

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)


@dataclass
class Infeasible(Exception):  # noqa: N818  a finding, not a fault
    """The model does not fit the node, or no load is stable: what is short and what would mend it."""

    message: str
    bytes_short: float = 0.0
    remedies: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {r}" for r in self.remedies)])


def did_you_mean(word: str, known: list[str]) -> str:
    """A hint naming the nearest known word, or the known words when there are few."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(known))}" if known else ""


@contextmanager
def refusals(what: Literal["read", "written"], path: str | Path, more: str = "") -> Iterator[None]:
    """What the system refuses is bad input: which file, why, what is not lost by it (``more``), and what to do.

    Raises
    ------
    ScenarioError
        The file cannot be read, or written.
    """
    try:
        yield
    except OSError as error:
        message = f"cannot be {what}: {error.strerror or error}{more}"
        raise ScenarioError.one(message, path=path, hint=REMEDIES.get(error.errno or 0, "")) from error
