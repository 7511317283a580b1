"""The verbs ``compare`` and ``report``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsim import units
from capsim.cli.options import Format, NoProgress, OutputFormat, Quiet, progress
from capsim.glossary import LATENCIES, METRICS

if TYPE_CHECKING:
    from capsim.experiment import Replication
    from capsim.store import Saved

PLAIN = {"goodput": "Goodput", "requests_per_s": "requests/s", "output_tokens_per_s": "output tokens/s"}


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="BASE OTHER...", help="Run directories or scenario files.")],
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Set runs beside a first one: differences with paired intervals, costs, and only the settings that differ."""
    from capsim.cli import tables
    from capsim.compare import compare as compare_runs
    from capsim.errors import ScenarioError
    from capsim.json_text import to_json

    if len(runs) < 2:
        raise ScenarioError.one("needs two runs or more, the base first", path="compare")
    with progress("simulating", quiet or no_progress) as tell:
        base, *others = [_saved(path, tell) for path in runs]
    document = compare_runs(base, others)
    if format_ == Format.json:
        print(to_json(document), end="")
    elif format_ == Format.csv:
        print(tables.csv_text(document), end="")
    else:
        for other in document["others"]:
            blocks = comparison_blocks(document["base"], other)
            print(tables.document_text(blocks, comparison_notes(document["base"], other), format_), end="")


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as capsim run --out writes it.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; default: report.html in RUN.")] = None,
) -> None:
    """Write one HTML page of a run that opens offline: figures, charts, costs, and what they rest on."""
    from capsim.cli.tables import notes, run_blocks
    from capsim.report import page
    from capsim.store import load
    from capsim.whole_file import write_whole

    saved = load(run)
    place = out if out is not None else run / "report.html"
    write_whole(place, [page(saved, run_blocks(saved.summary), notes(saved.summary["warnings"]))])
    print(f"written to {place}", file=sys.stderr)


def _saved(path: Path, tell: Any) -> "Saved":
    """A run from its directory, or simulated now from a scenario file."""
    from capsim.experiment import run
    from capsim.model_error import bracketed
    from capsim.scenario import resolve
    from capsim.store import load, of_run

    if not path.is_file():
        return load(path)

    def told(done: "list[Replication]", ended: int) -> None:
        tell(f"{path.name}, replication {len(done) + 1}: {ended:,} requests")

    return of_run(bracketed(run(resolve(path), told)))


def comparison_blocks(base: dict[str, Any], other: dict[str, Any]) -> list[list[list[str]]]:
    """Tables of a run beside the base: which, figures, costs, settings that differ."""
    return [_head(base, other), _figures(other), _costs(other), _settings(other)]


def _head(base: dict[str, Any], other: dict[str, Any]) -> list[list[str]]:
    how = "the same random numbers in both" if other["paired"] else "random numbers of their own"
    return [
        ["Base", f"{base['name']} ({base['run']})"],
        ["Other", f"{other['name']} ({other['run']})"],
        ["Paired", how],
    ]


def _figures(other: dict[str, Any]) -> list[list[str]]:
    rows = [["", "base", "other", "difference", "", "95 % interval", "verdict"]]
    for figure in other["figures"]:
        show, gap = _shown(figure["metric"]), _gap_shown(figure["metric"])
        interval = figure["ci95"]
        change = "" if figure["ratio"] is None or figure["metric"] == "goodput" else f"{figure['ratio'] - 1:+.1%}"
        rows.append(
            [
                _label(figure["metric"]), show(figure["base"]), show(figure["other"]),
                _signed(figure["difference"], gap), change,
                "" if interval is None else " to ".join(_signed(end, gap) for end in interval),
                _verdict(figure),
            ]
        )  # fmt: skip
    return rows


def _verdict(figure: dict[str, Any]) -> str:
    if figure["significant"] is None:
        return "one replication: chance unknown"
    if not figure["significant"]:
        return "may be chance"
    return "differs" if figure["separable"] is not False else "differs; within model error"


def _label(metric: str) -> str:
    name, _, percentile = metric.rpartition("_")
    return f"{METRICS[name].label} {percentile}" if name in LATENCIES else PLAIN[metric]


def _shown(metric: str) -> Any:
    if metric.rpartition("_")[0] in LATENCIES:
        return units.seconds
    return (lambda share: f"{share:.2%}") if metric == "goodput" else units.count


def _gap_shown(metric: str) -> Any:
    """Of a share in percentage points, which a percentage of it could be taken for."""
    return (lambda share: f"{100 * share:.2f} pp") if metric == "goodput" else _shown(metric)


def _signed(value: float, show: Any) -> str:
    return f"{'-' if value < 0 else '+'}{show(abs(value))}"


def _costs(other: dict[str, Any]) -> list[list[str]]:
    rows = [["Monthly cost", "base", "other", "difference"]]
    for line in other["cost"]:
        ends = [line["base_usd"], line["other_usd"]]
        change = line["difference_usd"]
        shown = ["price unknown" if end is None else units.usd(end) for end in ends]
        rows.append([line["name"], *shown, "" if change is None else _signed(change, units.usd)])
    return rows


def _settings(other: dict[str, Any]) -> list[list[str]]:
    if not other["configuration"]:
        return [["Configuration", "the same"]]
    rows = [["What differs", "base", "other"]]
    for row in other["configuration"]:
        rows.append([row["key"], *("" if row[side] is None else str(row[side]) for side in ("base", "other"))])
    return rows


def comparison_notes(base: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What a reader of the comparison should know."""
    adrift = [which["name"] for which in (base, other) if which["saturated"]]
    return [f"{name} has no steady state: latencies are withheld" for name in adrift]
