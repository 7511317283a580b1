"""The verb ``engine``: measure a serving engine that is installed here."""

import json
import sys
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kernels_bench.engines.engine import Engine, MissingError
from kernels_bench.engines.loads import read_csv
from kernels_bench.engines.measure import Session, header, settle
from kernels_bench.engines.models import MODELS

ENGINE_MISSING = 3


class Name(StrEnum):
    transformers = "transformers"
    vllm = "vllm"


def engine(
    name: Annotated[Name, typer.Argument(help="Which engine.")],
    out: Annotated[Path | None, typer.Option(help="The measurements file; engine-NAME.jsonl without it.")] = None,
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
    settle()
    path, started = out or Path(f"engine-{name}.jsonl"), time.monotonic()
    file = None
    try:
        for key in models:
            running = start(name, key, kv_dtype)
            if file is None:
                file = path.open("w", encoding="utf-8")
                file.write(json.dumps(header(running)) + "\n")
            session = Session(running, _label(key, kv_dtype), file)
            session.measure(loads, requests, repeats, episode, seed)
    except MissingError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(ENGINE_MISSING) from error
    finally:
        if file is not None:
            file.close()
    print(json.dumps({"file": str(path), "engine": name, "seconds": round(time.monotonic() - started, 1)}))


def start(name: Name, model: str, kv_dtype: str = "bfloat16") -> Engine:
    """An engine with a model in it.

    Raises
    ------
    MissingError
        It is not installed, or cannot do this.
    """
    if name is Name.transformers:
        from kernels_bench.engines import transformers

        if kv_dtype != "bfloat16":
            raise MissingError("transformers' paged cache has the model's dtype: only --kv-dtype bfloat16")
        return transformers.Transformers(MODELS[model], transformers.DEFAULTS)
    from kernels_bench.engines import vllm

    return vllm.VLLM(MODELS[model], replace(vllm.DEFAULTS, kv_dtype=kv_dtype))


def _label(model: str, kv_dtype: str) -> str:
    return model if kv_dtype == "bfloat16" else f"{model}-{kv_dtype}"
