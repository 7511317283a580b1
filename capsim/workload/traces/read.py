"""Trace files of many schemas, read into one form."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from capsim.errors import ScenarioError
from capsim.workload.traces.columns import Codes, are_stamps, numbers, ragged, stamps, tokens
from capsim.workload.traces.follow import roots
from capsim.workload.traces.schemas import NAMES, Schema, schema_of
from capsim.workload.traces.tables import chunks, header
from capsim.workload.traces.ticks import COARSE_S, spread, tick_s
from capsim.workload.traces.trace import PATHS, PrefixHashes, Trace

MAX_ROWS = 20_000_000
MAX_SPAN_S = 30 * 365.25 * 86400
Columns = dict[str, np.ndarray]


def read_trace(path: Path, columns: dict[str, str] | None = None) -> Trace:
    """Read a CSV or JSON-lines trace, or a vLLM benchmark result.

    Parameters
    ----------
    columns
        ``{arrival, prompt_tokens, output_tokens}`` → column names, and if wanted ``session``, ``turn``, ``request``,
        ``parent``, ``think_s``, ``request_class``, ``prefix_hashes`` and ``hash_tokens``; arrivals in seconds or as
        timestamps. Without it the file must have the columns of a known schema.

    Raises
    ------
    ScenarioError
        The file is missing, unreadable, too long, lacks a column, or has a bad value (with its line).
    """
    if not path.is_file():
        raise ScenarioError.one("trace file not found", path=path, hint=PATHS)
    named = None if columns is None else {role: name for role, name in columns.items() if name is not None}
    schema = schema_of(header(path), named, path)
    reader = _Reader(path, schema)
    for table in chunks(path, list(dict.fromkeys([*schema.columns.values(), *schema.optional.values()]))):
        reader.add(table)
    return reader.trace()


class _Reader:
    """Takes a table chunk by chunk, and makes the trace of it."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path, self.schema = path, schema
        self.rows = 0
        self.stamped: bool | None = None
        self.hash_tokens = schema.tokens_a_hash
        self.parts: dict[str, list[np.ndarray]] = defaultdict(list)
        requests = Codes()
        self.codes = {"session": Codes(), "request_class": Codes(), "request": requests, "parent": requests}

    def add(self, table: pd.DataFrame) -> None:
        self.rows += len(table)
        if self.rows > MAX_ROWS:
            raise ScenarioError.one(f"has more than {MAX_ROWS:,} rows", path=self.path, hint="take a part of it")
        if not len(table):
            return
        self._add_needed(table)
        for role, name in self.schema.optional.items():
            if role in NAMES:
                self.parts[role].append(self.codes[role].of(table[name]))
            elif role == "prefix_hashes":
                counts, values = ragged(table[name], self.path)
                self.parts["hash_counts"].append(counts)
                self.parts["hash_values"].append(values)
            elif role == "hash_tokens":
                self._add_hash_tokens(table[name])
            else:
                self.parts[role].append(numbers(table[name], self.path, optional=True))

    def _add_hash_tokens(self, column: pd.Series) -> None:
        sizes = tokens(column, self.path)
        first = int(sizes[0]) if self.hash_tokens is None else self.hash_tokens
        bad = np.flatnonzero((sizes != first) | (sizes == 0))
        if len(bad):
            message = f"must be positive and the same in every row (got {sizes[bad[0]]}, first {first})"
            line, key = int(column.index[bad[0]]), str(column.name)
            raise ScenarioError.one(message, path=self.path, line=line, key=key)
        self.hash_tokens = first

    def _add_needed(self, table: pd.DataFrame) -> None:
        names, path = self.schema.columns, self.path
        if self.stamped is None:
            self.stamped = are_stamps(table[names["arrival"]])
        arrival = table[names["arrival"]]
        output = tokens(table[names["output_tokens"]], path)
        prompt = tokens(table[names["prompt_tokens"]], path)
        empty = np.flatnonzero((prompt == 0) & (output > 0))
        if len(empty):
            line, key = int(table.index[empty[0]]), names["prompt_tokens"]
            raise ScenarioError.one("must be a positive number of tokens (got 0)", path=path, line=line, key=key)
        self.parts["arrival"].append(stamps(arrival, path) if self.stamped else numbers(arrival, path))
        self.parts["prompt_tokens"].append(prompt)
        self.parts["output_tokens"].append(output)

    def trace(self) -> Trace:
        joined = {role: np.concatenate(parts) for role, parts in self.parts.items()}
        if not joined or not (joined["output_tokens"] > 0).any():
            raise ScenarioError.one("no request with output tokens in the trace", path=self.path)
        order = np.lexsort((joined.get("turn", np.zeros(self.rows)), joined["arrival"]))
        served = order[joined["output_tokens"][order] > 0]
        failed = self.rows - len(served)
        warnings = []
        if failed:
            warnings.append(f"{failed:,} of {self.rows:,} requests in the trace had no output and are left out")
        arrival_s = self._seconds(joined["arrival"][served])
        if not arrival_s[-1] <= MAX_SPAN_S:
            message = f"spans more than 30 years (from {arrival_s[0]:g} to {arrival_s[-1]:.3g} s)"
            hint = "" if self.stamped else "are these nanoseconds? numbers are taken as seconds, timestamps are too"
            raise ScenarioError.one(message, path=self.path, key=self.schema.columns["arrival"], hint=hint)
        tick = tick_s(arrival_s)
        if tick is not None and tick < COARSE_S:
            warnings.append(
                f"the trace's clock ticks every {tick:.3g} s: shorter gaps are not known, and left as they are"
            )
        elif tick is not None:
            arrival_s = spread(arrival_s, tick)
            warnings.append(f"the trace's clock ticks every {tick:.3g} s: arrivals are spread at random inside a tick")
        return Trace(
            arrival_s, joined["prompt_tokens"][served], joined["output_tokens"][served],
            class_names=tuple(self.codes["request_class"].known), prefix_hashes=self._hashes(joined, served),
            failed=failed, warnings=tuple(warnings), **_belongings(joined, served),
        )  # fmt: skip

    def _seconds(self, arrival: np.ndarray) -> np.ndarray:
        """Seconds from the first request."""
        if self.stamped:
            return pd.to_timedelta(arrival - arrival[0], unit="ns").total_seconds().to_numpy()
        scaled = arrival * self.schema.seconds_per_unit
        return np.asarray(scaled - scaled[0])

    def _hashes(self, joined: Columns, served: np.ndarray) -> PrefixHashes | None:
        if "hash_counts" not in joined:
            return None
        if self.hash_tokens is None:
            raise ScenarioError.one("prefix_hashes need a column hash_tokens: tokens a hash", path=self.path, line=1)
        offsets = np.append(0, np.cumsum(joined["hash_counts"]))
        return PrefixHashes(offsets, joined["hash_values"], self.hash_tokens).take(served)


def _belongings(joined: Columns, served: np.ndarray) -> dict[str, np.ndarray]:
    """Session, turn, parent, pause and class, as far as the file has them."""
    kept: Columns = {
        role: joined[role][served] for role in ("session", "turn", "think_s", "request_class") if role in joined
    }
    if "request" in joined and "parent" in joined:
        kept["parent"] = _parents(joined["request"][served], joined["parent"][served])
        kept.setdefault("session", roots(kept["parent"]))
    return kept


def _parents(request: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """The row of each request's parent; −1 where there is none, or the trace lacks it."""
    row = np.full(max(request.max(), parent.max()) + 2, -1)
    row[request] = np.arange(len(request))
    row[-1] = -1
    found = row[parent]
    return np.where(found == np.arange(len(request)), -1, found)
