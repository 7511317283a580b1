"""Whole engine steps: a linear fit of measured step times in what the steps did."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from capsim.measured import StepCoefficients
from capsim.measurements import Step

COEFFICIENTS = tuple(StepCoefficients.model_fields)


def fit_steps(rows: Sequence[Step]) -> StepCoefficients:
    """Non-negative least squares, each row weighted by 1/√t: the weighting was chosen before any engine was measured.

    Between plain least squares, which the longest prefills rule, and relative ones, which the shortest decode steps
    do; both bias the mean step. A column that is zero in all rows gets a zero coefficient.

    Raises
    ------
    ValueError
        Fewer rows than coefficients.
    """
    if len(rows) < len(COEFFICIENTS):
        raise ValueError(f"{len(rows)} steps do not settle {len(COEFFICIENTS)} coefficients: measure more")
    columns, seconds = columns_of(rows), np.array([row.step_s for row in rows])
    weight = 1 / np.sqrt(seconds)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)  # columns alike in size: seconds a read are 1e-9
    fitted = nnls(columns / scale * weight[:, None], seconds * weight)[0] / scale
    return StepCoefficients(**dict(zip(COEFFICIENTS, fitted.tolist(), strict=True)))


def domain_of(rows: Sequence[Step]) -> dict[str, tuple[float, float]]:
    """The least and the most of what steps did, by the names of ``MeasuredSteps.domain``."""
    decoding = [row for row in rows if row.decode_sequences] or rows
    sizes: dict[str, list[float]] = {
        "sequences": [row.decode_sequences for row in decoding], "kv_tokens": [row.kv_tokens for row in decoding],
        "tokens": [row.decode_sequences + row.prefill_tokens for row in rows],
    }  # fmt: skip
    return {name: (float(min(found)), float(max(found))) for name, found in sizes.items()}


def predict_steps(coefficients: StepCoefficients, rows: Sequence[Step]) -> np.ndarray:
    """Seconds of each step, shape (n,)."""
    return columns_of(rows) @ np.array([getattr(coefficients, name) for name in COEFFICIENTS])


def columns_of(rows: Sequence[Step]) -> np.ndarray:
    """What each step did, in the order of the coefficients, shape (n, 7)."""
    return np.array(
        [
            [
                1.0, row.decode_sequences, row.kv_tokens, row.prefill_tokens, row.prefill_reads, row.prefills > 0,
                row.active_experts or 0.0,
            ]
            for row in rows
        ],
        dtype=float,
    )  # fmt: skip
