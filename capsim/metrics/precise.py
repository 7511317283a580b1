"""Whether replications tell enough: latencies known to a share of themselves."""

import numpy as np

from capsim.stats import t_interval

NAMES = ("ttft_s", "tpot_s", "e2e_s")
LOOSER = {"mean": 1, "p95": 2}
"""How much wider than asked for the interval of each figure may be: a tail is learnt more slowly than a mean."""
PATIENCE = 10
Latencies = list[dict[str, dict[str, float]]]
"""Figures by latency, of each replication."""


def most(replications: int, precision: float | None) -> int:
    """Replications after which to stop, however vague the figures are."""
    return replications if precision is None else PATIENCE * replications


def vague(latencies: Latencies, precision: float | None) -> list[str]:
    """What is not known to ``precision``: the half width of its 95 % interval over its mean is larger."""
    if precision is None:
        return []
    found = []
    for name in NAMES:
        for figure, looser in LOOSER.items():
            mean, half_width = t_interval([row[name][figure] for row in latencies])
            if mean > 0 and not half_width <= looser * precision * mean and np.isfinite(mean):
                found.append(f"{name} {figure} (± {half_width / mean:.1%})")
    return found


def notes(latencies: Latencies, precision: float | None) -> list[str]:
    """What a reader should know of a run that stopped before it was precise."""
    left = ", ".join(vague(latencies, precision))
    return [f"not known to precision {precision:g} after {len(latencies)} replications: {left}"] if left else []
