"""A sample of requests as the closed forms take it, and what of their prompts a prefix cache of some size holds."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

COMERS = 2048
LEVELS = 256


@dataclass(frozen=True)
class Demand:
    """A sample of n requests, arrays of shape (n,).

    ``shared_tokens`` of a prompt are those that everybody's begin with, ``reused_tokens`` those that its session sent
    before as well; ``before_s`` is the pause between that and this one (infinite where there was none), ``later``
    whether it is of a later turn. ``think_s`` is the mean pause after a request.
    """

    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    shared_tokens: np.ndarray
    reused_tokens: np.ndarray
    before_s: np.ndarray
    later: np.ndarray
    think_s: float

    @cached_property
    def luck(self) -> np.ndarray:
        """Uniform numbers of each request, shape (6, n), each row evenly spread."""
        requests = len(self.prompt_tokens)
        rows = np.tile(np.arange(requests), (6, 1))
        return (np.random.default_rng(2).permuted(rows, axis=1) + 0.5) / requests

    @cached_property
    def comers(self) -> np.ndarray:
        """Rows of the requests that come meanwhile, in order, shape (2 COMERS,): the same ones again and again."""
        rows = np.random.default_rng(1).integers(0, len(self.prompt_tokens), COMERS)
        return np.concatenate([rows, rows])

    @cached_property
    def running(self) -> np.ndarray:
        """Row of a request that each one finds running, shape (n,): long ones are found more often."""
        until = np.cumsum(self.output_tokens) / self.output_tokens.sum()
        found = np.random.default_rng(4).random(len(until))
        return np.searchsorted(until, found).clip(max=len(until) - 1)

    @cached_property
    def sessions_return(self) -> bool:
        """Whether it matters how long a cache remembers."""
        return bool((self.reused_tokens > self.shared_tokens).any())

    def remembered_s(self, users: int, pool_blocks: float, held_blocks: np.ndarray) -> float:
        """For how long an LRU cache of ``pool_blocks`` keeps a context with that many users.

        For the time T in which as many blocks as it has are written (Che, Tung and Wang 2002):
        rate · E[blocks] · E[min(pause, T)] = pool. The rate is users / think_s, as if no time were spent on answers:
        those whose request runs hold their blocks too. T is one of ``LEVELS`` quantiles of the pauses, the next lower.

        Parameters
        ----------
        held_blocks
            What each request's context takes, shape (n,).
        """
        pauses_s = np.sort(self.before_s[np.isfinite(self.before_s)])
        requests = len(self.before_s)
        longer = requests - 1 - np.arange(len(pauses_s))
        kept_s = (np.cumsum(pauses_s) + pauses_s * longer) / requests
        written = users / max(self.think_s, 1e-9) * float(held_blocks.mean()) * kept_s
        fits = int(np.searchsorted(written, pool_blocks, side="right"))
        level = fits * LEVELS // len(pauses_s)
        return np.inf if level == LEVELS else float(pauses_s[level * len(pauses_s) // LEVELS])

    def cached_tokens(self, remembered_s: float, found: float) -> np.ndarray:
        """Of each prompt what the cache holds, shape (n,): whoever comes back later than ``remembered_s``, or to
        another replica than the one with its context (chance ``found``), finds what all prompts share."""
        back = (self.before_s < remembered_s) & (self.luck[5] < found)
        return np.where(back, self.reused_tokens, self.shared_tokens)
