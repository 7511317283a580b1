"""The verb ``plan``."""

import typer

from capsim.cli.options import (
    INTERRUPTED,
    Calibration,
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
)


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
    from capsim.cli.plan_table import render_plan

    if out is not None:
        store.check_target(out)
    resolved = resolved_of(scenario, set_, seed, replications, None, calibration)
    with progress("searching", quiet or no_progress) as tell:
        document, at_limit = plan_capacity(
            resolved,
            lambda sessions, point: tell(f"{sessions:,} sessions: goodput {point.summary['goodput']:.1%}"),
        )
    if out is not None:
        store.save_plan(document, at_limit, out)
    print(render_plan(document, format_), end="")
    say_where(out, quiet)
    if document["interrupted"]:
        raise typer.Exit(INTERRUPTED)
