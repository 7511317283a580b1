"""Charts inside one HTML page that needs no network: the drawing code stands in it once."""

import json
from typing import Any

import altair as alt
import vl_convert


def script() -> str:
    """JavaScript that draws: Vega, Vega-Lite and vega-embed in one, about 0.9 MB."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)


def drawn(charts: dict[str, Any]) -> str:
    """JavaScript that draws each chart into the element of that id."""
    specs = {place: chart.to_dict() for place, chart in charts.items()}
    data = json.dumps(specs).replace("</", "<\\/")
    options = json.dumps({"actions": {"export": True, "source": False, "compiled": False, "editor": False}})
    return f"for (const [id, spec] of Object.entries({data})) vegaEmbed('#' + id, spec, {options});"
