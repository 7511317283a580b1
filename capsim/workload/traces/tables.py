"""A trace file as chunks of a table, so that a long one never stands in memory as text."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from capsim.errors import ScenarioError

ROWS_A_CHUNK = 200_000
MAX_DOCUMENT_BYTES = 1_000_000_000
ENCODING = "utf-8-sig"


def header(path: Path) -> list[str]:
    """The names of the columns.

    Raises
    ------
    ScenarioError
        The file cannot be read as CSV, JSON lines or a benchmark's JSON document.
    """
    if path.suffix not in (".json", ".jsonl"):
        try:
            return list(map(str, pd.read_csv(path, nrows=0, encoding=ENCODING).columns))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ScenarioError.one(f"not a readable CSV: {str(error).strip()}", path=path) from error
    document = _document(path)
    if document is not None:
        return [name for name, value in document.items() if isinstance(value, list)]
    return list(next(iter(_json_rows(path)), (1, {}))[1])


def chunks(path: Path, names: list[str]) -> Iterator[pd.DataFrame]:
    """The columns ``names`` as they stand in the file, ``ROWS_A_CHUNK`` rows at a time; the index is the line."""
    if path.suffix not in (".json", ".jsonl"):
        yield from _csv_chunks(path, names)
        return
    document = _document(path)
    if document is not None:
        lengths = {len(document[name]) for name in names}
        if len(lengths) > 1:
            raise ScenarioError.one(f"{', '.join(names)} differ in length", path=path)
        yield pd.DataFrame({name: document[name] for name in names}, dtype=object)
        return
    rows = _json_rows(path)
    while some := list(islice(rows, ROWS_A_CHUNK)):
        lines, values = zip(*some, strict=True)
        yield pd.DataFrame({name: [row.get(name) for row in values] for name in names}, index=lines, dtype=object)


def _csv_chunks(path: Path, names: list[str]) -> Iterator[pd.DataFrame]:
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "encoding": ENCODING}
    try:
        for table in pd.read_csv(path, chunksize=ROWS_A_CHUNK, **options):
            if not isinstance(table.index, pd.RangeIndex):
                raise ScenarioError.one("rows have more fields than there are columns", path=path, line=2)
            table = table.fillna("")
            table.index += 2
            yield table.loc[~(table == "").all(axis=1), names]
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else None
        raise ScenarioError.one(f"not a readable CSV: {str(error).strip()}", path=path, line=line) from error


def _document(path: Path) -> dict[str, Any] | None:
    """The file as one JSON document of lists, as benchmarks write it; None where it holds an object a line."""
    if path.suffix != ".json" or path.stat().st_size > MAX_DOCUMENT_BYTES:
        return None
    try:
        document = json.loads(path.read_text(encoding=ENCODING))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(document, dict) and "input_sequence_length" in document:
        raise ScenarioError.one(
            "is a workload profile, not a trace", path=path, hint="capsim trace fit turns it into a preset"
        )
    return document if isinstance(document, dict) and any(isinstance(v, list) for v in document.values()) else None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding=ENCODING) as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _json_row(path, number, line)
        except UnicodeDecodeError as error:
            raise ScenarioError.one(f"not a text file: {error.reason}", path=path) from error


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        message = getattr(error, "msg", "nested too deeply")
        raise ScenarioError.one(f"not JSON: {message}", path=path, line=number) from error
    if not isinstance(row, dict):
        raise ScenarioError.one("expected one JSON object a line", path=path, line=number)
    return row
