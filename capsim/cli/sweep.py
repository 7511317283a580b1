"""The verb ``sweep``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsim.cli.options import FAILED_POINTS, Format, NoProgress, OutputFormat, Quiet, progress, say_where

if TYPE_CHECKING:
    from concurrent.futures import Executor

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep YAML file.")]
Directory = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where finished points are kept; SWEEP-points without it.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes here; as many as cores without it.")]
Cluster = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Use a Dask cluster, such as tcp://host:8786.")]


def sweep(
    sweep_file: SweepFile,
    out: Directory = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Run a grid or a list of scenarios; started again, it does what is missing. Exits with 5 where points failed."""
    from capsim import units
    from capsim.cli.sweep_table import render_sweep
    from capsim.sweep import FAILED, load_sweep, run_sweep

    asked = load_sweep(sweep_file)
    directory = out or Path(f"{sweep_file.stem}-points")
    with progress("sweeping", quiet or no_progress) as tell:

        def told(done: int, total: int, left_s: float | None) -> None:
            left = "" if left_s is None else f", about {units.seconds(left_s)} left"
            tell(f"{done:,} of {total:,} points{left}")

        def note(text: str) -> None:
            print(f"note: {text}", file=sys.stderr)

        table = run_sweep(
            asked,
            directory,
            jobs=jobs,
            executor=None if cluster is None else _dask(cluster),
            on_point=told,
            on_note=note,
        )
    print(render_sweep(table, asked, format_), end="")
    say_where(directory, quiet)
    if table["status"].isin(FAILED).any():
        raise typer.Exit(FAILED_POINTS)


def _dask(address: str) -> "Executor":
    from capsim.sweep.cluster import executor_of

    return executor_of(address)
