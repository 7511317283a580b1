"""Options and helpers that the verbs share."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from capsim.progress import ProgressFile
    from capsim.scenario import Resolved

INFEASIBLE, SLO_MISSED, INTERRUPTED = 3, 4, 130


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a value; repeatable.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of every random stream.")]
Replications = Annotated[int | None, typer.Option(min=1, help="Independent replications.")]
Calibration = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Rest step times on this file of capsim calibrate.")
]
Duration = Annotated[str | None, typer.Option(metavar="TIME", help="Let requests arrive for this long, such as 10min.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Write the run directory here.")]
OutputFormat = Annotated[Format, typer.Option("--format", help="How to print the result.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result and errors only.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]


def resolved_of(
    path: Path,
    set_: list[str] | None,
    seed: int | None,
    replications: int | None,
    duration: str | None,
    calibration: Path | None,
) -> "Resolved":
    from capsim.scenario import resolve

    options = {
        "seed": seed, "replications": replications, "workload.duration_s": duration, "calibration": calibration,
    }  # fmt: skip
    return resolve(path, [*(set_ or []), *(f"{key}={value}" for key, value in options.items() if value is not None)])


def progress(what: str, off: bool) -> AbstractContextManager[Any]:
    """A line on stderr that says how far things are; nothing where stderr is not a terminal."""
    if off or not sys.stderr.isatty():
        return nullcontext(lambda text: None)
    from rich.console import Console

    status = Console(stderr=True).status(what)

    class Told:
        def __enter__(self) -> Any:
            status.start()
            return lambda text: status.update(f"{what}: {text}")

        def __exit__(self, *error: object) -> None:
            status.stop()

    return Told()


@contextmanager
def watched(out: Path | None) -> Iterator["ProgressFile"]:
    """The file in the directory of a result that says how far it is, gone again if there is no result."""
    from capsim.progress import ProgressFile

    file = ProgressFile(out)
    file.tell(0, None)
    try:
        yield file
    except BaseException:
        file.withdraw()
        raise


def trials(tell: Any) -> Any:
    """Tells how a search stands: the number of sessions tried, and its goodput."""
    return lambda sessions, run: tell(f"{sessions:,} sessions: goodput {run.summary['goodput']:.1%}")


def say_where(out: Path | None, quiet: bool) -> None:
    if out is not None and not quiet:
        print(f"written to {out}", file=sys.stderr)
