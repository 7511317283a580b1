"""The verb ``plan``."""

from itertools import count
from typing import TYPE_CHECKING, Annotated

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
    from capsim.capacity import fastest_answers
    from capsim.capacity import longest_context as longest
    from capsim.capacity import plan as plan_capacity
    from capsim.cli.inverse_table import render_answer
    from capsim.cli.plan_table import render_plan
    from capsim.progress import live

    if longest_context and max_monthly_usd is not None:
        raise typer.BadParameter("ask for one of --longest-context and --max-monthly-usd")
    if out is not None:
        store.check_target(out)
    resolved = resolved_of(scenario, set_, seed, replications, None, calibration)
    with watched(out) as file, progress("searching", quiet or no_progress) as tell:
        trials = count(1)

        def on_trial(number: int, point: "Run") -> None:
            tell(f"{number:,}: goodput {point.summary['goodput']:.1%}")
            file.tell(next(trials), None, live={"number": number, **live(point.summary)})

        at_limit: Run | None
        if longest_context:
            document, at_limit = longest(resolved, on_trial)
        elif max_monthly_usd is not None:
            document, at_limit = fastest_answers(resolved, max_monthly_usd, on_trial)
        else:
            document, at_limit = plan_capacity(resolved, on_trial)
        if out is not None:
            store.save_plan(document, at_limit, out)
            file.tell(next(trials) - 1, None, state="interrupted" if document.get("interrupted") else "done")
    print((render_answer if "question" in document else render_plan)(document, format_), end="")
    say_where(out, quiet)
    if document.get("interrupted"):
        raise typer.Exit(INTERRUPTED)
