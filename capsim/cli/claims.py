"""The verb ``claims``, and its document as text."""

from typing import Annotated, Any

import typer

from capsim.cli.options import Format, NoProgress, OutputFormat, Quiet, progress

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME...]", help="Claims by name, or files of your own; default: all.")
]


def claims(
    names: Names = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Set numeric claims beside what is computed, bear and bull cases too; each verdict follows from the numbers."""
    from capsim.claims import claims as judge
    from capsim.claims import find_files

    with progress("judging", quiet or no_progress) as tell:
        document = judge(find_files(names or []), tell)
    print(render(document, format_), end="")


def render(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.claims`` in one of the four formats."""
    from capsim.claims.document import counted
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return _csv(document["claims"])
    rows = [["Claim", "what is claimed", "claimed", "value", "bear to bull", "unit", "verdict"]]
    for row in document["claims"]:
        numbers = [_claimed(row["claimed"]), _number(row["value"]), _span(row)]
        rows.append([row["name"], row["claim"], *numbers, row["unit"], row["verdict"]])
    blocks = [rows, *([_inputs(document["claims"][0])] if len(document["claims"]) == 1 else [])]
    counts = ", ".join(f"{count} {name}" for name, count in counted(document).items() if count)
    return tables.document_text(blocks, [*_reasons(document["claims"]), f"rule: {document['rule']}", counts], format_)


def _claimed(claimed: list[float] | None) -> str:
    if claimed is None:
        return ""
    low, high = claimed
    return _number(low) if low == high else f"{_number(low)} to {_number(high)}"


def _span(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return ""
    return " to ".join("no bound" if row[case] is None else _number(row[case]) for case in ("bear", "bull"))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _inputs(row: dict[str, Any]) -> list[list[str]]:
    """The numbers behind a single claim."""
    if row["formula"] is None:
        return []
    rows = [["Formula", row["formula"]], ["Holds within", f"{row['holds_within']:.1%}"], ["Source", row["source"]]]
    for name, value in row["inputs"].items():
        moved = (
            f"{case} {row[f'{case}_inputs'][name]:,.6g}" for case in ("bear", "bull") if name in row[f"{case}_inputs"]
        )
        rows.append([name, ", ".join((f"{value:,.6g}", *moved))])
    return rows


def _reasons(claims: list[dict[str, Any]]) -> list[str]:
    return [f"{row['name']}: {row['why']}" for row in claims if row["why"]]


def _csv(claims: list[dict[str, Any]]) -> str:
    """A line a claim."""
    import csv
    import io

    text = io.StringIO()
    keys = ("name", "claim", "source", "unit", "formula", "value", "bear", "bull", "holds_within", "verdict", "why")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["claimed_low", "claimed_high", *keys])
    for row in claims:
        writer.writerow([*(row["claimed"] or ("", "")), *("" if row[key] is None else row[key] for key in keys)])
    return text.getvalue()
