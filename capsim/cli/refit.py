"""``capsim refit``: the shipped calibrations, fitted anew, and what changed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from capsim.calibrate.refit import Change

Points = Annotated[Path | None, typer.Option(metavar="CSV", help="Published points: fit what no tables tell instead.")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write here instead of over the shipped files.")]


def refit(points: Points = None, out: Out = None) -> None:
    """Fit the shipped calibrations anew from the installed package aiconfigurator-core (extra: tables).

    With published points: on those marked `fit`, coefficients of devices without tables and, by engine, what a whole
    step takes beside its kernels. Prints what changed, by
    device, engine, operation and format: tables, median error at sizes and at shapes held out, seconds of a call, and
    how much longer the same points take. The same package gives the same bytes.
    """
    from capsim.calibrate.refit import refit as fit
    from capsim.calibrations import FOLDER
    from capsim.cli import tables

    if points is not None:
        _refit_published(points, out)
        return
    head = ["device", "engine", "operation", "format", "tables", "sizes", "shapes", "call", "takes longer"]
    rows: list[list[str]] = []
    same = 0
    for device, engine, changes in fit(out or FOLDER):
        print(f"{device} {engine}: {'as it was' if changes is None else 'written'}", file=sys.stderr)
        same += changes is None
        rows += [_row(change) for change in changes or ()]
    if rows:
        print(tables.text([head, *rows]), end="")
    print(f"{same} calibrations are as they were", file=sys.stderr)


def _refit_published(points: Path, out: Path | None) -> None:
    from capsim.calibrate.published import FITTED, fit_published, write_published
    from capsim.calibrations.engine_steps import FOLDER as CALIBRATIONS
    from capsim.calibrations.engine_steps import write_engine_steps
    from capsim.catalog import FOLDER as CATALOG
    from capsim.cli import tables
    from capsim.validate.points import read_points
    from capsim.validate.step_fit import CONSTANTS, fit_engine_steps

    entries = fit_published(points)
    steps = fit_engine_steps(read_points(points), points)  # before anything is written
    if out is not None:
        _make(out)
    changed = [
        ("calibration", FITTED, write_published(entries, out or CATALOG)),
        ("engine's step", CONSTANTS, write_engine_steps(out or CALIBRATIONS, steps)),
    ]
    for title, names, changes in changed:
        cells = [[key, *(_pair(_plain(old, name), _plain(new, name)) for name in names)] for key, old, new in changes]
        print(tables.text([[title, *names], *cells]) if cells else f"{title}: nothing changed\n", end="")


def _make(folder: Path) -> None:
    from capsim.errors import ScenarioError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError.one(f"cannot be written: {error.strerror}", path=folder) from error


def _plain(values: dict[str, float], name: str) -> str:
    return f"{values[name]:g}" if values else ""


def _row(change: "Change") -> list[str]:
    count = _pair(*(str(number) if number else "" for number in change.tables))
    sizes, shapes = (
        _pair(*("" if error is None else f"{error:.1%}" for error in pair)) for pair in (change.sizes, change.shapes)
    )
    call = _pair(*("" if seconds is None else f"{seconds * 1e6:.3g} us" for seconds in change.call_s))
    longer = "" if change.longer is None else f"{change.longer:+.1%}"
    return [change.device, change.engine, change.op, change.format, count, sizes, shapes, call, longer]


def _pair(before: str, after: str) -> str:
    return after if before == after else f"{before or 'none'} > {after or 'none'}"
