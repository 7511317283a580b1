"""A measurements file in the making: its header, its rows, and what was left out of it."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError
from capsim.kernel_tables import work
from capsim.measurements import SCHEMA, VERSION
from capsim.whole_file import write_whole

Row = dict[str, Any]
# Bytes of a K and a V element, and of a parameter; those of the catalog's formats are the catalog's.
KV_BYTES = {"bf16": 2.0, "fp8": 1.0}
WEIGHT_BYTES = {
    "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5625, "mxfp4": 0.53125, "int4-g128": 0.51953125,
    "fp8_block": 1.0 + 4.0 / 128**2,  # an fp32 scale for each block of 128 x 128 weights
}  # fmt: skip


@dataclass
class Imported:
    """Rows as a measurements file has them, and how many rows of the source were left out, by reason."""

    header: Row
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, device: str, source: str, created: str, **environment: Any) -> "Imported":
        try:
            date.fromisoformat(created[:10])
        except ValueError as error:
            raise ScenarioError.one(f"'{created}' is no date such as 2026-11-24", key="created") from error
        return cls(
            {
                "schema": SCHEMA, "version": VERSION, "device": device, "created": created, "source": source,
                "environment": {key: value for key, value in environment.items() if value is not None},
            }
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write the measurements file.

        Raises
        ------
        ScenarioError
            Nothing to write, or the file cannot be written.
        """
        if not self.rows:
            reasons = "; ".join(f"{count:,} rows: {reason}" for reason, count in self.left_out.items())
            raise ScenarioError.one(f"nothing was imported ({reasons or 'no rows'})", path=path)
        write_whole(path, (json.dumps(row) + "\n" for row in (self.header, *self.rows)))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever is no number in somebody else's file, as a mistake of that file's.

    Raises
    ------
    ScenarioError
        A value that cannot be reckoned with; the file is named.
    """
    try:
        yield
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ScenarioError.one(f"has a value that cannot be used: {error}", path=path) from error


def kernel_row(op: str, kernel: str, shape: Row, seconds: float) -> Row:
    """A ``kernel`` row of a GPU; the least that it must move and compute follows from the shape and its formats."""
    sizes: Row = {}
    if "kv_format" in shape:
        elements = shape["latent_dim"] + shape["rope_dim"] if op == "mla_decode" else 2 * shape["head_dim"]
        sizes["pair_bytes"] = KV_BYTES[shape["kv_format"]] * elements
    if "weight_format" in shape:
        sizes["weight_bytes"] = WEIGHT_BYTES[shape["weight_format"]]
    done = work(op, {**shape, **sizes})
    return {
        "kind": "kernel", "op": op, "backend": "cuda", "kernel": kernel, "shape": shape, "median_s": seconds,
        "bytes": done.bytes, "flops": done.flops,
    }  # fmt: skip
