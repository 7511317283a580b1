"""Closed-form throughput of one replica at saturation: a first guess, and what utilisation is measured against."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from capsim.llm import KVStream
from capsim.steptime import Batch, PrefillChunk, StepTimeModel

PROMPT_QUANTILES = (np.arange(32) + 0.5) / 32


@dataclass(frozen=True)
class Estimate:
    """A replica at its fullest: decoding sequences, requests a second, seconds per output token, seconds in it."""

    batch: int
    requests_per_s: float
    tpot_s: float
    service_s: float


def saturation(
    step_time: StepTimeModel,
    streams: tuple[KVStream, ...],
    blocks: int,
    blocks_of: Callable[[int], int],
    max_num_seqs: int,
    prompt_tokens: np.ndarray,
    output_tokens: np.ndarray,
    tpot_s: float = np.inf,
    cached_tokens: np.ndarray | None = None,
    requests_per_s: float = np.inf,
    *,
    reserved: bool = False,
) -> Estimate:
    """The largest batch that the KV pool, ``max_num_seqs`` and ``tpot_s`` allow, and what it serves; less is enough
    where it serves ``requests_per_s``.

    A request costs its own prefill c and 1/B of its decode steps: X = 1 / (c + output · s(B) / B), where s(B) is a
    decode step of B sequences at the context they have on average over their decoding. While it decodes, each of the
    other B - 1 places turns over once and prefills: TPOT = s(B) + (B - 1) c / output.

    Parameters
    ----------
    prompt_tokens, output_tokens
        A sample of requests, shape (n,).
    cached_tokens
        What of their prompts is in the prefix cache, shape (n,); by default nothing.
    reserved
        A request holds the blocks of its whole answer from the start.
    """
    context = prompt_tokens + output_tokens / 2
    mean_output = float(output_tokens.mean())
    holding = prompt_tokens + output_tokens if reserved else context
    held = np.average([blocks_of(int(c)) for c in holding], weights=output_tokens)
    reads = [np.average([s.read(float(c)) for c in context], weights=output_tokens) for s in streams]
    cached = np.zeros(len(prompt_tokens)) if cached_tokens is None else cached_tokens
    prefill_s = _prefill_s(step_time, streams, prompt_tokens - cached, int(cached.mean()))

    def full(batch: int) -> Estimate:
        decode_s = step_time.step_time(Batch(batch, tuple(batch * r for r in reads))).total_s
        rate = 1 / (prefill_s + mean_output * decode_s / batch)
        tpot = decode_s + (batch - 1) * prefill_s / mean_output
        return Estimate(batch, float(rate), float(tpot), float(prefill_s + mean_output * tpot))

    low, high = 1, max(1, min(max_num_seqs, int(blocks / held)))
    while low < high:
        middle = (low + high + 1) // 2
        if full(middle).tpot_s <= tpot_s and full(middle - 1).requests_per_s < requests_per_s:
            low = middle
        else:
            high = middle - 1
    return full(low)


def _prefill_s(
    step_time: StepTimeModel, streams: tuple[KVStream, ...], new_tokens: np.ndarray, cached_tokens: int
) -> float:
    """What a prompt adds on average to a step that runs anyway: long prompts cost more than in proportion."""
    none = tuple(0.0 for _ in streams)
    idle = step_time.step_time(Batch(1, none)).total_s
    lengths = np.quantile(new_tokens, PROMPT_QUANTILES).astype(int).clip(min=1)
    steps = [step_time.step_time(Batch(0, none, (PrefillChunk(int(n), cached_tokens),), 1)).total_s for n in lengths]
    return max(1e-12, float(np.mean(steps)) - idle)
