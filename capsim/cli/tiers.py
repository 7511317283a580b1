"""The verb ``tiers``, and its document as text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from capsim.cli.options import Format, OutputFormat

TiersFile = Annotated[Path, typer.Argument(metavar="TIERS", help="Tiers YAML file: classes of requests, and tiers.")]
Quality = Annotated[float, typer.Option(min=0, help="The slider: the least mean score over all requests.")]


def tiers(file: TiersFile, quality: Quality = 0.0, format_: OutputFormat = Format.table) -> None:
    """Stage a workload over an API, nodes of one's own and the edge: the cheapest way above every quality floor."""
    from capsim.tiers import load_tiers
    from capsim.tiers import tiers as stage

    print(render(stage(*load_tiers(file), quality=quality), format_), end="")


def render(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.tiers`` in one of the four formats."""
    from capsim import units
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return tables.csv_text(document)
    rows = [["Class", "requests/s", "floor", "tier", "quality", "nodes", "a month, alone", ""]]
    for kind in document["classes"]:
        head = [kind["name"], f"{kind['requests_per_s']:g}", f"{kind['quality_floor']:g}"]
        for name, option in kind["options"].items():
            alone = option["monthly_usd_alone"]
            rows.append([
                *head, name, "" if option["quality"] is None else f"{option['quality']:.3g}",
                "" if option["nodes"] is None else f"{option['nodes']:.3g}", "" if alone is None else units.usd(alone),
                option["why_not"] or ("staged here" if document["staged"]["tiers"][kind["name"]] == name else ""),
            ])  # fmt: skip
            head = ["", "", ""]
    slider = [["Slider: mean quality", "a month", *(kind["name"] for kind in document["classes"])]]
    slider += [
        [f"{way['quality']:.3g}", units.usd(way["monthly_usd"]), *way["tiers"].values()] for way in document["slider"]
    ]
    return tables.document_text([rows, slider], [*_sources(document), *_quotable(document)], format_)


def _sources(document: dict[str, Any]) -> list[str]:
    options = document["classes"][0]["options"]
    told = [f"{name}: {option['quality_source']}" for name, option in options.items() if option["quality_source"]]
    return [f"note: {document['benchmark']} of {line}" for line in told]


def _quotable(document: dict[str, Any]) -> list[str]:
    from capsim import units

    staged = document["staged"]
    lines = [
        f"all on {name}: "
        + ("cannot be" if way is None else f"{units.usd(way['monthly_usd'])} a month, mean {way['quality']:.3g}")
        for name, way in document["all_on_one"].items()
    ]
    where = ", ".join(f"{kind} on {tier}" for kind, tier in staged["tiers"].items())
    return [*lines, f"staged: {units.usd(staged['monthly_usd'])} a month, mean {staged['quality']:.3g}: {where}"]
