"""Small tables from large ones: knots and whole shapes that the others give back are left out.

Only where there is much: other people's tables have tens of thousands of points, a device of one's own some hundreds.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from capsim.calibrate.tables import FORMATS
from capsim.hardware import Device
from capsim.kernel_tables import AXES, Curve, KernelTable, Surface
from capsim.kernel_tables.work import precision_of
from capsim.steptime.carried import Carried, nearest

LARGE_POINTS = 5_000
KNOT_ERROR = 0.10  # assumed: the largest error at a knot left out; the median is a third of it
SHAPE_ERROR = 0.25  # assumed: the ninth decile of the errors of a shape left out, as large as that of shapes held out


def thinned(tables: Sequence[KernelTable], device: Device) -> list[KernelTable]:
    """The same tables with fewer knots and fewer shapes, where they have many points."""
    if sum(len(curve.sizes) for table in tables for curve in table.curves) <= LARGE_POINTS:
        return list(tables)
    alike: dict[tuple[Any, ...], list[KernelTable]] = defaultdict(list)
    for table in tables:
        alike[table.op, *(table.shape.get(key) for key in FORMATS)].append(_fewer_knots(table))
    return [table for shapes in alike.values() for table in _fewer_shapes(shapes, device)]


def errors_at(table: KernelTable, other: KernelTable, device: Device) -> np.ndarray:
    """Relative errors of ``other`` carried over to a table's shape, at the sizes at which both were measured."""
    precision = precision_of(str(table.shape.get("weight_format", "bf16")), device)
    carried = Carried(other, sizes_of(table), device, device, precision)
    outer, inner = AXES[table.op]
    domain = carried.domain
    errors = []
    for curve in table.curves:
        if outer is not None and not domain[outer][0] <= curve.at <= domain[outer][1]:
            continue
        for size, seconds in zip(curve.sizes, curve.seconds, strict=True):
            if domain[inner][0] <= size <= domain[inner][1]:
                told = carried.seconds(size)[0] if outer is None else carried.along_context(curve.at).at(size)[0]
                errors.append(told / seconds - 1)
    return np.array(errors)


def nearest_of(table: KernelTable, others: Sequence[KernelTable]) -> KernelTable | None:
    """The table that would stand in for a shape."""
    formats = {key: (str(table.shape[key]),) for key in FORMATS if key in table.shape}
    return nearest(others, table.op, sizes_of(table), formats)


def sizes_of(table: KernelTable) -> dict[str, float]:
    """The numbers of a table's shape."""
    return {key: float(value) for key, value in table.shape.items() if not isinstance(value, str)}


def _fewer_shapes(tables: Sequence[KernelTable], device: Device) -> list[KernelTable]:
    """As few of the shapes as it takes for the nearest of them to give back the others, the worst added first."""
    chosen = {0}
    nearest_to = dict.fromkeys(range(1, len(tables)), 0)
    errors = {i: _error_at(tables[i], tables[0], device) for i in nearest_to}
    while errors and max(errors.values()) > SHAPE_ERROR:
        new = max(errors, key=lambda i: errors[i])
        chosen.add(new)
        del errors[new]
        for i in errors:
            if nearest_of(tables[i], [tables[nearest_to[i]], tables[new]]) is tables[new]:
                nearest_to[i], errors[i] = new, _error_at(tables[i], tables[new], device)
    return [tables[i] for i in sorted(chosen)]


def _error_at(table: KernelTable, near: KernelTable, device: Device) -> float:
    """The ninth decile of the errors of a table that another stands in for; infinite where that one ends earlier."""
    errors = np.abs(errors_at(table, near, device))
    reaches = all(near.domain[axis][1] >= most for axis, (_, most) in table.domain.items())
    return float(np.quantile(errors, 0.9)) if len(errors) and reaches else np.inf


def _fewer_knots(table: KernelTable) -> KernelTable:
    curves = tuple(_few_of(table, curve) for curve in table.curves)
    return table.model_copy(update={"curves": curves})


def _few_of(table: KernelTable, curve: Curve) -> Curve:
    """A curve with as many of its knots as it takes to pass all of them closely, the worst added first."""
    kept = {0, len(curve.sizes) - 1}
    while True:
        chosen = sorted(kept)
        few = Curve(at=curve.at, sizes=[curve.sizes[i] for i in chosen], seconds=[curve.seconds[i] for i in chosen])
        surface = Surface(table.model_copy(update={"curves": (few,)}))
        told = np.array([surface.seconds(size, curve.at) for size in curve.sizes])
        errors = np.abs(told / np.array(curve.seconds) - 1)
        worst = int(errors.argmax())
        if errors[worst] <= KNOT_ERROR:
            return few
        kept.add(worst)
