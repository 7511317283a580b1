"""What steps and layers take over their kernels: a factor, and fixed times, fitted to what is left."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from capsim.llm import Attention, DenseLayers, Experts, ModelSpec
from capsim.measurements import Kernel, Step
from capsim.steptime import Batch, PrefillChunk, StepTimeModel

Steps = Callable[[ModelSpec], StepTimeModel]
"""The step-time model of a model, with the fixed times found so far."""


def layer_overheads(rows: Sequence[Kernel], kernels_s: np.ndarray) -> dict[str, float]:
    """What whole layers take over the seconds of their kernels measured alone, shape (n,): ``kernel_factor``, seconds
    of each layer, and of one with experts on top; non-negative, by relative errors as kernels are fitted."""
    measured = np.array([row.median_s for row in rows])
    columns = np.array([kernels_s, np.ones(len(rows)), [row.size("experts") > 0 for row in rows]]).T
    longer, layer_s, expert_layer_s = nnls(columns / measured[:, None], 1 - kernels_s / measured)[0].tolist()
    return {"kernel_factor": 1 + longer, "layer_s": layer_s, "expert_layer_s": expert_layer_s}


def layer_s(row: Kernel, steps: Steps) -> float:
    """Seconds of a layer by its kernels, and by what is known of layers so far."""
    return steps(_one_layer(row)).step_time(_batch_of_layer(row)).total_s


def step_overhead_s(rows: Sequence[Step], model: StepTimeModel) -> tuple[float, float]:
    """Seconds a step and seconds a sequence that kernels and layers leave over.

    Weighted by 1/√t as the fit to whole steps is. Kernels that were measured slower than the engine runs them leave
    nothing.
    """
    measured = np.array([row.step_s for row in rows])
    left = measured - np.array([model.step_time(batch_of(row)).total_s for row in rows])
    columns = np.array([[1.0, row.decode_sequences + row.prefills] for row in rows])
    weight = 1 / np.sqrt(measured)
    step_s, sequence_s = nnls(columns * weight[:, None], left * weight)[0]
    return float(step_s), float(sequence_s)


def batch_of(row: Step) -> Batch:
    """A batch that does what a measured step did; its prefills are taken as alike."""
    prefill: tuple[PrefillChunk, ...] = ()
    if row.prefills and row.prefill_tokens:
        new = max(1, round(row.prefill_tokens / row.prefills))
        context = max(0, round(row.prefill_reads / row.prefill_tokens - new / 2))
        prefill = (PrefillChunk(new, context),) * row.prefills
    return Batch(row.decode_sequences, (row.kv_tokens,), prefill, len(prefill))


def _batch_of_layer(row: Kernel) -> Batch:
    """Every sequence computes ``new_tokens`` behind its context; a single one is a decode step, which reads it too."""
    sequences, context, new = (int(row.size(key)) for key in ("sequences", "context_tokens", "new_tokens"))
    if new <= 1:
        return Batch(sequences, (sequences * float(context + new),))
    return Batch(0, (0.0,), (PrefillChunk(new, context),) * sequences)


def _one_layer(row: Kernel) -> ModelSpec:
    hidden, intermediate, experts = int(row.size("hidden")), int(row.size("intermediate")), int(row.size("experts"))
    attention = Attention(
        kind="full", layers=1, heads=int(row.size("q_heads")), kv_heads=int(row.size("kv_heads")),
        head_dim=int(row.size("head_dim")),
    )  # fmt: skip
    mixture = (
        Experts(layers=1, count=experts, top_k=int(row.size("top_k")), intermediate=intermediate) if experts else None
    )
    return ModelSpec(
        name="one layer", hidden=hidden, vocab=1, max_context_tokens=1 << 30, attention=(attention,),
        dense=None if mixture else DenseLayers(layers=1, intermediate=intermediate), experts=mixture,
        weight_formats=("bf16",),
    )  # fmt: skip
