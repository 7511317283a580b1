"""Attention as one masked product over all sequences of a step, where an engine does not attend each apart."""

from collections.abc import Mapping

from capsim.steptime import Batch, PrefillChunk, StepTime, StepTimeModel


class OneProduct:
    """A step-time model that sees every prefilled token read all KV of the step, as eager and SDPA attention do.

    Σ new · (context + new / 2) becomes new tokens · all KV, which is what such an engine's measured steps hold.
    """

    def __init__(self, model: StepTimeModel) -> None:
        self._model = model

    def step_time(self, batch: Batch) -> StepTime:
        return self._model.step_time(_in_one(batch))

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        return self._model.decode_run(batch)

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        return self._model.beyond(contexts, tokens)


def _in_one(batch: Batch) -> Batch:
    """The same batch with its prefill in one chunk, each of its tokens reading all KV (to half a token)."""
    if not batch.prefill:
        return batch
    new = batch.prefill_tokens
    every = int(batch.decode_reads[0]) + sum(chunk.context_tokens for chunk in batch.prefill) + new
    return batch._replace(prefill=(PrefillChunk(new, every - new // 2),))
