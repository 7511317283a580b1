"""The verb ``plan``."""

from itertools import count
from typing import TYPE_CHECKING

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
    watched,
)

if TYPE_CHECKING:
    from capsim.experiment import Run


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
    from capsim.progress import live

    if out is not None:
        store.check_target(out)
    resolved = resolved_of(scenario, set_, seed, replications, None, calibration)
    with watched(out) as file, progress("searching", quiet or no_progress) as tell:
        trials = count(1)

        def on_trial(number: int, point: "Run") -> None:
            tell(f"{number:,}: goodput {point.summary['goodput']:.1%}")
            file.tell(next(trials), None, live={"number": number, **live(point.summary)})

        document, at_limit = plan_capacity(resolved, on_trial)
        if out is not None:
            store.save_plan(document, at_limit, out)
            file.tell(next(trials) - 1, None, state="interrupted" if document["interrupted"] else "done")
    print(render_plan(document, format_), end="")
    say_where(out, quiet)
    if document["interrupted"]:
        raise typer.Exit(INTERRUPTED)
