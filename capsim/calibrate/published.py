"""Coefficients of devices whose kernels nobody published, from speeds of one stream that others did publish.

Of Apple's chips tokens a second of prefill and of decode are known. They give the roofline's coefficients, not tables:
seconds = layer_s · layers + bytes / (memory_fraction · bandwidth) for a decode step, and for a prefill
flops / (flops_fraction · rate) more. Only points marked ``use: fit`` are read, and only the coefficients are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.optimize import nnls

from capsim.catalog import PUBLISHED, load_catalog
from capsim.errors import ScenarioError
from capsim.hardware import Device
from capsim.importers.csv_table import read_table
from capsim.llm import Attention, DenseLayers, ModelSpec
from capsim.whole_file import write_whole

DIGITS = 3
COLUMNS = ("id", "use", "source", "date", "hardware", "model", "weight_precision", "engine", "isl", "metric", "value")
FITTED = ("memory_fraction", "flops_fraction", "layer_s")
CHUNK_TOKENS = 2048  # of a prefill, both of llama.cpp (n_batch) and of mlx-lm
KV_BYTES = 2  # all of these runs keep KV in 16 bits
LLAMA_2_7B = ModelSpec(
    name="LLaMA-2-7B", hidden=4096, vocab=32_000, max_context_tokens=4096, weight_formats=("bf16",),
    attention=(Attention(kind="full", layers=32, heads=32, kv_heads=32, head_dim=128),),
    dense=DenseLayers(layers=32, intermediate=11_008),
)  # fmt: skip
BITS = {"F16": 16.0, "Q8_0": 8.5, "Q4_0": 4.5}  # llama.cpp: a 16-bit scale per 32 weights
MLX_SCALES_BITS = 0.5  # mlx-lm: a 16-bit scale and a 16-bit zero per 64 weights
DECODE_STEPS = 128  # of llama-bench, from an empty context


@dataclass(frozen=True)
class Chip:
    """Hardware as the points name it, the catalog's devices that it stands for, and the engine it was run under."""

    hardware: str
    devices: tuple[str, ...]
    engine: str
    borrowers: tuple[str, ...] = ()  # devices of the same make of which nothing was published


CHIPS = (
    Chip("Apple M4 (10)", ("m4-16",), "llama.cpp"),
    Chip("Apple M4 Pro (20)", ("m4-pro-64", "m4-pro-48", "m4-pro-24"), "llama.cpp"),
    Chip("Apple M4 Max (40)", ("m4-max-128",), "llama.cpp"),
    Chip("Apple M5 Pro (20)", ("m5-pro-64",), "llama.cpp", ("m5-max-128", "m5-ultra-256")),
    Chip("Mac Studio M3 Ultra (80-core GPU, 512 GB)", ("m3-ultra-512", "m3-ultra-96"), "mlx-lm-serial"),
)
MAC_ENGINES = ("mlx-lm-serial", "llama.cpp")
MODELS = {
    "LLaMA-2-7B": "", "Meta-Llama-3.1-8B-Instruct": "llama-3.1-8b", "Llama-3.1-405B-Instruct": "llama-3.1-405b",
    "Mistral-7B-Instruct-v0.3": "mistral-7b",
}  # fmt: skip
"""Keys of the catalog of the dense models in the points."""


@dataclass(frozen=True)
class Speed:
    """A step of one stream: the seconds it took, and what it must at least do."""

    prefill: bool
    seconds: float
    layers: int
    bytes: float
    flops: float


def fit_published(points: Path) -> dict[str, Any]:
    """Entries of ``calibrations`` for Apple's chips.

    Raises
    ------
    ScenarioError
        The file cannot be read, a row of it is no speed, or the points of a chip are not in it.
    """
    rows = _fit_rows(points)
    catalog = load_catalog()
    entries: dict[str, Any] = {}
    for chip in CHIPS:
        own = [row for row in rows if row["hardware"] == chip.hardware and row["model"] in MODELS]
        speeds = [speed for row in own if (speed := _read_speed(row, points)) is not None]
        if {speed.prefill for speed in speeds} != {True, False}:
            raise ScenarioError.one(f"has no speeds of {chip.hardware} marked fit", path=points)
        fitted, off = _fit(speeds, catalog.devices[chip.devices[0]])
        as_of = last_day(own[0]["date"], points)
        source = (
            f"{own[0]['source']}, points {own[0]['id']} to {own[-1]['id']}: {chip.hardware} under {chip.engine}; "
            f"median error of the fit {off:.1%} over {len(speeds)} speeds of one stream"
        )
        for device in (*chip.devices, *chip.borrowers):
            for engine in MAC_ENGINES:
                same = engine == chip.engine and device not in chip.borrowers
                facts = {"basis": "calibrated" if same else "assumed", "source": source, "as_of": as_of}
                entries[f"{device}/{engine}"] = {
                    "provenance": facts, "device": device, "engine": engine, **fitted, "expert_layer_s": 0.0,
                    "step_s": 0.0, "sequence_s": 0.0,
                }  # fmt: skip
    return entries


def write_published(entries: dict[str, Any], folder: Path) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    """Write these entries; of each that changed its key and its coefficients before and after.

    Raises
    ------
    ScenarioError
        The file cannot be written.
    """
    path = folder / PUBLISHED
    head = "# Written by capsim refit --points: coefficients fitted on published speeds of one stream.\n"
    text = yaml.dump(entries, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, width=120)
    old = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) if path.is_file() else {}
    write_whole(path, [head, text])
    found = [(key, _fitted_of(old.get(key, {})), _fitted_of(entry)) for key, entry in entries.items()]
    return [change for change in found if change[1] != change[2]]


def _fitted_of(entry: dict[str, Any]) -> dict[str, float]:
    return {name: entry[name] for name in FITTED if name in entry}


def _fit_rows(points: Path) -> list[dict[str, str]]:
    """The rows marked ``fit``, as texts, each with the ``line`` it stands in."""
    frame = read_table(points, COLUMNS, dtype=str)
    frame = frame[frame["use"] == "fit"].fillna("")
    return [{**row, "line": str(index + 2)} for index, row in zip(frame.index, frame.to_dict("records"), strict=True)]


def _read_speed(row: dict[str, str], points: Path) -> Speed | None:
    try:
        return _speed(row)
    except (ValueError, ZeroDivisionError) as error:
        raise ScenarioError.one(f"is no speed of one stream: {error}", path=points, line=int(row["line"])) from error


def _speed(row: dict[str, str]) -> Speed | None:
    """What a row says of a step; None for peaks of memory and other things."""
    prefill = row["metric"].startswith("prefill_tok_s")
    if not (prefill or row["metric"].startswith("decode_tok_s")):
        return None
    model = load_catalog().models[MODELS[row["model"]]] if MODELS[row["model"]] else LLAMA_2_7B
    weights = model.attention_parameters + model.dense_parameters + model.embedding_parameters
    precision = row["weight_precision"]
    bits = BITS.get(precision) or float(precision.removeprefix("Q")) + MLX_SCALES_BITS
    read = weights * bits / 8
    group = model.attention[0]
    entry = 2 * (group.kv_heads or group.heads) * (group.head_dim or 0) * model.layers * KV_BYTES
    prompt = int(row["isl"])
    if not prefill:
        context = prompt if "mlx" in row["engine"] else DECODE_STEPS / 2
        return Speed(False, 1 / float(row["value"]), model.layers, read + context * entry, 2.0 * weights)
    chunks = -(-prompt // CHUNK_TOKENS)
    attended = 2.0 * prompt**2 * group.heads * (group.head_dim or 0) * model.layers
    flops = 2.0 * (weights - model.embedding_parameters) * prompt + attended
    return Speed(True, prompt / float(row["value"]), chunks * model.layers, chunks * read, flops)


def _fit(speeds: Sequence[Speed], device: Device) -> tuple[dict[str, float], float]:
    """Coefficients by least squares of relative errors, none below zero, and the median error."""
    decode = [speed for speed in speeds if not speed.prefill]
    layer_s, read = _least([(s.layers, s.bytes / device.memory_bytes_per_s) for s in decode], decode)
    known = [s.layers * layer_s + read * s.bytes / device.memory_bytes_per_s for s in speeds]
    prefill = [(s, at) for s, at in zip(speeds, known, strict=True) if s.prefill]
    columns = [(s.flops / device.bf16_flops,) for s, _ in prefill]
    (computed,) = _least(columns, [s for s, _ in prefill], [at for _, at in prefill])
    told = [at + s.prefill * computed * s.flops / device.bf16_flops for s, at in zip(speeds, known, strict=True)]
    off = np.median([abs(t / s.seconds - 1) for t, s in zip(told, speeds, strict=True)])
    fractions = {"memory_fraction": min(1.0, 1 / read), "flops_fraction": min(1.0, 1 / computed)}
    values = {**fractions, "layer_s": layer_s}
    return {name: float(f"{value:.{DIGITS}g}") for name, value in values.items()}, float(off)


def _least(
    columns: Sequence[tuple[float, ...]], speeds: Sequence[Speed], known_s: Sequence[float] | None = None
) -> list[float]:
    """Non-negative factors of the columns that give the seconds beyond the known ones."""
    seconds = np.array([speed.seconds for speed in speeds])
    left = seconds - (0.0 if known_s is None else np.array(known_s))
    return [float(factor) for factor in nnls(np.array(columns) / seconds[:, None], left / seconds)[0]]


def last_day(told: str, points: Path) -> str:
    """The date of a point: the end of a range, and the first day of a year or month that is all that is told.

    Raises
    ------
    ScenarioError
        It is no date.
    """
    end = told.rsplit("..", 1)[-1]
    day = {4: f"{end}-01-01", 7: f"{end}-01"}.get(len(end), end)
    try:
        return str(date.fromisoformat(day))
    except ValueError as error:
        raise ScenarioError.one(f"'{told}' is no date such as 2026-11-24", path=points, key="date") from error
