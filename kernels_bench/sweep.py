"""The token counts that GEMMs and experts are measured at, and several grids measured in turn."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine

_TOKENS = sorted({1 << power for power in range(13)} | {3 << power for power in range(11)})


def token_counts(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12 and so on up to ``most``, coarse ones first."""
    yield from (tokens for (tokens,) in coarse_to_fine([count for count in _TOKENS if count <= most]))


def in_turn(*grids: Iterable[Case]) -> Iterator[Case]:
    """A case of each grid, then the next of each while they last: a run cut short has coarse points of all."""
    for turn in zip_longest(*grids):
        yield from (case for case in turn if case is not None)
