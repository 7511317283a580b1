"""What each strategy may cost, under each price path."""

from typing import Any

import altair as alt

from capsim.charts.theme import colours, styled


def costs(document: dict[str, Any]) -> Any:
    """The chart of a document of ``capsim.contract``: from the 5th to the 95th percentile of present value, and the
    expected cost as a point."""
    paths = [path["name"] for path in document["paths"]]
    names = ["flexible", *document["offers"]]
    rows = [
        {"path": path["name"], **{key: row[key] for key in ("name", "expected_usd", "p5_usd", "p95_usd", "regret_usd")}}
        for path in document["paths"]
        for row in path["strategies"]
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", title=None, sort=names, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("path:N", sort=paths),
        color=alt.Color("path:N", scale=colours(paths), sort=paths),
        tooltip=[alt.Tooltip("name:N", title="strategy"), alt.Tooltip("path:N", title="prices"),
                 alt.Tooltip("expected_usd:Q", title="expected", format="$,.0f"),
                 alt.Tooltip("p5_usd:Q", title="p5", format="$,.0f"),
                 alt.Tooltip("p95_usd:Q", title="p95", format="$,.0f"),
                 alt.Tooltip("regret_usd:Q", title="expected regret", format="$,.0f")],
    )  # fmt: skip
    title = f"present value of {document['horizon_months']} months, USD"
    scale = alt.Scale(type="log", nice=False, padding=20)
    span = base.mark_rule(strokeWidth=3, opacity=0.6).encode(
        x=alt.X("p5_usd:Q", title=title, scale=scale, axis=alt.Axis(format="$~s")), x2="p95_usd:Q"
    )
    point = base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("expected_usd:Q", scale=scale))
    return styled(span + point, "Commit or stay flexible", height=90 + 22 * len(rows))
