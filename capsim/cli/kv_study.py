"""KV formats beside what was published of them, as text."""

import csv
import io
from typing import Any

FIGURES = {
    "capacity": "KV capacity", "throughput": "offline throughput", "burst": "throughput of a starved burst"
}  # fmt: skip


def render_study(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.validate.kv_study`` in one of the four formats; CSV has a row a ratio."""
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return _csv(document)
    loads = [[name, _load(load)] for name, load in document["loads"].items()]
    blocks = [
        [["Source", document["source"]], ["Fitted on", ", ".join(document["fitted"])]],
        _ratios(document, [row for row in document["rows"] if len(row["published"]) > 1]),
        [["Rates", "use", "published", "simulated"], *(_rate(row) for row in document["rows"] if row["bf16"] is None)],
        [["Assumed, as the source does not say", "requests at once"], *loads],
    ]
    return tables.document_text(blocks, [], format_)


def _ratios(document: dict[str, Any], rows: list[dict[str, Any]]) -> list[list[str]]:
    """Published above simulated, a pair of lines a figure."""
    found = [["Ratio to bf16", "use", "", *document["formats"]]]
    for row in rows:
        what = f"{row['model']}, {FIGURES.get(row['figure'], row['figure'])}"
        for name in ("published", "simulated"):
            found.append([what, row["use"], name, *(f"{ratio:.2f}" for ratio in row[name])])
            what = ""
    return found


def _rate(row: dict[str, Any]) -> list[str]:
    rates = [f"{row[name][0]:+.0%}" for name in ("published", "simulated")]
    return [f"{row['model']}, {row['figure']} tokens", row["use"], *rates]


def _load(load: dict[str, int]) -> str:
    count = f"{load['requests']:,} of" if load["requests"] > 1 else "as many as the batch,"
    return f"{count} {load['prompt']:,} tokens in and {load['output']:,} out"


def _csv(document: dict[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "figure", "use", "format", "published", "simulated"])
    for row in document["rows"]:
        formats = document["formats"] if len(row["published"]) > 1 else ["k8v4"]
        for name, published, simulated in zip(formats, row["published"], row["simulated"], strict=True):
            writer.writerow([row["model"], row["figure"], row["use"], name, f"{published:g}", f"{simulated:.4f}"])
    return out.getvalue()
