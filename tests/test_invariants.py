"""What is true of every simulation, whatever the load: identities, token times, work done once."""

import math
from collections import defaultdict

import numpy as np
import pytest
from clusters import arrivals, check_identities, cluster, read_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_engine import plain_records

from capsim.metrics.sample import equally, joined
from capsim.metrics.steps import longest_gap
from capsim.parallelism import Parallelism
from capsim.sim.cluster import simulate
from capsim.workload.requests import ClosedLoop, Request


def tables(records):
    return records.requests_table(), records.segments_table()


@st.composite
def loads(draw):
    count = draw(st.integers(1, 25))
    # No sum of these meets a step boundary, on whose two sides rounding could put two engines.
    gaps = draw(
        st.lists(st.sampled_from([0.0, 0.0031415927, 0.0577215665, 0.4142135624]), min_size=count, max_size=count)
    )
    lengths = draw(st.lists(st.tuples(st.integers(1, 150), st.integers(1, 40)), min_size=count, max_size=count))
    spec = cluster(
        nodes=draw(st.integers(1, 2)),
        layout=draw(st.sampled_from([Parallelism(1), Parallelism(1, 2), Parallelism(1, 2, True)])),
        kv_blocks=draw(st.integers(6, 40)),
        max_num_seqs=draw(st.integers(1, 8)),
        max_num_batched_tokens=draw(st.sampled_from([8, 64, 512])),
        queue_limit=draw(st.sampled_from([None, None, 0, 3])),
        router=draw(st.sampled_from(["round-robin", "least-loaded"])),
    )
    return spec, arrivals(np.cumsum(gaps), lengths, max_in_flight=draw(st.sampled_from([None, None, 5])))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(loads())
def test_every_request_ends_and_the_identities_hold(load):
    spec, traffic = load
    records = simulate(spec, traffic)
    requests, segments = tables(records)
    check_identities(records)
    assert not (requests["outcome"] == "unfinished").any()
    assert len(requests) == len(traffic.requests)
    assert (segments["kv_blocks"] <= spec.kv_blocks).all()
    assert (segments["running"] <= spec.policy.max_num_seqs).all()
    assert all(held == 0 for _, _, held in records.kv_blocks)
    done = requests[requests["outcome"] == "completed"]
    assert segments["prefill_tokens"].sum() >= done["prompt_tokens"].sum()
    if done["preemptions"].sum() == 0:
        assert segments["prefill_tokens"].sum() == done["prompt_tokens"].sum()
        assert (segments["decode_sequences"] * segments["steps"]).sum() == (done["output_tokens"] - 1).sum()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(loads())
def test_token_times_from_the_tables_are_those_of_a_token_log(load):
    spec, traffic = load
    log, times = [], defaultdict(list)
    plain_records(spec, traffic, log)
    for request, at_s in log:
        times[request].append(at_s)
    log = times
    records = simulate(spec, traffic)
    requests, segments = tables(records)
    done = requests[requests["outcome"] == "completed"]
    assert {r: len(times) for r, times in log.items()} == dict(zip(done["request"], done["output_tokens"], strict=True))
    longest = longest_gap(requests, records.stalls(), [segments])
    for request in done["request"]:
        gaps = np.diff(log[request])
        assert longest[request] == pytest.approx(max(gaps, default=0.0), abs=1e-12)
    itl = joined([*[pool.sample() for pool in read_steps(records).itl], equally(records.stalls().to_numpy())])
    every = np.concatenate([np.diff(times) for times in log.values()] or [np.empty(0)])
    if len(every):
        expanded = np.repeat(itl.seconds, np.rint(itl.weights).astype(int))
        assert np.sort(expanded) == pytest.approx(np.sort(every), abs=1e-9)


def test_one_request_alone_takes_its_chunks_and_its_steps():
    requests, _ = tables(simulate(cluster(), arrivals([0.0], [(100, 5)])))
    request = requests.iloc[0]
    prefill = (0.01 + 64e-4) + (0.01 + 36e-4)
    assert request["first_token_s"] == pytest.approx(prefill, rel=1e-12)
    assert request["finished_s"] == pytest.approx(prefill + 4 * 0.011, rel=1e-12)


def test_littles_law_on_the_sample_path():
    lengths = [(20 + i % 90, 1 + i % 37) for i in range(400)]
    requests, segments = tables(simulate(cluster(), arrivals(np.arange(400) * 0.05, lengths)))
    spent = (requests["finished_s"] - requests["first_scheduled_s"]).sum()
    inside = (segments["duration_s"] * segments["running"]).sum()
    assert requests["preemptions"].sum() == 0
    assert inside == pytest.approx(spent, rel=1e-9)


def test_a_starved_pool_preempts_and_still_finishes():
    records = simulate(cluster(kv_blocks=12), arrivals([0.0] * 6, [(40, 60)] * 6))
    requests, segments = tables(records)
    check_identities(records)
    assert requests["preemptions"].sum() > 0
    assert (requests["outcome"] == "completed").all()
    assert segments["prefill_tokens"].sum() > 6 * 40


def test_what_does_not_fit_is_turned_away_with_its_reason():
    spec = cluster(kv_blocks=10, max_context_tokens=300, queue_limit=1, max_num_seqs=1)
    traffic = arrivals([0.0, 0.0, 0.001, 0.001, 0.001], [(400, 1), (200, 1), (20, 9), (20, 9), (20, 9)])
    requests, _ = tables(simulate(spec, traffic))
    assert requests["reason"].tolist() == [
        "longer than the model's context", "larger than the KV pool", "", "", "queue full",
    ]  # fmt: skip


def test_in_flight_cap_turns_away_open_arrivals():
    requests, _ = tables(simulate(cluster(), arrivals([0.0] * 5, [(20, 9)] * 5, max_in_flight=3)))
    assert requests["reason"].tolist() == ["", "", "", "in-flight cap", "in-flight cap"]


def test_closed_users_have_one_request_inside_at_a_time():
    requests = iter([Request(20, 9, 9, 0.5)] * 100)
    table, _ = tables(simulate(cluster(), ClosedLoop(np.array([0.0, 0.1, 0.2]), requests, 40, math.inf)))
    assert len(table) == 40
    for _, mine in table.groupby("session"):
        pauses = mine["arrival_s"].to_numpy()[1:] - mine["finished_s"].to_numpy()[:-1]
        assert pauses == pytest.approx(np.full(len(pauses), 0.5), abs=1e-9)


def test_a_second_node_takes_half_of_the_requests():
    lengths = [(20, 9)] * 40
    requests, _ = tables(simulate(cluster(nodes=2, router="round-robin"), arrivals(np.arange(40) * 0.01, lengths)))
    assert requests["node"].value_counts().to_dict() == {0: 20, 1: 20}
