"""``capsim calibrate``: from measurements to a file of facts, and how far each is off."""

import sys
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
    from capsim.errors import ScenarioError

    found = fit(measurements)
    text = yaml.dump(found.document, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, width=120)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScenarioError.one(f"cannot be written: {error.strerror}", path=f"--out {out}") from error
    rows = [["measured", "by", "shape", "points", "held out", "table", "largest", "bias", "fit", "largest", "bias"]]
    print(tables.text(rows + [_row(residual) for residual in found.residuals]), end="")
    for note in found.left_out:
        print(f"note: {note}", file=sys.stderr)
    node = "" if found.node is None else f" --set node={found.node}"
    print(f"written to {out}; next: capsim run SCENARIO --calibration {out}{node}", file=sys.stderr)


def _row(residual: "Residual") -> list[str]:
    counts = [str(residual.points), str(residual.held_out)]
    return [residual.what, residual.by, residual.shape, *counts, *_cells(residual.table), *_cells(residual.fit)]


def _cells(error: "Error | None") -> list[str]:
    """Mean absolute error, the largest, and the mean with its sign."""
    return ["", "", ""] if error is None else [f"{error.mape:.1%}", f"{error.largest:.1%}", f"{error.bias:+.1%}"]
