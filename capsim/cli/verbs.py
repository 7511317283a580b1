"""The verbs. Results go to stdout, everything else to stderr."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsim.cli.options import (
    INFEASIBLE,
    INTERRUPTED,
    SLO_MISSED,
    Calibration,
    Duration,
    Format,
    NoProgress,
    Out,
    OutputFormat,
    Quiet,
    Replications,
    ScenarioFile,
    Seed,
    Set,
    progress,
    resolved_of,
    say_where,
    watched,
)

if TYPE_CHECKING:
    from capsim.experiment import Replication


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
    from capsim.experiment import planned, summarise
    from capsim.experiment import run as run_experiment
    from capsim.model_error import bracketed
    from capsim.progress import State, live

    if out is not None:
        store.check_target(out)
    resolved = resolved_of(scenario, set_, seed, replications, duration, calibration)
    if assert_slo and resolved.scenario.slo is None:
        raise ScenarioError.one("--assert-slo needs a slo in the scenario", path=scenario, key="slo")
    total, known = planned(resolved), dict[int, dict[str, float | None]]()
    with watched(out) as file, progress("simulating", quiet or no_progress) as tell:

        def on_progress(done: "list[Replication]", ended: int) -> None:
            message = f"replication {len(done) + 1}: {ended:,} requests"
            tell(message)
            if done and len(done) not in known:
                known[len(done)] = live(summarise(resolved, done))
            file.tell(len(done), total, live=known.get(len(done)), message=message)

        result = run_experiment(resolved, on_progress)
        tell("model error")
        result = bracketed(result)
        if out is not None:
            store.save(result, out)
            state: State = "interrupted" if result.summary["run"]["interrupted"] else "done"
            file.tell(result.summary["run"]["replications"], total, state=state)
    print(tables.render_run(result.summary, format_), end="")
    say_where(out, quiet)
    if result.summary["run"]["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    if result.summary["saturated"]:
        raise typer.Exit(INFEASIBLE)
    if assert_slo and not result.summary["slo"]["passed"]:
        raise typer.Exit(SLO_MISSED)


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
