"""A measurements file: kernels, engine steps and engine runs, as ``kernels_bench`` and importers write them.

JSON Lines: a header, then one row a line, each with its ``kind``. ``kernels_bench/SCHEMA.md`` has the schema. A file is
written line by line, so a last line that was cut off is dropped; every other bad row is a mistake of the file's.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from capsim.errors import Problem, ScenarioError, did_you_mean
from capsim.source import MAX_PROBLEMS, Source, validate

SCHEMA, VERSION = "capsim-measurements", 1
_HEADS = ("q_heads", "kv_heads", "head_dim")
_EXPERTS = (
    "tokens", "hidden", "intermediate", "experts", "top_k", "shared_experts", "active_experts", "skew",
    "weight_format",
)  # fmt: skip
SHAPES: dict[str, tuple[str, ...]] = {
    "memory_copy": ("bytes",),
    "memory_read": ("bytes",),
    "gemm": ("tokens", "in_features", "out_features", "weight_format"),
    "norm": ("tokens", "hidden"),
    "decode_attention": ("sequences", "context_tokens", *_HEADS, "kv_format"),
    "prefill_attention": ("new_tokens", "context_tokens", *_HEADS),
    "kv_write": ("tokens", "kv_heads", "head_dim", "kv_format"),
    "mla_decode": ("sequences", "context_tokens", "q_heads", "latent_dim", "rope_dim", "kv_format"),
    "sparse_attention": ("sequences", "context_tokens", "top_k", *_HEADS, "kv_format"),
    "experts": _EXPERTS,
    "experts_dense": _EXPERTS,
    "all_reduce": ("bytes", "devices"),
    "all_to_all": ("bytes", "devices"),
    "layer": ("sequences", "context_tokens", "new_tokens", "hidden", "intermediate", *_HEADS, "experts", "top_k"),
}
"""Operations, and the keys that the shape of each has."""

Seconds = Annotated[float, Field(gt=0)]
Instant = Annotated[float, Field(ge=0)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Header(_Row):
    """Where, when and by what the rows were measured. ``device`` is a free name, or a key of the catalog."""

    schema_: Literal["capsim-measurements"] = Field(alias="schema")
    version: Literal[1]
    device: str = Field(min_length=1)
    created: str = Field(min_length=10)
    environment: dict[str, Any] = Field(default_factory=dict)
    source: str = Field(min_length=3)


class Kernel(_Row):
    """Median seconds of one call; ``bytes`` and ``flops`` are what the algorithm must at least move and compute."""

    op: str
    backend: str
    kernel: str
    shape: dict[str, int | float | str | None]
    median_s: Seconds
    iqr_s: float = Field(0.0, ge=0)
    runs: PositiveInt = 1
    bytes: float = Field(ge=0)
    flops: float = Field(ge=0)

    @model_validator(mode="after")
    def _whole_shape(self) -> "Kernel":
        if self.op not in SHAPES:
            raise ValueError(f"unknown op '{self.op}' ({did_you_mean(self.op, list(SHAPES))})")
        if missing := [key for key in SHAPES[self.op] if key not in self.shape]:
            raise ValueError(f"the shape of {self.op} lacks {', '.join(missing)}")
        return self

    def size(self, key: str) -> float:
        """A number of the shape."""
        return float(self.shape[key] or 0)


class Step(_Row):
    """One engine step: what it did, and how long it took.

    ``kv_tokens`` is Σ context of the decoding sequences, ``prefill_reads`` Σ new · (context + new / 2) of the chunks,
    ``active_experts`` the distinct experts that a layer touched, as a mean over layers.
    """

    engine: str
    model: str
    decode_sequences: NonNegativeInt
    kv_tokens: float = Field(ge=0)
    prefill_tokens: NonNegativeInt
    prefill_reads: float = Field(ge=0)
    prefills: NonNegativeInt
    active_experts: float | None = Field(None, ge=0)
    step_s: Seconds
    episode: int = 0


class Model(_Row):
    """A model as an engine ran it: a Hugging Face ``config`` and the engine's arguments."""

    engine: str
    name: str
    config: dict[str, Any]
    engine_args: dict[str, Any] = Field(default_factory=dict)


class Run(_Row):
    """One load driven through an engine; ``steps`` and ``preemptions`` are None where only its client saw it."""

    run: str | int
    engine: str
    model: str
    load: str
    rate_per_s: float | None = None
    seed: int = 0
    repeat: int = 0
    concurrency: PositiveInt | None = None
    steps: NonNegativeInt | None = None
    preemptions: NonNegativeInt | None = None
    duration_s: Seconds


class Request(_Row):
    """One request of a run, on the run's clock."""

    run: str | int
    request: NonNegativeInt
    arrival_s: Instant
    prompt_tokens: PositiveInt
    output_tokens: PositiveInt
    first_token_s: Instant
    finished_s: Instant
    preemptions: NonNegativeInt = 0


KINDS: dict[str, type[_Row]] = {"kernel": Kernel, "step": Step, "model": Model, "run": Run, "request": Request}


@dataclass
class Measurements:
    """The rows of one file by kind, in its order."""

    path: Path
    header: Header
    kernels: list[Kernel] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


def read_measurements(path: Path) -> Measurements:
    """Read a measurements file.

    Raises
    ------
    ScenarioError
        No such file, no header, or bad rows: each with its line.
    """
    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    lines = _lines(path)
    number, raw = next(lines, (1, None))
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        hint = "python -m kernels_bench writes such files"
        raise ScenarioError.one(f'expected a header with "schema": "{SCHEMA}"', path=path, line=number, hint=hint)
    found = Measurements(path, _row(Header, raw, path, number))
    problems: list[Problem] = []
    for number, raw in lines:
        if len(problems) >= MAX_PROBLEMS:
            problems.append(Problem("not checked any more: mend the others first", path, number))
            break
        try:
            _add(found, raw, number)
        except ScenarioError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return found


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line, a cut last one left out; None where a line is not JSON."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError:
                if line.endswith("\n"):
                    yield number, None


def _add(found: Measurements, raw: Any, number: int) -> None:
    if not isinstance(raw, dict):
        raise ScenarioError.one("not a JSON object", path=found.path, line=number)
    kind = raw.get("kind")
    if kind not in KINDS:
        hint = did_you_mean(str(kind), list(KINDS))
        raise ScenarioError.one(f"unknown kind '{kind}'", path=found.path, line=number, key="kind", hint=hint)
    getattr(found, f"{kind}s").append(_row(KINDS[kind], raw, found.path, number))


def _row(spec: type[Any], raw: dict[str, Any], path: Path, number: int) -> Any:
    try:
        return validate(spec, raw, Source(path, raw))
    except ScenarioError as error:
        raise ScenarioError([replace(problem, line=number) for problem in error.problems]) from error
