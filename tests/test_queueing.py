"""Queueing formulas against published figures, each other and their limits."""

import math

import numpy as np
import pytest

from capsim.queueing import (
    birth_death,
    closed_network,
    erlang_b,
    erlang_c,
    kaufman_roberts,
    mg1_wait_s,
    mmc_wait_s,
    step_chain,
)

# Continuous batching: a step of n sequences takes 10 + 0.2 n ms, a request 200 tokens on average, 64 run at most
TOKENS = 200
BATCH_CAP = 64


def decode_step_s(n):
    return 0.010 + 0.0002 * n


def requests_per_s(n):
    running = min(n, BATCH_CAP)
    return running / (TOKENS * decode_step_s(running))


def fluid_sojourn_s(rate_per_s, states=3000):
    """Mean sojourn if requests finished continuously, not at the ends of steps."""
    death = np.array([requests_per_s(n) for n in range(1, states + 1)])
    return birth_death(np.full(states, rate_per_s), death) @ np.arange(states + 1) / rate_per_s


def test_erlang_b_with_one_server_is_a_over_one_plus_a():
    assert erlang_b(1, 0.7) == pytest.approx(0.7 / 1.7)


def test_erlang_b_published():
    assert erlang_b(8, 6.4) == pytest.approx(0.1444, abs=5e-5)


def test_erlang_c_with_one_server_is_its_utilisation():
    assert erlang_c(1, 0.7) == pytest.approx(0.7)


def test_erlang_c_is_the_share_of_time_with_all_servers_busy():
    states = np.arange(1, 501)
    probabilities = birth_death(np.full(500, 6.4), np.minimum(states, 8.0))
    assert erlang_c(8, 6.4) == pytest.approx(probabilities[8:].sum())


@pytest.mark.parametrize(
    ("second_moment_s2", "wait_s"),
    [(2, 4.0), (1, 2.0), (5, 10.0)],
    ids=["M/M/1", "M/D/1", "lognormal with squared variation 4"],
)
def test_mg1_wait_published(second_moment_s2, wait_s):
    assert mg1_wait_s(0.8, 1, second_moment_s2) == pytest.approx(wait_s)


def test_mmc_wait_published():
    assert mmc_wait_s(8, 6.4, 1) == pytest.approx(0.2860, abs=5e-5)


def test_mmc_wait_scales_with_the_unit_of_time():
    assert mmc_wait_s(8, 6.4 / 3, 3) == pytest.approx(3 * mmc_wait_s(8, 6.4, 1))


def test_mmc_with_one_server_is_mg1():
    assert mmc_wait_s(1, 2, 0.3) == pytest.approx(mg1_wait_s(2, 0.3, 2 * 0.3**2))


def test_kaufman_roberts_published():
    blocking = kaufman_roberts(200, [2, 8, 30], [20, 6, 1.5])
    assert blocking == pytest.approx([0.0054, 0.0235, 0.1210], abs=5e-5)


def test_kaufman_roberts_with_single_blocks_is_erlang_b():
    assert kaufman_roberts(8, [1, 1], [4, 2.4]) == pytest.approx([erlang_b(8, 6.4)] * 2)


def test_kaufman_roberts_survives_large_loads():
    assert kaufman_roberts(3000, [1], [2900]) == pytest.approx([erlang_b(3000, 2900)])


def test_a_request_larger_than_the_pool_is_always_lost():
    small, large = kaufman_roberts(10, [1, 11], [2, 3])
    assert small == pytest.approx(erlang_b(10, 2))
    assert large == pytest.approx(1)


def test_birth_death_mm1_is_geometric():
    probabilities = birth_death(np.full(200, 0.6), np.ones(200))
    assert probabilities == pytest.approx(0.4 * 0.6 ** np.arange(201))


def test_birth_death_with_infinite_servers_is_poisson():
    probabilities = birth_death(np.full(60, 3.0), np.arange(1, 61))
    assert probabilities[:4] == pytest.approx(math.exp(-3) * np.array([1, 3, 4.5, 4.5]))


def test_birth_death_does_not_overflow():
    probabilities = birth_death(np.full(2000, 1000.0), np.ones(2000))
    assert probabilities[-2:] == pytest.approx([0.000999, 0.999])


def test_birth_death_never_passes_a_zero_birth_rate():
    assert birth_death(np.array([1.0, 0.0, 5.0]), np.ones(3)) == pytest.approx([0.5, 0.5, 0, 0])


@pytest.mark.parametrize(("users", "throughput_per_s", "response_s"), [(600, 9.481, 3.281), (900, 13.740, 5.503)])
def test_closed_network_published(users, throughput_per_s, response_s):
    assert closed_network(users, 60, requests_per_s) == pytest.approx((throughput_per_s, response_s), abs=5e-4)


def test_closed_network_takes_rates_as_an_array():
    rates = np.array([requests_per_s(n) for n in range(1, 101)])
    assert closed_network(100, 60, rates) == closed_network(100, 60, requests_per_s)


def test_one_user_never_waits():
    throughput_per_s, response_s = closed_network(1, 60, lambda n: 0.5)
    assert response_s == pytest.approx(2)
    assert throughput_per_s == pytest.approx(1 / 62)


# utilisation, fluid sojourn, token-level simulation and its 95 % half width
@pytest.mark.parametrize(
    ("utilisation", "fluid_s", "simulated_s", "half_width_s"),
    [
        (0.50, 2.836, 2.854, 0.026),
        (0.80, 3.706, 3.702, 0.041),
        (0.90, 4.233, 4.283, 0.055),
        (0.95, 4.984, 4.942, 0.083),
    ],
)
def test_step_chain_published(utilisation, fluid_s, simulated_s, half_width_s):
    rate_per_s = utilisation * requests_per_s(BATCH_CAP)
    sojourn_s = step_chain(rate_per_s, decode_step_s, 1 / TOKENS, BATCH_CAP)
    assert fluid_sojourn_s(rate_per_s) == pytest.approx(fluid_s, abs=6e-4)
    assert sojourn_s == pytest.approx(fluid_s, rel=0.01)
    assert sojourn_s == pytest.approx(simulated_s, abs=half_width_s)


def test_step_chain_waits_half_a_step_more_than_the_fluid():
    rate_per_s = 0.5 * requests_per_s(BATCH_CAP)
    half_step_s = decode_step_s(rate_per_s * 2.836) / 2
    excess_s = step_chain(rate_per_s, decode_step_s, 1 / TOKENS, BATCH_CAP) - fluid_sojourn_s(rate_per_s)
    assert excess_s == pytest.approx(half_step_s, rel=0.05)


@pytest.mark.parametrize("finish_probability", [1, 0.25])
def test_step_chain_one_at_a_time_is_mg1_with_geometric_service(finish_probability):
    step, rate_per_s = 0.1, 7 * finish_probability
    mean_s = step / finish_probability
    second_moment_s2 = step**2 * (2 - finish_probability) / finish_probability**2
    sojourn_s = step_chain(rate_per_s, lambda n: step, finish_probability, batch_cap=1)
    assert sojourn_s == pytest.approx(mean_s + mg1_wait_s(rate_per_s, mean_s, second_moment_s2))


def test_step_chain_with_room_for_all_waits_for_the_running_step():
    """One-step requests in steps of 1 s: who finds a step running, its share of time, waits half of it on average."""
    rate_per_s = 2.0
    running = math.exp(rate_per_s) / (math.exp(rate_per_s) + 1 / rate_per_s)
    assert step_chain(rate_per_s, lambda n: 1.0, 1, batch_cap=60, states=60) == pytest.approx(1 + running / 2)


def test_step_chain_at_light_load_runs_alone():
    assert step_chain(1e-6, decode_step_s, 1 / TOKENS, BATCH_CAP) == pytest.approx(TOKENS * 0.0102, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: erlang_b(0, 1), "servers must be positive"),
        (lambda: erlang_b(3, -1), "load must be finite and not negative"),
        (lambda: erlang_c(3, 3), "load 3 is not below the 3 servers"),
        (lambda: mg1_wait_s(2, 0.5, 1), "rate_per_s 2 is not below the capacity of 2 per second"),
        (lambda: mg1_wait_s(1, 0.5, 0.1), "second_moment_s2 0.1 is below the square of mean_s"),
        (lambda: mmc_wait_s(2, 9, 0.5), "rate_per_s 9 is not below the capacity of 4 per second"),
        (lambda: mmc_wait_s(2, 1, math.nan), "mean_s must be positive"),
        (lambda: kaufman_roberts(0, [1], [1]), "capacity must be positive"),
        (lambda: kaufman_roberts(9, [0], [1]), "sizes must be positive"),
        (lambda: kaufman_roberts(9, [1], [-1]), "loads must be finite"),
        (lambda: kaufman_roberts(9, [1, 2], [1]), "loads .* one for each of sizes"),
        (lambda: birth_death(np.array([-1.0]), np.ones(1)), "birth rates"),
        (lambda: birth_death(np.ones(2), np.array([1.0, 0.0])), "death rates"),
        (lambda: birth_death(np.ones(2), np.ones(3)), "death rates .* one for each of birth"),
        (lambda: closed_network(0, 60, requests_per_s), "users must be positive"),
        (lambda: closed_network(5, 0, requests_per_s), "think_s must be positive"),
        (lambda: closed_network(5, 60, np.ones(4)), "service_rates .* one for each of 1..users"),
        (lambda: step_chain(15, decode_step_s, 1 / TOKENS, BATCH_CAP), "rate_per_s 15 is not below the capacity of 14"),
        (lambda: step_chain(1, decode_step_s, 2, BATCH_CAP), "finish_probability 2 is above 1"),
        (lambda: step_chain(1, lambda n: 0.0, 0.5, BATCH_CAP), "step_s must be finite and positive"),
        (lambda: step_chain(13, decode_step_s, 1 / TOKENS, BATCH_CAP, states=70), "states 70 are too few"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
