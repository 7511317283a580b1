"""Verbs on traces: describe one, fit a preset to one, and show how the catalog's presets stand."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsim.cli.options import Format, OutputFormat

if TYPE_CHECKING:
    from capsim.cli.tables import Rows
    from capsim.workload.figures import Figures

trace = typer.Typer(
    help="Describe traces, and fit workload presets to them.", no_args_is_help=True, rich_markup_mode=None
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="Trace: CSV, JSON lines, or a vLLM benchmark result.")]
Columns = Annotated[
    str | None,
    typer.Option(metavar="ROLE=NAME,...", help="Columns of an unknown schema: arrival=when,prompt_tokens=in,..."),
]
SESSION_FIGURES: dict[str, Callable[["Figures"], float | None]] = {
    "turns mean": lambda of: of.turns.mean, "turns p95": lambda of: of.turns.p95,
    "gap s mean": lambda of: of.gap_s.mean, "gap s p50": lambda of: of.gap_s.p50, "gap s p95": lambda of: of.gap_s.p95,
    "reuse": lambda of: of.reuse,
}  # fmt: skip


@trace.command("describe")
def describe_trace(file: File, columns: Columns = None, format_: OutputFormat = Format.table) -> None:
    """Show a trace's rate, dispersion and lengths, and its nearest preset.

    Of sessions and shared prefixes as well, where it tells of them."""
    from dataclasses import asdict

    from capsim.catalog import load_catalog
    from capsim.cli import tables
    from capsim.json_text import to_json
    from capsim.workload.describe import describe
    from capsim.workload.traces import read_trace

    read = read_trace(file, _columns(columns))
    found = describe(read, load_catalog().workloads)
    document = {**asdict(found), "figures": found.figures.model_dump(), "warnings": list(read.warnings)}
    if format_ is Format.json:
        print(to_json(document), end="")
    elif format_ is Format.csv:
        print(tables.csv_text(document), end="")
    else:
        blocks = [_head(document), _figures({"the trace": found.figures}), _nearest(found.distances)]
        told = found.sessions is not None and found.sessions.inferred
        notes = [*read.warnings, *["sessions are told by prompts that begin with a whole earlier one"][:told]]
        print(tables.document_text(blocks, [f"note: {note}" for note in notes], format_), end="")


@trace.command("fit")
def fit_preset(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Trace, inference-perf profile, or folder of ServeGen chunk files.")
    ],
    columns: Columns = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the preset here; else it is printed.")] = None,
) -> None:
    """Fit a workload preset to a trace, beside what it generates."""
    from datetime import date

    import yaml

    from capsim.cli import tables
    from capsim.errors import ScenarioError
    from capsim.workload.generated import generated, telling_span_s
    from capsim.workload.preset import preset_of

    preset = preset_of(file, _columns(columns), date.today())
    text = yaml.safe_dump({preset.name: preset.entry}, sort_keys=False, default_flow_style=None, width=118)
    if out is not None:
        try:
            out.write_text(text)
        except OSError as error:
            raise ScenarioError.one(f"cannot be written: {error.strerror}", path=f"--out {out}") from error
    if preset.fit is None:
        blocks = [_figures({"generated": generated(preset.workload, telling_span_s(preset.workload))})]
    else:
        blocks = [
            _figures({"the trace": preset.fit.trace, "generated": preset.fit.generated}),
            _tried(preset.fit.arrivals, preset.fit.begins), _distances(preset.fit),
        ]  # fmt: skip
    notes = [f"note: {note}" for note in preset.notes]
    print(tables.document_text(blocks, notes, "table"), end="")
    print(f"\n{text}" if out is None else f"\nworkload: {{preset: {out}}}\n", end="")


@trace.command("presets")
def show_presets(format_: OutputFormat = Format.table) -> None:
    """Show what each preset generates, beside its source."""
    from capsim.catalog import load_catalog
    from capsim.cli import tables
    from capsim.json_text import to_json
    from capsim.workload.generated import generated_beside

    catalog = load_catalog()
    found, arrivals = {}, {}
    for name, preset in catalog.workloads.items():
        source = catalog.traffic.get(name)
        if source is not None:
            found[f"{name}: source"] = source
        found[f"{name}: generated"] = generated_beside(preset, source)
        arrivals[f"{name}: generated"] = catalog.provenance["workloads", name].of("arrival").basis
    document = {name: {"arrivals": arrivals.get(name), **one.model_dump()} for name, one in found.items()}
    if format_ is Format.json:
        print(to_json(document), end="")
    elif format_ is Format.csv:
        print(tables.csv_text(document), end="")
    else:
        notes = [f"note: {name}: {one.note}" for name, one in catalog.traffic.items() if one.note]
        print(tables.document_text(_side_by_side(found, arrivals), notes, format_), end="")


def _columns(text: str | None) -> dict[str, str] | None:
    """``arrival=when,prompt_tokens=in`` as a dict."""
    from capsim.errors import ScenarioError, did_you_mean
    from capsim.workload.spec import TraceColumns

    if text is None:
        return None
    named = {}
    for part in text.split(","):
        role, equals, name = part.partition("=")
        if not equals or role not in TraceColumns.model_fields:
            hint = did_you_mean(role, list(TraceColumns.model_fields))
            raise ScenarioError.one(f"expected role=column, got '{part}'", path="--columns", hint=hint)
        named[role] = name
    return named


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _head(document: dict[str, Any]) -> "Rows":
    from capsim import units

    rows = [
        ["Requests", f"{document['requests']:,}, and {document['failed']:,} that failed"],
        ["Span", units.seconds(document["span_s"])],
        ["Prompt and output", f"rank correlation {_number(document['correlation'])}"],
    ]
    if document["reuse"] is not None:
        rows.append(["Prefix reuse", f"{document['reuse']:.1%} of prompt tokens, by an infinite cache"])
    sessions = document["sessions"]
    if sessions is not None:
        turns = ", ".join(f"{name} {_number(sessions[f'turns_{name}'])}" for name in ("mean", "p50", "p95"))
        gaps = ", ".join(f"{name} {_number(sessions[f'gap_s_{name}'])}" for name in ("p5", "p50", "p95"))
        share = f"{sessions['multi_turn_share']:.1%} of several turns"
        rows.append(["Sessions", f"{sessions['sessions']:,}, {share}; turns {turns}"])
        rows.append(["Gaps in sessions", f"{gaps} s"])
    return rows


def _figures(streams: dict[str, "Figures"]) -> "Rows":
    """Figures of one or more streams, a column each."""
    rows = [["", *streams, *[""] * (2 - len(streams))]]
    for label, name in (
        ("requests/s", "rate_per_s"), ("CV of gaps", "cv"), ("CV inside a minute", "cv_in_minute"),
        ("IDC at 1 s", "idc_1s"), ("IDC at 10 s", "idc_10s"), ("IDC at 60 s", "idc_60s"),
        ("peak/mean minute", "peak_to_mean_minute"),
    ):  # fmt: skip
        rows.append([label, *(_number(getattr(one, name)) for one in streams.values())])
    for label, name in (("prompt tokens", "prompt_tokens"), ("output tokens", "output_tokens")):
        for quantity in ("mean", "p50", "p95", "p99"):
            values = (_number(getattr(getattr(one, name), quantity)) for one in streams.values())
            rows.append([f"{label} {quantity}", *values])
    if any(one.turns.mean for one in streams.values()):
        for label, value in SESSION_FIGURES.items():
            rows.append([label, *(_number(value(one)) for one in streams.values())])
    return rows


def _tried(arrivals: dict[str, tuple[tuple[float | None, ...], float]], seen: "Figures") -> "Rows":
    rows = [["Arrivals tried", "IDC at 1 s", "10 s", "60 s", "mean |ln ratio|"]]
    rows += [[kind, *map(_number, idc), _number(apart)] for kind, (idc, apart) in arrivals.items()]
    return [*rows, ["the trace, of what begins", *map(_number, seen.idc), ""]]


def _distances(fit: Any) -> "Rows":
    rows = [["Lengths", "written as", "KS distance"]]
    for role, apart in (("prompt_tokens", fit.prompt_distance), ("output_tokens", fit.output_distance)):
        rows.append([role, fit.values[role]["kind"], _number(apart)])
    return rows


def _nearest(distances: dict[str, float]) -> "Rows":
    rows = [["Nearest presets", "KS prompts + KS outputs + |ln CV ratio|", ""]]
    return [*rows, *([name, _number(apart), ""] for name, apart in list(distances.items())[:3])]


def _side_by_side(found: dict[str, "Figures"], arrivals: Mapping[str, str]) -> list["Rows"]:
    """Tables of arrivals, lengths and sessions; ``arrivals`` says how far to trust those of a preset."""
    of_arrivals, of_lengths, of_sessions = {}, {}, {}
    for name, one in found.items():
        of_arrivals[name] = [arrivals.get(name, ""), *map(_number, [one.rate_per_s, one.cv, *one.idc])]
        tokens = [(of.mean, of.p50, of.p95) for of in (one.prompt_tokens, one.output_tokens)]
        of_lengths[name] = [_number(value) for three in tokens for value in three]
        of_sessions[name] = [_number(value(one)) for value in SESSION_FIGURES.values()]
    return [
        _streams(["arrivals", "req/s", "CV", "IDC 1 s", "10 s", "60 s"], of_arrivals),
        _streams(["prompt mean", "p50", "p95", "output mean", "p50", "p95"], of_lengths),
        _streams(["turns mean", "p95", "gap mean s", "p50", "p95", "reuse"], of_sessions),
    ]


def _streams(heads: list[str], told: dict[str, list[str]]) -> "Rows":
    """A row for each stream of which something is known, the preset named once."""
    rows = [["Preset", "", *heads]]
    last = ""
    for name, cells in told.items():
        if set(cells) <= {"", "-"}:
            continue
        preset, which = name.split(": ")
        rows.append(["" if preset == last else preset, which, *cells])
        last = preset
    return rows
