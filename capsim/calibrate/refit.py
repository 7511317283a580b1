"""Shipped calibrations, fitted anew from the tables of the installed package, and what changed since the last time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from capsim.calibrate.document import calibrate
from capsim.calibrate.held_out import held_out
from capsim.calibrate.tables import FORMATS, fastest, grouped, has_slope, tables_of
from capsim.calibrate.thinning import errors_at, nearest_of
from capsim.calibrations import Judged, Shipped, is_shipped, read_shipped, write_shipped
from capsim.calibrations.text import table_lines, tables_of_lines
from capsim.catalog import load_catalog
from capsim.errors import ScenarioError
from capsim.hardware import Device
from capsim.importers import import_nvidia, nvidia_tables
from capsim.kernel_tables import KernelTable
from capsim.measured import Measured
from capsim.measurements import read_measurements

LICENCE = "Apache-2.0, NVIDIA; thinned and fitted for capsim"
DIGITS = 3  # of an error
LINKS = ("collective_s", "link_fraction")  # of Efficiency, which all-reduces tell
Kind = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """What became of the tables of one operation in one format: how many there were and are, their median error at
    sizes and at shapes held out, the median seconds of a call, and how much longer the same points take than before
    (median). None where there was nothing, or nothing to judge by."""

    device: str
    engine: str
    op: str
    format: str
    tables: tuple[int, int]
    sizes: tuple[float | None, float | None]
    shapes: tuple[float | None, float | None]
    call_s: tuple[float | None, float | None]
    longer: float | None


def refit(folder: Path, root: Path | None = None) -> Iterator[tuple[str, str, list[Change] | None]]:
    """Fit every device and engine of the package and write the files; device, engine and changes of each, None where
    the file stayed as it was.

    Parameters
    ----------
    folder
        Where the files go, over those that are there.
    root
        The package's folder, where it is not the installed one.

    Raises
    ------
    ScenarioError
        The package is not installed, or the files cannot be written.
    """
    pairs = [(device, engine) for device, engine, _ in nvidia_tables(root)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            for new in pool.map(fitted, *zip(*pairs, strict=True), [root] * len(pairs)):
                place = (folder, new.device, new.engine)
                old = read_shipped(*place) if is_shipped(new.device, new.engine, folder) else None
                yield new.device, new.engine, changes(old, new) if write_shipped(folder, new) else None
    except OSError as error:
        raise ScenarioError.one(f"cannot be written: {error.strerror}", path=folder) from error


def fitted(device: str, engine: str, root: Path | None = None) -> Shipped:
    """The calibration of a device under an engine from the package's tables."""
    imported = import_nvidia(device, engine, root)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "kernels.jsonl"
        imported.write(path)
        entry: dict[str, Any] = calibrate([path]).document["calibrations"][f"{device}/{engine}"]
        judged = [
            Judged(
                op=one.op, format=one.format, by=one.by, held_out=one.held_out, shapes=one.shapes, points=one.points,
                median=_few(one.median), p90=_few(one.p90),
            ) for one in held_out(path)
        ]  # fmt: skip
        whole = _whole_tables(path)
    measured = Measured.model_validate(entry["measured"])
    tables = tuple(tables_of_lines(table_lines(measured.kernels)))  # as they are read
    unmeasured = entry["provenance"].get("values", {})
    links = {name: entry[name] for name in LINKS if name in entry and name not in unmeasured}
    chip = load_catalog().devices[device]
    return Shipped(
        device=device, engine=engine, source=imported.header["source"], licence=LICENCE,
        as_of=imported.header["created"], rows=len(imported.rows), left_out=dict(sorted(imported.left_out.items())),
        coefficients=links, domain=_domain(whole), held_out=(*judged, *_thinned_errors(whole, tables, chip)),
        residuals=measured.residuals, tables=tables,
    )  # fmt: skip


def changes(old: Shipped | None, new: Shipped) -> list[Change]:
    """What changed, by operation and format."""
    chip = load_catalog().devices[new.device]
    before, after = _by_kind(old.tables if old else ()), _by_kind(new.tables)
    found = []
    for kind in sorted({*before, *after}):
        was, now = before.get(kind, []), after.get(kind, [])
        sizes, shapes = ((_judged(old, kind, where), _judged(new, kind, where)) for where in ("sizes", "shapes"))
        if was == now and sizes[0] == sizes[1] and shapes[0] == shapes[1]:
            continue
        counts, call_s = (len(was), len(now)), (_call_s(was), _call_s(now))
        longer = _longer(was, now, chip)
        found.append(Change(new.device, new.engine, *kind, counts, sizes, shapes, call_s, longer))
    return found


def _whole_tables(path: Path) -> list[KernelTable]:
    """The tables of a measurements file before they are thinned."""
    groups = [group for group in grouped(read_measurements(path).kernels) if has_slope(group)]
    return fastest(tables_of(groups, load_catalog()))


def _thinned_errors(whole: Sequence[KernelTable], thin: Sequence[KernelTable], chip: Device) -> list[Judged]:
    """Errors of the shipped tables at all points of the whole ones."""
    found = []
    for (op, named), tables in sorted(_by_kind(whole).items()):
        errors = [errors_at(table, near, chip) for table in tables if (near := nearest_of(table, thin))]
        sizes = np.abs(np.concatenate(errors))
        median, p90 = (_few(float(share)) for share in np.quantile(sizes, (0.5, 0.9)))
        by = ", ".join(sorted({table.kernel for table in tables}))
        found.append(
            Judged(
                op=op, format=named, by=by, held_out="thinned", shapes=len(tables), points=len(sizes), median=median,
                p90=p90,
            )
        )  # fmt: skip
    return found


def _domain(tables: Sequence[KernelTable]) -> dict[str, dict[str, tuple[float, float]]]:
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for table in sorted(tables, key=lambda table: table.op):
        axes = found.setdefault(table.op, {})
        for axis, (least, most) in table.domain.items():
            known = axes.get(axis, (least, most))
            axes[axis] = min(least, known[0]), max(most, known[1])
    return found


def _by_kind(tables: Sequence[KernelTable]) -> dict[Kind, list[KernelTable]]:
    found: dict[Kind, list[KernelTable]] = {}
    for table in tables:
        named = next((str(table.shape[key]) for key in FORMATS if key in table.shape), "")
        found.setdefault((table.op, named), []).append(table)
    return found


def _judged(calibration: Shipped | None, kind: Kind, where: str) -> float | None:
    judged = calibration.held_out if calibration else ()
    errors = [one.median for one in judged if (one.op, one.format, one.held_out) == (*kind, where)]
    return float(np.median(errors)) if errors else None


def _call_s(tables: Sequence[KernelTable]) -> float | None:
    return float(np.median([table.fit.call_s for table in tables])) if tables else None


def _longer(was: Sequence[KernelTable], now: Sequence[KernelTable], chip: Device) -> float | None:
    """Median of what new tables take more than the old ones at the same points."""
    errors = [errors_at(table, near, chip) for table in now if (near := nearest_of(table, was))]
    old_by_new = 1 + np.concatenate(errors) if errors else np.empty(0)
    return float(1 / np.median(old_by_new) - 1) if old_by_new.size else None


def _few(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
