"""`python -m kernels_bench`: measures the kernels of the hardware at hand."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kernels_bench.backends import MODULES
from kernels_bench.bench import MissingError, bench
from kernels_bench.engines.cli import engine
from kernels_bench.outfile import writable

MISSING, INTERRUPTED = 1, 130
NOTHING = "nothing was measured: the machine was not quiet for long enough; leave it alone, or give a longer --budget"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _budget(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if not match or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is no length of time; say 60s, 10m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def _device(name: str) -> str:
    if name not in ("auto", *MODULES):
        raise typer.BadParameter(f"{name!r} is not one of auto, {', '.join(MODULES)}")
    return name


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    budget: Annotated[
        float, typer.Option(parser=_budget, metavar="TIME", help="How long to measure: 60s, 10m, 1h.")
    ] = "60s",  # type: ignore[assignment]
    device: Annotated[
        str,
        typer.Option(callback=_device, help="cuda, ascend, mlx or cpu; auto: the accelerator, else the CPU."),
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(callback=writable, help="The measurements file.  [default: kernels-DEVICE.jsonl]")
    ] = None,
) -> None:
    """Measure the kernels that LLM inference is made of, on the hardware at hand.

    Attention over every KV format (bf16, FP8, TurboQuant, ...), prefill, experts, GEMMs, norms and memory, each on data
    colder than the caches, on one core where it is the CPU's turn. A coarse grid comes first and is refined until the
    budget is spent, so any budget gives a usable file, and Ctrl-C keeps what was measured. 60 s gives a sketch, 10 min
    a table fit to calibrate with; leave the machine alone meanwhile: windows in which it was disturbed are repeated.

    The file is JSON Lines (kernels_bench/SCHEMA.md) and is what `capsim calibrate` reads. The card goes to stderr; the
    last line of stdout is JSON: file, device, rows, seconds.

    `python -m kernels_bench engine transformers|vllm` measures a serving engine instead: its steps, and loads driven
    through it (`engine --help`).
    """
    if context.invoked_subcommand:
        return
    console = Console(stderr=True)
    for backend in MODULES if device == "auto" else [device]:
        try:
            summary = bench(backend, budget, out, console)
        except MissingError as error:
            console.print(f"{backend}: {error}", highlight=False)
            continue
        print(json.dumps(summary))
        if summary["interrupted"]:
            sys.exit(INTERRUPTED)
        if not summary["rows"]:
            console.print(NOTHING, highlight=False, soft_wrap=True)
            sys.exit(MISSING)
        sys.exit(0)
    sys.exit(MISSING)


app.command("engine", short_help="Measure a serving engine: its steps, and loads.")(engine)

if __name__ == "__main__":
    app(prog_name="python -m kernels_bench")
