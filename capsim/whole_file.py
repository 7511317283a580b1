"""A text file that is there whole or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

from capsim.errors import refusals


def write_whole(path: Path, lines: Iterable[str], name: str | None = None) -> None:
    """Write lines (with their ends) beside a file and put them in its place in one step; what is no regular file, such
    as ``/dev/stdout``, is written as it comes.

    Raises
    ------
    ScenarioError
        It cannot be written; it is called ``name``, or by its path.
    """
    fresh = path if path.exists() and not path.is_file() else path.with_name(f".{path.name}.{os.getpid()}")
    with refusals("written", name or path):
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.writelines(lines)
            if fresh is not path:
                fresh.replace(path)
        finally:
            if fresh is not path:
                fresh.unlink(missing_ok=True)
