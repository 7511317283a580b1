"""Step times as they would be were the model off by a factor."""

from collections.abc import Mapping

from capsim.steptime import Batch, StepTime, StepTimeModel


class Scaled:
    """A step-time model whose every component takes ``factor`` times as long."""

    def __init__(self, model: StepTimeModel, factor: float) -> None:
        self._model = model
        self._factor = factor

    def step_time(self, batch: Batch) -> StepTime:
        return self._scaled(self._model.step_time(batch))

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        first, growth_s, steps = self._model.decode_run(batch)
        return self._scaled(first), growth_s * self._factor, steps

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        return self._model.beyond(contexts, tokens)

    def _scaled(self, step: StepTime) -> StepTime:
        attention, experts, dense, collectives, overhead, bound = step
        by = self._factor
        return StepTime(attention * by, experts * by, dense * by, collectives * by, overhead * by, bound)
