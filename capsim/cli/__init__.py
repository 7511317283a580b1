"""The command line: thin verbs over the Python API. Heavy imports stay inside the verbs, so that --help is quick."""

import signal
import sys
from typing import Any

import typer

from capsim.cli import app as web
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
app.command("run", short_help="Simulate one scenario.")(verbs.run)
app.command("plan", short_help="Sessions a node carries, nodes, cost, and what binds.")(plan.plan)
app.command("sweep", short_help="Run many scenarios of one; resumable.")(sweep.sweep)
app.command("compare", short_help="Runs beside each other, with paired intervals.")(compare.compare)
app.command("report", short_help="One HTML page of a run that opens offline.")(compare.report)
app.command("stack", short_help="One lever at a time against all together.")(stack.stack)
app.command("claims", short_help="An article's claims, each with its verdict.")(claims.claims)
app.command("tiers", short_help="Classes of requests over an API, nodes and the edge.")(tiers.tiers)
app.command("breakeven", short_help="Nodes of one's own against hosted models.")(breakeven.breakeven)
app.command("contract", short_help="Sign for a term, or stay flexible.")(contract.contract)
app.command("tiers", short_help="One workload over APIs, own nodes and the edge.")(tiers.tiers)
app.command("app", short_help="Open the web app.")(web.app)
app.command("check", short_help="Check scenario files without simulating.")(verbs.check)
app.add_typer(trace.trace, name="trace", short_help="Describe a trace, or fit a preset to it.")
app.add_typer(verbs.catalog, name="catalog", short_help="What is known, and on what basis.")
app.command("calibrate", short_help="Fit measurements of kernels and engines.")(calibrate.calibrate)
app.add_typer(importing, name="import", short_help="Other people's measurements as files to calibrate.")
app.command("refit", short_help="Fit the shipped calibrations anew.")(refit.refit)
app.command("residuals", short_help="How far kernel tables are off.")(calibrate.residuals)
app.command("validate", short_help="Predicted against measured.")(validation.validate)
app.command("schema", short_help="JSON Schema of scenario files, for editors.")(doctor.schema)
app.command("doctor", short_help="What this installation rests on.")(doctor.doctor)


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
