"""Finished points on disk: one small file each, put in place whole, and a lock so that one process writes."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError, refusals
from capsim.sweep.point import Row

LOCK = ".lock"
POINTS = "points"
KEPT = "; finished points are kept, start again to do the rest"


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """The directory, made if need be, for this process alone. A process that dies lets it go.

    Raises
    ------
    ScenarioError
        It cannot be written, holds something else, or another process is at work in it.
    """
    with refusals("read", f"--out {directory}"):
        strange = directory.is_dir() and any(directory.iterdir()) and not (directory / LOCK).exists()
    if directory.is_file() or strange:
        raise ScenarioError.one("is taken by something else: give another directory", path=f"--out {directory}")
    with refusals("written", f"--out {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("a")  # first, so that it is known as a sweep's
        (directory / POINTS).mkdir(exist_ok=True)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "another sweep is writing there: wait for it, or give another directory"
            raise ScenarioError.one(message, path=f"--out {directory}") from error
        yield


def write_point(directory: Path, key: str, row: Row) -> None:
    """Put a finished point in place, on the disk before it is in its place.

    Raises
    ------
    ScenarioError
        The system refuses to write it.
    """
    text = json.dumps(row, default=float)
    place = directory / POINTS / f"{key}.json"
    fresh = place.with_suffix(f".{os.getpid()}.tmp")
    with refusals("written", place, KEPT):
        try:
            with fresh.open("w") as file:
                file.write(json.dumps({"sha256": _digest(text), "row": text}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)


def read_point(directory: Path, key: str) -> Row | None:
    """A finished point; None where there is none.

    Raises
    ------
    ValueError
        The file is not as it was written.
    ScenarioError
        The system refuses to read it.
    """
    place = directory / POINTS / f"{key}.json"
    with refusals("read", place, KEPT), suppress(FileNotFoundError):
        return _row(place.read_text())
    return None


def _row(text: str) -> Row:
    try:
        kept = json.loads(text)
        if kept["sha256"] != _digest(kept["row"]):
            raise ValueError("its checksum differs")
        row: dict[str, Any] = json.loads(kept["row"])
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"it is not whole: {error}") from error
    return row


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
