"""What a device that the catalog does not know can do, as measured on it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from capsim.catalog import Catalog
from capsim.errors import ScenarioError
from capsim.hardware import Device
from capsim.hugging_face import model_from_config
from capsim.kernel_tables.work import BF16_BYTES
from capsim.llm import ModelSpec
from capsim.measurements import Kernel, Measurements, Model

KINDS = {"cpu": "cpu", "cuda": "gpu", "mlx": "mac", "ascend": "npu"}
MOST_MEMORY = 1e18  # bytes: no machine has as many
MEMORY = ("memory_read", "memory_copy")
# What NVIDIA's driver calls cards, where it is not the name in the catalog.
DRIVER_NAMES = {
    "nvidia-h100-80gb-hbm3": "h100-sxm", "nvidia-a100-sxm4-80gb": "a100-80g", "nvidia-gb200": "gb200",
    "nvidia-gb300": "gb300", "nvidia-rtx-pro-6000-blackwell-server-edition": "rtx-pro-6000",
}  # fmt: skip


def known_device(name: str, catalog: Catalog) -> str | None:
    """The catalog's key of a device that a header calls by its key, by its name or as its driver does."""
    wanted = key_of(name)
    if wanted in DRIVER_NAMES:
        return DRIVER_NAMES[wanted]
    return next((key for key, device in catalog.devices.items() if wanted in (key, key_of(device.name))), None)


def key_of(name: str) -> str:
    """A catalog key of a free name."""
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in name.casefold()).split())


def measured_device(files: Sequence[Measurements]) -> Device:
    """A device by its measured ceilings, or by what the steps of an engine imply; its memory from the header.

    Its power was not measured and stands as 0 W: it costs nothing until a scenario prices it.

    Raises
    ------
    ScenarioError
        No header says how much memory there is, or neither kernels nor steps of a model that is described were
        measured.
    """
    header = files[0].header
    kernels = [row for file in files for row in file.kernels]
    memory = next((m for file in files if (m := file.header.environment.get("memory_bytes"))), None)
    if not isinstance(memory, (int, float)) or not 0 < memory < MOST_MEMORY:
        message = f"the catalog has no device '{header.device}', and the header does not say how much memory it has"
        hint = 'add "memory_bytes" to the environment of the header, or name a device of the catalog'
        raise ScenarioError.one(message, path=files[0].path, line=1, key="environment.memory_bytes", hint=hint)
    rates = (memory_rate(kernels), arithmetic_rate(kernels)) if kernels else implied_rates(files)
    return Device(
        name=_title(header.device, header.environment), kind=KINDS.get(kernels[0].backend, "cpu") if kernels else "cpu",
        memory_bytes=float(memory), memory_bytes_per_s=rates[0], bf16_flops=rates[1], power_w=0.0,
    )  # fmt: skip


def implied_rates(files: Sequence[Measurements]) -> tuple[float, float]:
    """Bytes a second and FLOP/s that whole steps in 16 bits must at least have reached: the quickest of them read all
    weights but those of routed experts, and each prefilled token was multiplied with its own.

    Raises
    ------
    ScenarioError
        No steps of a model that is described.
    """
    described = {(row.engine, row.name): row for file in files for row in file.models}
    models = {key: described_model(row, files) for key, row in described.items()}
    steps = [(model, row) for file in files for row in file.steps if (model := models.get((row.engine, row.model)))]
    if not steps:
        message = f"nothing tells the rates of '{files[0].header.device}', which the catalog does not know"
        hint = "give the file of kernels_bench beside this one, or the lines that describe the models of its steps"
        raise ScenarioError.one(message, path=files[0].path, hint=hint)
    bandwidth = _most(BF16_BYTES * _dense(model, heads=1) / row.step_s for model, row in steps)
    return bandwidth, _most(2.0 * _passed(model) * row.prefill_tokens / row.step_s for model, row in steps)


def described_model(row: Model, files: Sequence[Measurements]) -> ModelSpec:
    """The model that a line of one of these files describes.

    Raises
    ------
    ScenarioError
        Its config is not understood; the file is named.
    """
    try:
        return model_from_config(row.config, row.name)
    except ScenarioError as error:
        path = next(file.path for file in files if row in file.models)
        where = f"config of {row.name}"
        problems = [replace(each, path=path, key=f"{where} {each.key}".strip()) for each in error.problems]
        raise ScenarioError(problems) from error


def _dense(model: ModelSpec, heads: int = 0) -> int:
    """Parameters that every step reads; with the LM head or without."""
    return model.attention_parameters + model.dense_parameters + heads * model.embedding_parameters


def _passed(model: ModelSpec) -> int:
    """Parameters that a prefilled token is multiplied with."""
    experts = model.experts
    return _dense(model) + (model.expert_parameters * experts.top_k * experts.layers if experts else 0)


def memory_rate(kernels: Sequence[Kernel]) -> float:
    """Bytes a second of the largest buffer read or copied; without one, the most that any kernel moved."""
    largest = max((row.size("bytes") for row in kernels if row.op in MEMORY), default=0.0)
    rows = [row for row in kernels if row.op in MEMORY and row.size("bytes") == largest] or kernels
    return _most(row.bytes / row.median_s for row in rows)


def arithmetic_rate(kernels: Sequence[Kernel]) -> float:
    """FLOP/s of the fastest GEMM, in 16 bits where there is one; without one, the most that any kernel reached."""
    gemms = [row for row in kernels if row.op == "gemm"]
    half = [row for row in gemms if row.shape["weight_format"] in ("bf16", "fp16")]
    return _most(row.flops / row.median_s for row in half or gemms or kernels)


def _most(rates: Iterable[float]) -> float:
    return max(1.0, *rates, 1.0)


def _title(name: str, environment: dict[str, Any]) -> str:
    """A name for people: what the environment calls the chip, and how much of it was used."""
    chip = environment.get("cpu") or environment.get("device") or name
    threads = environment.get("threads")
    return f"{chip}, {threads} thread{'s' if threads != 1 else ''}" if isinstance(threads, int) else str(chip)
