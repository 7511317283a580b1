"""A table of somebody else's as they wrote it, with the columns that a reader needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError


def read_table(path: Path, needed: Sequence[str] = (), dtype: type | None = None) -> Any:
    """A CSV file as a data frame; with ``dtype`` ``str`` cells stay as they were written.

    Raises
    ------
    ScenarioError
        No such file, not a table, or a column that is missing.
    """
    import pandas as pd

    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    try:
        frame = pd.read_csv(path, dtype=dtype)
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ScenarioError.one(f"not a CSV table: {error}", path=path) from error
    if missing := [name for name in needed if name not in frame]:
        raise ScenarioError.one(f"lacks the columns {', '.join(missing)}", path=path, line=1)
    return frame
