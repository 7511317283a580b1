"""What requests see in a replica that holds so many of them: a fixed sample of requests, each with its luck.

Everything random (which prompts come in between, how many, how long others take) is drawn once, in numbers that know
nothing of the hardware. So with faster steps, more KV blocks or a looser target no request of the sample fares worse.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from capsim.estimate.demand import COMERS, Demand
from capsim.llm import KVStream
from capsim.slo import SLO
from capsim.steptime import Batch, PrefillChunk, StepTimeModel

SMALL_MEAN = 8
MOST_INSIDE = 1 << 16


@dataclass(frozen=True)
class Grid:
    """Numbers of requests in a replica that are looked at, shape (g,), and how many lengths of prompts beside them; in
    between everything is taken as linear."""

    inside: np.ndarray
    lengths: int

    @classmethod
    def of(cls, numbers: int, lengths: int) -> "Grid":
        return cls(np.unique(np.geomspace(1, MOST_INSIDE, numbers).astype(int)), lengths)


FINE = Grid.of(64, 16)
COARSE = Grid.of(24, 6)
"""``FINE`` is within 2 % of ever finer ones; ``COARSE`` tells which of two is better, in a quarter of the time."""


@dataclass(frozen=True)
class Replica:
    """One replica, its limits, and the requests that come to it."""

    step_time: StepTimeModel
    streams: tuple[KVStream, ...]
    blocks: int
    blocks_of: Callable[[int], int]
    max_num_seqs: int
    max_num_batched_tokens: int
    longest_tokens: float
    reserved: bool
    caches_prefixes: bool
    demand: Demand
    grid: Grid = FINE
    looked: "dict[tuple[float, float], Seen]" = field(default_factory=dict)

    @cached_property
    def inside(self) -> np.ndarray:
        """Numbers of requests in it that are looked at, shape (g,)."""
        return self.grid.inside

    @cached_property
    def batch(self) -> np.ndarray:
        """Requests that run, shape (g,), if memory is no limit."""
        return np.minimum(self.inside, self.max_num_seqs)

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Lengths of prompts, shape (l,), and seconds of steps: decoding alone, shape (g,), with a prompt of each
        length beside, shape (g, l), and of each such prompt alone, shape (l,)."""
        longest, context = self.demand.prompt_tokens.max() + 1, int(self.demand.reused_tokens.mean())
        lengths = np.unique(np.geomspace(1, longest, self.grid.lengths).astype(int))
        chunks = [(PrefillChunk(length, context),) for length in lengths.tolist()]

        def step_s(decoding: int, prompt: tuple[PrefillChunk, ...]) -> float:
            entries = tuple(decoding * read for read in self.reads)
            return self.step_time.step_time(Batch(decoding, entries, prompt, len(prompt))).total_s

        distinct, at = np.unique(self.batch, return_inverse=True)
        decode_s = np.array([step_s(batch, ()) for batch in distinct.tolist()])
        mixed_s = np.array([[step_s(batch - 1, one) for one in chunks] for batch in distinct.tolist()])
        return lengths, decode_s[at], mixed_s[at], np.array([step_s(0, one) for one in chunks])

    @cached_property
    def reads(self) -> list[float]:
        """Entries that a decoding sequence reads of each KV stream, on average over its answer."""
        context, weights = self.demand.prompt_tokens + self.demand.output_tokens / 2, self.demand.output_tokens
        return [float(np.average([s.read(c) for c in context], weights=weights)) for s in self.streams]

    @cached_property
    def held_blocks(self) -> np.ndarray:
        """KV blocks that each request holds for itself while it runs, shape (n,)."""
        return self._own_blocks(self.demand.prompt_tokens + self.demand.output_tokens / (1 if self.reserved else 2))

    @cached_property
    def left_blocks(self) -> np.ndarray:
        """KV blocks that each request leaves behind in a prefix cache, shape (n,)."""
        return self._own_blocks(self.demand.prompt_tokens + self.demand.output_tokens)

    def _own_blocks(self, tokens: np.ndarray) -> np.ndarray:
        """What all prompts share lies in a prefix cache once, and is counted for nobody."""
        shared = self.demand.shared_tokens if self.caches_prefixes else np.zeros_like(tokens)
        pairs = zip(tokens.astype(int).tolist(), shared.astype(int).tolist(), strict=True)
        return np.array([max(1, self.blocks_of(all_) - self.blocks_of(common)) for all_, common in pairs])

    @cached_property
    def places(self) -> np.ndarray:
        """How many the KV pool holds at once when each request comes, shape (n,): n h + z s √n = blocks, with mean h
        and standard deviation s of the blocks that one holds."""
        held, weights = self.held_blocks, self.demand.output_tokens
        mean = float(np.average(held, weights=weights))
        spread = float(np.sqrt(np.average((held - mean) ** 2, weights=weights))) * ndtri(self.demand.luck[4])
        root = (np.sqrt(spread**2 + 4 * mean * self.blocks) - spread) / (2 * mean)
        return np.clip(root**2, 1.0, self.max_num_seqs)

    @cached_property
    def met(self) -> np.ndarray:
        """Prompts of others that are computed while each request decodes, shape (g, n)."""
        share = (self.demand.output_tokens - 1) / self.demand.output_tokens.mean()
        return _poisson((self.batch[:, None] - 1) * share, self.demand.luck[1])

    @cached_property
    def waiting(self) -> np.ndarray:
        """Prompts that wait before each request's own, beside the one that is being computed, shape (g, n)."""
        each = np.full(len(self.demand.output_tokens), 1 / self.demand.output_tokens.mean())
        return _poisson((self.batch[:, None] - 2).clip(min=0) * each, self.demand.luck[2])

    @cached_property
    def behind(self) -> np.ndarray:
        """How many must end before each request has a place, shape (g, n)."""
        return (self.inside[:, None] - self.places).clip(min=0)

    @cached_property
    def turns(self) -> np.ndarray:
        """How many mean gaps between ends that takes: gamma numbers, shape (g, n)."""
        return _gamma(self.behind, self.demand.luck[4])


@dataclass(frozen=True)
class Seen:
    """Latencies of the sample with ``inside`` requests in the replica, shape (g, n), and the requests that end each
    second, shape (g,)."""

    per_s: np.ndarray
    ttft_s: np.ndarray
    tpot_s: np.ndarray
    itl_s: np.ndarray
    e2e_s: np.ndarray

    def good(self, slo: SLO, later: np.ndarray) -> np.ndarray:
        """Share of the sample inside the SLO, shape (g,); ``later`` says which are of later turns, shape (n,)."""
        inside = np.ones_like(self.ttft_s, dtype=bool)
        for name, limit in slo.later_thresholds.items():
            inside &= getattr(self, name) <= np.where(later, limit, slo.thresholds.get(name, np.inf))
        return np.minimum.accumulate(inside.mean(axis=1))


def seen(replica: Replica, remembered_s: float, found: float) -> Seen:
    """What each request of the sample sees beside others of its kind, where a prefix cache keeps a context for
    ``remembered_s`` and a session comes back to its own with chance ``found``."""
    if (remembered_s, found) not in replica.looked:
        nothing = np.zeros(len(replica.demand.prompt_tokens), dtype=int)
        cached = replica.demand.cached_tokens(remembered_s, found) if replica.caches_prefixes else nothing
        replica.looked[remembered_s, found] = _seen(replica, cached)
    return replica.looked[remembered_s, found]


def _seen(replica: Replica, cached_tokens: np.ndarray) -> Seen:
    """``cached_tokens`` has shape (n,).

    A batch of b turns over once in as many steps as a request has tokens, L on average. So a request of l tokens meets
    the prompts of about (b - 1) l / L others, a Poisson number; steps that compute a prompt take longer by it. Before
    its first token come the rest of the running step with a prompt in it, the prompts that wait (a share 1 / L of
    those inside) and its own. Where more are inside than the batch or the KV pool takes, they wait for places. That a
    full pool makes the batch smaller and its steps shorter is left out.
    """
    demand, luck = replica.demand, replica.demand.luck
    steps = Steps.of(replica, cached_tokens)
    mean_output = float(demand.output_tokens.mean())
    gaps = demand.output_tokens - 1
    start = (luck[0] * COMERS).astype(int)
    others = replica.batch[:, None] - 1
    comers_s, alone_s = steps.mixed_s[:, demand.comers], steps.prompt_s[None, demand.comers]

    mixed = np.minimum(replica.met, gaps)
    decode_s = (gaps - mixed) * steps.decode_s[:, None] + _sum(comers_s, start, mixed)
    decode_s += _sum(alone_s, start, replica.met) - _sum(alone_s, start, mixed)
    beside_s = np.where(others > 0, comers_s[:, start], steps.decode_s[:, None])
    ttft_s = luck[3] * beside_s + _sum(alone_s, start + 1, replica.waiting) + steps.own_s

    per_s = _per_s(steps, np.minimum(replica.batch, np.median(replica.places)), mean_output)
    if replica.max_num_seqs == 1:
        service_s = alone_s + (demand.output_tokens[demand.comers] - 1) * steps.decode_s[0]
        found_s = steps.prompt_s[None, demand.running] + (demand.output_tokens[demand.running] - 1) * steps.decode_s[0]
        ttft_s = np.where(replica.behind > 0, luck[3] * found_s, 0) + steps.own_s
        ttft_s += _sum(service_s, start + 1, (replica.behind - 1).clip(min=0))
    else:
        ttft_s += replica.turns / per_s[:, None]
    ttft_s[:, demand.prompt_tokens + demand.output_tokens > replica.longest_tokens] = np.inf
    itl_s = np.where(mixed > 0, steps.longest_s(replica.met), steps.decode_s[:, None])
    return Seen(per_s, ttft_s, decode_s / gaps.clip(min=1), itl_s, ttft_s + decode_s)


@dataclass(frozen=True)
class Steps:
    """Seconds of steps with ``replica.batch`` sequences: decoding alone, shape (g,), and with each request's prompt,
    shape (g, n). ``prompt_s`` is a prompt in a step of its own, shape (n,); ``own_s`` all steps that it takes."""

    decode_s: np.ndarray
    mixed_s: np.ndarray
    prompt_s: np.ndarray
    own_s: np.ndarray

    @classmethod
    def of(cls, replica: Replica, cached_tokens: np.ndarray) -> "Steps":
        new = (replica.demand.prompt_tokens - cached_tokens).clip(min=1)
        lengths, decode_s, mixed_s, alone_s = replica.steps
        rising, rising_mixed = (np.maximum.accumulate(each) for each in (decode_s, _between(mixed_s, lengths, new)))
        more = np.ceil(new / replica.max_num_batched_tokens) - 1
        return cls(rising, rising_mixed, _between(alone_s, lengths, new), rising_mixed + more * rising[:, None])

    def longest_s(self, met: np.ndarray) -> np.ndarray:
        """The longest of so many steps with a prompt: of m like draws about the quantile m / (m + 1)."""
        place = (met / (met + 1) * (self.mixed_s.shape[1] - 1)).astype(int)
        return np.take_along_axis(np.sort(self.mixed_s, axis=1), place, axis=1)


def _between(seconds: np.ndarray, lengths: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Seconds at ``new`` tokens, shape (..., n), linear between ``lengths``, shape (..., l)."""
    if len(lengths) == 1:
        return np.repeat(seconds, len(new), axis=-1)
    above = np.searchsorted(lengths, new).clip(1, len(lengths) - 1)
    part = ((new - lengths[above - 1]) / (lengths[above] - lengths[above - 1])).clip(0, 1)
    return (1 - part) * seconds[..., above - 1] + part * seconds[..., above]


def _per_s(steps: Steps, batch: np.ndarray, mean_output: float) -> np.ndarray:
    """Requests that end each second: a batch of b turns over in L steps, of which b compute a prompt."""
    prompts = np.minimum(batch, mean_output)
    round_s = (mean_output - prompts) * steps.decode_s + prompts * steps.mixed_s.mean(axis=1)
    round_s += (batch - prompts) * steps.prompt_s.mean()
    return np.maximum.accumulate(batch / round_s)


def _sum(seconds: np.ndarray, start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Sum over the first ``count`` of those who come from ``start`` on: shapes (g or 1, 2 COMERS), (n,), (g, n)."""
    sums = np.concatenate([np.zeros((len(seconds), 1)), np.cumsum(seconds, axis=1)], axis=1)
    rounds, rest = np.divmod(count.astype(int), COMERS)
    rows = np.arange(len(seconds))[:, None]
    return rounds * sums[:, COMERS, None] + sums[rows, start + rest] - sums[rows, start]


def _poisson(mean: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Quantiles of Poisson numbers: exact for small means, then by Anscombe's square root."""
    root = (ndtri(luck) / 2 + np.sqrt(mean + 3 / 8)).clip(min=0)
    large = np.floor((root**2 - 1 / 8).clip(min=0))
    term = np.exp(-mean)
    below, small = term.copy(), np.zeros_like(mean)
    for count in range(1, 4 * SMALL_MEAN):
        small += luck > below
        term *= mean / count
        below += term
    return np.where(mean < SMALL_MEAN, small, large)


def _gamma(shape: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Quantiles of gamma numbers of mean ``shape``, by Wilson and Hilferty's cube root; rising with shape and luck."""
    safe = np.where(shape > 0, shape, 1)
    root = (1 - 1 / (9 * safe) + ndtri(luck) / (3 * np.sqrt(safe))).clip(min=0)
    return np.where(shape > 0, safe * root**3, 0)
