"""A trace in memory: columns of equal length, in order of arrival."""

from dataclasses import dataclass

import numpy as np

PATHS = "a path in a file is relative to that file, one of --set to where you are"


@dataclass(frozen=True)
class PrefixHashes:
    """For each request the hashes of its leading blocks of ``tokens`` tokens: two share KV as far as theirs agree.

    Request ``i`` has ``values[offsets[i]:offsets[i + 1]]``; ``offsets`` has shape (n + 1,).
    """

    offsets: np.ndarray
    values: np.ndarray
    tokens: int

    def of(self, request: int) -> np.ndarray:
        return self.values[self.offsets[request] : self.offsets[request + 1]]

    def take(self, requests: np.ndarray) -> "PrefixHashes":
        """Those of some requests, in the order given."""
        counts = np.diff(self.offsets)[requests]
        offsets = np.append(0, np.cumsum(counts))
        shifts = np.repeat(self.offsets[requests] - offsets[:-1], counts)
        return PrefixHashes(offsets, self.values[shifts + np.arange(offsets[-1])], self.tokens)


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival. Arrays of shape (n,): seconds from the first, tokens, tokens.

    What the file knows beyond that is an array of shape (n,) too, else None: ``session`` (a number each; −1 unknown),
    ``turn`` (from 1), ``parent`` (the row of the request it follows; −1 none), ``think_s`` (pause before it, NaN
    unknown), ``request_class`` (an index into ``class_names``; −1 unknown). ``failed`` requests, which had no output,
    are left out; ``warnings`` say so, and what else was done to the file's rows.
    """

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    session: np.ndarray | None = None
    turn: np.ndarray | None = None
    parent: np.ndarray | None = None
    think_s: np.ndarray | None = None
    request_class: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    prefix_hashes: PrefixHashes | None = None
    failed: int = 0
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)
