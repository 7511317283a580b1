"""Traces of real requests: arrival time, prompt tokens, output tokens, found by column name."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capsim.errors import ScenarioError, did_you_mean

# schema: (time column, prompt column, output column, seconds per unit of a numeric time)
SCHEMAS = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens", 1.0),
    "mooncake": ("timestamp", "input_length", "output_length", 1e-3),
}
PATHS = "a path in a file is relative to that file, one of --set to where you are"
ROLES = ("arrival", "prompt_tokens", "output_tokens")


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival. Arrays of shape (n,): seconds from the first, tokens, tokens."""

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.arrival_s)


def read_trace(path: Path, columns: dict[str, str] | None = None) -> Trace:
    """Read a CSV or JSON-lines trace.

    Parameters
    ----------
    columns
        ``{arrival, prompt_tokens, output_tokens}`` → column names; arrivals in seconds or as timestamps. Without it
        the file must have the columns of a known schema (Azure, Mooncake).

    Raises
    ------
    ScenarioError
        The file is missing, unreadable, lacks a column, or has a bad value (with its line).
    """
    table, first_line = _load(path)
    names, scale = _columns_of(table, path, columns)
    parsed = {role: _column(table, name, path, first_line, role) for role, name in names.items()}
    arrival = parsed["arrival"] * scale
    order = np.argsort(arrival, kind="stable")
    for role in ROLES[1:]:
        bad = np.flatnonzero(parsed[role] < (1 if role == "prompt_tokens" else 0))
        if len(bad):
            message = f"must be a positive number of tokens (got {parsed[role][bad[0]]:g})"
            raise ScenarioError.one(message, path=path, line=int(bad[0]) + first_line, key=names[role])
    served = order[parsed["output_tokens"][order] > 0]
    if not len(served):
        raise ScenarioError.one("no request with output tokens in the trace", path=path)
    start = arrival[served[0]]
    prompt, output = (parsed[role][served].astype(np.int64) for role in ROLES[1:])
    return Trace(arrival[served] - start, prompt, output)


def _load(path: Path) -> tuple[pd.DataFrame, int]:
    """The file as a table, and the line of its first row."""
    if not path.is_file():
        raise ScenarioError.one("trace file not found", path=path, hint=PATHS)
    if path.suffix in (".jsonl", ".json"):
        return pd.DataFrame(_json_rows(path)), 1
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False), 2
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ScenarioError.one(f"not a readable CSV: {str(error).strip()}", path=path) from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ScenarioError.one(f"not JSON: {error.msg}", path=path, line=number) from error
            if not isinstance(row, dict):
                raise ScenarioError.one("expected one JSON object a line", path=path, line=number)
            rows.append({key: value for key, value in row.items() if not isinstance(value, (list, dict))})
    return rows


def _columns_of(table: pd.DataFrame, path: Path, columns: dict[str, str] | None) -> tuple[dict[str, str], float]:
    present = list(map(str, table.columns))
    if columns is not None:
        for role in ROLES:
            if role not in columns:
                raise ScenarioError.one(
                    f"columns must name '{role}'", path=path, hint=did_you_mean(role, list(columns))
                )
            if columns[role] not in present:
                hint = did_you_mean(columns[role], present)
                raise ScenarioError.one(f"no column '{columns[role]}'", path=path, line=1, hint=hint)
        return {role: columns[role] for role in ROLES}, 1.0
    for *names, scale in SCHEMAS.values():
        if set(names) <= set(present):
            return dict(zip(ROLES, names, strict=True)), scale
    raise ScenarioError.one(
        f"columns {', '.join(present) or '(none)'} fit no known trace schema ({', '.join(SCHEMAS)})",
        path=path,
        line=1,
        hint="name them with columns: {arrival: …, prompt_tokens: …, output_tokens: …}",
    )


def _column(table: pd.DataFrame, name: str, path: Path, first_line: int, role: str) -> np.ndarray:
    """One column as floats: numbers, or for arrivals timestamps in seconds."""
    text = table[name]
    numbers = pd.to_numeric(text, errors="coerce")
    if role == "arrival" and numbers.isna().all():
        stamps = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
        numbers = (stamps - stamps.min()).dt.total_seconds()
    values = numbers.to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        line = int(bad[0]) + first_line
        raise ScenarioError.one(f"not a number: '{text.iloc[bad[0]]}'", path=path, line=line, key=name)
    return values
