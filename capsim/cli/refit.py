"""``capsim refit``: the shipped calibrations, fitted anew, and what changed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from capsim.calibrate.refit import Change

Points = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Published points: fit those devices instead that have no tables.")
]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write here instead of over the shipped files.")]


def refit(points: Points = None, out: Out = None) -> None:
    """Fit the shipped calibrations anew from the installed package aiconfigurator-core (extra: tables).

    With published points: the coefficients of devices without tables, on those marked `fit`. Prints what changed, by
    device, engine, operation and format: tables, median error at sizes and at shapes held out, seconds of a call, and
    how much longer the same points take. The same package gives the same bytes.
    """
    from capsim.calibrate.refit import refit as fit
    from capsim.calibrations import FOLDER
    from capsim.catalog import FOLDER as CATALOG
    from capsim.cli import tables

    if points is not None:
        _refit_published(points, out or CATALOG)
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


def _refit_published(points: Path, folder: Path) -> None:
    from capsim.calibrate.published import FITTED, refit_published
    from capsim.cli import tables

    changes = refit_published(points, folder)
    cells = [
        [key, *(_pair(*(f"{values[name]:g}" if values else "" for values in (old, new))) for name in FITTED)]
        for key, old, new in changes
    ]
    print(tables.text([["calibration", *FITTED], *cells]) if cells else "nothing changed\n", end="")


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
