"""The verb ``plan``."""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from capsim.capacity.trials import OnTrial
    from capsim.experiment import Run
    from capsim.scenario import Resolved


LongestContext = Annotated[
    bool, typer.Option("--longest-context", help="Ask instead for the longest prompts that plan.users get served with.")
]
MaxMonthly = Annotated[
    float | None,
    typer.Option(metavar="USD", min=0, help="Ask instead for the lowest TPOT that plan.users get for so much a month."),
]


def plan(
    scenario: ScenarioFile,
    set_: Set = None,
    seed: Seed = None,
    replications: Replications = None,
    calibration: Calibration = None,
    longest_context: LongestContext = False,
    max_monthly_usd: MaxMonthly = None,
    out: Out = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Find the sessions a node carries inside the SLO, the nodes that takes, its cost, and what binds."""
    from capsim import store
    from capsim.cli.inverse_table import render_answer
    from capsim.cli.plan_table import render_plan
    from capsim.progress import live

    if longest_context and max_monthly_usd is not None:
        raise typer.BadParameter("ask for one of --longest-context and --max-monthly-usd")
    turned_around = longest_context or max_monthly_usd is not None
    if out is not None:
        store.check_target(out)
    resolved = resolved_of(scenario, set_, seed, replications, None, calibration)
    with watched(out) as file, progress("searching", quiet or no_progress) as tell:
        trials = count(1)

        def on_trial(number: int, point: "Run") -> None:
            tell(f"{number:,}: goodput {point.summary['goodput']:.1%}")
            file.tell(next(trials), None, live={"number": number, **live(point.summary)})

        if turned_around:
            document = _turned_around(resolved, max_monthly_usd, on_trial, out)
        else:
            document = _planned(resolved, on_trial, out)
        interrupted = document.get("interrupted", False)
        if out is not None:
            file.tell(next(trials) - 1, None, state="interrupted" if interrupted else "done")
    print((render_answer if turned_around else render_plan)(document, format_), end="")
    say_where(out, quiet)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _planned(resolved: "Resolved", on_trial: "OnTrial", out: Path | None) -> dict[str, Any]:
    from capsim import capacity, store

    document, at_limit = capacity.plan(resolved, on_trial)
    if out is not None:
        store.save_plan(document, at_limit, out)
    return document


def _turned_around(
    resolved: "Resolved", max_monthly_usd: float | None, on_trial: "OnTrial", out: Path | None
) -> dict[str, Any]:
    """The longest context, or the fastest answers for the money; an interrupt leaves nothing."""
    from capsim import capacity, store
    from capsim.experiment import Interrupted

    try:
        if max_monthly_usd is None:
            document, checked = capacity.longest_context(resolved, on_trial)
        else:
            document, checked = capacity.fastest_answers(resolved, max_monthly_usd, on_trial)
    except Interrupted as stopped:
        raise KeyboardInterrupt from stopped
    if out is not None:
        store.save(checked, out)
    return document
