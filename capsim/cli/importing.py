"""``capsim import``: other people's measurements as measurements files, which ``capsim calibrate`` reads."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from capsim.importers import Imported

importing = typer.Typer(
    help="Turn other people's measurements into a measurements file, which `capsim calibrate` reads.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the measurements here.")]
Device = Annotated[str | None, typer.Option(help="What it was measured on: a key of the catalog, or a name.")]
Model = Annotated[
    str | None, typer.Option(help="The key of the model in the catalog, where the file calls it otherwise.")
]
Created = Annotated[str, typer.Option(metavar="DATE", help="When it was measured, such as 2024-05-01.")]


@importing.command("nvidia")
def nvidia(
    device: Annotated[str | None, typer.Argument(metavar="[DEVICE]", help="A device of the catalog.")] = None,
    engine: Annotated[str, typer.Argument(metavar="[ENGINE]", help="vllm, sglang or tensorrt-llm.")] = "vllm",
    out: Out = None,
) -> None:
    """Kernels that NVIDIA measured, from the installed package aiconfigurator-core (extra: tables).

    Without a device, list the devices and engines that it has tables of.
    """
    from capsim.cli import tables
    from capsim.importers import import_nvidia, nvidia_tables

    if device is None:
        print(tables.text([["device", "engine", "version"], *map(list, nvidia_tables())]), end="")
        return
    _write(import_nvidia(device, engine), out or Path(f"{device}-{engine}.jsonl"))


@importing.command("vidur")
def vidur(
    files: Annotated[list[Path], typer.Argument(metavar="CSV...", help="mlp.csv, attention.csv, all_reduce.csv.")],
    device: Annotated[str, typer.Option(help="What they were measured on: a key of the catalog, or a name.")],
    created: Created,
    out: Out = None,
) -> None:
    """Profiles of Vidur's, in its data/profiling."""
    from capsim.importers import import_vidur

    _write(import_vidur(device, files, created), out or Path("vidur.jsonl"))


@importing.command("llmservingsim")
def llmservingsim(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help=".../<hardware>/<model>/<variant>/tp<N>")],
    config: Annotated[Path, typer.Option(metavar="JSON", help="The model's config.json, for its shapes.")],
    out: Out = None,
) -> None:
    """A profile of LLMServingSim's, in its profiler/perf."""
    from capsim.importers import import_llmservingsim

    _write(import_llmservingsim(folder, config), out or Path("llmservingsim.jsonl"))


@importing.command("llama-bench")
def llama_bench(
    files: Annotated[list[Path], typer.Argument(metavar="JSON...", help="What llama-bench -o json printed.")],
    device: Device = None,
    model: Model = None,
    out: Out = None,
) -> None:
    """Steps of llama.cpp; give it several -p, -n and -d, as seven coefficients are fitted to them."""
    from capsim.importers import import_llama_bench

    _write(import_llama_bench(files, device, model), out or Path("llama-bench.jsonl"))


@importing.command("vllm-bench")
def vllm_bench(
    files: Annotated[list[Path], typer.Argument(metavar="JSON...", help="Of vllm bench serve --save-detailed.")],
    device: Annotated[str, typer.Option(help="What it was measured on: a key of the catalog, or a name.")],
    model: Model = None,
    out: Out = None,
) -> None:
    """Runs of vLLM and their requests, to be judged by: nothing is fitted on them."""
    from capsim.importers import import_vllm_bench

    _write(import_vllm_bench(files, device, model), out or Path("vllm-bench.jsonl"))


def _write(found: "Imported", out: Path) -> None:
    """Write the file; say on stderr what was left out, and why."""
    found.write(out)
    for reason, count in sorted(found.left_out.items()):
        print(f"left out {count:,}: {reason}", file=sys.stderr)
    print(f"{len(found.rows):,} rows written to {out}", file=sys.stderr)
