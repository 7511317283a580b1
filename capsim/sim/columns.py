"""The requests of a run in order of arrival, a column at a time."""

from collections.abc import Callable
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa


class Columns:
    """Answers as a frame of the same rows would, and keeps no column: each is read when it is asked for.

    ``order`` has the row of the file for each request, ``index`` the place of each of these among all requests in order
    of arrival; shape (n,) both.
    """

    def __init__(self, read: Callable[[str], pa.ChunkedArray], order: np.ndarray, index: pd.Index) -> None:
        self._read = read
        self._order = order
        self.index = index

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, key: str) -> pd.Series: ...
    @overload
    def __getitem__(self, key: list[str]) -> pd.DataFrame: ...
    @overload
    def __getitem__(self, key: np.ndarray | pd.Series) -> "Columns": ...
    def __getitem__(self, key: Any) -> Any:
        """A column, a frame of several, or those rows for which a mask is true."""
        if isinstance(key, str):
            return pd.Series(self._read(key).to_pandas().array[self._order], self.index, name=key, copy=False)
        if isinstance(key, list):
            return pd.DataFrame({name: self[name] for name in key}, copy=False)
        kept = np.flatnonzero(key)
        if len(kept) and kept[-1] - kept[0] == len(kept) - 1:
            kept = slice(kept[0], kept[-1] + 1)  # type: ignore[assignment]  # a view costs nothing
        return Columns(self._read, self._order[kept], self.index[kept])


Requests = pd.DataFrame | Columns
"""A row a request, in order of arrival."""
