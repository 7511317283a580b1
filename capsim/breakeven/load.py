"""How much load there is, and how it falls on the hours."""

from dataclasses import dataclass

import numpy as np

from capsim.breakeven.node import Carried
from capsim.scenario import Resolved
from capsim.workload.arrivals import Poisson, Profile
from capsim.workload.classes import mean_rate_per_s
from capsim.workload.levels import HOUR_S, peak_per_s
from capsim.workload.sessions import Users
from capsim.workload.spec import Closed
from capsim.workload.steady import requests_per_s


@dataclass(frozen=True)
class Load:
    """Requests a second on average; what each hour of the profile, and the busiest of any, has of that."""

    requests_per_s: float
    hours: tuple[float, ...] = (1.0,)
    peak: float = 1.0


def load_of(resolved: Resolved, carried: Carried) -> Load:
    """The load of a scenario: that of ``plan.users`` (at the peak hour) or of its closed loop, at the rate a node's
    sessions have; else that of its arrivals."""
    arrival = resolved.workload.arrival
    family = arrival.arrivals if isinstance(arrival, Users) else arrival
    hours, peak = _hours(family) if isinstance(family, Profile) else ((1.0,), 1.0)
    users = resolved.scenario.plan.users or (arrival.users if isinstance(arrival, Closed) else None)
    if users is not None:
        return Load(users / carried.sessions[0] * carried.requests_per_s / peak, hours, peak)
    return Load(_mean_requests_per_s(resolved), hours, peak)


def _hours(profile: Profile) -> tuple[tuple[float, ...], float]:
    """Weights of the hours (of longer parts where the profile has such), 1 on average, and of the busiest hour."""
    assert profile.period_s is not None
    rates = np.array(profile.rates_per_s)
    parts = min(len(rates), max(1, round(HOUR_S * len(rates) / profile.period_s)))
    whole = rates.reshape(-1, parts).mean(axis=1) if len(rates) % parts == 0 else rates
    return tuple((whole / rates.mean()).tolist()), float(peak_per_s(profile) / rates.mean())


def _mean_requests_per_s(resolved: Resolved) -> float:
    workload, trace = resolved.workload, resolved.trace
    arrival = workload.arrival
    if arrival is None:
        assert trace is not None
        return float(len(trace.arrival_s) / (trace.arrival_s[-1] - trace.arrival_s[0]))
    family = arrival.arrivals if isinstance(arrival, Users) else arrival
    assert not isinstance(family, Closed)
    mean_per_s = mean_rate_per_s(family)
    if not workload.in_sessions:
        return mean_per_s
    steady = workload.changed(arrival=Poisson(kind="poisson", rate_per_s=mean_per_s))
    return requests_per_s(steady, resolved.longest)
