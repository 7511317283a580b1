"""Closed forms and small chains of queueing theory: what a simulation can be checked against, and a first answer.

Loads are offered traffic in Erlangs (arrivals per second times mean service seconds).
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import softmax
from scipy.stats import binom, poisson

OVERFLOW_GUARD = 1e200
TRUNCATION_TOLERANCE = 1e-6


def erlang_b(servers: int, load: float) -> float:
    """Share of arrivals that M/G/c/c loses: the recursion B(k) = a B(k-1) / (k + a B(k-1)), B(0) = 1."""
    _require_positive(servers=servers)
    _require_not_negative(load=load)
    blocking = 1.0
    for busy in range(1, servers + 1):
        blocking = load * blocking / (busy + load * blocking)
    return blocking


def erlang_c(servers: int, load: float) -> float:
    """Share of arrivals that wait in M/M/c: C = B / (1 - rho (1 - B)) with Erlang B and rho = load / servers."""
    blocking = erlang_b(servers, load)
    if load >= servers:
        raise ValueError(f"load {load:g} is not below the {servers} servers")
    return blocking / (1 - load / servers * (1 - blocking))


def mg1_wait_s(rate_per_s: float, mean_s: float, second_moment_s2: float) -> float:
    """Mean wait before service in M/G/1, in seconds (Pollaczek-Khinchine): rate E[S²] / (2 (1 - rho))."""
    _require_not_negative(rate_per_s=rate_per_s)
    _require_positive(mean_s=mean_s, second_moment_s2=second_moment_s2)
    _require_below(1 / mean_s, rate_per_s)
    if second_moment_s2 < mean_s**2 * (1 - 1e-9):
        raise ValueError(f"second_moment_s2 {second_moment_s2:g} is below the square of mean_s {mean_s:g}")
    return rate_per_s * second_moment_s2 / (2 * (1 - rate_per_s * mean_s))


def mmc_wait_s(servers: int, rate_per_s: float, mean_s: float) -> float:
    """Mean wait before service in M/M/c, in seconds: C / (servers / mean_s - rate)."""
    _require_positive(servers=servers, mean_s=mean_s)
    _require_not_negative(rate_per_s=rate_per_s)
    _require_below(servers / mean_s, rate_per_s)
    return erlang_c(servers, rate_per_s * mean_s) / (servers / mean_s - rate_per_s)


def kaufman_roberts(capacity: int, sizes: Sequence[int], loads: Sequence[float]) -> np.ndarray:
    """Share of each class's arrivals that find no room for their ``sizes[k]`` of ``capacity`` blocks and are lost.

    Occupancy j has probability g(j) / sum(g) with j g(j) = sum over k of loads[k] sizes[k] g(j - sizes[k])
    (Kaufman 1981, Roberts 1981). It depends on the holding times through their means alone.
    """
    _require_positive(capacity=capacity)
    blocks, erlangs = np.asarray(sizes, dtype=int), np.asarray(loads, dtype=float)
    if blocks.size == 0 or np.any(blocks < 1):
        raise ValueError("sizes must be positive, one for each class")
    if erlangs.shape != blocks.shape or not np.all((erlangs >= 0) & np.isfinite(erlangs)):
        raise ValueError("loads must be finite and not negative, one for each of sizes")
    first = int(blocks.max())
    weights = np.zeros(first + capacity + 1)
    weights[first] = 1
    for occupied in range(1, capacity + 1):
        at = first + occupied
        weights[at] = (erlangs * blocks) @ weights[at - blocks] / occupied
        if weights[at] > OVERFLOW_GUARD:
            weights[: at + 1] /= weights[at]
    full = [weights[max(first, len(weights) - size) :].sum() for size in blocks]
    return np.array(full) / weights.sum()


def birth_death(birth: np.ndarray, death: np.ndarray) -> np.ndarray:
    """Stationary probabilities of states 0..n of a birth-death chain.

    Computed from logarithms, so that long chains neither overflow nor underflow.

    Parameters
    ----------
    birth, death
        Rates per second, shape (n,): ``birth[i]`` from state i to i+1, ``death[i]`` from i+1 back to i.
    """
    up, down = np.asarray(birth, dtype=float), np.asarray(death, dtype=float)
    if not np.all((up >= 0) & np.isfinite(up)):
        raise ValueError("birth rates must be finite and not negative")
    if down.shape != up.shape or not np.all((down > 0) & np.isfinite(down)):
        raise ValueError("death rates must be finite and positive, one for each of birth")
    with np.errstate(divide="ignore"):
        steps = np.log(up) - np.log(down)
    return softmax(np.concatenate([[0.0], np.cumsum(steps)]))


def closed_network(
    users: int, think_s: float, service_rates: Callable[[int], float] | np.ndarray
) -> tuple[float, float]:
    """Throughput per second and mean response seconds of ``users`` who each think, ask and wait for the answer.

    Parameters
    ----------
    think_s
        Mean seconds from an answer to the same user's next request, of any distribution.
    service_rates
        Completions per second with n = 1..users requests in service: a function of n, or shape (users,).
    """
    _require_positive(users=users, think_s=think_s)
    busy = np.arange(1, users + 1)
    rates = np.array([service_rates(int(n)) for n in busy]) if callable(service_rates) else np.asarray(service_rates)
    if rates.shape != busy.shape or not np.all((rates > 0) & np.isfinite(rates)):
        raise ValueError("service_rates must be finite and positive, one for each of 1..users")
    probabilities = birth_death((users - busy + 1) / think_s, rates)[1:]
    throughput_per_s = float(probabilities @ rates)
    return throughput_per_s, float(probabilities @ busy) / throughput_per_s


def step_chain(
    rate_per_s: float, step_s: Callable[[int], float], finish_probability: float, batch_cap: int, states: int = 400
) -> float:
    """Mean seconds in system under continuous batching, from the Markov chain at step boundaries.

    A step that starts with q requests in system runs n = min(q, batch_cap) of them for step_s(n). At its end each of
    the n finishes with ``finish_probability``, and the Poisson arrivals of the meantime may join the next step; an
    empty system starts a step as soon as a request comes. Little's law turns the mean number in system, which over a
    step is q + rate_per_s · step_s(n) / 2, into seconds.

    Parameters
    ----------
    finish_probability
        1 / mean steps per request, when these are geometric.
    states
        Where the chain is cut: the most requests in system. Refused if the chain is found there.
    """
    _require_positive(rate_per_s=rate_per_s, finish_probability=finish_probability, batch_cap=batch_cap, states=states)
    if finish_probability > 1:
        raise ValueError(f"finish_probability {finish_probability:g} is above 1")
    durations = np.array([step_s(n) for n in range(1, batch_cap + 1)])
    if not np.all((durations > 0) & np.isfinite(durations)):
        raise ValueError("step_s must be finite and positive for every batch up to batch_cap")
    _require_below(batch_cap * finish_probability / durations[-1], rate_per_s)

    moves = _step_moves(rate_per_s, durations, finish_probability, states)
    share = _stationary(moves)
    if share[-1] > TRUNCATION_TOLERANCE:
        raise ValueError(f"states {states} are too few: the last one has probability {share[-1]:.2g}")
    in_system = np.arange(1, states + 1)
    step = durations[np.minimum(in_system, batch_cap) - 1]
    cycle_s = share @ step + share @ moves[:, 0] / rate_per_s
    mean_in_system = (share * step) @ (in_system + rate_per_s * step / 2) / cycle_s
    return float(mean_in_system / rate_per_s)


def _step_moves(rate_per_s: float, durations: np.ndarray, finish_probability: float, states: int) -> np.ndarray:
    """Chances of 0..states in system at a step's end (columns), from 1..states at its start (rows)."""
    moves = np.zeros((states, states + 1))
    for q in range(1, states + 1):
        running = min(q, len(durations))
        stay = binom.pmf(np.arange(running + 1), running, 1 - finish_probability)
        come = poisson.pmf(np.arange(states + 1), rate_per_s * durations[running - 1])
        queued = q - running
        moves[q - 1, queued:] = np.convolve(stay, come)[: states + 1 - queued]
    moves[:, -1] += 1 - moves.sum(axis=1)
    return moves


def _stationary(moves: np.ndarray) -> np.ndarray:
    """Shares of steps that start with 1..states in system; an emptied system starts again with one."""
    chain = moves[:, 1:].copy()
    chain[:, 0] += moves[:, 0]
    balance = chain.T - np.eye(len(chain))
    balance[0] = 1
    return np.linalg.solve(balance, np.eye(len(chain))[0])


def _require_positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive and finite, not {value:g}")


def _require_not_negative(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} must be finite and not negative, not {value:g}")


def _require_below(capacity_per_s: float, rate_per_s: float) -> None:
    if rate_per_s >= capacity_per_s:
        raise ValueError(f"rate_per_s {rate_per_s:g} is not below the capacity of {capacity_per_s:g} per second")
