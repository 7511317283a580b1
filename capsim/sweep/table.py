"""The result of a sweep: one Parquet file, a row a point, in the order of the sweep file."""

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from capsim.errors import refusals
from capsim.sweep.point import Row, hash_of
from capsim.sweep.spec import Point, Sweep
from capsim.sweep.store import KEPT, read_point

TABLE = "points.parquet"
STATUS = ("status", "reason")


def table_of(points: list[Point], rows: list[Row | None]) -> pd.DataFrame:
    """What varies, then ``status`` (done, failed, missing) and ``reason``, then the figures."""
    records = []
    for point, row in zip(points, rows, strict=True):
        known = row if row is not None else {"status": "missing", "reason": ""}
        records.append({**{path: _cell(value) for path, value in point.items()}, **known})
    frame = pd.DataFrame.from_records(records)
    figures = [name for name in frame.columns if frame[name].dtype == object and name not in STATUS]
    for name in figures:
        frame[name] = _plain(frame[name])
    return frame


def write_table(directory: Path, frame: pd.DataFrame) -> None:
    """Put the table in place whole: the same points give the same bytes.

    Raises
    ------
    ScenarioError
        The system refuses to write it.
    """
    fresh = directory / f".{TABLE}.{os.getpid()}"
    with refusals("written", directory / TABLE, KEPT):
        try:
            frame.to_parquet(fresh, index=False)
            fresh.replace(directory / TABLE)
        finally:
            fresh.unlink(missing_ok=True)


def keys_of(sweep: Sweep) -> list[str]:
    """The hash of each point, by which it is known on disk."""
    return [hash_of(sweep.task, sweep.scenario, point) for point in sweep.all_points]


def read_points(sweep: Sweep, directory: Path, keys: list[str] | None = None) -> pd.DataFrame:
    """What is finished by now, while a sweep is at work or after it was stopped; ``keys`` are those of its points."""
    return table_of(sweep.all_points, [_known(directory, key) for key in keys or keys_of(sweep)])


def _known(directory: Path, key: str) -> Row | None:
    try:
        return read_point(directory, key)
    except ValueError:
        return None


def _cell(value: Any) -> Any:
    """Numbers, words and flags as they are, dates as words; anything larger as JSON."""
    if isinstance(value, date):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else json.dumps(value, default=str)


def _plain(column: pd.Series) -> pd.Series:
    """One type a column: numbers where all known values are, flags where all are, else text."""
    known = column.dropna()
    if known.empty:
        return column.astype("float64")
    if all(isinstance(value, bool) for value in known):
        return column.astype("boolean")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
        return column.astype("float64")
    return column.map(lambda value: None if value is None or value != value else str(value)).astype("string")
