"""What a calibration rests on, as tables to look at: points held out, residuals, and which sizes were measured."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from capsim.calibrate.residuals import halves_of_steps, label, points_held_out
from capsim.calibrate.steps import COEFFICIENTS, fit_steps, predict_steps
from capsim.calibrate.tables import CEILINGS, FORMATS, grouped
from capsim.catalog import load_catalog
from capsim.kernel_tables import AXES, KernelTable
from capsim.measured import Error, Residual
from capsim.measurements import Measurements, Step, read_measurements

POINTS = ("device", "what", "by", "format", "shape", "measured_s", "predicted_s")
ERRORS = ("table", "fit")


def points(path: Path) -> pd.DataFrame:
    """Measured and predicted seconds at the points of a measurements file that were held out, columns ``POINTS``.

    Kernels by the table of their other sizes, whole steps by the fit to the other episodes, as ``capsim calibrate``
    judges them; what was measured to compare with and is part of no step is left out.

    Raises
    ------
    ScenarioError
        Bad rows.
    """
    file = read_measurements(path)
    rows = [*_kernel_points(file), *_step_points(file)]
    return pd.DataFrame(rows, columns=list(POINTS))


def residual_table(residuals: Iterable[Residual]) -> pd.DataFrame:
    """One row a residual: what was measured by what, and mean, largest and signed error of table and of fit."""
    rows = []
    for one in residuals:
        errors = {f"{how}_{name}": value for how in ERRORS for name, value in _values(getattr(one, how)).items()}
        rows.append({**one.model_dump(exclude=set(ERRORS)), **errors})
    names = [f"{how}_{name}" for how in ERRORS for name in Error.model_fields]
    return pd.DataFrame(rows, columns=["what", "by", "shape", "points", "held_out", *names])


def coverage(tables: Iterable[KernelTable], op: str = "decode_attention") -> pd.DataFrame:
    """Where an attention kernel was measured: ``format``, ``sequences``, ``context_tokens``, ``points``.

    Sizes are powers of two, the largest that is not above those measured; ``points`` are over all shapes of a format.
    """
    cells: dict[tuple[str, int, int], int] = {}
    for table in tables:
        if table.op == op and AXES[op][0] == "sequences":
            for curve in table.curves:
                for context in curve.sizes:
                    cell = str(table.shape.get("kv_format", "")), _octave(curve.at), _octave(context)
                    cells[cell] = cells.get(cell, 0) + 1
    rows = [(*cell, count) for cell, count in sorted(cells.items())]
    return pd.DataFrame(rows, columns=["format", "sequences", "context_tokens", "points"])


def visited(segments: pd.DataFrame) -> pd.DataFrame:
    """Where the decode steps of a run fell: ``sequences``, mean ``context_tokens`` as in ``coverage``, and ``steps``.

    ``segments`` is the table of a run directory.
    """
    decoding = segments[(segments["decode_sequences"] > 0) & (segments["prefill_tokens"] == 0)]
    sequences = decoding["decode_sequences"].to_numpy()
    context = decoding["context_tokens"].to_numpy() / sequences
    cells = pd.DataFrame({
        "sequences": [_octave(n) for n in sequences], "context_tokens": [_octave(c) for c in context],
        "steps": decoding["steps"].to_numpy(),
    })  # fmt: skip
    return cells.groupby(["sequences", "context_tokens"]).sum().reset_index()


def _octave(size: float) -> int:
    return int(2 ** np.floor(np.log2(max(1.0, size))))


def _kernel_points(file: Measurements) -> Iterable[tuple[object, ...]]:
    catalog = load_catalog()
    for rows in grouped(row for row in file.kernels if row.op not in CEILINGS):
        first = rows[0]
        name = next((str(first.shape[key]) for key in FORMATS if key in first.shape), "")
        by_table, _, measured = points_held_out(rows, catalog)
        for predicted_s, measured_s in zip(by_table, measured, strict=True):
            yield file.header.device, first.op, first.kernel, name, label(first), float(measured_s), float(predicted_s)


def _step_points(file: Measurements) -> Iterable[tuple[object, ...]]:
    groups: dict[tuple[str, str], list[Step]] = {}
    for row in file.steps:
        groups.setdefault((row.engine, row.model), []).append(row)
    for (engine, model), rows in groups.items():
        kept, held = halves_of_steps(rows)
        if len(kept) < len(COEFFICIENTS):
            continue
        for row, predicted_s in zip(held, predict_steps(fit_steps(kept), held), strict=True):
            yield file.header.device, "step", engine, "", model, row.step_s, float(predicted_s)


def _values(error: Error | None) -> dict[str, float | None]:
    return dict.fromkeys(Error.model_fields) if error is None else error.model_dump()
