"""Step time as whole steps of an engine were measured: linear in what a step does, without a look inside."""

from collections.abc import Mapping

from capsim.hardware import Device
from capsim.llm import ModelSpec
from capsim.measured import StepCoefficients
from capsim.steptime import FOREVER, Batch, Bound, StepTime
from capsim.steptime.domain import Range, outside

WORDS = {
    "sequences": "batches of {:,.0f} lie", "kv_tokens": "steps that read {:,.0f} KV tokens lie",
    "tokens": "steps of {:,.0f} tokens lie",
}  # fmt: skip


class WholeStep:
    """Step time of one replica: the model, layout and engine are those whose steps were measured.

    t = a + b·decode + c·ΣKV + d·prefill + e·Σ n (context + n/2) + f·[has prefill] + g·E(1 − (1 − k/E)^n). The parts
    of a step time are those of the sum by what they follow (context, experts, tokens), not by kernel.

    Raises
    ------
    ValueError
        The model reads something else than its whole context: its reads are not ΣKV.
    """

    def __init__(
        self, model: ModelSpec, coefficients: StepCoefficients, domain: Mapping[str, Range] | None = None
    ) -> None:
        if len(model.streams) != 1 or model.streams[0].has_kinks or model.streams[0].ratio != 1:
            raise ValueError(f"whole steps are measured in tokens of context, of which {model.name} does not read all")
        self.model = model
        self.coefficients = coefficients
        self.domain = domain or {}

    def step_time(self, batch: Batch) -> StepTime:
        """Seconds of one step of this replica."""
        fitted, tokens = self.coefficients, batch.tokens
        attention = fitted.kv_token_s * batch.decode_reads[0]
        for new, context in batch.prefill:
            attention += fitted.prefill_read_s * new * (context + new / 2)
        experts = 0.0
        if self.model.experts is not None:
            routed = tokens if batch.expert_tokens is None else batch.expert_tokens
            experts = fitted.expert_s * self.model.experts.touched(routed)
        dense = fitted.decode_s * batch.decode_sequences + fitted.prefill_token_s * (tokens - batch.decode_sequences)
        overhead = fitted.base_s + (fitted.prefill_s if batch.prefill else 0.0)
        return StepTime(attention, experts, dense, 0.0, overhead, _largest(attention + experts, dense, overhead))

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        """A decode step and its growth a step: what each further token of context costs."""
        return self.step_time(batch), self.coefficients.kv_token_s * batch.read_growth[0], FOREVER

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        """Sizes outside those of the steps that were measured."""
        reached = {"tokens": (float(tokens), float(tokens))}
        if contexts:
            reads = max(sequences * context for sequences, context in contexts.items())
            reached |= {"sequences": (min(contexts), max(contexts)), "kv_tokens": (reads, reads)}
        notes = []
        for size, what in WORDS.items():
            if size in self.domain and size in reached:
                notes += outside(what, reached[size], self.domain[size], "the fitted line goes on")
        return notes


def carried_over(coefficients: StepCoefficients, measured_on: Device, device: Device) -> StepCoefficients:
    """On a device like the measured one but faster: reads by bandwidth, prefill by arithmetic.

    What a step and a sequence take whatever their size stays: weights and host time are one number in it.
    """
    read = measured_on.memory_bytes_per_s / device.memory_bytes_per_s
    computed = measured_on.bf16_flops / device.bf16_flops
    faster = {"kv_token_s": read, "expert_s": read, "prefill_token_s": computed, "prefill_read_s": computed}
    return coefficients.model_copy(update={name: getattr(coefficients, name) * by for name, by in faster.items()})


def _largest(context: float, tokens: float, overhead: float) -> Bound:
    """Reading context and experts is bound by memory, what every token costs by arithmetic."""
    if overhead >= max(context, tokens):
        return "overhead"
    return "memory" if context >= tokens else "compute"
