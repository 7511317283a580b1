"""A measurements file: kernels, engine steps and engine runs, as ``kernels_bench`` and importers write them.

JSON Lines: a header, then one row a line, each with its ``kind``. ``kernels_bench/SCHEMA.md`` has the schema. A file is
written line by line, so a last line that was cut off is dropped; every other bad row is a mistake of the file's.
"""

from capsim.measurements.read import Measurements, read_measurements
from capsim.measurements.rows import SCHEMA, VERSION, Header, Kernel, Model, Request, Run, Step
from capsim.measurements.shapes import FORMATS, SHAPES

__all__ = [
    "FORMATS", "SCHEMA", "SHAPES", "VERSION", "Header", "Kernel", "Measurements", "Model", "Request", "Run", "Step",
    "read_measurements",
]  # fmt: skip
