"""Whole nodes for a load that follows the hours, with spares, and what of it is served while some nodes are down."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binom

from capsim import cost
from capsim.prices import Price

MOST_NODES = 4096
NODE_AVAILABILITY = 6335 / (6335 + 24)
"""Of a node of 8 devices: 6,335 h between unexpected interruptions (16,384 H100 in 54 days, "The Llama 3 Herd of
Models", 2024, section 3.3.4), and 24 h of repair, assumed."""


@dataclass(frozen=True)
class Fleet:
    """Nodes under one price: ``hours`` are the weights of those for which they are taken.

    A fleet that stands all the time is taken for its busiest hour; one that is rented by the hour, for each of them. In
    each it has the whole nodes that carry the load, and ``spare_nodes``.
    """

    price: Price
    hours: tuple[float, ...]
    node_per_s: float
    spare_nodes: int

    @property
    def by_the_hour(self) -> bool:
        return len(self.hours) > 1

    def nodes(self, requests_per_s: float) -> np.ndarray:
        """Nodes in each hour, shape (hours,)."""
        return np.ceil(requests_per_s * np.array(self.hours) / self.node_per_s * (1 - 1e-9)) + self.spare_nodes

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Loads (requests a second, from 0 on) from which more nodes are needed, and the monthly cost of the whole load
        there: that of the nodes, over the share that they serve."""
        weights = np.array([weight for weight in self.hours if weight > 0])
        most = MOST_NODES * self.node_per_s / weights.max()
        starts = np.concatenate([np.arange(0, most * w / self.node_per_s) * self.node_per_s / w for w in weights])
        starts, counts = np.unique(starts, return_counts=True)
        return starts, self.usd_for_all(np.cumsum(counts) / len(self.hours) + self.spare_nodes)

    def usd_for_all(self, nodes: np.ndarray) -> np.ndarray:
        """Monthly cost of so many mean nodes over the share of the load that they serve, shape as ``nodes``."""
        return self.monthly_usd(nodes) / self.served_share(nodes)

    def monthly_usd(self, nodes: np.ndarray) -> np.ndarray:
        """Of so many mean nodes, shape as ``nodes``."""
        least = self.price.quote.minimum_nodes if self.price.quote else 0
        some = max(1, least)
        monthly_usd: float = cost.monthly_cost(self.price, some)["monthly_usd"]
        return np.maximum(nodes, least) * (monthly_usd / some)

    def served_share(self, nodes: np.ndarray) -> np.ndarray:
        """Of the load, what is served as nodes fail independently: all but E[(down - spare)+] / needed.

        Mean nodes are rounded up.
        """
        whole = np.ceil(nodes)
        needed = np.maximum(whole - self.spare_nodes, 1)
        down = 1 - NODE_AVAILABILITY
        beyond = whole * down - sum(binom.sf(k, whole, down) for k in range(self.spare_nodes))
        return 1 - np.maximum(beyond, 0) / needed


def cheaper_from(fleet: Fleet, usd_per_request: float) -> tuple[float | None, float | None]:
    """Loads (requests a second) from which the fleet is first, and from which it is always, cheaper than a tier.

    Judged by the cost of a request that is served. Between the two, each node added makes the tier cheaper for a while.
    None where that is not within ``MOST_NODES``.
    """
    starts, monthly_usd = fleet.steps
    ends = np.append(starts[1:], np.inf)
    with np.errstate(divide="ignore"):
        even = monthly_usd / (usd_per_request * cost.SECONDS_PER_MONTH)
    reached = np.flatnonzero(even[:-1] < ends[:-1])
    dearer = np.flatnonzero(even > starts)
    first = float(max(starts[reached[0]], even[reached[0]])) if len(reached) else None
    if not len(dearer):
        return first, 0.0
    last = dearer[-1]
    always = None if last == len(starts) - 1 else float(min(even[last], ends[last]))
    return first, always
