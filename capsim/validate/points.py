"""Points that others published: a CSV file, one row a figure, with the conditions under which it was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from capsim.errors import Problem, ScenarioError
from capsim.importers.csv_table import read_table

Use = Literal["fit", "judge"]
USES = get_args(Use)
CONDITIONS = (
    "id", "source", "date", "hardware", "n_accelerators", "model", "weight_precision", "kv_precision", "engine",
    "parallelism", "isl", "osl", "load", "concurrency_or_rate", "notes",
)  # fmt: skip
COLUMNS = (*CONDITIONS, "use", "metric", "value", "unit")


@dataclass(frozen=True)
class Published:
    """One published figure of a point. ``use`` says whether constants may be fitted to it, or only judged by it."""

    metric: str
    value: float
    unit: str
    use: Use


@dataclass(frozen=True)
class Point:
    """What was measured together, and how; a condition that is not stated is an empty text."""

    id: str
    source: str
    date: str
    hardware: str
    n_accelerators: str
    model: str
    weight_precision: str
    kv_precision: str
    engine: str
    parallelism: str
    isl: str
    osl: str
    load: str
    concurrency_or_rate: str
    notes: str
    figures: tuple[Published, ...]


def read_points(path: Path) -> list[Point]:
    """The points of a file, in its order; rows of one ``id`` are one point, with the conditions of its first row.

    Raises
    ------
    ScenarioError
        No such file, a missing column, a value that is no number or zero, or a ``use`` that is not known.
    """
    frame = read_table(path, COLUMNS, dtype=str)  # else an empty cell makes 1024.0 of the others' 1024
    _check(frame, path)
    text = frame[list(CONDITIONS)].astype("string").fillna("")
    points = []
    for _, rows in frame.groupby("id", sort=False):
        figures = tuple(
            Published(str(row.metric), float(row.value), str(row.unit), row.use) for row in rows.itertuples()
        )
        points.append(Point(**dict(zip(CONDITIONS, text.loc[rows.index[0]], strict=True)), figures=figures))
    return points


def _check(frame: pd.DataFrame, path: Path) -> None:
    """Every row that cannot be read, by line."""
    value = pd.to_numeric(frame["value"], errors="coerce")
    wrong: Sequence[tuple[pd.Series, str, str]] = [
        (~np.isfinite(value) | (value == 0), "value", "is not a number other than zero"),
        (~frame["use"].isin(USES), "use", f"must be {' or '.join(USES)}"),
        (frame["id"].isna(), "id", "is missing"),
        (frame["metric"].isna(), "metric", "is missing"),
    ]
    problems = [
        Problem(f"{column} {message}", path, int(index) + 2, column)
        for rows, column, message in wrong for index in frame.index[rows]
    ]  # fmt: skip
    if problems:
        raise ScenarioError(problems)
