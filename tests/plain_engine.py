"""The engine as one would first write it: a loop over steps, and in each step a loop over sequences.

It is the reference for ``capsim.sim.engine``: the same rules, no aggregates, no runs of steps.
"""

from collections import deque
from functools import partial

from capsim.sim import retraction, stalling
from capsim.sim.clients import start
from capsim.sim.cluster import Cluster
from capsim.steptime import Batch, PrefillChunk


class PlainTier:
    """A list of runs with their blocks, the first to go first, and a link that is free again at some time."""

    def __init__(self, spec):
        self.name, self.capacity, self.block_s = spec.name, spec.blocks, spec.block_s
        self.runs = []
        self.link_free_s = 0.0
        self.hit_tokens = self.loaded_blocks = self.stored_blocks = 0

    @property
    def busy_s(self):
        return (self.loaded_blocks + self.stored_blocks) * self.block_s


class PlainOffload:
    """The tiers below a pool."""

    def __init__(self, specs):
        self.tiers = [PlainTier(spec) for spec in specs]
        self.lost_blocks = 0

    def store(self, run, blocks, level=0):
        if level == len(self.tiers):
            self.lost_blocks += blocks if self.tiers else 0
        elif blocks > self.tiers[level].capacity:
            self.store(run, blocks, level + 1)
        else:
            tier = self.tiers[level]
            while sum(held for _, held in tier.runs) + blocks > tier.capacity:
                self.store(*tier.runs.pop(0), level + 1)
            tier.runs.append((run, blocks))
            tier.stored_blocks += blocks

    def blocks(self, run):
        return next((blocks for tier in self.tiers for held, blocks in tier.runs if held == run), None)

    def drop(self, run):
        for tier in self.tiers:
            tier.runs = [held for held in tier.runs if held[0] != run]


class PlainCache:
    """A pool of blocks in which every block has an owner: a sequence, or an entry for a run of a prompt."""

    def __init__(self, total_blocks, block_tokens, tiers=()):
        self.total_blocks, self.block_tokens = total_blocks, block_tokens
        self.offload = PlainOffload(tiers)
        self.arrivals = {}  # run that was loaded: when
        self.owned = {}  # sequence: blocks of its own
        self.entries = {}  # run: blocks
        self.holders = {}  # run: sequences, in the order in which they came
        self.idle = []  # runs that nobody holds, the least recently held first
        self.allocated_blocks = self.freed_blocks = self.evicted_blocks = 0

    @property
    def used_blocks(self):
        return sum(self.owned.values()) + sum(self.entries[run] for run in self.entries if self.holders[run])

    @property
    def free_blocks(self):
        return self.total_blocks - self.used_blocks

    @property
    def resident_blocks(self):
        return sum(self.owned.values()) + sum(self.entries.values())

    def match(self, sequence):
        """Leading runs of what is known of a sequence that are here or below."""
        runs = []
        for run in sequence.prefix:
            if self.found(run) is None or run[1] > sequence.known_tokens:
                break
            runs.append(run)
        return runs

    def holds(self, run):
        return run in self.entries

    def found(self, run):
        """Blocks of a run, wherever it is."""
        return self.entries[run] if run in self.entries else self.offload.blocks(run)

    def blocks(self, runs):
        """Blocks of those runs that are in the pool."""
        return sum(self.entries[run] for run in runs if run in self.entries)

    def take(self, sequence, blocks):
        if blocks > self.free_blocks:
            return False
        while blocks > self.total_blocks - self.resident_blocks:
            run = self.idle.pop(0)
            gone = self.entries.pop(run)
            del self.holders[run]
            self.arrivals.pop(run, None)
            self.freed_blocks += gone
            self.evicted_blocks += gone
            self.offload.store(run, gone)
        self.owned[sequence] = self.owned.get(sequence, 0) + blocks
        self.allocated_blocks += blocks
        return True

    def hold(self, sequence, runs):
        for run in runs:
            if run in self.idle:
                self.idle.remove(run)
            self.holders[run].append(sequence)

    def load(self, sequence, runs, now_s):
        """Hold runs, those that are below loaded; when all are here, and the tokens that each tier gave."""
        self.hold(sequence, [run for run in runs if run in self.entries])
        moved = [(tier, run, blocks) for tier in self.offload.tiers for run, blocks in tier.runs if run in runs]
        for _, run, _ in moved:
            self.offload.drop(run)
        assert self.take(sequence, sum(blocks for _, _, blocks in moved))
        here_s, tokens = now_s, []
        for tier in self.offload.tiers:
            blocks = sum(blocks for source, _, blocks in moved if source is tier)
            tokens.append(blocks * self.block_tokens)
            tier.loaded_blocks += blocks
            if blocks:
                tier.link_free_s = max(tier.link_free_s, now_s) + blocks * tier.block_s
                here_s = max(here_s, tier.link_free_s)
        for _, run, blocks in moved:
            self.entries[run], self.holders[run], self.arrivals[run] = blocks, [sequence], here_s
            self.owned[sequence] -= blocks
        return self.here_s(runs, now_s), tokens

    def here_s(self, runs, now_s):
        """When all that was found of a prompt in the pool is there."""
        return max([now_s, *(self.arrivals.get(run, now_s) for run in runs)])

    def share(self, sequence, run, blocks):
        """Turn a sequence's own blocks into an entry, or give them back where there is one that is no longer."""
        if run not in self.entries:
            self.entries[run], self.holders[run] = blocks, [sequence]
            self.offload.drop(run)
        elif self.entries[run] <= blocks:
            self.arrivals.pop(run, None)
            self.hold(sequence, [run])
            self.freed_blocks += self.entries[run]
        else:
            return False
        self.owned[sequence] -= self.entries[run]
        return True

    def release(self, sequence, runs):
        self.freed_blocks += self.owned.pop(sequence, 0)
        for run in reversed(runs):
            self.holders[run].remove(sequence)
            if not self.holders[run]:
                self.idle.append(run)


class PlainReplica:
    """A scheduler with explicit loops: every sequence is asked, in every step, what it holds and what it needs."""

    def __init__(self, index, spec, cache):
        self.index = index
        self.policy = spec.policy
        self.rule = spec.block_rule
        self.streams = spec.streams
        self.cache = cache
        self.slot = spec.kv_blocks // spec.policy.max_num_seqs if spec.policy.reserve == "slot" else None
        self.runs = {}  # sequence: the runs it holds
        self.waiting = deque()
        self.loading = []
        self.secured = {}  # sequence whose KV was loaded: the context whose blocks it holds
        self.found = {}  # and the tokens found in the pool and in each tier
        self.running = []
        self.producers = set()  # those whose last step made a token
        self.share, self.decode_steps = retraction.FIRST_SHARE, 0
        self.closed = False  # nobody starts until somebody has ended

    @property
    def in_flight(self):
        return len(self.running) + len(self.loading) + len(self.waiting)

    def batch(self):
        return self.running

    def inside(self):
        return [*self.running, *self.loading, *self.waiting]

    @property
    def waiting_tokens(self):
        return sum(sequence.known_tokens for sequence in self.waiting)

    @property
    def held_tokens(self):
        return self.cache.used_blocks * self.rule.block_tokens

    def cached_tokens(self, sequence):
        return self.cached(sequence, self.cache.match(sequence))

    def cached(self, sequence, runs):
        full = sum(self.cache.found(run) for run in runs) * self.rule.block_tokens
        return min(full, (sequence.known_tokens - 1) // self.rule.block_tokens * self.rule.block_tokens)

    def wants(self, sequence, context_tokens):
        """Blocks that it should hold with that context, by the engine's way to reserve."""
        if self.policy.reserve == "slot":
            return self.slot
        if self.policy.reserve == "answer":
            return self.rule.blocks(sequence.prompt_tokens + sequence.max_tokens)
        return self.rule.blocks(max(context_tokens, self.secured.get(sequence, 0)))

    def submit(self, sequence):
        limit = self.policy.queue_limit
        if limit is not None and self.would_wait(sequence) > limit:
            return "queue full"
        most = self.cache.total_blocks if self.slot is None else self.slot
        if self.rule.blocks(sequence.prompt_tokens + sequence.max_tokens) > most:
            return "larger than the KV pool" if self.slot is None else "larger than a slot"
        if not self.policy.chunked_prefill and sequence.prompt_tokens > self.policy.max_num_batched_tokens:
            return "prompt longer than a step's token budget"
        self.waiting.append(sequence)
        return ""

    def would_wait(self, sequence):
        queued, free = [*self.waiting, sequence], self.cache.free_blocks
        places = self.policy.max_num_seqs - len(self.running)
        if self.running and not self.policy.joins_running:
            places = 0
        starting = 0
        for first in queued[:places]:
            free -= self.wants(first, first.known_tokens)
            if free < 0:
                break
            starting += 1
        return len(queued) - starting

    def hold(self, sequence, context_tokens):
        """Make a sequence hold what a context needs; False, and nothing changed, when blocks are short."""
        has = self.cache.owned.get(sequence, 0) + self.cache.blocks(self.runs[sequence])
        return self.cache.take(sequence, max(0, self.wants(sequence, context_tokens) - has))

    def share_runs(self, sequence, computed_tokens, ends_by):
        """Let others use the runs of its prompt that are computed."""
        held = self.runs[sequence]
        for run in sequence.prefix[len(held) :]:
            full = min(run[1], computed_tokens) // self.rule.block_tokens - self.cache.blocks(held)
            if run[1] > ends_by:
                break
            if not self.cache.share(sequence, run, full):
                sequence.prefix = tuple(held)
                break
            held.append(run)

    def schedule(self, now_s):
        """The next step's work: (sequence, new tokens)."""
        if self.policy.reserve == "chunk":
            return self.schedule_stalling(now_s)
        self.preempted = False
        budget, work = self.policy.max_num_batched_tokens, []
        decoding = [sequence for sequence in self.running if sequence.decoding]
        if self.policy.prefill_first:
            self.prefill(budget, now_s, work)
            return work or self.decode(decoding, now_s)
        work = self.decode(decoding, now_s)
        self.prefill(budget - len(work), now_s, work)
        return work

    def schedule_stalling(self, now_s):
        """Hugging Face's loop over all candidates, as it stands there."""
        scarce = self.cache.free_blocks < stalling.MARGIN * self.cache.total_blocks
        budget, work, starved = self.policy.max_num_batched_tokens, [], []
        decoding = [sequence for sequence in self.running if sequence.decoding]
        inside = decoding + [sequence for sequence in self.running if not sequence.decoding]
        queued = [] if self.closed and self.running else list(self.waiting)
        for sequence in inside + queued:
            if not budget or len(work) == self.policy.max_num_seqs or (scarce and work and not sequence.decoding):
                break
            new = min(sequence.known_tokens - sequence.computed_tokens, budget)
            self.runs.setdefault(sequence, [])
            if not self.hold(sequence, sequence.computed_tokens + new):
                if sequence in inside:
                    starved.append((sequence, sequence.computed_tokens + new))
                continue
            if sequence not in inside:
                self.waiting.remove(sequence)
                self.running.append(sequence)
                if not sequence.preemptions:
                    sequence.first_scheduled_s, sequence.cached_tokens = now_s, 0
            work.append((sequence, new))
            budget -= new

        def lacking():
            return sum(self.rule.blocks(context) - self.cache.owned[sequence] for sequence, context in starved)

        sent = []
        while starved and len(self.running) > 1 and lacking() > self.cache.free_blocks:
            sent.append(self.preempt(starved.pop()[0]))
        self.waiting.extend(reversed(sent))
        self.closed = self.closed or bool(sent)
        return work if work or not self.running else self.schedule_stalling(now_s)

    def decode(self, decoding, now_s):
        if self.policy.reserve == "estimate":
            return self.decode_or_retract(decoding, now_s)
        for sequence in decoding:
            while sequence in self.running and not self.hold(sequence, sequence.known_tokens):
                self.waiting.appendleft(self.preempt(self.running[-1]))
        return [(sequence, 1) for sequence in decoding if sequence in self.running]

    def decode_or_retract(self, decoding, now_s):
        def needed():
            return sum(self.rule.blocks(s.known_tokens) - self.rule.blocks(s.known_tokens - 1) for s in self.running)

        def fits():
            room = self.cache.free_blocks * self.rule.block_tokens >= retraction.ROOM_STEPS * len(self.running)
            return (room or len(self.running) == 1) and needed() <= self.cache.free_blocks

        if needed() > self.cache.free_blocks:
            while self.running and (not self.preempted or not fits()):
                order = {sequence: place for place, sequence in enumerate(self.running)}
                victim = min(self.running, key=lambda s: (s.generated_tokens, -s.prompt_tokens, -order[s]))
                self.waiting.append(self.preempt(victim))
            used = sum(sequence.generated_tokens + retraction.ROOM_STEPS for sequence in self.running)
            allowed = sum(sequence.max_tokens for sequence in self.running)
            self.share = min(1.0, used / allowed) if self.running else retraction.FIRST_SHARE
            self.decode_steps = 0
        for sequence in self.running:
            assert self.hold(sequence, sequence.known_tokens)
        return [(sequence, 1) for sequence in decoding if sequence in self.running]

    def prefill(self, budget, now_s, work):
        may_join = self.policy.joins_running or not self.running
        for sequence in [sequence for sequence in self.running if not sequence.decoding]:
            new = min(sequence.known_tokens - sequence.computed_tokens, budget)
            if self.hold(sequence, sequence.computed_tokens + new):
                self.chunk(sequence, new, work)
            else:
                self.waiting.appendleft(self.preempt(self.running[-1]))
            budget -= new
        if not may_join or self.preempted:
            return
        for sequence in [sequence for sequence in self.loading if sequence.ready_s <= now_s]:
            if budget <= 0 or len(self.running) >= self.policy.max_num_seqs or self.must_wait(sequence, budget):
                return
            self.loading.remove(sequence)
            budget -= self.start(sequence, budget, now_s, work)
        while self.waiting and budget > 0:
            sequence = self.waiting[0]
            runs = self.cache.match(sequence)
            offloaded_blocks = sum(self.cache.found(run) for run in runs) - self.cache.blocks(runs)
            loads = self.cache.here_s(runs, now_s) > now_s or offloaded_blocks > 0
            sequence.computed_tokens = self.cached(sequence, runs)
            may_wait = not loads and self.must_wait(sequence, budget)
            if len(self.running) >= self.policy.max_num_seqs or may_wait or not self.fits(sequence, runs):
                sequence.computed_tokens = 0
                return
            self.waiting.popleft()
            self.runs[sequence] = runs
            pool_tokens = self.cache.blocks(runs) * self.rule.block_tokens
            sequence.ready_s, tokens = self.cache.load(sequence, runs, now_s)
            if loads:
                self.found[sequence] = [pool_tokens, *tokens]
                self.secured[sequence] = sequence.known_tokens
                assert self.hold(sequence, sequence.known_tokens)
                self.loading.append(sequence)
            else:
                budget -= self.start(sequence, budget, now_s, work)

    def start(self, sequence, budget, now_s, work):
        self.running.append(sequence)
        if not sequence.preemptions:
            sequence.first_scheduled_s, sequence.cached_tokens = now_s, sequence.computed_tokens
            if sequence in self.secured:
                self.count_hits(sequence)
        new = min(sequence.known_tokens - sequence.computed_tokens, budget)
        assert self.hold(sequence, sequence.computed_tokens + new)
        self.chunk(sequence, new, work)
        return new

    def count_hits(self, sequence):
        """A token is found in the fastest place that has it; those not needed are the last ones."""
        left = sequence.cached_tokens
        for tier, tokens in zip([None, *self.cache.offload.tiers], self.found[sequence], strict=True):
            hits = min(left, tokens)
            left -= hits
            if tier is not None:
                tier.hit_tokens += hits
                sequence.loaded_tokens += hits

    def must_wait(self, sequence, budget):
        left = sequence.known_tokens - sequence.computed_tokens
        return not self.policy.chunked_prefill and budget < left <= self.policy.max_num_batched_tokens

    def fits(self, sequence, runs):
        free = self.cache.free_blocks - self.cache.blocks([run for run in runs if run in self.cache.idle])
        if self.policy.reserve == "estimate" and self.running:
            wanted = self.wanted(sequence) - self.cache.blocks(runs)
            return self.expected() < (free - wanted) * self.rule.block_tokens
        return self.wants(sequence, sequence.known_tokens) - self.cache.blocks(runs) <= free

    def wanted(self, sequence):
        return self.rule.blocks(
            sequence.known_tokens + min(sequence.max_tokens - sequence.generated_tokens, retraction.CLIP_TOKENS)
        )

    def expected(self):
        """Tokens that those inside are expected to ask for."""
        decay = (retraction.FIRST_SHARE - retraction.LAST_SHARE) / retraction.DECAY_STEPS
        share = max(retraction.LAST_SHARE, self.share - self.decode_steps * decay)
        total = 0.0
        for sequence in self.running:
            left = min(sequence.max_tokens - sequence.generated_tokens, retraction.CLIP_TOKENS)
            if sequence.decoding:
                total += left * share
            else:
                total += left
        return total

    def chunk(self, sequence, new, work):
        self.share_runs(
            sequence, sequence.computed_tokens + new, min(sequence.computed_tokens + new, sequence.prompt_tokens)
        )
        work.append((sequence, new))

    def preempt(self, victim):
        self.preempted = True
        self.running.remove(victim)
        self.drop(victim)
        victim.computed_tokens = 0
        victim.decoding = False
        victim.preemptions += 1
        return victim

    def drop(self, sequence):
        """Let go of what a sequence holds."""
        self.cache.release(sequence, self.runs.pop(sequence))
        self.secured.pop(sequence, None)

    def describe(self, work):
        """The batch, and the context its sequences had."""
        contexts, chunks, finishing = [], [], 0
        for sequence, new in work:
            if sequence.decoding:
                contexts.append(sequence.known_tokens)
            else:
                chunks.append(PrefillChunk(new, sequence.computed_tokens))
                finishing += sequence.computed_tokens + new == sequence.known_tokens
        reads = tuple(sum(stream.read(context) for context in contexts) for stream in self.streams)
        batch = Batch(len(contexts), reads, tuple(chunks), finishing)
        return batch, sum(contexts) + sum(chunk.context_tokens for chunk in chunks)

    def complete(self, work, now_s, duration_s):
        """Book the step: the sequences that ended, and token gaps that are longer than the step."""
        late, producers = [], []
        self.decode_steps += any(sequence.decoding for sequence, _ in work)
        for sequence, new in work:
            sequence.computed_tokens += new
            if sequence.computed_tokens < sequence.known_tokens or sequence.outcome == "abandoned":
                continue
            sequence.known_tokens += 1
            producers.append(sequence)
            if sequence.generated_tokens == 1:
                sequence.first_token_s = now_s
            elif not sequence.decoding:
                sequence.stalls_s.append(now_s - sequence.last_token_s)
            elif now_s - sequence.last_token_s > duration_s:
                late.append(now_s - sequence.last_token_s)
            sequence.last_token_s = now_s
            sequence.decoding = True
        for sequence in [sequence for sequence in self.running if sequence.outcome == "abandoned"]:
            self.running.remove(sequence)
            self.drop(sequence)
        ended = [sequence for sequence in producers if sequence.generated_tokens == sequence.output_tokens]
        self.closed = self.closed and not ended
        for sequence in ended:
            self.running.remove(sequence)
            self.share_runs(sequence, sequence.known_tokens - 1, sequence.known_tokens)
            self.drop(sequence)
        if not self.running:
            self.share, self.decode_steps = retraction.FIRST_SHARE, 0
        self.producers = producers
        return ended, late


class PlainEngine:
    """Steps, one at a time. ``token_log``, where given, gets (request, time) of every token."""

    def __init__(self, env, spec, node, ranks, priority, turn, records, on_end, token_log=None):
        self.env, self.node, self.priority = env, node, priority
        self.model, self.records, self.on_end = spec.model, records, on_end
        self.layout = spec.layout
        pools = {
            pool: PlainCache(spec.kv_blocks, spec.block_rule.block_tokens, spec.offload)
            for pool in {rank // spec.layout.pp for rank in ranks}
        }
        self.replicas = [PlainReplica(rank, spec, pools[rank // spec.layout.pp]) for rank in ranks]
        self.token_log = token_log
        self.stepping = False
        self.wake = None

    def submit(self, replica, sequence):
        reason = replica.submit(sequence)
        if not reason and not self.stepping:
            self.stepping = True
            self.at(0.0, self.begin)
        elif not reason:
            self.wake_up()
        return reason

    def wake_up(self):
        """Look again at once, where all wait for KV."""
        if self.wake is not None:
            self.wake.callbacks.clear()
            self.wake = self.at(0.0, self.begin)

    def withdraw(self, replica, sequence):
        if sequence in replica.waiting:
            replica.waiting.remove(sequence)
        elif sequence in replica.loading:
            replica.loading.remove(sequence)
            replica.drop(sequence)
        self.wake_up()

    def catch_up(self):
        """Nothing is ever behind here."""

    def at(self, delay_s, action):
        """As in the production engine: after the arrivals of that instant, engines in order."""
        event = self.env.event()
        event._ok, event._value = True, None
        event.callbacks.append(lambda _: action())
        self.env.schedule(event, self.priority, delay_s)
        return event

    def begin(self):
        self.start_s = self.env.now
        self.steps, self.wake = [], None
        self.stepping = any(replica.in_flight for replica in self.replicas)
        if not self.stepping:
            return
        for replica in self.replicas:
            work = replica.schedule(self.env.now)
            batch, context = replica.describe(work)
            state = (context, replica.cache.used_blocks, len(replica.running), replica.in_flight - len(replica.running))
            self.steps.append((replica, work, batch, state))
        loads_s = [sequence.ready_s for replica in self.replicas for sequence in replica.loading]
        if loads_s and not any(work for _, work, _, _ in self.steps):
            self.wake = self.at(max(0.0, min(loads_s) - self.env.now), self.begin)
            return
        times = [self.model.step_time(self.with_experts(replica, batch)) for replica, _, batch, _ in self.steps]
        self.time = max(times, key=lambda time: time.total_s)
        self.at(self.time.total_s, self.end)

    def with_experts(self, replica, batch):
        """The batch, knowing the tokens of those that share its experts."""
        if not self.layout.expert:
            return batch
        stage = replica.index % self.layout.pp
        together = [other for peer, _, other, _ in self.steps if peer.index % self.layout.pp == stage]
        return batch._replace(expert_tokens=sum(other.tokens for other in together))

    def end(self):
        time = self.time
        for replica, work, batch, (context, blocks, running, waiting) in self.steps:
            ended, late = replica.complete(work, self.env.now, self.env.now - self.start_s)
            if self.token_log is not None:
                self.token_log += [(sequence.request, self.env.now) for sequence in replica.producers]
            for sequence in ended:
                self.on_end(sequence)
            self.records.segments.append(
                (self.node, replica.index, self.start_s, time.total_s, 0.0, 1, batch.decode_sequences,
                 batch.prefill_tokens, context, blocks, blocks, running, waiting, time.bound, time.attention_s,
                 time.experts_s, time.dense_s, time.collectives_s, time.overhead_s, late or None,
                 [1] * len(late) or None)
            )  # fmt: skip
        self.stepping = any(replica.in_flight for replica in self.replicas)
        if self.stepping:
            self.begin()


def plain_records(spec, traffic, token_log=None):
    """What ``simulate`` gives, by the plain loop."""
    cap = getattr(traffic, "max_in_flight", None)
    cluster = Cluster(spec, lambda ended: None, cap, partial(PlainEngine, token_log=token_log))
    start(cluster, traffic)
    cluster.env.run()
    cluster.close()
    return cluster.records
