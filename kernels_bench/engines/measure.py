"""A measurement session: loads driven through an engine, with episodes of random steps between them."""

import ctypes
import itertools
import json
import os
import platform
import sys
from dataclasses import asdict
from typing import Any, TextIO

from kernels_bench.engines.drive import Driven, drive, episode
from kernels_bench.engines.engine import Engine
from kernels_bench.engines.loads import Load, burst, poisson, starved

SHARES = (0.3, 0.5, 0.7)
"""Rates of the Poisson loads, in shares of what the first burst got through."""
WARMUP_S = 3.0
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def settle() -> None:
    """Keep this process on one core, the last that it may use, and what it frees in its heap.

    glibc gives large buffers back to the system at once: whether a step then pays for fresh pages, twice its time,
    hangs on what ran before it. Servers preload an allocator that does not (vLLM asks for tcmalloc).
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class Session:
    """What is measured of one engine and model, written line by line."""

    def __init__(self, engine: Engine, model: str, out: TextIO) -> None:
        self._engine, self._model, self._out = engine, model, out
        self._names = {"engine": engine.name, "model": model}
        self._runs, self._episodes = itertools.count(), itertools.count()
        arguments = asdict(engine.arguments)
        self._write("model", engine=engine.name, name=model, config=engine.config, engine_args=arguments)

    def measure(self, traces: list[Load], requests: int, repeats: int, episode_s: float, seed: int) -> None:
        """Every load ``repeats`` times, repeats far apart, an episode before each run and one at the end."""
        episode(self._engine, seed, WARMUP_S)
        first = burst(requests, seed)
        self._episode(seed, episode_s)
        served_per_s = requests / self._run(first, 0).duration_s
        loads = [poisson(requests, share * served_per_s, seed + 1 + i) for i, share in enumerate(SHARES)]
        loads += [starved(requests // 2, seed), *traces]
        for repeat in range(repeats):
            for load in loads if repeat == 0 else [first, *loads]:
                self._episode(seed, episode_s)
                self._run(load, repeat)
        self._episode(seed, episode_s)

    def _episode(self, seed: int, seconds: float) -> None:
        number = next(self._episodes)
        self._tell(f"episode {number + 1}")
        for done, step_s in episode(self._engine, 1000 * (seed + 1) + number, seconds):
            self._write("step", **self._names, **done._asdict(), step_s=step_s, episode=number)

    def _run(self, load: Load, repeat: int) -> Driven:
        number = next(self._runs)
        rate = "" if load.rate_per_s is None else f" at {load.rate_per_s:.2f}/s"
        self._tell(f"run {number + 1}: {load.kind}{rate}, repeat {repeat + 1}")
        driven = drive(self._engine, load)
        key = f"{self._engine.name}-{self._model}-{number}"
        self._write(
            "run", run=key, **self._names, load=load.kind, rate_per_s=load.rate_per_s, seed=load.seed, repeat=repeat,
            steps=driven.steps, preemptions=driven.preemptions, duration_s=driven.duration_s,
        )  # fmt: skip
        for request, served in enumerate(driven.requests):
            self._write("request", run=key, request=request, **asdict(served))
        return driven

    def _tell(self, text: str) -> None:
        print(f"{self._model}: {text}", file=sys.stderr, flush=True)

    def _write(self, kind: str, **values: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **values}) + "\n")
        self._out.flush()
