"""A sweep's directory: a small file for each finished point, and one Parquet table of all points in their order.

Every file is replaced in one step, so that a process killed at any moment leaves whole ones.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from capsim.errors import ScenarioError
from capsim.source import written
from capsim.sweep import figures
from capsim.sweep.spec import Sweep

POINTS, TABLE, LOCK = "points", "points.parquet", "lock"
Row = dict[str, Any]


@contextmanager
def own(directory: Path) -> Iterator[None]:
    """Hold a sweep's directory, made if need be; the system lets go of it however this process ends.

    Raises
    ------
    ScenarioError
        Another process holds it, it holds something else, or it cannot be written.
    """
    place = f"--out {directory}"
    if directory.exists() and not directory.is_dir():
        raise ScenarioError.one("is a file: give a directory", path=place)
    if directory.is_dir() and any(directory.iterdir()) and not (directory / LOCK).is_file():
        raise ScenarioError.one("is not empty and holds no sweep: give another directory", path=place)
    with writing(directory):
        (directory / POINTS).mkdir(parents=True, exist_ok=True)
        held = (directory / LOCK).open("a")
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ScenarioError.one("another process runs a sweep there: wait for it", path=place) from error
        yield


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn the system's refusal to write into an error that says what is kept."""
    try:
        yield
    except OSError as error:
        message = f"cannot be written: {error.strerror}; finished points are kept"
        hint = "make room, then run the same command again: it does what is missing"
        raise ScenarioError.one(message, path=f"--out {directory}", hint=hint) from error


class Results:
    """The point files of a directory. Only the process that holds it may write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, key: str) -> Row | None:
        """A finished point's row; None where there is none.

        Raises
        ------
        ValueError
            The file is damaged.
        """
        path = self._path(key)
        try:
            document = json.loads(path.read_bytes())
            row: Row = document["row"]
            whole = document["sha256"] == _digest(row)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise ValueError(f"{path} is damaged")
        return row

    def write(self, key: str, row: Row) -> None:
        text = json.dumps({"sha256": _digest(row), "row": row}) + "\n"
        self._replace(self._path(key), lambda fresh: fresh.write_text(text))

    def write_table(self, sweep: Sweep, rows: dict[int, Row]) -> None:
        """All points in their order; those without a row are pending."""
        table = as_table(sweep, rows)
        self._replace(self.directory / TABLE, lambda fresh: pq.write_table(table, fresh))

    def _path(self, key: str) -> Path:
        return self.directory / POINTS / f"{key}.json"

    def _replace(self, path: Path, write: Callable[[Path], object]) -> None:
        fresh = self.directory / ".writing"
        try:
            write(fresh)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def _digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()


def as_table(sweep: Sweep, rows: dict[int, Row]) -> pa.Table:
    """Columns: ``point``, the swept paths, ``status``, ``reason``, and the figures of the task."""
    every = [rows.get(point.index, {"status": "pending"}) for point in sweep.points]
    arrays: dict[str, pa.Array] = {"point": pa.array([point.index for point in sweep.points], pa.int32())}
    for path in sweep.paths:
        arrays[path] = _swept([point.values.get(path) for point in sweep.points])
    for name in ("status", "reason", *figures.columns(sweep.task)):
        arrays[name] = pa.array([row.get(name) for row in every], _type(name))
    return pa.table(arrays)


def _type(name: str) -> pa.DataType:
    if name in figures.TEXT or name in ("status", "reason"):
        return pa.string()
    return pa.bool_() if name in figures.FLAGS else pa.float64()


def _swept(values: list[Any]) -> pa.Array:
    """Numbers and truths as they are where all values are; else each as it would be written in a file."""
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({int}, {bool}, {float}, {str}):
        return pa.array(values)
    if kinds == {int, float}:
        return pa.array(values, pa.float64())
    return pa.array(
        [value if value is None or isinstance(value, str) else written(value) for value in values], pa.string()
    )
