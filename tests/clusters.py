"""Clusters and loads for tests of the simulation."""

from dataclasses import fields

import numpy as np

from capsim.catalog import load_catalog
from capsim.memory import BlockRule
from capsim.metrics import identities, steps
from capsim.parallelism import Parallelism
from capsim.sim.spec import ClusterSpec, Policy
from capsim.steptime import FOREVER, StepTime
from capsim.workload.requests import OpenArrivals, Request


class StepSeconds:
    """A step-time model that is a function of the batch, linear in what it reads."""

    def __init__(self, seconds):
        self.seconds = seconds

    def step_time(self, batch):
        return StepTime(self.seconds(batch), 0.0, 0.0, 0.0, 0.0, "memory")

    def decode_run(self, batch):
        later = [read + growth for read, growth in zip(batch.decode_reads, batch.read_growth, strict=True)]
        first = self.step_time(batch)
        return first, self.seconds(batch._replace(decode_reads=tuple(later))) - first.total_s, FOREVER


class KnottedSeconds(StepSeconds):
    """As ``StepSeconds``, and every ``knot`` decoding contexts' worth of reads a step takes ``jump_s`` longer.

    So do tables between their knots, and graphs captured for some sizes: a run of like steps ends there.
    """

    def __init__(self, seconds, knot, jump_s):
        super().__init__(lambda batch: seconds(batch) + jump_s * (sum(batch.decode_reads) // knot))
        self.knot = knot

    def decode_run(self, batch):
        reads, growth = sum(batch.decode_reads), sum(batch.read_growth)
        first = self.step_time(batch)
        valid = FOREVER if growth == 0 else int(-(-((reads // self.knot + 1) * self.knot - reads) // growth))
        _, slope_s, _ = super().decode_run(batch) if valid > 1 else (first, 0.0, 1)
        return first, slope_s, valid


def small(batch):
    return 0.01 + 0.001 * batch.decode_sequences + 1e-4 * batch.prefill_tokens


def cluster(seconds=small, **changes):
    """One small node, changed as asked."""
    policy = {"max_num_seqs": 8, "max_num_batched_tokens": 64}
    policy |= {field.name: changes.pop(field.name) for field in fields(Policy) if field.name in changes}
    values = {
        "nodes": 1, "layout": Parallelism(1), "kv_blocks": 200, "block_rule": BlockRule(16),
        "policy": Policy(**policy), "max_context_tokens": 10_000, "router": "least-loaded",
        "model": StepSeconds(seconds), "streams": (),
    }  # fmt: skip
    return ClusterSpec(**(values | changes))


def engine_policy(key):
    """The words of an engine's policy, as the catalog has them."""
    spec = load_catalog().engines[key]
    return {name: getattr(spec, name) for name in ("prefill_first", "chunked_prefill", "joins_running", "reserve")}


def arrivals(times, lengths, **options):
    requests = [Request(prompt, output, output, 0.0) for prompt, output in lengths]
    return OpenArrivals(np.asarray(times, float), requests, options.get("max_in_flight"))


def read_steps(records, start_s=-np.inf, end_s=np.inf, replicas=1):
    """What the segments of a window say; of all of them without one."""
    return steps.read(records.segments.parts(steps.COLUMNS), records.segments.rows, start_s, end_s, replicas)


def check_identities(records):
    """What holds of every run."""
    table = records.requests_columns()
    identities.check(table, records.stalls(), read_steps(records), records.kv_blocks)
