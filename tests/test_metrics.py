"""Metrics of long runs: thinned samples stay true, and memory does not follow the length of a run."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from capsim.metrics import requests, steps
from capsim.metrics.sample import RESOLUTION, ROOM, Pool, Sample, equally
from capsim.sim.columns import Columns
from capsim.sim.records import Records

RNG = np.random.default_rng(1)


def test_few_values_are_kept_as_they_are():
    pool = Pool()
    for part in np.split(np.arange(1.0, 101), 10):
        pool.add(equally(part))
    assert pool.sample().seconds.tolist() == list(range(1, 101))


def test_many_values_are_thinned_to_a_thousandth_and_their_sums_stay_exact():
    pool, every = Pool(), []
    for _ in range(10):
        part = Sample(RNG.lognormal(-3, 1.5, ROOM // 2), RNG.integers(1, 5, ROOM // 2).astype(float))
        pool.add(part)
        every.append(part)
    seconds, weights = (np.concatenate([getattr(p, name) for p in every]) for name in ("seconds", "weights"))
    thin, exact = pool.sample(), Sample(seconds, weights)
    assert len(thin.seconds) <= ROOM
    assert thin.weights.sum() == pytest.approx(weights.sum(), rel=1e-12)
    assert thin.mean() == pytest.approx(exact.mean(), rel=1e-12)
    for name, value in exact.summary().items():
        assert thin.summary()[name] == pytest.approx(value, rel=RESOLUTION)


def test_values_over_all_orders_of_magnitude_fit_the_room():
    pool = Pool()
    pool.add(equally(np.geomspace(1e-12, 3e7, 10 * ROOM)))
    pool.add(equally(np.zeros(3)))
    assert pool.sample().weights.sum() == 10 * ROOM + 3


def part(rows):
    """Segments of one replica, each a run of 50 steps that grow."""
    numbers = np.arange(rows)
    columns = {name: np.ones(rows) for name in steps.COLUMNS if not name.startswith("late")}
    return pd.DataFrame(columns).assign(
        node=0, rank=0, start_s=numbers * 0.5, duration_s=RNG.uniform(0.4, 0.5, rows), growth_s=1e-5, steps=50,
        decode_sequences=numbers % 7, late_gaps=None, late_gaps_s=None,
    )  # fmt: skip


def peak_bytes(parts):
    chunk = part(8192)
    tracemalloc.start()
    shifted = (chunk.assign(start_s=chunk["start_s"] + 5000.0 * index) for index in range(parts))
    done = steps.read(shifted, 8192 * parts, 0.0, np.inf, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.steps == 50 * 8192 * parts
    assert done.ordered
    return peak


def test_memory_stays_where_it_is_however_long_the_run():
    assert peak_bytes(80) < 1.1 * peak_bytes(20)


def test_steps_out_of_order_are_noticed_from_one_part_to_the_next():
    chunk = part(10)
    again = [chunk.iloc[:5], chunk.iloc[4:]]
    assert not steps.read(again, 11, 0.0, np.inf, 1).ordered


def test_goodput_holds_first_and_later_turns_to_their_own_thresholds():
    table = pd.DataFrame({
        "turn": [0, 0, 1, 1], "output_tokens": 2, "asked_s": 0.0, "first_token_s": [0.5, 1.5, 0.5, 0.2],
        "finished_s": 2.0, "outcome": "completed",
    })  # fmt: skip
    good = requests.good(table, {"ttft_s": 1.0, "e2e_s": 9.0}, {"ttft_s": 0.3, "e2e_s": 9.0})
    assert good.tolist() == [True, False, False, True]


def test_the_peak_of_several_replicas_is_that_of_their_sum():
    """Whatever the parts in which the segments are read."""
    chunk = pd.concat(
        [part(60).assign(node=node, start_s=lambda t, n=node: t["start_s"] + 0.1 * n) for node in range(3)]
    )
    chunk["kv_blocks_end"] = RNG.integers(1, 50, len(chunk))
    chunk = chunk.assign(end_s=chunk["start_s"] + chunk["duration_s"]).sort_values("end_s", ignore_index=True)
    at_s = chunk["start_s"].to_numpy()
    running = (at_s[:, None] >= at_s) & (at_s[:, None] < chunk["end_s"].to_numpy())
    most = (running * chunk["kv_blocks_end"].to_numpy()).sum(axis=1).max()
    for parts in (1, 7, 40):
        pieces = np.array_split(np.arange(len(chunk)), parts)
        done = steps.read((chunk.iloc[piece] for piece in pieces), len(chunk), 0.0, np.inf, 3)
        assert done.peak.most == most


def test_columns_read_one_at_a_time_are_those_of_the_whole_table():
    """Rows were written as requests ended; some are left out by masks, one after the other."""
    frame = pd.DataFrame({"arrival_s": np.arange(50.0), "outcome": pd.Categorical(["completed", "rejected"] * 25)})
    order = RNG.permutation(50)
    file = pa.Table.from_pandas(frame.iloc[np.argsort(order)], preserve_index=False)
    columns = Columns(file.column, order, pd.RangeIndex(50))
    late, served = (lambda t: t["arrival_s"] >= 5), (lambda t: (t["outcome"] == "completed").to_numpy())
    for keep in (late, served, lambda t: t["arrival_s"] < 9):
        columns, frame = columns[keep(columns)], frame[keep(frame)]
        pd.testing.assert_frame_equal(columns[["outcome", "arrival_s"]], frame[["outcome", "arrival_s"]])
        pd.testing.assert_series_equal(columns["arrival_s"], frame["arrival_s"])
        assert len(columns) == len(frame)


def test_measuring_a_longer_run_takes_little_more_memory():
    """Some columns of the requests at a time: less than a third of what all of them take."""
    grown = measuring_bytes(150_000) - measuring_bytes(50_000)
    assert grown / 100_000 < 60


def measuring_bytes(count):
    records = Records()
    for row in range(count):
        times = [row * 0.5] * 5 + [row * 0.5 + 0.5]
        records.requests.append(
            (row, row, row, 0, "default", 0, 0, 100, 0, 0, 20, *times, 0, [], 0.0, "completed", "")
        )  # fmt: skip
    records.close()
    tracemalloc.start()
    table = records.requests_columns()
    measured = requests.measured(table, requests.warmup_requests(table, None))
    for name in requests.SPANS:
        requests.latency(measured, name).summary()
    requests.good(measured, {"ttft_s": 1.0, "tpot_s": 1.0}, {})
    requests.backlog_growth(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


LONG = """\
import sys
from capsim.experiment import run
from capsim.scenario import resolve
from capsim.json_text import to_json
print(to_json(run(resolve(sys.argv[1])).summary))
"""


def test_figures_do_not_hang_on_how_many_threads_blas_takes(tmp_path):
    """As workers of a cluster take fewer than a process here. It splits a dot product of more than 10,000 numbers."""
    path = tmp_path / "scenario.yaml"
    path.write_text(
        "model: llama-3.1-8b\nnode: h100x1\nreplications: 1\nworkload:\n  arrival: {kind: poisson, rate_per_s: 4}\n"
        "  prompt_tokens: 200\n  output_tokens: {kind: geometric, mean: 20}\n  requests: 10000\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", LONG, path], env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in ("1", "2")
    ]  # fmt: skip
    assert printed[0] == printed[1]
