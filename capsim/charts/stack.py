"""The waterfall of a stack: what a million tokens cost as levers are pulled, and the product of the single gains."""

from typing import Any

import altair as alt

from capsim.charts.theme import BAD, GOOD, NEUTRAL, PALETTE, styled


def waterfall(document: dict[str, Any]) -> Any:
    """The chart of a document of ``capsim.levers.stack``: a bar from the cost before each lever to that after it.

    The axis is logarithmic: bars of one length are gains of one factor. At the end stand all levers together, the
    product of their single gains, and what was claimed.
    """
    rows = _rows(document)
    usd = [end for row in rows for end in (row["from"], row["to"])]
    scale = alt.Scale(type="log", domain=[min(usd) / 1.6, max(usd) * 1.6], nice=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("step:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
        tooltip=[
            alt.Tooltip("step:N", title="step"), alt.Tooltip("to:Q", title="$/M tokens", format=".3g"),
            alt.Tooltip("gain:Q", title="gain over the baseline", format=".3g"),
            alt.Tooltip("sessions:N", title="sessions a node"), alt.Tooltip("binds:N", title="binds"),
        ],
    )  # fmt: skip
    kinds = alt.Scale(
        domain=["baseline", "cheaper", "dearer", "all together", "on paper"],
        range=[NEUTRAL, GOOD, BAD, PALETTE[0], PALETTE[3]],
    )
    title = "USD per million tokens, input and output"  # of each layer: one without would take it from all
    x = alt.X("from:Q", scale=scale, title=title, axis=alt.Axis(format="~g"))
    bars = base.mark_bar(height={"band": 0.7}).encode(
        x=x, x2="to:Q", color=alt.Color("kind:N", scale=kinds, legend=alt.Legend(columns=5))
    )
    ends = base.mark_tick(thickness=2, color=NEUTRAL).encode(x=alt.X("to:Q", scale=scale, title=title))
    labels = base.mark_text(align="left", dx=6, fontSize=12, color=NEUTRAL).encode(
        x=alt.X("right:Q", scale=scale, title=title), text="label:N"
    )
    return styled(bars + ends + labels, "What a million tokens cost as levers are pulled", height=34 * len(rows))


def _rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    base = document["base"]["usd_per_million_tokens"]
    rows = [_row("baseline", base / 1.0, base, "baseline", document["base"])]
    before = base
    for step in document["cumulative"]:
        after = step["usd_per_million_tokens"]
        kind = "cheaper" if after <= before else "dearer"
        rows.append(_row(f"+ {step['pulled'][-1]}", before, after, kind, step))
        before = after
    joint, product, claimed = document["joint"], document["product"], document["claimed_gain"]
    rows.append(_row("all together", base, joint["usd_per_million_tokens"], "all together", joint))
    rows.append(_row("product of single gains", base, base / product, "on paper", {"gain": product}))
    if claimed is not None:
        rows.append(_row("claimed", base, base / claimed, "on paper", {"gain": claimed}))
    return rows


def _row(title: str, before: float, after: float, kind: str, step: dict[str, Any]) -> dict[str, Any]:
    blocked = " (left off)" if title.startswith("+") and step["infeasible"] else ""
    sessions = f", {step['sessions'][0]:,} sessions a node" if "sessions" in step and not blocked else ""
    return {
        "step": title + blocked, "from": before, "to": after, "kind": kind, "right": max(before, after),
        "gain": step["gain"], "sessions": step["sessions"][0] if "sessions" in step else "",
        "binds": step.get("binds", ""), "label": f"${after:.3g} ({step['gain']:.3g}x{sessions})",
    }  # fmt: skip
