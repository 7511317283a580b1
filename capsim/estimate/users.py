"""How many users are served inside an SLO, by a birth-death chain: they think, come into the replicas, and go."""

from dataclasses import dataclass

import numpy as np

from capsim.estimate.replica import Replica, Seen, seen
from capsim.queueing import birth_death
from capsim.slo import SLO
from capsim.stats import weighted_quantiles

MOST_USERS = 1 << 22
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Fleet:
    """Replicas that share their requests evenly: pooled, as they come (``balanced``), or each for itself.

    ``found`` is the chance that a session comes back to the replica that holds its context.
    """

    replica: Replica
    slo: SLO
    replicas: int
    balanced: bool
    found: float

    def goodput(self, users: int) -> float:
        """Share of requests inside the SLO; falls with users."""
        shares, in_replica, what = self._found(users)
        good = what.good(self.slo, self.replica.demand.later)
        return float(shares @ np.interp(in_replica, self.replica.inside, good))

    def most_users(self) -> int | None:
        """The most users that keep the SLO: 0 if not even one does, None if there is no most."""
        low, high = 0, 1
        while self.goodput(high) >= self.slo.attained:
            low, high = high, 4 * high
            if high > MOST_USERS:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.goodput(middle) >= self.slo.attained else (low, middle)
        return low

    def in_flight(self, users: int) -> float:
        """Requests inside, on average as a user finds them."""
        shares, in_replica, _ = self._found(users)
        return float(shares @ (in_replica * self.replicas)) - 1

    def requests_per_s(self, users: int) -> float:
        """Requests that end each second, while one of the users is inside."""
        shares, in_replica, what = self._found(users)
        ends_per_s = np.interp(in_replica, np.append(0, self.replica.inside), np.append(0.0, what.per_s))
        return float(shares @ ends_per_s) * min(self.replicas, users)

    def latency(self, users: int) -> dict[str, dict[str, float]]:
        """Mean and percentiles of TTFT, TPOT and E2E."""
        shares, in_replica, what = self._found(users)
        above = np.searchsorted(self.replica.inside, in_replica).clip(max=len(self.replica.inside) - 1)
        weights = np.bincount(above, weights=shares, minlength=len(self.replica.inside))
        rows = weights > 1e-6
        result = {}
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            values = getattr(what, name)[rows]
            mass = np.repeat(weights[rows] / values.shape[1], values.shape[1])
            qs = weighted_quantiles(values.ravel(), mass, list(PERCENTILES.values()))
            result[name] = {
                "mean": float((values.ravel() * mass).sum() / mass.sum()),
                **dict(zip(PERCENTILES, qs.tolist(), strict=True)),
            }
        return result

    def _found(self, users: int) -> tuple[np.ndarray, np.ndarray, Seen]:
        """Shares of 0, 1, ... requests inside that a user finds, those in its replica then, and what it sees.

        Others are distributed as they would be without that user (arrival theorem).
        """
        what = self._look(users)
        others, parts = (users - 1, self.replicas) if self.balanced else ((users - 1) / self.replicas, 1)
        found = np.arange(int(np.ceil(others)) + 1)
        in_replica = np.maximum(1.0, (found + 1) / parts)
        think_s = self.replica.demand.think_s
        if think_s <= 0:
            return (found == found[-1]).astype(float), in_replica, what
        death = parts * np.interp(found[1:] / parts, np.append(0, self.replica.inside), np.append(0.0, what.per_s))
        return birth_death((others - found[:-1]) / think_s, death), in_replica, what

    def _look(self, users: int) -> Seen:
        replica, demand = self.replica, self.replica.demand
        remembered_s = np.inf
        if replica.caches_prefixes and demand.sessions_return:
            remembered_s = demand.remembered_s(users, replica.blocks * self.replicas, replica.left_blocks)
        return seen(replica, remembered_s, self.found)
