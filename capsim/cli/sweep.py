"""The verb ``sweep``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsim import units
from capsim.cli.options import INTERRUPTED, Format, NoProgress, OutputFormat, Quiet, progress

if TYPE_CHECKING:
    import pandas as pd

    from capsim.sweep.run import Progress

FAILED_POINTS = 5
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "sessions_passing": ("sessions per node", lambda v: f"{v:,.0f}"),
    "nodes_needed": ("nodes needed", lambda v: f"{v:,.0f}"),
    "binds": ("binds", str),
    "goodput": ("goodput", lambda v: f"{v:.1%}"),
    "ttft_s_p95": ("TTFT p95", units.seconds),
    "tpot_s_p95": ("TPOT p95", units.seconds),
    "output_tokens_per_s": ("output tokens/s", units.count),
    "kv_hit_rate": ("prefix hits", lambda v: f"{v:.1%}"),
    "monthly_usd": ("a month", units.usd),
    "usd_per_million_output_tokens": ("$/M output tokens", lambda v: f"${v:.3g}"),
}
"""What the table shows of a point: the column's head, and its values in words."""


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep YAML file.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where points are kept; default: the file's name.sweep, here.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: as many as there are cores.")] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="Run on the workers of a Dask cluster instead.")
    ] = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Run a grid or a list of scenarios; started again, it does only what is missing."""
    import sys

    from capsim.sweep import TABLE, load_sweep, read_points, run_sweep
    from capsim.sweep import cluster as cluster_at

    swept = load_sweep(file)
    place = out if out is not None else Path(f"{file.stem}.sweep")
    executor = None if cluster is None else cluster_at(cluster)
    with progress("sweeping", quiet or no_progress) as tell:
        try:
            frame = run_sweep(
                swept, place, executor, jobs, on_point=lambda at: tell(_how_far(at)),
                on_note=lambda note: print(note, file=sys.stderr),
            )  # fmt: skip
        except KeyboardInterrupt:
            print(_render(read_points(swept, place), swept.paths, format_), end="")
            print(f"interrupted: finished points are kept in {place}; start again for the rest", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    print(_render(frame, swept.paths, format_), end="")
    if not quiet:
        print(f"written to {place / TABLE}", file=sys.stderr)
    if (frame["status"] == "failed").any():
        raise typer.Exit(FAILED_POINTS)


def _how_far(at: "Progress") -> str:
    left = "" if at.left_s is None else f", about {units.seconds(at.left_s)} left"
    return f"{at.before + at.done:,} of {at.points:,} points, {at.failed:,} failed{left}"


def _render(frame: "pd.DataFrame", paths: list[str], format_: Format) -> str:
    import io

    from capsim.cli import tables

    if format_ == Format.json:
        return frame.to_json(orient="records", indent=2) + "\n"
    if format_ == Format.csv:
        text = io.StringIO()
        frame.to_csv(text, index=False)
        return text.getvalue()
    return tables.document_text([_rows(frame, paths)], _reasons(frame), format_)


def _rows(frame: "pd.DataFrame", paths: list[str]) -> list[list[str]]:
    """What varies, and the figures by which points are told apart; of a point without figures its status."""
    columns = {name: show for name, show in COLUMNS.items() if name in frame and frame[name].notna().any()}
    rows = [[*paths, *(label for label, _ in columns.values())]]
    for _, point in frame.iterrows():
        shown = [show(point[name]) if point[name] == point[name] else "" for name, (_, show) in columns.items()]
        if point["status"] != "done":
            shown = [point["status"]]
        rows.append([*(_swept(point[path]) for path in paths), *shown])
    return rows


def _swept(value: Any) -> str:
    """A swept value as it was written, nothing where the point leaves it as it is."""
    if value is None or value != value:
        return ""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _reasons(frame: "pd.DataFrame") -> list[str]:
    """Why points failed, each reason once."""
    counts = frame.loc[frame["status"] == "failed", "reason"].value_counts()
    return [f"{count} failed: {reason}" for reason, count in counts.items()]
