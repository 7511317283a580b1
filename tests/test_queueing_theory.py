"""The simulation against exact results of queueing theory, known to 2 % with 99.7 % confidence from replications."""

import numpy as np
import pytest
from clusters import cluster, engine_policy

from capsim.memory import BlockRule
from capsim.queueing import birth_death, closed_network, erlang_b, kaufman_roberts, mg1_wait_s, mmc_wait_s, step_chain
from capsim.sim.cluster import simulate
from capsim.stats import t_interval
from capsim.workload.requests import ClosedLoop, OpenArrivals, Request

SEED = 1917
HALF_WIDTH = 0.02
PLENTY = 10**15  # no limit
SERVERS = 8

# A prompt of that many tokens is one step of a second: service times as good as continuous
TOKENS_PER_S = 10**6

# Continuous batching: a step of n sequences takes 10 + 0.2 n ms, a request 200 tokens on average, 64 run at most
TOKENS = 200
BATCH_CAP = 64


def engine(seconds, **limits):
    """A node that takes ``seconds(batch)`` a step and knows no limits but those given."""
    no_limits = {
        "kv_blocks": PLENTY, "max_num_seqs": PLENTY, "max_num_batched_tokens": PLENTY, "max_context_tokens": PLENTY,
    }  # fmt: skip
    return cluster(seconds, **(no_limits | limits))


def prefill_s(batch):
    return batch.prefill_tokens / TOKENS_PER_S


def decode_step_s(n):
    return 0.010 + 0.0002 * n


def requests_per_s(n):
    running = min(n, BATCH_CAP)
    return running / (TOKENS * decode_step_s(running))


BATCHING = engine(lambda batch: decode_step_s(batch.sequences), max_num_seqs=BATCH_CAP)


def served(spec, arrival_s, prompts, outputs):
    """Table of the requests, in order of arrival."""
    sizes = zip(prompts.tolist(), outputs.tolist(), strict=True)
    requests = [Request(prompt, output, output, 0.0) for prompt, output in sizes]
    records = simulate(spec, OpenArrivals(arrival_s, requests, None))
    table = records.requests_table()
    assert len(table) == len(requests)
    return table


def generators(replications):
    return [np.random.default_rng([SEED, replication]) for replication in range(replications)]


def check(exact, values, controls, within=HALF_WIDTH):
    """Assert that the mean of independent replications agrees with ``exact`` and is known to the share ``within``.

    ``controls`` has a row for each replication: quantities of known mean, less that mean. They come from the inputs
    alone: a wrong simulation cannot hide in them. The jackknife makes the interval carry what their regression costs.
    """
    outcome, design = np.array(values), np.column_stack([np.ones(len(values)), controls])
    rows = np.arange(len(outcome))
    without = [_intercept(design[rows != row], outcome[rows != row]) for row in rows]
    pseudo = len(rows) * _intercept(design, outcome) - (len(rows) - 1) * np.array(without)
    mean, half_width = t_interval(pseudo, level=0.997)
    assert half_width <= within * exact, f"{mean:g} ± {half_width:g} is too vague for {exact:g}"
    assert abs(mean - exact) <= half_width, f"{mean:g} ± {half_width:g} instead of {exact:g}"


def _intercept(design, outcome):
    return np.linalg.lstsq(design, outcome)[0][0]


def input_controls(arrival_s, service_s, rate_per_s, mean_s, kept):
    """Gaps, services, and the first two moments of how many requests each would meet on infinitely many servers.

    That number is Poisson whatever the service; it knows of bunches in the input, which the means do not.
    """
    load = rate_per_s * mean_s
    met = (np.arange(len(arrival_s)) - np.searchsorted(np.sort(arrival_s + service_s), arrival_s))[kept]
    means = [np.diff(arrival_s, prepend=0)[kept].mean() - 1 / rate_per_s, service_s[kept].mean() - mean_s]
    return [*means, met.mean() - load, (met**2).mean() - load - load**2]


def fast_server_control(arrival_s, service_s, rate_per_s, mean_s, squared_variation, kept):
    """Wait of the same requests one by one on a server faster than the simulated one, or as fast as all its places.

    That is M/G/1, by Lindley's recursion; it follows the simulated queue when this is long.
    """
    walk = np.cumsum(np.append(0.0, service_s[:-1] - np.diff(arrival_s)))
    wait_s = walk - np.minimum.accumulate(walk)
    return wait_s[kept].mean() - mg1_wait_s(rate_per_s, mean_s, (1 + squared_variation) * mean_s**2)


# Load .5: the variance of the mean wait relative to its square grows fast with load
@pytest.mark.parametrize(
    ("draw_s", "squared_variation"),
    [(lambda generator, n: generator.exponential(1, n), 1), (lambda generator, n: np.ones(n), 0)],
    ids=["M/M/1", "M/D/1"],
)
def test_one_place_waits_as_mg1(draw_s, squared_variation):
    rate_per_s, faster = 0.5, 1.25
    values, controls, kept = [], [], slice(300, None)
    for generator in generators(32):
        arrival_s = np.cumsum(generator.exponential(1 / rate_per_s, 3000))
        prompts = np.ceil(draw_s(generator, len(arrival_s)) * TOKENS_PER_S).astype(int)
        requests = served(engine(prefill_s, max_num_seqs=1), arrival_s, prompts, np.ones_like(prompts))
        values.append((requests["first_scheduled_s"].to_numpy() - arrival_s)[kept].mean())
        service_s = prompts / TOKENS_PER_S
        fast = fast_server_control(arrival_s, service_s / faster, rate_per_s, 1 / faster, squared_variation, kept)
        controls.append([*input_controls(arrival_s, service_s, rate_per_s, 1, kept), fast])
    check(mg1_wait_s(rate_per_s, 1, 1 + squared_variation), values, controls)


def test_a_serial_engine_waits_as_mg1_of_prefill_and_answer():
    """mlx-lm one by one: a prompt's step and then a step a token, answers long or short."""
    rate_per_s, faster, prompt_s, lengths, odds = 0.02, 1.25, 5.0, np.array([8, 68]), [0.8, 0.2]
    spec = engine(lambda batch: prompt_s if batch.prefill else 1.0, max_num_seqs=1, **engine_policy("mlx-lm-serial"))
    law = prompt_s + lengths - 1
    mean_s, second_moment_s2 = law @ odds, law**2 @ odds
    values, controls, kept = [], [], slice(300, None)
    for generator in generators(48):
        arrival_s = np.cumsum(generator.exponential(1 / rate_per_s, 3000))
        outputs = generator.choice(lengths, len(arrival_s), p=odds)
        requests = served(spec, arrival_s, np.ones_like(outputs), outputs)
        values.append((requests["first_scheduled_s"].to_numpy() - arrival_s)[kept].mean())
        service_s = prompt_s + outputs - 1
        variation = second_moment_s2 / mean_s**2 - 1
        fast = fast_server_control(arrival_s, service_s / faster, rate_per_s, mean_s / faster, variation, kept)
        controls.append([*input_controls(arrival_s, service_s, rate_per_s, mean_s, kept), fast])
    check(mg1_wait_s(rate_per_s, mean_s, second_moment_s2), values, controls)


def slots(generator, n):
    """llama.cpp: each request a slot, some answers five times as long as most. The loss depends on the mean alone."""
    outputs = generator.choice([13, 61], n, p=[0.75, 0.25])
    spec = engine(lambda batch: 1.0, max_num_seqs=SERVERS, queue_limit=0, **engine_policy("llama.cpp"))
    return spec, np.ones(n, int), outputs, outputs + 0.5


def places_of_a_batch(generator, n):
    """Answers of 25 tokens on average in steps of 1 s, and their holding times.

    A request holds its place from its arrival, half a step before its first on average. That there are steps at all
    biases the loss by another 0.2 %, says the Markov chain at their ends.
    """
    outputs = generator.geometric(1 / 25, n)
    return engine(lambda batch: 1.0, max_num_seqs=SERVERS, queue_limit=0), np.ones(n, int), outputs, outputs + 0.5


def nodes_of_one_place(generator, n):
    """Prompts of exponential length, a step each: no bias."""
    prompts = np.ceil(generator.exponential(25.5 * TOKENS_PER_S, n)).astype(int)
    spec = engine(prefill_s, nodes=SERVERS, max_num_seqs=1, queue_limit=0)
    return spec, prompts, np.ones(n, int), prompts / TOKENS_PER_S


# Load 8 Erlang: the loss is large, .236
@pytest.mark.parametrize("places", [places_of_a_batch, nodes_of_one_place, slots])
def test_places_without_queue_lose_as_erlang_b(places):
    load, mean_s, n = SERVERS, 25.5, 2600
    values, controls, kept = [], [], slice(150, None)
    for generator in generators(32):
        arrival_s = np.cumsum(generator.exponential(mean_s / load, n))
        spec, prompts, outputs, holding_s = places(generator, n)
        requests = served(spec, arrival_s, prompts, outputs)
        assert set(requests["reason"]) == {"", "queue full"}
        values.append((requests["outcome"].to_numpy() == "rejected")[kept].mean())
        controls.append(input_controls(arrival_s, holding_s, load / mean_s, mean_s, kept))
    check(erlang_b(SERVERS, load), values, controls)


# Load 7.2 of 8 Erlang: long queues, which the fast servers follow closely
@pytest.mark.parametrize("engine_key", ["vllm", "llama.cpp"])
def test_places_with_queue_wait_as_erlang_c(engine_key):
    steps, rate_per_s = 10, 0.72
    variation = 1 - 1 / steps  # squared, of a geometric number
    values, controls, kept = [], [], slice(1000, None)
    for generator in generators(36):
        arrival_s = np.cumsum(generator.exponential(1 / rate_per_s, 5500))
        outputs = generator.geometric(1 / steps, len(arrival_s))
        spec = engine(lambda batch: 1.0, max_num_seqs=SERVERS, **engine_policy(engine_key))
        requests = served(spec, arrival_s, np.ones_like(outputs), outputs)
        # Whoever comes sits out the running step, half a step on average, even with places free: not Erlang's wait
        values.append((requests["first_scheduled_s"].to_numpy() - arrival_s)[kept].mean() - 0.5)
        speeds = SERVERS, 1.25 * SERVERS
        fast = [fast_server_control(arrival_s, outputs / v, rate_per_s, steps / v, variation, kept) for v in speeds]
        controls.append(input_controls(arrival_s, outputs, rate_per_s, steps, kept) + fast)
    # Geometric service varies less than exponential, and the wait goes as 1 + variation: so says the exact chain too
    exact = mmc_wait_s(SERVERS, rate_per_s, steps) * (1 + variation) / 2
    assert step_chain(rate_per_s, lambda n: 1.0, 1 / steps, SERVERS) - steps - 0.5 == pytest.approx(exact, rel=1e-3)
    check(exact, values, controls)


def used_blocks(at_s, start_s, end_s, blocks):
    """Blocks in use just before each of ``at_s``."""
    by_start, by_end = np.argsort(start_s), np.argsort(end_s)
    taken, freed = (np.append(0, np.cumsum(blocks[order])) for order in (by_start, by_end))
    return taken[np.searchsorted(start_s[by_start], at_s)] - freed[np.searchsorted(end_s[by_end], at_s)]


def lost_for_blocks(generator, engine_key, total_blocks, sizes, loads, steps, horizon_s):
    """One replication of a pool without queue: shares of requests lost, of time without room, and controls, by class.

    Answers have constant length: the loss depends on its mean alone, and this is the least noisy law. The thousands of
    a request's context tell its class, so that its blocks do not grow with its answer.
    """
    warmup_s, classes = 10 * steps, np.arange(len(sizes))
    rates_per_s = np.array(loads) / (steps + 0.5)
    kind = np.repeat(classes, generator.poisson(rates_per_s * horizon_s))
    generator.shuffle(kind)
    arrival_s = np.sort(generator.uniform(0, horizon_s, len(kind)))
    pool = {"kv_blocks": total_blocks, "block_rule": BlockRule(1000, (0, *sizes)), "queue_limit": 0}
    pool |= engine_policy(engine_key)
    requests = served(engine(lambda batch: 1.0, **pool), arrival_s, 1000 * kind + 1, np.full_like(kind, steps))

    lost, blocks = requests["outcome"].to_numpy() == "rejected", np.array(sizes)[kind]
    held = arrival_s[~lost], requests["finished_s"].to_numpy()[~lost], blocks[~lost]
    assert np.array_equal(lost, used_blocks(arrival_s, *held) + blocks > total_blocks)
    used = used_blocks(generator.uniform(warmup_s, horizon_s, 8 * horizon_s), *held)
    kept = [(kind == k) & (arrival_s > warmup_s) for k in classes]
    counted = [lost[mine].mean() for mine in kept]
    timed = [(used + size > total_blocks).mean() for size in sizes]
    came = [mine.sum() - rate * (horizon_s - warmup_s) for mine, rate in zip(kept, rates_per_s, strict=True)]
    return counted, timed, came


# The heavy one loses much of every class: .37, .62 and .79. Steps bias its smallest class by 0.3 %, that of the
# published one by 1.3 %, and the others by 0.1 %, says a plain simulation of steps and blocks without capsim
@pytest.mark.parametrize(
    ("engine_key", "pool", "steps", "horizon_s", "replications", "within"),
    [
        pytest.param(
            "vllm", (200, (2, 8, 30), (20, 6, 1.5)), 50, 50_000, 60, (0.10, 0.05, 0.04),
            marks=pytest.mark.slow, id="published",
        ),
        pytest.param("vllm", (12, (1, 2, 3), (10, 4, 2)), 30, 5000, 48, (HALF_WIDTH,) * 3, id="heavy"),
        pytest.param("tensorrt-llm", (12, (1, 2, 3), (10, 4, 2)), 30, 5000, 48, (HALF_WIDTH,) * 3, id="no-evict"),
    ],
)  # fmt: skip
def test_a_pool_without_queue_loses_as_kaufman_roberts(engine_key, pool, steps, horizon_s, replications, within):
    runs = [lost_for_blocks(generator, engine_key, *pool, steps, horizon_s) for generator in generators(replications)]
    counted, timed, controls = map(np.array, zip(*runs, strict=True))
    for k, exact in enumerate(kaufman_roberts(*pool)):
        check(exact, counted[:, k], controls, within[k])
        # Poisson arrivals see time averages: the same share, less noisy
        check(exact, timed[:, k], controls, within[k])


@pytest.mark.parametrize(
    ("users", "replications", "horizon_s", "warmup_s"),
    [(600, 20, 100, 10), pytest.param(900, 26, 1500, 60, marks=pytest.mark.slow)],
)
def test_users_who_think_are_served_as_a_closed_network(users, replications, horizon_s, warmup_s):
    think_s = 60
    throughput_per_s, response_s = closed_network(users, think_s, requests_per_s)
    in_service = birth_death(np.arange(users, 0, -1) / think_s, [requests_per_s(n + 1) for n in range(users)])
    in_service_mean = throughput_per_s * response_s
    counted, responses_s, controls = [], [], []
    for generator in generators(replications):
        # Near steady state from the start: exponential pauses and geometric answers have no memory
        busy = generator.choice(users + 1, p=in_service)
        start_s = np.where(np.arange(users) < busy, 0, generator.exponential(think_s, users))
        outputs = generator.geometric(1 / TOKENS, 2 * round(throughput_per_s * horizon_s))
        pauses_s = generator.exponential(think_s, len(outputs))
        drawn = (Request(1, int(n), int(n), float(pause)) for n, pause in zip(outputs, pauses_s, strict=True))
        # Users go on for a while after the horizon: who asks shortly before it must not find the others gone
        requests = simulate(BATCHING, ClosedLoop(start_s, drawn, None, horizon_s + 5 * response_s)).requests_table()
        arrival_s, finished_s = requests["arrival_s"].to_numpy(), requests["finished_s"].to_numpy()
        counted.append(((finished_s > warmup_s) & (finished_s <= horizon_s)).sum() / (horizon_s - warmup_s))
        responses_s.append((finished_s - arrival_s)[(arrival_s > warmup_s) & (arrival_s <= horizon_s)].mean())
        # About those whose answers fall in the time measured, and whose pauses decide who asks in it
        first, last = (round(in_service_mean + throughput_per_s * at_s) for at_s in (warmup_s, horizon_s))
        pauses = [pauses_s[:last].mean() - think_s, start_s[busy:].mean() - think_s]
        controls.append([outputs[first:last].mean() - TOKENS, *pauses])
    check(throughput_per_s, counted, controls)
    # The network serves at once, a batch when the running step is over: half of it on average, 0.1 % less at 900 users
    half_step_s = decode_step_s(min(in_service_mean, BATCH_CAP)) / 2
    check(response_s + half_step_s, responses_s, controls)


# Near saturation the queue remembers long: long warm-ups and runs
@pytest.mark.parametrize(
    ("utilisation", "replications", "measured", "margin"),
    [
        (0.5, 24, 150, 120),
        (0.8, 24, 250, 220),
        pytest.param(0.9, 20, 3000, 800, marks=pytest.mark.slow),
        pytest.param(0.95, 20, 6000, 3000, marks=pytest.mark.slow),
    ],
)
def test_continuous_batching_follows_the_chain_at_step_boundaries(utilisation, replications, measured, margin):
    rate_per_s = utilisation * requests_per_s(BATCH_CAP)
    exact = step_chain(rate_per_s, decode_step_s, 1 / TOKENS, BATCH_CAP)
    # Seconds of a token: in the usual batch, and of a server as fast as a full batch
    usual_s, full_s = decode_step_s(min(rate_per_s * exact, BATCH_CAP)), decode_step_s(BATCH_CAP) / BATCH_CAP
    # The first start in an empty system, the last run on while no one comes any more
    values, controls, kept = [], [], slice(margin, margin + measured)
    for generator in generators(replications):
        arrival_s = np.cumsum(generator.exponential(1 / rate_per_s, measured + 2 * margin))
        outputs = generator.geometric(1 / TOKENS, len(arrival_s))
        requests = served(BATCHING, arrival_s, np.ones_like(outputs), outputs)
        values.append((requests["finished_s"].to_numpy() - arrival_s)[kept].mean())
        usual = input_controls(arrival_s, outputs * usual_s, rate_per_s, TOKENS * usual_s, kept)
        fast = fast_server_control(arrival_s, outputs * full_s, rate_per_s, TOKENS * full_s, 1 - 1 / TOKENS, kept)
        controls.append([*usual, fast])
    check(exact, values, controls)
