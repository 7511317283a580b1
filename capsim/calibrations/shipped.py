"""One shipped calibration: what was measured and by whom, how far its tables are off, and the tables."""

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from capsim.calibrations.text import table_lines, tables_of_lines
from capsim.kernel_tables import KernelTable
from capsim.measured import Residual

FOLDER = Path(__file__).parent / "fitted"
RULE = "---"


class Judged(BaseModel):
    """Relative errors of the tables of an operation in a format: at how many shapes and points, median, ninth decile.

    ``held_out`` says where: ``sizes`` left out of a shape, whole ``shapes``, or ``thinned``: all points measured,
    those that were left out of the shipped tables with them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    op: str
    format: str
    by: str
    held_out: str
    shapes: int
    points: int
    median: float
    p90: float


class Shipped(BaseModel):
    """A shipped calibration.

    Attributes
    ----------
    rows
        Measured rows that the tables were made of; ``left_out`` how many others were not used, by reason.
    coefficients
        Fields of ``Efficiency`` that the measurements settle beside the tables.
    domain
        Of each operation the least and the largest size measured, by axis.
    held_out, residuals
        How far tables are off: at sizes and shapes held out, and by implementation as ``capsim calibrate`` tells it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: str
    engine: str
    source: str
    licence: str
    as_of: date
    rows: int
    left_out: dict[str, int]
    coefficients: dict[str, float]
    domain: dict[str, dict[str, tuple[float, float]]]
    held_out: tuple[Judged, ...]
    residuals: tuple[Residual, ...]
    tables: tuple[KernelTable, ...] = ()


def is_shipped(device: str, engine: str, folder: Path = FOLDER) -> bool:
    """Whether there is a calibration of that device under that engine."""
    return _path(folder, device, engine).is_file()


@cache
def shipped(device: str, engine: str) -> Shipped:
    """The shipped calibration of a device under an engine, by their keys in the catalog."""
    return read_shipped(FOLDER, device, engine)


def read_shipped(folder: Path, device: str, engine: str) -> Shipped:
    """A calibration as ``write_shipped`` wrote it there."""
    head, _, tables = _path(folder, device, engine).read_text(encoding="utf-8").partition(f"\n{RULE}\n")
    values: dict[str, Any] = yaml.load(head, Loader=yaml.CSafeLoader)
    values["held_out"] = [dict(zip(Judged.model_fields, row, strict=True)) for row in values["held_out"]]
    return Shipped(**values, tables=tuple(tables_of_lines(tables.splitlines())))


def write_shipped(folder: Path, calibration: Shipped) -> bool:
    """Write a calibration; whether that changed anything."""
    head = calibration.model_dump(mode="json", exclude={"tables"}, exclude_none=True)
    head["held_out"] = [list(row.values()) for row in head["held_out"]]
    text = yaml.dump(head, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, width=120)
    path = _path(folder, calibration.device, calibration.engine)
    lines = ["# Written by capsim refit.", text.rstrip(), RULE, *table_lines(calibration.tables), ""]
    content = "\n".join(lines)
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return False
    path.write_text(content, encoding="utf-8")
    return True


def _path(folder: Path, device: str, engine: str) -> Path:
    return folder / f"{device}_{engine}.txt"
