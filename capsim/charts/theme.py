"""How every chart looks: colours that colour-blind readers tell apart, quiet axes, quantities with their units."""

from typing import Any

import altair as alt

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F", "#B8A500")
"""Okabe and Ito's colours ("Color Universal Design", 2008), its yellow darkened and its black turned grey so that both
stand on a light and on a dark page."""
GOOD, BAD, NEUTRAL = PALETTE[2], PALETTE[5], PALETTE[6]
HEIGHT = 280


def styled(chart: Any, title: str, height: int | None = HEIGHT) -> Any:
    """The chart under a title, as wide as its page, without a frame, on whatever background it stands."""
    return _dressed(chart.properties(width="container", **({} if height is None else {"height": height})), title)


def side_by_side(charts: list[Any], title: str) -> Any:
    """Charts of widths of their own in a row, under one title."""
    return _dressed(alt.hconcat(*charts), title)


def _dressed(chart: Any, title: str) -> Any:
    return (
        chart.properties(title=alt.TitleParams(title, anchor="start", fontSize=14, offset=10), background="transparent")
        .configure_view(strokeWidth=0)
        .configure_axis(gridOpacity=0.35, domainOpacity=0.5, tickOpacity=0.5, labelFontSize=12, titleFontSize=12)
        .configure_legend(orient="bottom", title=None, labelFontSize=12)
        .configure_range(category=list(PALETTE))
    )


def colours(names: list[str]) -> Any:
    """A scale that gives each name the colour of its place in ``names``: the same on every chart of them."""
    return alt.Scale(domain=names, range=[PALETTE[index % len(PALETTE)] for index in range(len(names))])
