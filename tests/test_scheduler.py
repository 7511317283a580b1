"""vLLM V1's scheduling rules, one at a time."""

import math

from capsim.sim.kvcache import KVCache
from capsim.sim.scheduler import Scheduler, Sequence


def make(blocks=100, seqs=8, tokens=64):
    cache = KVCache(blocks, lambda context: math.ceil(context / 16))
    return Scheduler(cache, seqs, tokens)


def step(scheduler, outputs):
    done = scheduler.schedule()
    for sequence in scheduler.complete(done):
        if sequence.generated_tokens == outputs[sequence.index]:
            scheduler.finish(sequence)
    return done


def test_running_requests_go_first_and_prefill_takes_what_is_left():
    scheduler = make()
    scheduler.add(Sequence(0, 10, 8))
    step(scheduler, {0: 8})
    scheduler.add(Sequence(1, 200, 8))
    work = scheduler.schedule().work
    assert [(s.index, n) for s, n in work] == [(0, 1), (1, 63)]


def test_a_prompt_is_prefilled_in_chunks_and_its_last_chunk_yields_the_first_token():
    scheduler = make()
    scheduler.add(Sequence(0, 150, 1))
    sizes = []
    while scheduler.running or scheduler.waiting:
        sizes += [n for _, n in step(scheduler, {0: 1}).work]
    assert sizes == [64, 64, 22]
    assert scheduler.cache.used_blocks == 0


def test_a_prompt_waits_until_the_whole_of_it_fits():
    scheduler = make(blocks=10)
    scheduler.add(Sequence(0, 96, 16))
    scheduler.add(Sequence(1, 80, 16))
    step(scheduler, {0: 16, 1: 16})
    assert [s.index for s in scheduler.running] == [0]
    assert [s.index for s in scheduler.waiting] == [1]


def test_preemption_drops_the_youngest_recomputes_it_and_admits_nobody_in_that_step():
    scheduler = make(blocks=4)
    outputs = {0: 40, 1: 40, 2: 1}
    scheduler.add(Sequence(0, 16, 40))
    scheduler.add(Sequence(1, 16, 40))
    step(scheduler, outputs)
    while not (done := step(scheduler, outputs)).preempted:
        pass
    assert [s.index for s in done.preempted] == [1]
    assert not done.admitted
    assert scheduler.waiting[0].computed_tokens == 0
    assert scheduler.waiting[0].generated_tokens > 0


def test_a_request_that_could_never_fit_is_refused():
    assert not make(blocks=4).add(Sequence(0, 60, 10))


def test_blocks_allocated_equal_freed_plus_resident():
    scheduler = make(blocks=12)
    outputs = {i: 10 + 7 * i for i in range(6)}
    for i in outputs:
        scheduler.add(Sequence(i, 20 + i, outputs[i]))
    while scheduler.running or scheduler.waiting:
        step(scheduler, outputs)
        cache = scheduler.cache
        assert cache.allocated_blocks == cache.freed_blocks + cache.used_blocks
    assert scheduler.cache.used_blocks == 0
