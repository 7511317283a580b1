"""Kernel tables from measured rows: one for each implementation and shape, monotone, with its sum-roofline."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from capsim.calibrate.sum_roofline import fit_sum_roofline
from capsim.catalog import Catalog
from capsim.kernel_tables import AXES, Curve, KernelTable, SumRoofline, work
from capsim.kv_format import pair_bytes
from capsim.measurements import SHAPES, Kernel

ROUTING = ("active_experts", "skew")
FORMATS = ("kv_format", "weight_format")
COLLECTIVES = ("all_reduce", "all_to_all")  # the latency of a call depends on how many take part
PLAIN_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0}
CEILINGS = ("memory_copy", "memory_read", "experts_dense")  # measured to compare with, parts of no step
FEWEST_POINTS = 3  # of a sum-roofline's three coefficients
Rows = list[Kernel]


def grouped(rows: Iterable[Kernel]) -> list[Rows]:
    """Rows that differ in sizes only, by operation, implementation and shape."""
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in rows:
        if row.op in AXES:
            groups[row.op, row.backend, row.kernel, tuple(sorted(_fixed(row).items(), key=str))].append(row)
    return list(groups.values())


def has_slope(rows: Rows) -> bool:
    """Whether there are sizes enough to tell how a kernel's time grows: fewer would settle a constant that goes on for
    ever, where the roofline knows better."""
    axes = [axis for axis in AXES[rows[0].op] if axis is not None]
    return len({tuple(row.size(axis) for axis in axes) for row in rows}) >= FEWEST_POINTS


def tables_of(groups: Iterable[Rows], catalog: Catalog) -> list[KernelTable]:
    """A table of each group; the time of a call is one for all shapes of an operation, implementation and formats.

    At one shape it cannot be told from the time to read the weights, which stay the same whatever the batch.
    """
    alike: dict[tuple[Any, ...], list[Rows]] = defaultdict(list)
    for group in groups:
        alike[kind_of(group[0])].append(group)
    tables = []
    for shapes in alike.values():
        call_s = _call_s(shapes, catalog) if len(shapes) > 1 and shapes[0][0].op not in COLLECTIVES else None
        tables += [table_of(rows, catalog, call_s) for rows in shapes]
    return tables


def table_of(rows: Sequence[Kernel], catalog: Catalog, call_s: float | None = None) -> KernelTable:
    """The table of rows that differ in sizes only.

    Times of experts are those under even routing: a row whose tokens touched more or fewer experts is set to what its
    sum-roofline, fitted on the experts touched, gives for the expected number.
    """
    first = rows[0]
    outer, inner = AXES[first.op]
    shape = shape_of(rows, catalog)
    works = [work(first.op, {**shape, **row.shape}) for row in rows]
    fit = fit_sum_roofline(works, [row.median_s for row in rows], call_s)
    points: dict[float, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        even_s = row.median_s / routing_factor(row, shape, fit)
        points[1.0 if outer is None else row.size(outer)][row.size(inner)].append(even_s)
    curves = [_curve(at, {size: median(found) for size, found in sizes.items()}) for at, sizes in points.items()]
    return KernelTable(
        op=first.op, kernel=first.kernel, shape=shape, fit=fit, curves=tuple(sorted(curves, key=lambda c: c.at))
    )


def _call_s(shapes: Sequence[Rows], catalog: Catalog) -> float:
    """Seconds of a call whatever it does, by the points of all shapes together."""
    works, seconds = [], []
    for rows in shapes:
        shape = shape_of(rows, catalog)
        works += [work(row.op, {**shape, **row.shape}) for row in rows]
        seconds += [row.median_s for row in rows]
    return fit_sum_roofline(works, seconds).call_s


def shape_of(rows: Sequence[Kernel], catalog: Catalog) -> dict[str, float | str]:
    """What the rows' shapes share, and the bytes of their formats."""
    first = rows[0]
    shape = _fixed(first)
    if "kv_format" in SHAPES[first.op]:
        shape["pair_bytes"] = _pair_bytes(rows, catalog)
    if "weight_format" in SHAPES[first.op]:
        shape["weight_bytes"] = _weight_bytes(rows, catalog)
    return shape


def routing_factor(row: Kernel, shape: dict[str, float | str], fit: SumRoofline) -> float:
    """How much longer than under even routing the experts that a row touched take."""
    if row.op != "experts":
        return 1.0
    even = {key: value for key, value in row.shape.items() if key not in ROUTING}
    return fit.seconds(work(row.op, {**shape, **row.shape})) / fit.seconds(work(row.op, {**shape, **even}))


def fastest(tables: Iterable[KernelTable]) -> list[KernelTable]:
    """Of several implementations of the same operation and shape the one that is faster where all were measured.

    One that was measured less far stands back: what is beyond its sizes would be a guess.
    """
    rivals: dict[tuple[Any, ...], list[KernelTable]] = defaultdict(list)
    for table in tables:
        rivals[table.op, tuple(sorted(table.shape.items(), key=str))].append(table)
    chosen = []
    for group in rivals.values():
        most = max(map(_reach, group))
        furthest = [table for table in group if _reach(table) == most]
        chosen.append(min(furthest, key=lambda table: _mean_log_s(table, furthest)))
    return chosen


def _reach(table: KernelTable) -> float:
    """The largest size of a table."""
    return max(curve.sizes[-1] for curve in table.curves)


def _mean_log_s(table: KernelTable, group: list[KernelTable]) -> tuple[bool, float]:
    """Mean logarithm of the seconds at the points that all of the group have; those without such a point come last."""
    own = _points(table)
    shared = set.intersection(*(set(_points(one)) for one in group))
    return not shared, float(np.mean([np.log(own[point]) for point in shared or own]))


def _points(table: KernelTable) -> dict[tuple[float, float], float]:
    return {(c.at, size): t for c in table.curves for size, t in zip(c.sizes, c.seconds, strict=True)}


def _curve(at: float, points: dict[float, float]) -> Curve:
    """Rising times through the points, nearest to them in relative terms: more work never takes less."""
    sizes = sorted(points)
    rising = np.exp(isotonic_regression(np.log([points[size] for size in sizes])).x)
    return Curve(at=at, sizes=tuple(sizes), seconds=tuple(float(t) for t in rising))


def _fixed(row: Kernel) -> dict[str, float | str]:
    """The shape without its sizes and without how its tokens were routed."""
    left_out = {*AXES[row.op], *ROUTING}
    return {key: value for key, value in row.shape.items() if key not in left_out and value is not None}


def kind_of(row: Kernel) -> tuple[Any, ...]:
    """What rows of different shapes share whose calls take the same time."""
    return row.op, row.backend, row.kernel, *(row.shape.get(key) for key in FORMATS)


def _pair_bytes(rows: Sequence[Kernel], catalog: Catalog) -> float:
    """Of a format of the catalog by its definition, of another by the bytes that the kernel says it must move."""
    first = rows[0]
    known = catalog.kv_formats.get(str(first.shape["kv_format"]))
    if first.op == "mla_decode":
        elements = first.size("latent_dim") + first.size("rope_dim")
        if known is not None:
            return elements * known.key_bits / 8 + known.key_overhead_bytes
        return median(row.bytes / (row.size("sequences") * row.size("context_tokens")) for row in rows)
    if known is not None:
        return pair_bytes(known, int(first.size("head_dim")))
    if first.op == "kv_write":
        return median(row.bytes / (row.size("tokens") * row.size("kv_heads")) for row in rows)
    heads = first.size("kv_heads")
    return median(row.bytes / (row.size("sequences") * row.size("context_tokens") * heads) for row in rows)


def _weight_bytes(rows: Sequence[Kernel], catalog: Catalog) -> float:
    """Of a format of the catalog by its definition, of another by what the smallest measured call must move."""
    name = str(rows[0].shape["weight_format"])
    if name in catalog.weight_formats:
        known = catalog.weight_formats[name]
        return known.dense_bytes if rows[0].op == "gemm" else known.experts_bytes
    if name in PLAIN_BYTES:
        return PLAIN_BYTES[name]
    smallest = min(rows, key=lambda row: row.size("tokens"))
    parameters = work(smallest.op, {**smallest.shape, "weight_bytes": 1.0}).bytes
    return max(1 / 8, smallest.bytes / parameters)
