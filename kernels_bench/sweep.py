"""The token counts that GEMMs and experts are measured at, and several grids measured in turn."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine

_MOST_TOKENS = 4096


def token_counts(most: int) -> Iterator[int]:
    """Powers of two up to ``most``, coarse ones first."""
    counts = [1 << power for power in range(_MOST_TOKENS.bit_length()) if 1 << power <= most]
    yield from (tokens for (tokens,) in coarse_to_fine(counts))


def in_turn(*grids: Iterable[Case]) -> Iterator[Case]:
    """A case of each grid, then the next of each while they last: a run cut short has coarse points of all."""
    for turn in zip_longest(*grids):
        yield from (case for case in turn if case is not None)
