"""Arrival times drawn in chunks, each family from one generator.

Gaps are independent (a renewal process, met in steady state), and a moving rate is a moving clock: drawn at unit rate,
then read off the inverse of the rate's integral.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import gamma as gamma_function

from capsim.workload.arrivals import (
    ConstantRate,
    Gamma,
    OnOff,
    Poisson,
    Profile,
    Ramp,
    Single,
    Spike,
    Weibull,
    Windows,
    weibull_shape,
)

CHUNK = 4096
Generator = np.random.Generator
Gaps = Callable[[Generator, int], np.ndarray]
"""Independent gaps of mean 1: from a generator, so many."""
Times = Iterator[np.ndarray]
"""Chunks of rising times, without end."""


def take(times: Times, limit: int | None, duration_s: float | None) -> np.ndarray:
    """The first ``limit`` times, or those up to ``duration_s``. Shape (n,)."""
    parts, count = [], 0
    for chunk in times:
        parts.append(chunk)
        count += len(chunk)
        if limit is not None and count >= limit:
            return np.concatenate(parts)[:limit]
        if duration_s is not None and len(chunk) and chunk[-1] > duration_s:
            drawn = np.concatenate(parts)
            return drawn[drawn <= duration_s]
    raise AssertionError("arrivals ended")


def times(arrival: Single, generator: Generator) -> Times:
    """Arrival times of one family, in chunks without end."""
    match arrival:
        case Poisson():
            return _renewal(poisson_gaps, arrival.rate_per_s, generator)
        case ConstantRate():
            return _renewal(lambda generator, n: np.ones(n), arrival.rate_per_s, generator)
        case Gamma():
            return _renewal(_gamma_gaps(arrival.cv), arrival.rate_per_s, generator, _gamma_first(arrival.cv))
        case Weibull():
            shape = arrival.shape or weibull_shape(arrival.cv or 1.0)
            return _renewal(_weibull_gaps(shape), arrival.rate_per_s, generator, _weibull_first(shape))
        case OnOff():
            return _on_off(arrival, generator)
        case Windows():
            return _windows(arrival, generator)
        case Profile():
            return map(_profile_clock(arrival), _renewal(poisson_gaps, 1.0, generator))
        case Spike():
            return map(_spike_clock(arrival), _renewal(poisson_gaps, 1.0, generator))
        case Ramp():
            return map(_ramp_clock(arrival), _renewal(poisson_gaps, 1.0, generator))


def _renewal(gaps: Gaps, rate_per_s: float, generator: Generator, first: Gaps | None = None) -> Times:
    """Times whose gaps are ``gaps / rate_per_s``; the first is ``first``, what is left of a gap met at random."""
    last = 0.0
    while True:
        drawn = gaps(generator, CHUNK)
        if first is not None:
            drawn[0], first = first(generator, 1)[0], None
        chunk = last + np.cumsum(drawn) / rate_per_s
        last = float(chunk[-1])
        yield chunk


def poisson_gaps(generator: Generator, n: int) -> np.ndarray:
    return -np.log1p(-generator.random(n))


def _gamma_gaps(cv: float) -> Gaps:
    return lambda generator, n: generator.standard_gamma(cv**-2, n) * cv**2


def _gamma_first(cv: float) -> Gaps:
    """A gap is met in proportion to its length, which raises the gamma's shape by one, anywhere inside it."""
    return lambda generator, n: generator.random(n) * generator.standard_gamma(cv**-2 + 1, n) * cv**2


def _weibull_gaps(shape: float) -> Gaps:
    mean = float(gamma_function(1 + 1 / shape))
    return lambda generator, n: poisson_gaps(generator, n) ** (1 / shape) / mean


def _weibull_first(shape: float) -> Gaps:
    """As for the gamma: the exponential under the power becomes a gamma of shape 1 + 1/shape."""
    mean = float(gamma_function(1 + 1 / shape))
    return lambda generator, n: generator.random(n) * generator.standard_gamma(1 + 1 / shape, n) ** (1 / shape) / mean


def _on_off(arrival: OnOff, generator: Generator) -> Times:
    """A renewal process on the clock of the bursts, with the silences put back in."""
    for_gaps, for_phases = generator.spawn(2)
    share_on = arrival.on_s / (arrival.on_s + arrival.off_s)
    silence_s = np.array([0.0 if for_phases.random() < share_on else for_phases.exponential(arrival.off_s)])
    burst_ends_s = np.array([for_phases.exponential(arrival.on_s)])
    rate_per_s = arrival.rate_per_s / share_on
    for chunk in _renewal(_gamma_gaps(arrival.cv), rate_per_s, for_gaps, _gamma_first(arrival.cv)):
        while burst_ends_s[-1] < chunk[-1]:
            more = for_phases.exponential((arrival.off_s, arrival.on_s), (CHUNK, 2))
            silence_s = np.append(silence_s, silence_s[-1] + np.cumsum(more[:, 0]))
            burst_ends_s = np.append(burst_ends_s, burst_ends_s[-1] + np.cumsum(more[:, 1]))
        bursts = np.searchsorted(burst_ends_s, chunk)
        yield chunk + silence_s[bursts]
        silence_s, burst_ends_s = silence_s[bursts[-1] :], burst_ends_s[bursts[-1] :]


def _windows(arrival: Windows, generator: Generator) -> Times:
    """Each window's renewal process, begun anew in steady state and cut at the window's end."""
    start_s = 0.0
    while True:
        for window in arrival.windows:
            if window.rate_per_s:
                spec = {"rate_per_s": window.rate_per_s, "cv": window.cv}
                family: Gamma | Weibull = (
                    Gamma(kind="gamma", **spec) if window.gaps == "gamma" else Weibull(kind="weibull", **spec)
                )
                yield start_s + take(times(family, generator), None, arrival.window_s)
            start_s += arrival.window_s


def _profile_clock(arrival: Profile) -> Callable[[np.ndarray], np.ndarray]:
    rates = np.array(arrival.rates_per_s)
    period_s = arrival.period_s
    assert period_s is not None
    edges_s = np.linspace(0, period_s, len(rates) + 1)
    expected = np.append(0.0, np.cumsum(rates * period_s / len(rates)))
    start_s = arrival.start_s % period_s
    before = np.interp(start_s, edges_s, expected)

    def clock(mass: np.ndarray) -> np.ndarray:
        whole, rest = np.divmod(mass + before, expected[-1])
        return whole * period_s + np.interp(rest, expected, edges_s) - start_s

    return clock


def _spike_clock(arrival: Spike) -> Callable[[np.ndarray], np.ndarray]:
    rate, ends_s = arrival.rate_per_s, arrival.at_s + arrival.for_s
    inside = rate * arrival.factor
    begins = rate * arrival.at_s
    ends = begins + inside * arrival.for_s

    def clock(mass: np.ndarray) -> np.ndarray:
        during = arrival.at_s + (mass - begins) / inside
        return np.where(mass < begins, mass / rate, np.where(mass < ends, during, ends_s + (mass - ends) / rate))

    return clock


def _ramp_clock(arrival: Ramp) -> Callable[[np.ndarray], np.ndarray]:
    first, last, over_s = arrival.from_per_s, arrival.to_per_s, arrival.over_s
    total = (first + last) / 2 * over_s
    slope = (last - first) / over_s

    def clock(mass: np.ndarray) -> np.ndarray:
        inside = np.minimum(mass, total)
        rate = np.sqrt(np.maximum(first**2 + 2 * slope * inside, 0.0))
        return 2 * inside / (first + rate) + (mass - inside) / last

    return clock
