"""Rates over a day or a week: as catalog entries, and read from a file."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from capsim.errors import ScenarioError, did_you_mean
from capsim.hardware import PositiveSeconds
from capsim.workload.arrivals import Rate, RateOrNone
from capsim.workload.traces import PATHS


class RateProfile(BaseModel):
    """The shape of a rate over ``period_s`` in equal parts, and its mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    period_s: PositiveSeconds
    mean_rate_per_s: Rate
    rates: tuple[RateOrNone, ...] = Field(min_length=2)


def read_rates(path: Path, column: str) -> list[float]:
    """The rates in one column of a CSV file.

    Raises
    ------
    ScenarioError
        No such file or column, or a rate that is not a number of at least zero (with its line).
    """
    import pandas as pd  # slow to import, and few workloads need it

    if not path.is_file():
        raise ScenarioError.one("profile file not found", path=path, hint=PATHS)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ScenarioError.one(f"not a readable CSV: {str(error).strip()}", path=path) from error
    if column not in table:
        hint = did_you_mean(column, list(map(str, table.columns)))
        raise ScenarioError.one(f"no column '{column}'", path=path, line=1, hint=hint)
    rates = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    if len(bad):
        message = f"not a rate: '{table[column].iloc[bad[0]]}'"
        raise ScenarioError.one(message, path=path, line=int(bad[0]) + 2, key=column)
    return list(rates.tolist())
