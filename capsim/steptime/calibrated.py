"""Step time from measured kernels, each component by its table; what was not measured falls back to the sum-roofline.

A batch knows sums over its sequences only, so decode attention is read from the table at the mean number of entries
that a sequence reads. That is exact along a straight piece of a table and close across one, as the tables are nearly
straight in context.
"""

from collections.abc import Mapping
from math import inf

from capsim.efficiency import Efficiency
from capsim.hardware import Device
from capsim.kv_format import KVFormat
from capsim.llm import ModelSpec, WeightFormat
from capsim.parallelism import Parallelism
from capsim.steptime import FOREVER, Batch, PrefillChunk, StepTime
from capsim.steptime.domain import ROOFLINE, outside
from capsim.steptime.kernels import Kernels
from capsim.steptime.roofline import Roofline, largest


class Calibrated(Roofline):
    """Step time of one replica by measured kernels, carried over from where they were measured."""

    def __init__(
        self,
        model: ModelSpec,
        weights: WeightFormat,
        kv_format: KVFormat,
        device: Device,
        layout: Parallelism,
        efficiency: Efficiency,
        measured_on: Device,
    ) -> None:
        super().__init__(model, weights, kv_format, device, layout, efficiency)
        self._launched_s = efficiency.prefill_expert_layer_s * (model.experts.layers if model.experts else 0)
        self._heaviest = self._imbalance()
        places = measured_on, device
        self.kernels = Kernels(model, weights, kv_format, layout, efficiency, places, self._stretch)

    def step_time(self, batch: Batch) -> StepTime:
        """Seconds of one step of this replica."""
        decoding, reads, prefill, finishing, _, routed = batch
        sequences = decoding + len(prefill)
        overhead = self._step_s + self._sequence_s * sequences
        if sequences == 0:
            return StepTime(0.0, 0.0, 0.0, 0.0, overhead, "overhead")
        memory, compute = self._decode(decoding, reads) if decoding else (0.0, 0.0)
        tokens = decoding
        for chunk in prefill:
            tokens += chunk[0]
            read_s, computed_s = self._prefill(chunk)
            memory, compute = memory + read_s, compute + computed_s
        memory += self._written(tokens)
        read_s, computed_s = self._multiplied(tokens, decoding + finishing)
        expert_read_s, expert_s = self._experts(tokens, routed) if self._has_experts else (0.0, 0.0)
        link = self._link_s + self._link_token_s * tokens + self._exchange_token_s * self._routed(tokens, routed)
        if prefill:
            kernels_s = memory + compute + read_s + computed_s + expert_read_s + expert_s + link
            overhead += max(0.0, self._launched_s - kernels_s - overhead)
        bound = largest(memory + read_s + expert_read_s, compute + computed_s + expert_s, link, overhead)
        return StepTime(memory + compute, expert_read_s + expert_s, read_s + computed_s, link, overhead, bound)

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        """A decode step, its growth a step, and the steps until a table has its next knot."""
        growth_s, steps = 0.0, float(FOREVER)
        sequences = batch.decode_sequences
        for i, (count, growth) in enumerate(zip(batch.decode_reads, batch.read_growth, strict=True)):
            if not growth:
                continue
            growth_s += 0.0 if self.kernels.decoders[i] else growth * sum(self._decode_s[i])
            for kernel in self.kernels.decoders[i]:
                _, slope, until = kernel.along_context(sequences).at(count / sequences)
                growth_s += slope * growth / sequences
                if until < inf:
                    steps = min(steps, 1 + (until - count / sequences) * sequences // growth)
        return self.step_time(batch), growth_s, max(1, int(steps))

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        """Sizes outside the kernels' tables.

        Contexts lie below only where none of a run is as long as the shortest measured: every answer begins with short
        ones, which take little.
        """
        notes = []
        kernels = self.kernels.decoding
        fewest = min(contexts, default=1)
        if kernels and contexts:
            domains = [kernel.domain for kernel in kernels]
            batches = max(d["sequences"][0] for d in domains), min(d["sequences"][1] for d in domains)
            notes += outside("batches of {:,.0f} lie", (fewest, max(contexts)), batches, ROOFLINE)
            limits = {n: min(k.longest_context(n) for k in kernels) for n in contexts}
            worst = max(contexts, key=lambda n: contexts[n] / limits[n])
            shortest = max(d["context_tokens"][0] for d in domains)
            batch = f"a batch of {worst:,}" if worst > 1 else "one sequence"
            reached, measured = (max(contexts.values()), contexts[worst]), (shortest, limits[worst])
            notes += outside(f"context {{:,.0f}} of {batch} lies", reached, measured, ROOFLINE)
        if self.kernels.matrices:
            domains = [kernel.domain for kernel in self.kernels.matrices]
            sizes = max(d["tokens"][0] for d in domains), min(d["tokens"][1] for d in domains)
            notes += outside("steps of {:,.0f} tokens lie", (min(fewest, tokens), tokens), sizes, ROOFLINE)
        if self.kernels.mixture:
            reached = self._routed(min(fewest, tokens), None), self._routed(tokens, None)
            sizes = self.kernels.mixture.domain["tokens"]
            notes += outside("steps whose experts see {:,.0f} tokens lie", reached, sizes, ROOFLINE)
        return notes

    def _decode(self, decoding: int, reads: tuple[float, ...]) -> tuple[float, float]:
        memory = compute = 0.0
        for count, kernels, (read_s, decode_s) in zip(reads, self.kernels.decoders, self._decode_s, strict=False):
            if not kernels:
                memory += count * read_s
                compute += count * decode_s
            for kernel in kernels:
                memory += kernel.along_context(decoding).at(count / decoding)[0]
        return memory, compute

    def _prefill(self, chunk: PrefillChunk) -> tuple[float, float]:
        """Of one chunk: a kernel that reads the earlier context and computes, else the roofline's two parts."""
        new, context = chunk
        memory = compute = 0.0
        for (stream, read_s, prefill_s), kernel in zip(self._prefill_s, self.kernels.prefillers, strict=True):
            reads = stream.prefill_reads(new, context)
            if kernel is None:
                compute += reads * prefill_s
                memory += stream.stored(context) * read_s if context else 0.0
                continue
            line = kernel.along_context(new)
            triangle = (new + 1) / 2  # reads of a token within the chunk, as a mean
            before = reads / new - triangle
            within = 1.0 if before >= 0 else reads / new / triangle  # a window narrower than the chunk
            compute += within * line.at(max(0.0, before))[0]
        return memory, compute

    def _written(self, tokens: int) -> float:
        if not self.kernels.writers:
            return self._write_s * tokens
        return sum([kernel.seconds(tokens)[0] for kernel in self.kernels.writers])

    def _multiplied(self, tokens: int, heads: int) -> tuple[float, float]:
        """Dense matrices for all tokens, the LM head for the sequences that get one: reading and computing."""
        if not self.kernels.matrices:
            return self._dense_read_s, self._dense_token_s * tokens + self._head_s * heads
        memory = compute = 0.0
        for kernels, size in ((self.kernels.matrices, tokens), (self.kernels.heads, heads)):
            for kernel in kernels if size else ():
                seconds, moving = kernel.seconds(size)
                memory += seconds * moving
                compute += seconds * (1 - moving)
        return memory, compute

    def _experts(self, tokens: int, routed: int | None) -> tuple[float, float]:
        if self.kernels.mixture is None:
            return super()._experts(tokens, routed)
        seconds, moving = self.kernels.mixture.seconds(self._routed(tokens, routed))
        return seconds * moving, seconds * (1 - moving) * self._heaviest
