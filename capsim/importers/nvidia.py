"""NVIDIA's kernel tables, read from the installed package ``aiconfigurator-core`` (Apache-2.0), whole or by engine.

One file a table: ``systems/data/<system>/<family>/<engine>/<version>/<table>_perf.parquet``, latencies in milliseconds.
Only tables of kernels are read; ``silicon_sample.csv``, published runs of whole engines, is for judging and is not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from capsim.catalog import load_catalog
from capsim.errors import ScenarioError, did_you_mean
from capsim.hardware import Device
from capsim.importers import nvidia_rows
from capsim.importers.imported import Imported, Row, kernel_row
from capsim.kernel_tables.work import precision_of

PACKAGE, VERSION = "aiconfigurator-core", "0.12.0"
AS_OF = "2026-08-31"  # the latest date that the tables of this version carry
DEVICES = {
    "a100_sxm": "a100-80g", "h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm", "b200_sxm": "b200", "b300_sxm": "b300",
    "gb200": "gb200", "gb300": "gb300", "l40s": "l40s", "rtx_pro_6000_server": "rtx-pro-6000",
}  # fmt: skip
"""Keys of capsim's devices by the package's names of systems."""
ENGINES = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm"}
TABLES = (
    ("gemm", "gemm", nvidia_rows.gemm),
    ("attention", "generation_attention", nvidia_rows.decode_attention),
    ("attention", "context_attention", nvidia_rows.prefill_attention),
    ("mla", "generation_mla", nvidia_rows.mla_decode),
    ("moe", "moe", nvidia_rows.experts),
    ("comm", "custom_allreduce", nvidia_rows.all_reduce),
)
COLLECTIVES = ("all_reduce", "all_to_all")
POSSIBLE = 1.05  # of a datasheet's rate: clocks above the nominal one, and rounding
FOREIGN = "experts: faster than the memory at many sizes: no gated experts, or not routed evenly"
FOREIGN_SHARE = 0.25  # assumed: of a shape's rows; fewer are caches
BLOCK_FP8_FROM = ("sglang", "trtllm")  # in place of vLLM's launch-bound rows, the first that has the table


def nvidia_tables(root: Path | None = None) -> list[tuple[str, str, str]]:
    """Device, engine and engine's version of every set of tables in the package."""
    systems = _systems(root)
    found = []
    for system, device in DEVICES.items():
        for engine, name in ENGINES.items():
            current = _version(systems, system, name)
            if (systems / "data" / system / "gemm" / name / current).is_dir():
                found.append((device, engine, current))
    return found


def import_nvidia(device: str, engine: str, root: Path | None = None) -> Imported:
    """Kernels of one device under one engine, in the version that the package calls current.

    Parameters
    ----------
    device, engine
        Keys of the catalog.
    root
        The package's folder, where it is not the installed one.

    Raises
    ------
    ScenarioError
        The package is not installed, or has no such tables.
    """
    systems = _systems(root)
    system = next((name for name, key in DEVICES.items() if key == device), "")
    if (device, engine) not in [(key, name) for key, name, _ in nvidia_tables(root)]:
        known = [f"{key} {name}" for key, name, _ in nvidia_tables(root)]
        wanted = f"{device} {engine}"
        raise ScenarioError.one(f"{PACKAGE} has no tables of '{wanted}'", hint=did_you_mean(wanted, known))
    chip = load_catalog().devices[device]
    name, current = ENGINES[engine], _version(systems, system, ENGINES[engine])
    found = Imported.of(
        device, f"{PACKAGE} {VERSION} (NVIDIA, Apache-2.0): {name} {current}", AS_OF, engine=engine, version=current
    )
    kernel = f"{name} {current}"
    for family, table, read in TABLES:
        frame = _table(systems, system, family, name, current, table)
        if frame is not None:
            _take(found, read(frame, name, found.left_out), kernel, chip)
    if name == "vllm":
        _take_block_fp8(found, systems, system, chip)
    _take_collectives(found, systems, system, chip)
    return found


def _take(found: Imported, reads: Iterable[nvidia_rows.Read], kernel: str, chip: Device) -> None:
    """Add the rows that the device can have measured on data that came from its memory."""
    rows = [kernel_row(op, kernel, shape, seconds) for op, shape, seconds in reads]
    reasons = [None if row["op"] in COLLECTIVES else _impossible(row, chip) for row in rows]
    foreign = _foreign_experts(rows, reasons)
    for row, reason in zip(rows, reasons, strict=True):
        if row["op"] == "experts" and _experts_of(row) in foreign:
            found.left_out[FOREIGN] += 1
        elif reason is not None:
            found.left_out[f"{row['op']}: {reason}"] += 1
        else:
            found.rows.append(row)


def _foreign_experts(rows: Sequence[Row], reasons: Sequence[str | None]) -> set[tuple[Any, ...]]:
    """Shapes of experts of which many rows are impossible: they read less than three matrices of each expert, or fewer
    experts than even routing touches."""
    total = Counter(_experts_of(row) for row in rows if row["op"] == "experts")
    wrong = Counter(_experts_of(row) for row, reason in zip(rows, reasons, strict=True) if reason)
    return {shape for shape, count in total.items() if wrong[shape] > FOREIGN_SHARE * count}


def _experts_of(row: Row) -> tuple[Any, ...]:
    return tuple(row["shape"].get(key) for key in ("hidden", "intermediate", "experts", "top_k", "weight_format"))


def _impossible(row: Row, chip: Device) -> str | None:
    """Why a row cannot be what a layer takes; None if it can."""
    if row["bytes"] > POSSIBLE * chip.memory_bytes_per_s * row["median_s"]:
        return "faster than the memory, so read from a cache that a model's layers do not fit"
    precision = precision_of(row["shape"].get("weight_format") or row["shape"].get("kv_format", "bf16"), chip)
    if row["flops"] > POSSIBLE * chip.flops(precision) * row["median_s"]:
        return "more arithmetic than the device can do"
    return None


def _take_block_fp8(found: Imported, systems: Path, system: str, chip: Device) -> None:
    """The block-scaled FP8 GEMMs of another engine, which runs the same kernels, in place of vLLM's."""
    for name in BLOCK_FP8_FROM:
        current = _version(systems, system, name)
        frame = _table(systems, system, "gemm", name, current, "gemm")
        block = None if frame is None else frame[frame["gemm_dtype"] == "fp8_block"]
        if block is not None and len(block):
            _take(found, nvidia_rows.gemm(block, name, found.left_out), f"{name} {current}", chip)
            return


def _take_collectives(found: Imported, systems: Path, system: str, chip: Device) -> None:
    """All-reduces and all-to-alls by the newest NCCL that was measured."""
    versions = sorted((systems / "data" / system / "comm" / "nccl").glob("*/nccl_perf.parquet"), key=_by_version)
    if versions:
        newest = versions[-1]
        rows = nvidia_rows.nccl(_read(newest), found.left_out)
        _take(found, rows, f"nccl {newest.parent.name}", chip)


def _systems(root: Path | None) -> Path:
    """The folder of systems, of the version that these readers were written for."""
    hint = f"pip install 'capsim[tables]', or pip install --no-deps {PACKAGE}=={VERSION}"
    if root is not None:
        return root / "systems"
    spec = find_spec("aiconfigurator_core")
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        installed = ""
    if spec is None or not spec.submodule_search_locations:
        raise ScenarioError.one(f"the package {PACKAGE} is not installed", hint=hint)
    if installed != VERSION:
        message = f"{PACKAGE} {installed} is installed, but the tables that can be read are those of {VERSION}"
        raise ScenarioError.one(message, hint=hint)
    return Path(spec.submodule_search_locations[0]) / "systems"


def _version(systems: Path, system: str, name: str) -> str:
    """The version of an engine that the package holds to be current on a system."""
    declared = yaml.safe_load((systems / "query_versions.yaml").read_text(encoding="utf-8"))
    slots = {**declared["defaults"], **declared.get("overrides", {}).get(system, {})}
    return str(slots[name]["current"])


def _table(systems: Path, system: str, family: str, name: str, current: str, table: str) -> Any:
    path = systems / "data" / system / family / name / current / f"{table}_perf.parquet"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(path)


def _by_version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parent.name.split(".") if part.isdigit())
