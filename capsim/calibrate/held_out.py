"""How far kernel tables are off where they were not measured, by operation: sizes held out, and whole shapes.

A size is held out inside its shape, as ``residuals`` does it. A shape (a matrix, a layout of heads, a mixture of
experts) is held out whole, with all its sizes, and carried over from the nearest of the others as for a model whose
shapes nobody measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsim.calibrate.device import known_device, measured_device
from capsim.calibrate.residuals import size_errors
from capsim.calibrate.tables import Rows, grouped, kind_of, tables_of
from capsim.calibrate.thinning import errors_at, nearest_of
from capsim.catalog import load_catalog
from capsim.hardware import Device
from capsim.kernel_tables import KernelTable
from capsim.measurements import read_measurements

MOST_SHAPES = 60  # of one operation and format that are held out, in turn over all of them
CARRIED = ("gemm", "decode_attention", "prefill_attention", "mla_decode", "experts", "kv_write", "norm")


@dataclass(frozen=True)
class HeldOut:
    """Errors of one operation in one format: of how many shapes and points, their median, and the ninth decile."""

    device: str
    by: str
    op: str
    format: str
    held_out: str
    shapes: int
    points: int
    median: float
    p90: float


def held_out(path: Path) -> list[HeldOut]:
    """Errors of the tables of a measurements file.

    Raises
    ------
    ScenarioError
        Bad rows, or a device about which too little is known.
    """
    file = read_measurements(path)
    catalog = load_catalog()
    key = known_device(file.header.device, catalog)
    device = catalog.devices[key] if key else measured_device([file])
    alike: dict[tuple[Any, ...], list[Rows]] = {}
    for group in grouped(file.kernels):
        alike.setdefault(kind_of(group[0]), []).append(group)
    found = []
    for (op, _, by, *formats), shapes in sorted(alike.items(), key=lambda item: str(item[0])):
        told = (key or file.header.device, by, op, next((str(name) for name in formats if name), ""))
        inside = [size_errors(rows, catalog) for rows in _some(shapes)]
        found += _summary(told, "sizes", inside)
        if op in CARRIED and len(shapes) > 1:
            found += _summary(told, "shapes", _shape_errors(tables_of(shapes, catalog), device))
    return found


def _shape_errors(tables: Sequence[KernelTable], device: Device) -> list[np.ndarray]:
    """Of each table held out, relative errors at its points by the nearest of the others."""
    errors = []
    for table in _some(tables):
        near = nearest_of(table, [other for other in tables if other is not table])
        if near is not None:
            errors.append(errors_at(table, near, device))
    return errors


def _summary(told: tuple[str, str, str, str], what: str, errors: Iterable[np.ndarray]) -> list[HeldOut]:
    judged = [one for one in errors if len(one)]
    if not judged:
        return []
    size = np.abs(np.concatenate(judged))
    median, p90 = np.quantile(size, (0.5, 0.9))
    return [HeldOut(*told, what, len(judged), len(size), float(median), float(p90))]


def _some(items: Sequence[Any]) -> Sequence[Any]:
    """All of a few, some in even distances of many."""
    return items[:: max(1, -(-len(items) // MOST_SHAPES))]
