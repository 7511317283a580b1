"""What arrivals that move are sized for: steady ones at their mean, and as in the hour in which most come."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from capsim import units
from capsim.workload.arrivals import (
    Gamma,
    Poisson,
    Profile,
    Ramp,
    Single,
    Spike,
    Weibull,
    Window,
    Windows,
    cycle,
    long_run_rate_per_s,
)
from capsim.workload.classes import ClientClass, Superposed
from capsim.workload.sessions import DAY_S, Users
from capsim.workload.spec import Arrival

HOUR_S = 3600.0
MOST_CYCLES = 1000
"""Of a short one, in search of the hour in which it meets the peak of a long one."""
Open = Single | Superposed


def levels(arrival: Open) -> dict[str, Open]:
    """Steady arrivals by what they stand for: ``mean``, over a long time, and ``peak hour``; none if nothing moves.

    Those of a spike or a ramp are as at the instant of the highest rate, and stand for its ``peak``. Classes are met
    together: each as in the hour in which most of all come.
    """
    parts = _parts(arrival)
    if not any(isinstance(part, Profile | Windows | Spike | Ramp) for part in parts):
        return {}
    peak_s = _peak_s(parts)
    name = "peak" if any(isinstance(part, Spike | Ramp) for part in parts) else "peak hour"
    found = {"mean": _each(arrival, _averaged), name: _each(arrival, lambda part: _as_at(part, peak_s))}
    return found if found["mean"] != found[name] else {name: found[name]}


def peak_per_s(arrival: Open) -> float:
    """The rate that ``levels`` calls the peak."""
    parts = _parts(arrival)
    return float(sum(_rate_per_s(part, np.array([_peak_s(parts)]))[0] for part in parts))


def part_met(arrival: Arrival | None, start_s: float, end_s: float) -> list[str]:
    """Which part of its cycle a run met between two instants, and at what rate; nothing where it met all of it."""
    if isinstance(arrival, Users):
        return part_met(arrival.arrivals, start_s, end_s)
    if isinstance(arrival, Spike) and end_s < arrival.at_s:
        return [f"the run was over before the spike at {units.seconds(arrival.at_s)}: give a duration_s"]
    if not isinstance(arrival, Profile | Windows):
        return []
    _, period_s, begins_s = cycle(arrival)
    if end_s - start_s >= period_s or end_s <= start_s:
        return []
    few, many = _expected(arrival, np.array([start_s, end_s]))
    rate_per_s = (many - few) / (end_s - start_s)
    first, last = (_moment((begins_s + at_s) % period_s, period_s) for at_s in (start_s, end_s))
    mean, peak = rate_per_s / long_run_rate_per_s(arrival), rate_per_s / peak_per_s(arrival)
    shares = f"at {mean:.0%} of the mean rate and {peak:.0%} of the peak hour's"
    return [f"measured from {first} to {last} of the arrivals' {period_s / HOUR_S:.3g} h, {shares}"]


def _moment(at_s: float, period_s: float) -> str:
    days, rest_s = divmod(at_s, DAY_S)
    clock = f"{int(rest_s // HOUR_S):02}:{int(rest_s % HOUR_S // 60):02}"
    return f"day {int(days) + 1} {clock}" if period_s > DAY_S else clock


def _parts(arrival: Open) -> list[Single]:
    return [one.arrival for one in arrival.classes] if isinstance(arrival, Superposed) else [arrival]


def _each(arrival: Open, steady: Callable[[Single], Single | None]) -> Open:
    """The same of steady parts; those of which nobody comes are left out."""
    if not isinstance(arrival, Superposed):
        found = steady(arrival)
        assert found is not None
        return found
    kept = [(one, found) for one in arrival.classes if (found := steady(one.arrival)) is not None]
    classes = [ClientClass.model_validate({**dict(one), "arrival": found}) for one, found in kept]
    return Superposed(kind="superposed", classes=tuple(classes))


def _averaged(arrival: Single) -> Single:
    if isinstance(arrival, Windows):
        return _alike(arrival.windows, long_run_rate_per_s(arrival))
    moves = isinstance(arrival, Profile | Spike | Ramp)
    return Poisson(kind="poisson", rate_per_s=long_run_rate_per_s(arrival)) if moves else arrival


def _as_at(arrival: Single, at_s: float) -> Single | None:
    """Steady arrivals at the rate of ``_rate_per_s``; None where none come."""
    rate_per_s = float(_rate_per_s(arrival, np.array([at_s]))[0])
    if rate_per_s == 0:
        return None
    if isinstance(arrival, Windows):
        first, end = round(at_s / arrival.window_s, 6), round((at_s + HOUR_S) / arrival.window_s, 6)
        met = range(math.floor(first), math.ceil(end))
        return _alike([arrival.windows[index % len(arrival.windows)] for index in met], rate_per_s)
    moves = isinstance(arrival, Profile | Spike | Ramp)
    return Poisson(kind="poisson", rate_per_s=rate_per_s) if moves else arrival


def _alike(windows: Sequence[Window], rate_per_s: float) -> Single:
    """Gaps that clump as those of most requests of some windows do."""
    rates = [one.rate_per_s for one in windows]
    cv = float(np.average([one.cv for one in windows], weights=rates))
    if windows[int(np.argmax(rates))].gaps == "gamma":
        return Gamma(kind="gamma", rate_per_s=rate_per_s, cv=cv)
    return Weibull(kind="weibull", rate_per_s=rate_per_s, cv=cv)


def _rate_per_s(arrival: Single, at_s: np.ndarray) -> np.ndarray:
    """Mean rate of the hour that begins at each instant of a run, of spikes and ramps the rate then. Shape (n,)."""
    match arrival:
        case Profile() | Windows():
            return (_expected(arrival, at_s + HOUR_S) - _expected(arrival, at_s)) / HOUR_S
        case Spike():
            inside = (at_s >= arrival.at_s) & (at_s < arrival.at_s + arrival.for_s)
            return np.where(inside, arrival.factor, 1.0) * arrival.rate_per_s
        case Ramp():
            return np.interp(at_s, [0.0, arrival.over_s], [arrival.from_per_s, arrival.to_per_s])
    return np.full(len(at_s), arrival.rate_per_s)


def _expected(arrival: Profile | Windows, until_s: np.ndarray) -> np.ndarray:
    """How many come by then, counted from the beginning of the cycle in which the run begins. Shape (n,)."""
    rates, period_s, start_s = cycle(arrival)
    edges_s = np.linspace(0, period_s, len(rates) + 1)
    by_edge = np.append(0.0, np.cumsum(rates)) * period_s / len(rates)
    whole, rest_s = np.divmod(start_s + until_s, period_s)
    return whole * by_edge[-1] + np.interp(rest_s, edges_s, by_edge)


def _peak_s(parts: list[Single]) -> float:
    """When the rates of all parts together are highest: where that of one of them changes its slope."""
    knots = [_knots_s(part) for part in parts]
    longest_s = max(float(some.max()) for some in knots)
    for part, some in zip(parts, list(knots), strict=True):
        if isinstance(part, Profile | Windows):
            period_s = cycle(part)[1]
            again = min(MOST_CYCLES, int(longest_s // period_s))
            knots.append((some + period_s * np.arange(1, again + 1)[:, None]).ravel())
    at_s = np.unique(np.concatenate(knots))
    return float(at_s[np.argmax(sum(_rate_per_s(part, at_s) for part in parts))])


def _knots_s(arrival: Single) -> np.ndarray:
    """Between which the rate moves evenly. Shape (n,)."""
    match arrival:
        case Profile() | Windows():
            rates, period_s, start_s = cycle(arrival)
            edges_s = np.linspace(0, period_s, len(rates), endpoint=False) - start_s
            return np.concatenate([edges_s, edges_s - HOUR_S]) % period_s
        case Spike():
            return np.array([0.0, arrival.at_s, np.nextafter(arrival.at_s + arrival.for_s, 0.0)])
        case Ramp():
            return np.array([0.0, arrival.over_s])
    return np.zeros(1)
