"""The engine as one would first write it: a loop over steps, and in each step a loop over sequences.

It is the reference for ``capsim.sim.engine``: the same rules, no aggregates, no runs of steps.
"""

from collections import deque
from functools import partial
from types import SimpleNamespace

from capsim.sim.clients import start
from capsim.sim.cluster import Cluster
from capsim.steptime import Batch, PrefillChunk


class PlainReplica:
    """vLLM V1's scheduling with explicit loops: running requests first, then waiting ones, under one token budget."""

    def __init__(self, index, spec):
        self.index = index
        self.limits = spec.limits
        self.blocks = spec.block_rule.blocks
        self.streams = spec.streams
        self.cache = SimpleNamespace(free_blocks=spec.kv_blocks, allocated_blocks=0, freed_blocks=0, used_blocks=0)
        self.total_blocks = spec.kv_blocks
        self.held = {}
        self.waiting = deque()
        self.running = []
        self.last_producers = set()

    @property
    def in_flight(self):
        return len(self.running) + len(self.waiting)

    def submit(self, sequence):
        if self.limits.queue_limit is not None and self.would_wait(sequence) > self.limits.queue_limit:
            return "queue full"
        if self.blocks(sequence.prompt_tokens + sequence.max_tokens) > self.total_blocks:
            return "larger than the KV pool"
        self.waiting.append(sequence)
        return ""

    def would_wait(self, sequence):
        queued, free = [*self.waiting, sequence], self.cache.free_blocks
        starting = 0
        for first in queued[: self.limits.max_num_seqs - len(self.running)]:
            free -= self.blocks(first.known_tokens)
            if free < 0:
                break
            starting += 1
        return len(queued) - starting

    def hold(self, sequence, context_tokens):
        """Make a sequence hold what a context needs; False, and nothing changed, when blocks are short."""
        more = max(0, self.blocks(context_tokens) - self.held.get(sequence, 0))
        if more > self.cache.free_blocks:
            return False
        self.held[sequence] = self.held.get(sequence, 0) + more
        self.cache.allocated_blocks += more
        self.cache.free_blocks -= more
        self.cache.used_blocks += more
        return True

    def release(self, sequence):
        freed = self.held.pop(sequence)
        self.cache.freed_blocks += freed
        self.cache.free_blocks += freed
        self.cache.used_blocks -= freed

    def schedule(self, now_s):
        """The next step's work: (sequence, new tokens)."""
        work, preempted, budget = [], [], self.limits.max_num_batched_tokens
        position = 0
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            new = min(sequence.known_tokens - sequence.computed_tokens, budget)
            while not self.hold(sequence, sequence.computed_tokens + new):
                victim = self.preempt_youngest()
                preempted.append(victim)
                if victim is sequence:
                    return work
            work.append((sequence, new))
            budget -= new
            position += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            if self.blocks(sequence.known_tokens) > self.cache.free_blocks:
                break
            new = min(sequence.known_tokens, budget)
            self.hold(sequence, new)
            self.running.append(self.waiting.popleft())
            if not sequence.preemptions:
                sequence.first_scheduled_s = now_s
            work.append((sequence, new))
            budget -= new
        return work

    def preempt_youngest(self):
        victim = self.running.pop()
        self.release(victim)
        victim.computed_tokens = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def describe(self, work):
        """The batch, and the context its sequences had."""
        contexts, chunks, finishing = [], [], 0
        for sequence, new in work:
            if sequence in self.last_producers:
                contexts.append(sequence.known_tokens)
            else:
                chunks.append(PrefillChunk(new, sequence.computed_tokens))
                finishing += sequence.computed_tokens + new == sequence.known_tokens
        reads = tuple(sum(stream.read(context) for context in contexts) for stream in self.streams)
        batch = Batch(len(contexts), reads, tuple(chunks), finishing)
        return batch, sum(contexts) + sum(chunk.context_tokens for chunk in chunks)

    def complete(self, work, now_s):
        """Book the step: the sequences that ended, and the token gaps that equal the step's duration."""
        gaps, producers, ended = 0, set(), []
        for sequence, new in work:
            sequence.computed_tokens += new
            if sequence.computed_tokens < sequence.known_tokens:
                continue
            sequence.generated_tokens += 1
            producers.add(sequence)
            if sequence.generated_tokens == 1:
                sequence.first_token_s = now_s
            elif sequence in self.last_producers:
                gaps += 1
            else:
                sequence.stalls_s.append(now_s - sequence.last_token_s)
            sequence.last_token_s = now_s
            if sequence.generated_tokens == sequence.output_tokens:
                self.running.remove(sequence)
                self.release(sequence)
                ended.append(sequence)
        self.last_producers = producers
        return ended, gaps


class PlainEngine:
    """Steps, one at a time. ``token_log``, where given, gets (request, time) of every token."""

    def __init__(self, env, spec, node, ranks, priority, records, on_end, token_log=None):
        self.env, self.node, self.priority = env, node, priority
        self.model, self.records, self.on_end = spec.model, records, on_end
        self.replicas = [PlainReplica(rank, spec) for rank in ranks]
        self.token_log = token_log
        self.stepping = False

    def submit(self, replica, sequence):
        reason = replica.submit(sequence)
        if not reason and not self.stepping:
            self.stepping = True
            self.at(0.0, self.begin)
        return reason

    def at(self, delay_s, action):
        """As in the production engine: after the arrivals of that instant, engines in order."""
        event = self.env.event()
        event._ok, event._value = True, None
        event.callbacks.append(lambda _: action())
        self.env.schedule(event, self.priority, delay_s)

    def begin(self):
        self.start_s = self.env.now
        self.steps = []
        for replica in self.replicas:
            work = replica.schedule(self.env.now)
            batch, context = replica.describe(work)
            state = (context, replica.cache.used_blocks, len(replica.running), len(replica.waiting))
            self.steps.append((replica, work, batch, state))
        times = [self.model.step_time(batch) for _, _, batch, _ in self.steps]
        self.time = max(times, key=lambda time: time.total_s)
        self.at(self.time.total_s, self.end)

    def end(self):
        time = self.time
        for replica, work, batch, (context, blocks, running, waiting) in self.steps:
            ended, gaps = replica.complete(work, self.env.now)
            if self.token_log is not None:
                self.token_log += [(sequence.request, self.env.now) for sequence in replica.last_producers]
            for sequence in ended:
                self.on_end(sequence)
            self.records.segments.append(
                (self.node, replica.index, self.start_s, time.total_s, 0.0, 1, batch.decode_sequences, gaps,
                 batch.prefill_tokens, context, blocks, blocks, running, waiting, time.bound, time.attention_s,
                 time.experts_s, time.dense_s, time.collectives_s, time.overhead_s)
            )  # fmt: skip
        self.stepping = any(replica.in_flight for replica in self.replicas)
        if self.stepping:
            self.begin()


def plain_records(spec, traffic, token_log=None):
    """What ``simulate`` gives, by the plain loop."""
    cap = getattr(traffic, "max_in_flight", None)
    cluster = Cluster(spec, lambda ended: None, cap, partial(PlainEngine, token_log=token_log))
    start(cluster.env, traffic, cluster.submit)
    cluster.env.run()
    cluster.close()
    return cluster.records
