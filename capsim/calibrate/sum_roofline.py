"""Fit of t0 + bytes / bandwidth + flops / rate to the points of one kernel."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from capsim.kernel_tables import SumRoofline, Work


def fit_sum_roofline(works: Sequence[Work], seconds: Sequence[float], call_s: float | None = None) -> SumRoofline:
    """Non-negative least squares of relative errors: every point counts alike, whatever its size.

    ``call_s``, where it is known from other shapes, is kept and only the slopes are fitted.

    Where bytes and flops rise together only one of them gets a coefficient: the sum extends the points, it does not
    tell what bounds them.
    """
    columns = np.array([[1.0, done.bytes, done.flops] for done in works])
    scale = np.maximum(columns.max(axis=0), 1e-300)  # columns alike in size
    weight = 1 / np.asarray(seconds)
    if call_s is not None:
        slopes = nnls((columns / scale * weight[:, None])[:, 1:], 1 - call_s * weight)[0] / scale[1:]
        return SumRoofline(call_s=call_s, byte_s=float(slopes[0]), flop_s=float(slopes[1]))
    fitted = nnls(columns / scale * weight[:, None], np.ones(len(seconds)))[0] / scale
    return SumRoofline(call_s=float(fitted[0]), byte_s=float(fitted[1]), flop_s=float(fitted[2]))
