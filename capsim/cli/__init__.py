"""The command line: thin verbs over the Python API. Heavy imports stay inside the verbs, so that --help is quick."""

import signal
import sys
from typing import Any

import typer

from capsim.cli import (
    breakeven,
    calibrate,
    claims,
    compare,
    contract,
    doctor,
    plan,
    refit,
    stack,
    sweep,
    tiers,
    trace,
    validation,
    verbs,
)
from capsim.cli.importing import importing
from capsim.cli.options import INFEASIBLE, INTERRUPTED
from capsim.errors import Infeasible, ScenarioError

BAD_INPUT = 2

app = typer.Typer(
    help="Capacity planning for LLM inference: sessions per node, nodes, latency, cost, and what binds.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(verbs.run)
app.command("plan")(plan.plan)
app.command("breakeven")(breakeven.breakeven)
app.command("sweep")(sweep.sweep)
app.command("stack")(stack.stack)
app.command("tiers")(tiers.tiers)
app.command("claims")(claims.claims)
app.command("compare")(compare.compare)
app.command("report")(compare.report)
app.command("contract")(contract.contract)
app.command("check")(verbs.check)
app.command("calibrate")(calibrate.calibrate)
app.command("refit")(refit.refit)
app.command("residuals")(calibrate.residuals)
app.command("validate")(validation.validate)
app.command("schema")(doctor.schema)
app.command("doctor")(doctor.doctor)
app.add_typer(importing, name="import")
app.add_typer(verbs.catalog, name="catalog")
app.add_typer(trace.trace, name="trace")


def _terminate(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every way to end has its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(arguments)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    except Infeasible as error:
        print(f"infeasible: {error}", file=sys.stderr)
        sys.exit(INFEASIBLE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
