"""Columns of a table as arrays; a value that cannot be one is reported with its file, line and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capsim.errors import ScenarioError
from capsim.workload.distributions import MAX_TOKENS

NONE = ("", "-1", "None", "nan")


def numbers(column: pd.Series, path: Path, *, optional: bool = False) -> np.ndarray:
    """Finite floats; an ``optional`` column may have empty fields, which are NaN."""
    values = _coerced(column)
    bad = ~np.isfinite(values)
    if optional:
        bad &= ~np.array([field is None or field == "" for field in column], dtype=bool)
    _refuse(bad, column, path, "not a number")
    return values


def stamps(column: pd.Series, path: Path) -> np.ndarray:
    """Timestamps as whole nanoseconds since 1970; one without a time zone is taken as UTC."""
    moments = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    _refuse(moments.isna().to_numpy(), column, path, "not a time")
    try:
        return np.asarray(moments.dt.as_unit("ns").astype("int64"))
    except pd.errors.OutOfBoundsDatetime as error:
        raise ScenarioError.one(f"a time out of range: {error}", path=path, key=str(column.name)) from error


def are_stamps(column: pd.Series) -> bool:
    """Whether a column of arrivals holds timestamps: nothing in it is a number."""
    return bool(np.isnan(_coerced(column)).all())


def tokens(column: pd.Series, path: Path) -> np.ndarray:
    """Whole numbers of tokens, from zero."""
    values = numbers(column, path)
    _refuse((values < 0) | (values > MAX_TOKENS), column, path, "must be a positive number of tokens", "got ")
    _refuse(values != np.rint(values), column, path, "must be a whole number of tokens", "got ")
    return values.astype(np.int64)


class Codes:
    """Names met so far, each with its number. What is empty, or −1 as some traces write it, is −1."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, column: pd.Series) -> np.ndarray:
        found, names = pd.factorize(column.astype(str))
        mine = [-1 if name in NONE else self.known.setdefault(name, len(self.known)) for name in names]
        return np.array([*mine, -1], dtype=np.int64)[found]


def ragged(column: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts and values of lists of whole numbers: JSON lists, or numbers with spaces between."""
    lists: list[Any] = [field.split() if isinstance(field, str) else field for field in column]
    try:
        counts = np.array([len(one or ()) for one in lists], dtype=np.int64)
        return counts, np.array([value for one in lists for value in one or ()], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        bad = np.array([not _whole(one) for one in lists])
        _refuse(bad, column, path, "not a list of whole numbers")
        raise


def _whole(values: Any) -> bool:
    try:
        return bool(np.array(list(values or ()), dtype=np.int64).ndim == 1)
    except (TypeError, ValueError, OverflowError):
        return False


def _coerced(column: pd.Series) -> np.ndarray:
    plain = column
    if column.dtype in (object, bool):
        plain = column.map(
            lambda field: field if isinstance(field, (int, float, str)) and not isinstance(field, bool) else None
        )
    return pd.to_numeric(plain, errors="coerce").to_numpy(dtype=float)


def _refuse(bad: np.ndarray, column: pd.Series, path: Path, message: str, got: str = "") -> None:
    """Complain of the first bad field."""
    where = np.flatnonzero(bad)
    if len(where):
        field = column.iloc[where[0]]
        given = f" ({got}{field})" if got else f": '{'' if field is None else field}'"
        line = int(column.index[where[0]])
        raise ScenarioError.one(f"{message}{given}", path=path, line=line, key=str(column.name))
