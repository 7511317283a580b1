"""Drive an engine: a load from its first arrival to its last answer, or steps of random composition."""

import random
import time
from collections import deque
from dataclasses import dataclass
from math import ceil, log2

from kernels_bench.engines.engine import Composition, Engine
from kernels_bench.engines.loads import Load, lengths

EPISODE_PROMPT, EPISODE_OUTPUT = (16, 1000), (2, 60)
STEPS_A_LEVEL = 8


class Clock:
    """Seconds that this thread has computed; time with nothing to do is skipped.

    The engine computes in this thread alone, so that other work on the machine stops the clock and does not count.
    """

    def __init__(self) -> None:
        self._zero_s = time.thread_time()

    def now_s(self) -> float:
        return time.thread_time() - self._zero_s

    def skip_to(self, instant_s: float) -> None:
        self._zero_s -= max(0.0, instant_s - self.now_s())


@dataclass
class Served:
    """A request and what became of it, on the clock of the run."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    first_token_s: float = -1.0
    finished_s: float = -1.0
    preemptions: int = 0


@dataclass(frozen=True)
class Driven:
    """A load that has been served."""

    requests: list[Served]
    steps: int
    duration_s: float

    @property
    def preemptions(self) -> int:
        return sum(request.preemptions for request in self.requests)


def drive(engine: Engine, load: Load) -> Driven:
    """Submit each request at the first step boundary after its arrival, and step until all are served."""
    served = [Served(*request) for request in load.requests]
    coming = deque(enumerate(served))
    clock, steps = Clock(), 0
    while coming or engine.busy:
        if not engine.busy:
            clock.skip_to(coming[0][1].arrival_s)
        now_s = clock.now_s()
        while coming and coming[0][1].arrival_s <= now_s:
            number, request = coming.popleft()
            engine.submit(number, request.prompt_tokens, request.output_tokens)
        done = engine.step()
        steps += 1
        now_s = clock.now_s()
        for number in done.tokens:
            if served[number].first_token_s < 0:
                served[number].first_token_s = now_s
        for number in done.finished:
            served[number].finished_s = now_s
        for number in done.preempted:
            served[number].preemptions += 1
    return Driven(served, steps, clock.now_s())


def episode(engine: Engine, seed: int, seconds: float) -> list[tuple[Composition, float]]:
    """Steps of random composition and their seconds, for about that long, until the engine is empty again.

    Every few steps another number of requests is kept inside, few as often as many: a step is not quite linear in them,
    and quiet loads live at the low end. Each has fresh random lengths, so that no two steps are alike: a fixed grid of
    shapes would flatter prefill, whose kernels are prepared anew for every shape.
    """
    draw, clock = random.Random(seed), Clock()
    doublings = ceil(log2(engine.arguments.max_num_seqs))
    inside = request = level = 0
    steps: list[tuple[Composition, float]] = []
    while (started_s := clock.now_s()) < seconds or engine.busy:
        if len(steps) % STEPS_A_LEVEL == 0:
            level = min(2 ** draw.randint(0, doublings), engine.arguments.max_num_seqs)
        while inside < level and started_s < seconds:
            engine.submit(request, *lengths(draw, EPISODE_PROMPT, EPISODE_OUTPUT))
            request, inside = request + 1, inside + 1
        done = engine.step()
        inside -= len(done.finished)
        steps.append((done.composition, clock.now_s() - started_s))
    return steps
