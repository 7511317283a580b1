"""The verbs. Results go to stdout, everything else to stderr."""

import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
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


def run(
    scenario: ScenarioFile,
    set_: Set = None,
    seed: Seed = None,
    replications: Replications = None,
    duration: Duration = None,
    calibration: Calibration = None,
    out: Out = None,
    format_: OutputFormat = Format.table,
    assert_slo: Annotated[bool, typer.Option("--assert-slo", help="Exit with 4 if the SLO is missed.")] = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Simulate one scenario and print the summary; exits with 3 where the load has no steady state."""
    from capsim import store
    from capsim.cli import tables
    from capsim.errors import ScenarioError
    from capsim.experiment import run as run_experiment

    if out is not None:
        store.check_target(out)
    resolved = _resolved(scenario, set_, seed, replications, duration, calibration)
    if assert_slo and resolved.scenario.slo is None:
        raise ScenarioError.one("--assert-slo needs a slo in the scenario", path=scenario, key="slo")
    with progress("simulating", quiet or no_progress) as tell:
        result = run_experiment(resolved, lambda index, ended: tell(f"replication {index + 1}: {ended:,} requests"))
    if out is not None:
        store.save(result, out)
    print(tables.render_run(result.summary, format_), end="")
    _say_where(out, quiet)
    if result.summary["run"]["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    if result.summary["saturated"]:
        raise typer.Exit(INFEASIBLE)
    if assert_slo and not result.summary["slo"]["passed"]:
        raise typer.Exit(SLO_MISSED)


def plan(
    scenario: ScenarioFile,
    set_: Set = None,
    seed: Seed = None,
    replications: Replications = None,
    calibration: Calibration = None,
    out: Out = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Find the sessions a node carries inside the SLO, the nodes that takes, its cost, and what binds."""
    from capsim import store
    from capsim.capacity import plan as plan_capacity
    from capsim.cli import tables

    if out is not None:
        store.check_target(out)
    resolved = _resolved(scenario, set_, seed, replications, None, calibration)
    with progress("searching", quiet or no_progress) as tell:
        document, at_limit = plan_capacity(
            resolved,
            lambda sessions, point: tell(f"{sessions:,} sessions: goodput {point.summary['goodput']:.1%}"),
        )
    if out is not None:
        store.save_plan(document, at_limit, out)
    print(tables.render_plan(document, format_), end="")
    _say_where(out, quiet)
    if document["interrupted"]:
        raise typer.Exit(INTERRUPTED)


def check(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenario YAML files.")],
    set_: Set = None,
    show: Annotated[bool, typer.Option("--resolved", help="Print every resolved value.")] = False,
) -> None:
    """Check scenario files without simulating; all mistakes of all files are reported."""
    import yaml

    from capsim.errors import Infeasible, Problem, ScenarioError
    from capsim.scenario import resolve
    from capsim.scenario.lock import locked

    problems: list[Problem] = []
    too_large: Infeasible | None = None
    for path in scenarios:
        try:
            resolved = resolve(path, set_ or [])
        except ScenarioError as error:
            problems += error.problems
        except Infeasible as error:
            too_large = Infeasible(f"{path}: {error.message}", error.bytes_short, error.remedies)
        else:
            print(
                yaml.safe_dump(locked(resolved), sort_keys=False) if show else f"{path}: ok", end="" if show else "\n"
            )
    if problems:
        raise ScenarioError(problems)
    if too_large is not None:
        raise too_large


catalog = typer.Typer(help="What is known, and on what basis.", no_args_is_help=True, rich_markup_mode=None)
Kind = Annotated[str, typer.Argument(metavar="KIND", help="models, kv_formats, devices, nodes, engines, prices, ...")]
Files = Annotated[list[Path] | None, typer.Option("--file", help="A catalog file of your own; repeatable.")]


@catalog.command("list")
def list_entries(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="One kind of fact; all without it.")] = None,
    file: Files = None,
) -> None:
    """List the entries of one kind, or of all, with their main figures; old prices are marked stale."""
    from datetime import date

    from capsim.catalog import SPECS, load_catalog
    from capsim.catalog.listing import rows
    from capsim.cli import tables

    facts = load_catalog(file or [])
    kinds = list(SPECS) if kind is None else [_known_kind(kind)]
    print("\n".join(tables.text(rows(name, facts, date.today())) for name in kinds), end="")


@catalog.command("show")
def show_entry(kind: Kind, key: str, file: Files = None) -> None:
    """Show one entry: its values, and where each comes from."""
    import yaml

    from capsim.catalog import load_catalog

    name = _known_kind(kind)
    facts = load_catalog(file or [])
    values = facts.get(name, key).model_dump(mode="json", exclude_none=True)
    provenance = facts.provenance[name, key].model_dump(mode="json")
    print(yaml.safe_dump({key: {**values, "provenance": provenance}}, sort_keys=False), end="")


def _known_kind(kind: str) -> str:
    from capsim.catalog import SPECS
    from capsim.errors import ScenarioError, did_you_mean

    if kind not in SPECS:
        raise ScenarioError.one(f"unknown kind '{kind}'", hint=did_you_mean(kind, list(SPECS)))
    return kind


def _resolved(
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


def _say_where(out: Path | None, quiet: bool) -> None:
    if out is not None and not quiet:
        print(f"written to {out}", file=sys.stderr)
