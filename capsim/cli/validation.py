"""The verb ``validate``, and its two results as text: beside a real engine, and beside published points."""

from pathlib import Path
from typing import Annotated, Any

import typer

from capsim.cli.options import Format, NoProgress, OutputFormat, progress
from capsim.cli.published import render_points

MeasuredFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Runs of python -m kernels_bench engine, published points (.csv), or a study of KV formats (.yaml).",
    ),
]


Chart = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw published points beside the simulated (.svg, .png).")
]


def validate(
    file: MeasuredFile, chart: Chart = None, format_: OutputFormat = Format.table, no_progress: NoProgress = False
) -> None:
    """Set the simulation beside a real engine's runs, or beside what others published (.csv, .yaml).

    Runs: step times are fitted on the steps that were measured between them. Errors are means over the runs at most
    80 % loaded and the bursts, beside what the engine differs from itself when the same load is repeated.

    Points: each is simulated as it was run. Errors are medians by source, device, engine and metric; points that
    constants may be fitted on stand apart from those that only judge.

    A study of KV formats: ratios to bf16 of capacity, latency and throughput.
    """
    if file.suffix == ".csv":
        from capsim.validate.errors import validate_points

        with progress("simulating", no_progress) as tell:
            document = validate_points(file, lambda done, points: tell(f"{done:,} of {points:,} points"))
        if chart:
            _draw(document, chart)
        print(render_points(document, format_), end="")
        return
    if chart:
        raise typer.BadParameter("only published points (.csv) are drawn", param_hint="--chart")
    if file.suffix == ".yaml":
        from capsim.cli.kv_study import render_study
        from capsim.validate.kv_study import compare

        print(render_study(compare(file), format_), end="")
        return
    from capsim.measurements import read_measurements
    from capsim.validate import validate as set_beside

    print(render(set_beside(read_measurements(file)), format_), end="")


def _draw(document: dict[str, Any], path: Path) -> None:
    from capsim.charts.validation import predicted_against_measured
    from capsim.errors import ScenarioError

    try:
        predicted_against_measured(document["figures"]).properties(background="white").save(path)
    except (OSError, ValueError) as error:
        raise ScenarioError.one(f"cannot be drawn: {error}", path=path, hint="name it .svg or .png") from error


def render(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.validate`` in one of the four formats."""
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return tables.csv_text(document)
    blocks = [
        rows for engine in document["engines"] for rows in (_head(document, engine), _runs(engine), _errors(engine))
    ]
    return tables.document_text(blocks, [], format_)


def _head(document: dict[str, Any], engine: dict[str, Any]) -> list[list[str]]:
    steps = engine["steps"]
    fit = f"{steps['measured']:,} measured; held out, the fit errs by {steps['mape']:.1%}, bias {steps['bias']:+.1%}"
    return [["Engine", f"{engine['engine']} with {engine['model']} on {document['device']}"], ["Steps", fit]]


def _runs(engine: dict[str, Any]) -> list[list[str]]:
    """Measured figures of each run, and by how much the simulated ones differ."""
    from capsim import units

    rows = [["Load", "rate", "repeat", "TTFT", "", "TPOT", "", "E2E p50", "", "requests/s", "", "steps", "preemptions"]]
    for run in engine["runs"]:
        measured, error = run["measured"], run["error"]
        cells = [run["load"], f"{run['rate_per_s']:.2f}/s" if run["rate_per_s"] else "at once", str(run["repeat"] + 1)]
        for key in ("ttft_mean_s", "tpot_mean_s", "e2e_p50_s"):
            cells += [units.seconds(measured[key]), f"{error[key]:+.1%}"]
        cells += [f"{measured['requests_per_s']:.3g}", f"{error['requests_per_s']:+.1%}"]
        cells += [_counts(run, "steps"), _counts(run, "preemptions")]
        rows.append(cells)
    return rows


def _counts(run: dict[str, Any], key: str) -> str:
    measured, simulated = run["measured"][key], run["simulated"][key]
    return f"{measured:,}" if measured == simulated else f"{measured:,} / {simulated:,}"


def _errors(engine: dict[str, Any]) -> list[list[str]]:
    from capsim.validate.engine import ENOUGH_RUNS, MOST_REPEAT

    errors = engine["errors"]
    rows = [[f"Mean error of {errors['runs']} runs", "", "bias", "the engine's own", "at most", ""]]
    labels = {"ttft_mean_s": "TTFT", "tpot_mean_s": "TPOT", "e2e_p50_s": "E2E p50", "requests_per_s": "Throughput"}
    verdicts = {True: "within", False: "OUTSIDE", None: f"judged from {ENOUGH_RUNS} runs on"}
    for key, label in labels.items():
        found = errors["figures"][key]
        bias = "" if found["bias"] is None else f"{found['bias']:+.1%}"
        error, own, limit = (
            "" if found[name] is None else f"{found[name]:.1%}" for name in ("error", "repeat_error", "limit")
        )
        differs = found["passed"] is None and (found["repeat_error"] or 0.0) > MOST_REPEAT
        verdict = "the engine differs too much from itself" if differs else verdicts[found["passed"]]
        rows.append([label, error, bias, own, limit, verdict])
    return rows
