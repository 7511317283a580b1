"""``capsim calibrate``: from measurements to a file of facts, and how far each is off."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from capsim.measured import Error, Residual

Files = Annotated[
    list[Path], typer.Argument(metavar="MEASUREMENTS...", help="Files of one device, as kernels_bench writes.")
]
Out = Annotated[Path, typer.Option(metavar="FILE", help="Write the calibration here.")]


def calibrate(measurements: Files, out: Out = Path("calibration.yaml")) -> None:
    """Fit measured kernels and engine steps, print how far the fits are off at sizes held out, and write them.

    The file is a catalog file: `capsim run SCENARIO --calibration FILE` rests its step times on it.
    """
    import yaml

    from capsim.calibrate import calibrate as fit
    from capsim.cli import tables
    from capsim.whole_file import write_whole

    found = fit(measurements)
    text = yaml.dump(found.document, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, width=120)
    write_whole(out, [text], f"--out {out}")
    print(tables.text(residual_rows(found.residuals)), end="")
    for note in found.left_out:
        print(f"note: {note}", file=sys.stderr)
    node = "" if found.node is None else f" --set node={found.node}"
    print(f"written to {out}; next: capsim run SCENARIO --calibration {out}{node}", file=sys.stderr)


def residuals(
    measurements: Annotated[list[Path], typer.Argument(metavar="MEASUREMENTS...", help="Files of one device each.")],
) -> None:
    """Print how far kernel tables are off at sizes and at shapes held out, by device and operation.

    `sizes`: every other size of a shape, by the table of the others. `shapes`: a whole matrix, layout of heads or
    mixture of experts, carried over from the nearest of the others.
    """
    from capsim.calibrate import held_out
    from capsim.cli import tables

    rows = [["device", "by", "operation", "format", "held out", "shapes", "points", "median", "p90"]]
    for path in measurements:
        for found in held_out(path):
            counts = [f"{found.shapes:,}", f"{found.points:,}", f"{found.median:.1%}", f"{found.p90:.1%}"]
            rows.append([found.device, found.by, found.op, found.format, found.held_out, *counts])
    print(tables.text(rows), end="")


def residual_rows(residuals: Iterable["Residual"]) -> list[list[str]]:
    """How far fits and tables are off, as a table."""
    rows = [["measured", "by", "shape", "points", "held out", "table", "largest", "bias", "fit", "largest", "bias"]]
    return rows + [_row(residual) for residual in residuals]


def _row(residual: "Residual") -> list[str]:
    counts = [str(residual.points), str(residual.held_out)]
    return [residual.what, residual.by, residual.shape, *counts, *_cells(residual.table), *_cells(residual.fit)]


def _cells(error: "Error | None") -> list[str]:
    """Mean absolute error, the largest, and the mean with its sign."""
    return ["", "", ""] if error is None else [f"{error.mape:.1%}", f"{error.largest:.1%}", f"{error.bias:+.1%}"]
