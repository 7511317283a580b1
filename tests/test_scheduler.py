"""vLLM V1's scheduling rules, one at a time."""

import pytest
from clusters import arrivals, cluster

from capsim.memory import BlockRule
from capsim.sim.cluster import simulate
from capsim.sim.kvcache import KVCache
from capsim.sim.replica import Replica
from capsim.sim.sequence import Sequence
from capsim.sim.spec import Policy
from capsim.workload.requests import Request


def make(blocks=100, seqs=8, tokens=64, **limits):
    return Replica(0, KVCache(blocks, BlockRule(16)), Policy(seqs, tokens, **limits), ())


def submit(replica, *sizes):
    """Queue requests of (prompt tokens, output tokens)."""
    sequences = [
        Sequence(i, i, 0, Request(prompt, output, output, 0.0), 0.0) for i, (prompt, output) in enumerate(sizes)
    ]
    return sequences, [replica.submit(sequence) for sequence in sequences]


def step(replica):
    work = replica.begin(0.0)
    replica.finish_steps(1, 0.0)
    return work.batch


def chunks(batch):
    return [tuple(chunk) for chunk in batch.prefill]


def test_running_requests_go_first_and_prefill_takes_what_is_left():
    replica = make()
    submit(replica, (10, 8))
    step(replica)
    submit(replica, (200, 8))
    batch = step(replica)
    assert batch.decode_sequences == 1
    assert chunks(batch) == [(63, 0)]


def test_a_prompt_is_prefilled_in_chunks_and_its_last_chunk_yields_the_first_token():
    replica = make()
    (sequence,), _ = submit(replica, (150, 1))
    seen = []
    while replica.in_flight:
        seen.append((chunks(step(replica)), sequence.generated_tokens))
    assert seen == [([(64, 0)], 0), ([(64, 64)], 0), ([(22, 128)], 1)]
    assert replica.cache.used_blocks == 0


def test_a_prompt_waits_until_the_whole_of_it_fits():
    replica = make(blocks=10)
    sequences, _ = submit(replica, (96, 16), (80, 16))
    step(replica)
    assert list(replica.running.values()) == sequences[:1]
    assert list(replica.waiting) == sequences[1:]


def test_preemption_drops_the_youngest_recomputes_it_and_admits_nobody_in_that_step():
    replica = make(blocks=4)
    sequences, _ = submit(replica, (16, 40), (16, 40), (1, 1))
    step(replica)
    while not sequences[1].preemptions:
        batch = step(replica)
    assert chunks(batch) == []
    assert sequences[0].preemptions == sequences[2].preemptions == 0
    assert replica.waiting[0] is sequences[1]
    assert sequences[1].computed_tokens == 0
    assert sequences[1].generated_tokens > 0


def test_a_request_that_could_never_fit_is_refused():
    assert submit(make(blocks=4), (60, 10))[1] == ["larger than the KV pool"]


def test_a_queue_limit_counts_those_that_could_not_start_at_once():
    assert submit(make(seqs=2, queue_limit=1), *[(16, 8)] * 4)[1] == ["", "", "", "queue full"]


def test_a_token_budget_below_the_batch_cap_is_refused():
    with pytest.raises(ValueError, match="max_num_batched_tokens 4 is below"):
        Policy(8, 4)


def test_blocks_allocated_equal_freed_plus_resident():
    replica = make(blocks=12)
    submit(replica, *[(20 + i, 10 + 7 * i) for i in range(6)])
    while replica.in_flight:
        step(replica)
        cache = replica.cache
        assert cache.allocated_blocks == cache.freed_blocks + cache.used_blocks
    assert replica.cache.used_blocks == 0


def test_a_lone_answer_is_one_run_of_steps_and_an_arrival_cuts_it():
    alone = simulate(cluster(), arrivals([0.0], [(16, 40)])).segments_table()
    assert alone["steps"].tolist() == [1, 39]
    joined = simulate(cluster(), arrivals([0.0, 0.1], [(16, 40), (16, 40)])).segments_table()
    first, second = 0.01 + 16e-4, 0.011
    steps = -(-(0.1 - first) // second)
    assert joined["steps"].tolist()[:3] == [1, steps, 1]
