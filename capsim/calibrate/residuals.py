"""How far fits and tables are off where they were not fitted: every other size is held out to judge."""

from collections.abc import Sequence

import numpy as np

from capsim.calibrate.overhead import batch_of, layer_overheads, step_overhead_s
from capsim.calibrate.steps import COEFFICIENTS, fit_steps, predict_steps
from capsim.calibrate.tables import FORMATS, routing_factor, table_of
from capsim.catalog import Catalog
from capsim.kernel_tables import AXES, KernelTable, Surface, work
from capsim.measured import Error, Residual
from capsim.measurements import Kernel, Step
from capsim.steptime import StepTimeModel


def kernel_residual(groups: Sequence[Sequence[Kernel]], catalog: Catalog) -> Residual:
    """Of one kernel at one shape, or at several together: table and sum-roofline of every other size against the sizes
    between them.

    Ends are kept, so that both are judged inside their domain; with fewer than three sizes along a curve every other
    curve is held out, and with fewer than three curves nothing is.
    """
    judged = [points for rows in groups if (points := points_held_out(rows, catalog)).size]
    first = groups[0][0]
    table = fit = None
    held_out = 0
    if judged:
        by_table, by_fit, measured = np.concatenate(judged, axis=1)
        table, fit, held_out = _error(by_table, measured), _error(by_fit, measured), len(measured)
    return Residual(
        what=first.op, by=first.kernel, shape=label(first) if len(groups) == 1 else _label_of_many(groups),
        points=sum(map(len, groups)), held_out=held_out, table=table, fit=fit,
    )  # fmt: skip


def layer_residual(rows: Sequence[Kernel], kernels_s: np.ndarray) -> Residual:
    """Of whole layers, dense ones and such with experts: every other is held out, and told by its kernels, shape (n,),
    as the rest take longer than theirs."""
    experts = np.array([row.size("experts") > 0 for row in rows])
    held = np.where(experts, np.cumsum(experts), np.cumsum(~experts)) % 2 == 0
    table = None
    if held.any():
        beside = layer_overheads([row for row, out in zip(rows, held, strict=True) if not out], kernels_s[~held])
        told = beside["kernel_factor"] * kernels_s + beside["layer_s"] + beside["expert_layer_s"] * experts
        table = _error(told[held], np.array([row.median_s for row in rows])[held])
    return Residual(
        what="layer", by=rows[0].kernel, shape="from kernels", points=len(rows), held_out=int(held.sum()), table=table
    )


def size_errors(rows: Sequence[Kernel], catalog: Catalog) -> np.ndarray:
    """Relative errors of the table of the sizes kept at those held out; none where nothing was held out."""
    by_table, _, measured = points_held_out(rows, catalog)
    return by_table / measured - 1


def step_residual(rows: Sequence[Step], kernels: StepTimeModel | None) -> Residual:
    """Of whole steps, judged at every other episode, or every other step of one; fitted on the rest.

    ``table`` are the errors of steps put together from kernels, with the host time of the steps that were kept, and
    ``fit`` those of the fit to whole steps.
    """
    kept, held = halves_of_steps(rows)
    measured = np.array([row.step_s for row in held])
    table = fit = None
    if len(kept) < len(COEFFICIENTS):  # too few to be halved
        held = []
    else:
        fit = _error(predict_steps(fit_steps(kept), held), measured)
        table = None if kernels is None else _error(_put_together(kernels, kept, held), measured)
    return Residual(
        what="step", by=rows[0].engine, shape=rows[0].model, points=len(rows), held_out=len(held), table=table, fit=fit
    )


def halves_of_steps(rows: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Steps kept and held out: every other episode, or every other step of one."""
    odd = set(sorted({row.episode for row in rows})[1::2])
    if not odd:
        return list(rows[::2]), list(rows[1::2])
    return [row for row in rows if row.episode not in odd], [row for row in rows if row.episode in odd]


def _put_together(kernels: StepTimeModel, kept: Sequence[Step], held: Sequence[Step]) -> np.ndarray:
    """Seconds of the steps held out: their kernels, and host time as the steps kept have it."""
    step_s, sequence_s = step_overhead_s(kept, kernels)
    return np.array(
        [
            kernels.step_time(batch_of(row)).total_s + step_s + sequence_s * (row.decode_sequences + row.prefills)
            for row in held
        ]
    )


def label(row: Kernel) -> str:
    """A shape in few words."""
    outer, inner = AXES[row.op]
    hidden = {outer, inner, "active_experts", "skew"}
    return " ".join(f"{value}" for key, value in row.shape.items() if key not in hidden)


def _label_of_many(groups: Sequence[Sequence[Kernel]]) -> str:
    formats = [str(value) for key, value in groups[0][0].shape.items() if key in FORMATS]
    return " ".join([*formats, f"{len(groups)} shapes"])


def points_held_out(rows: Sequence[Kernel], catalog: Catalog) -> np.ndarray:
    """Of one kernel at one shape, seconds by the table, by its sum-roofline and as measured, at the sizes held out.
    Shape (3, n)."""
    kept, held = _halves(rows)
    if not held:
        return np.empty((3, 0))
    table = table_of(kept, catalog)
    works = [work(row.op, {**table.shape, **row.shape}) for row in held]
    by_table, by_fit = [_by_table(table, row) for row in held], [table.fit.seconds(done) for done in works]
    return np.array([by_table, by_fit, [row.median_s for row in held]])


def _halves(rows: Sequence[Kernel]) -> tuple[list[Kernel], list[Kernel]]:
    """Rows kept and held out, along the curves of a table, else across them."""
    outer, inner = AXES[rows[0].op]
    kept, held = _split(rows, inner)
    return (kept, held) if held or outer is None else _split(rows, outer)


def _split(rows: Sequence[Kernel], axis: str) -> tuple[list[Kernel], list[Kernel]]:
    """Rows kept and held out: every other size along an axis, but never its ends."""
    held = set(sorted({row.size(axis) for row in rows})[1:-1:2])
    return [row for row in rows if row.size(axis) not in held], [row for row in rows if row.size(axis) in held]


def _by_table(table: KernelTable, row: Kernel) -> float:
    outer, inner = AXES[row.op]
    seconds = Surface(table).seconds(row.size(inner), 1.0 if outer is None else row.size(outer))
    return seconds * routing_factor(row, table.shape, table.fit)


def _error(predicted: np.ndarray, measured: np.ndarray) -> Error:
    relative = predicted / measured - 1
    return Error(
        mape=float(np.abs(relative).mean()), largest=float(np.abs(relative).max()), bias=float(relative.mean())
    )
