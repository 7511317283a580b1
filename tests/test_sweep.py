"""Sweeps: every point once, nothing lost, the same bytes however often they were stopped."""

import errno
import math
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest

from capsim import experiment
from capsim.capacity import sessions
from capsim.cli.options import Format
from capsim.cli.sweep import _render
from capsim.errors import ScenarioError
from capsim.glossary import LATENCIES
from capsim.scenario import Scenario
from capsim.store import check_target
from capsim.sweep import TABLE, load_sweep, read_points, run_sweep
from capsim.sweep import run as sweep_run
from capsim.sweep.point import _with_model_error, run_point

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {kind: poisson, rate_per_s: 4}
  prompt_tokens: 200
  output_tokens: {kind: geometric, mean: 20}
  requests: 100
slo: {ttft_s: 1 s, tpot_s: 50 ms}
replications: 1
"""
GRID = "scenario: base.yaml\ngrid:\n  kv_format: [bf16, fp8]\n  workload.arrival.rate_per_s: [2, 4]\n"


@pytest.fixture
def sweep_file(tmp_path):
    (tmp_path / "base.yaml").write_text(SCENARIO)
    path = tmp_path / "sweep.yaml"
    path.write_text(GRID)
    return path


class Here(Executor):
    """Runs points in this process, and counts them."""

    def __init__(self):
        self.ran = []

    def submit(self, fn, /, *args, **kwargs):
        self.ran.append(args[-1])
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def swept(path, **more):
    executor = Here()
    return run_sweep(load_sweep(path), path.parent / "out", executor, **more), executor.ran


def test_every_combination_is_a_row_in_the_files_order(sweep_file):
    frame, _ = swept(sweep_file)
    points = [(row["kv_format"], row["workload.arrival.rate_per_s"]) for _, row in frame.iterrows()]
    assert points == [("bf16", 2), ("bf16", 4), ("fp8", 2), ("fp8", 4)]
    assert set(frame["status"]) == {"done"}
    assert frame["requests_per_s"][1] > 1.5 * frame["requests_per_s"][0]
    pd.testing.assert_frame_equal(pd.read_parquet(sweep_file.parent / "out" / TABLE), frame, check_dtype=False)
    assert_documented(frame.columns[2:])


def assert_documented(columns):
    """And none has the name of what may be swept, which it would overwrite."""
    figures = {re.sub("^(tpot|itl|e2e|queue)_s_", "ttft_s_", name) for name in columns}
    assert figures <= set(re.findall(r"\w+", (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()))
    assert not figures & set(Scenario.model_fields)


def test_plans_keep_what_was_swept_apart_from_what_they_chose(sweep_file, monkeypatch):
    monkeypatch.setattr(sessions, "MIN_REQUESTS", 200)
    sweep_file.write_text(
        "scenario: base.yaml\ntask: plan\npoints:\n"
        "  - {node: h200x1, nodes: 3, scheduler.max_num_seqs: 2, slo.ttft_s: 0.2}\n"
    )
    frame, _ = swept(sweep_file)
    assert list(frame["status"]) == ["done"], frame["reason"][0]
    assert list(frame["nodes"]) == [3], "as it was swept"
    assert frame["nodes_needed"][0] >= 1
    assert (frame["node"][0], frame["chosen_node"][0], frame["chosen_max_num_seqs"][0]) == ("h200x1", "h200x1", 2)
    assert_documented(frame.columns[4:])
    assert (frame["sessions_model_error_low"] <= frame["sessions_passing"]).all()
    assert (frame["sessions_model_error_high"] >= frame["sessions_failing"]).all()
    assert _render(frame, ["nodes"], Format.table).splitlines()[0].startswith("nodes  sessions per node  nodes needed")


def test_rows_have_model_error_beside_their_intervals(sweep_file):
    frame, _ = swept(sweep_file)
    for name in ("ttft_s_p95", "tpot_s_p95", "requests_per_s", "output_tokens_per_s", "goodput"):
        low, high = (frame[f"{name}_model_error_{end}"] for end in ("low", "high"))
        assert (low <= frame[name]).all(), name
        assert (frame[name] <= high).all(), name
    assert (frame["tpot_s_p95_model_error_low"] < frame["tpot_s_p95_model_error_high"]).all()


def test_a_bracket_without_a_high_end_is_infinite_and_an_unknown_one_blank():
    error = {name: {"p95": None} for name in LATENCIES} | {"ttft_s": {"p95": [1.0, None]}}
    row = _with_model_error(error | {"throughput": {"requests_per_s": [1.0, 2.0]}, "goodput": None})
    assert (row["ttft_s_p95_model_error_low"], row["ttft_s_p95_model_error_high"]) == (1.0, math.inf)
    assert row["tpot_s_p95_model_error_high"] is row["goodput_model_error_low"] is None
    assert (row["requests_per_s_model_error_low"], row["requests_per_s_model_error_high"]) == (1.0, 2.0)


def test_a_second_start_does_only_what_is_missing(sweep_file):
    swept(sweep_file)
    table = sweep_file.parent / "out" / TABLE
    first = table.read_bytes()
    frame, ran = swept(sweep_file)
    assert ran == []
    assert table.read_bytes() == first
    sweep_file.write_text(GRID.replace("[2, 4]", "[2, 4, 6]"))
    frame, ran = swept(sweep_file)
    assert [point["workload.arrival.rate_per_s"] for point in ran] == [6, 6]
    assert len(frame) == 6


def test_another_scenario_is_another_point(sweep_file):
    swept(sweep_file)
    (sweep_file.parent / "base.yaml").write_text(SCENARIO.replace("mean: 20", "mean: 21"))
    assert len(swept(sweep_file)[1]) == 4


def test_a_corrupt_point_is_named_and_done_again(sweep_file):
    swept(sweep_file)
    table = sweep_file.parent / "out" / TABLE
    first = table.read_bytes()
    spoilt, cut, empty, *_ = sorted((sweep_file.parent / "out" / "points").glob("*.json"))
    spoilt.write_text(spoilt.read_text().replace("done", "gone"))
    cut.write_text(cut.read_text()[:40])
    empty.write_text('{"sha256": null, "row": null}')
    notes = []
    _, ran = swept(sweep_file, on_note=notes.append)
    assert len(ran) == 3
    assert all(any(path.stem in note for note in notes) for path in (spoilt, cut, empty))
    assert table.read_bytes() == first


def test_a_point_that_cannot_be_is_a_row_with_its_reason(sweep_file):
    sweep_file.write_text(
        "scenario: base.yaml\npoints:\n  - {kv_format: fp9}\n  - {node: h100x8}\n  - {model: kimi-k2}\n"
    )
    frame, _ = swept(sweep_file)
    assert list(frame["status"]) == ["failed", "done", "failed"]
    assert "fp9" in frame["reason"][0]
    assert "GiB" in frame["reason"][2] or "unknown model" in frame["reason"][2]
    assert swept(sweep_file)[1] == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"points/\w+.json: cannot be written: No space left.*start again.*make room on the disk"),
        (errno.EACCES, r"points/\w+.json: cannot be written: Permission denied.*give another place"),
    ],
)
def test_a_full_disk_is_said_and_keeps_what_was_finished(sweep_file, monkeypatch, number, message):
    replace, put = Path.replace, []

    def full(path, target):
        if target.parent.name == "points":
            if len(put) == 2:
                raise OSError(number, os.strerror(number))
            put.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ScenarioError, match=message):
        swept(sweep_file)
    monkeypatch.undo()
    assert (read_points(load_sweep(sweep_file), sweep_file.parent / "out")["status"] == "done").sum() == 2
    frame, ran = swept(sweep_file)
    assert len(ran) == 2
    assert set(frame["status"]) == {"done"}


def test_a_point_that_the_system_does_not_let_read_is_named_and_kept(sweep_file, monkeypatch):
    swept(sweep_file)
    table = (sweep_file.parent / "out" / TABLE).read_bytes()
    locked, read = min((sweep_file.parent / "out" / "points").glob("*.json")), Path.read_text

    def refuse(path, *args, **kwargs):
        if path == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ScenarioError, match=f"{locked.name}: cannot be read: Permission denied.*ask for the right to"):
        swept(sweep_file)
    monkeypatch.undo()
    assert (sweep_file.parent / "out" / TABLE).read_bytes() == table
    assert swept(sweep_file)[1] == []


def test_the_first_point_starts_before_the_last_one_is_looked_for(sweep_file, monkeypatch):
    seen = []
    hashed = sweep_run.hash_of
    monkeypatch.setattr(sweep_run, "hash_of", lambda *point: seen.append("looked for") or hashed(*point))
    swept(sweep_file, on_point=lambda progress: seen.append(progress.done))
    assert seen[:4] == [0, "looked for", 1, "looked for"]


def test_the_time_left_is_told_by_points_of_all_costs(sweep_file):
    """Cheap points stand first in the file, dear ones last: those run first take as long on average as the others.
    That it takes half a second until the first one starts is not taken for its cost.
    """
    costs = [1] * 20 + [100] * 20
    rates = ", ".join(map(str, range(1, 41)))
    sweep_file.write_text(f"scenario: base.yaml\ngrid:\n  workload.arrival.rate_per_s: [{rates}]\n")
    executor, told = Noting(), []
    run_sweep(load_sweep(sweep_file), sweep_file.parent / "noted", executor, on_point=told.append)
    assert [progress.left_s is None for progress in told[:2]] == [True, False]
    assert told[1].left_s < 5
    order = [costs[point["workload.arrival.rate_per_s"] - 1] for point in executor.ran]
    assert len(order) == 40
    assert sum(order[:10]) / 10 == pytest.approx(sum(order[10:]) / 30, rel=0.4)
    assert sum(order[:20]) / 20 == pytest.approx(sum(order[20:]) / 20, rel=0.4)


class Noting(Here):
    """Notes what it is given, and does nothing with it; the first takes half a second to start."""

    def submit(self, fn, /, *args, **kwargs):
        time.sleep(0 if self.ran else 0.5)
        self.ran.append(args[-1])
        future = Future()
        future.set_result(({"status": "failed", "reason": "not run"}, 0.01))
        return future


def test_a_directory_of_something_else_or_of_a_running_sweep_is_refused(sweep_file):
    other = sweep_file.parent / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ScenarioError, match="something else"):
        run_sweep(load_sweep(sweep_file), other, Here())

    (sweep_file.parent / "begun").mkdir()
    (sweep_file.parent / "begun" / ".lock").touch()  # killed before it wrote anything else
    assert len(run_sweep(load_sweep(sweep_file), sweep_file.parent / "begun", Here())) == 4

    def again(progress):
        with pytest.raises(ScenarioError, match="another sweep"):
            run_sweep(load_sweep(sweep_file), sweep_file.parent / "out", Here())

    swept(sweep_file, on_point=again)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenario: base.yaml\n", "give a grid"),
        (GRID + "points: [{seed: 1}]\n", "one of them"),
        (GRID + "taks: run\n", r"sweep.yaml:5 taks: unknown key \(did you mean 'task'"),
        (GRID.replace("base", "bass"), r"sweep.yaml:1 scenario: file not found"),
        (GRID.replace("[2, 4]", "[]"), "no values"),
        (GRID.replace("[2, 4]", "[{1: 2, b: 3}]"), "keys inside a value must be words"),
        (
            GRID.replace("kv_format", "kv_fromat"),
            r"sweep.yaml:3 grid.kv_fromat: unknown key .*did you mean 'kv_format'",
        ),
        ("scenario: base.yaml\npoints:\n  - {workload.arival: 1}\n", r"sweep.yaml:3 points.0.workload.arival: unknown"),
    ],
)
def test_a_bad_sweep_file_says_where(sweep_file, text, message):
    sweep_file.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        load_sweep(sweep_file)


def start(path, *more):
    command = [sys.executable, "-m", "capsim", "sweep", str(path), "--out", str(path.parent / "killed"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finished(path):
    return {place.name: place.stat().st_ino for place in (path.parent / "killed" / "points").glob("*.json")}


def children(process):
    """Processes of its own, where the system tells."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []


def alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def kill_after(path, points):
    """Start the sweep, and kill it once so many more points are finished; its workers must end with it."""
    process, before = start(path), len(finished(path))
    while process.poll() is None and len(finished(path)) < before + points:
        time.sleep(0.02)
    workers = children(process)
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def check_killed(path, kills):
    """Killed that often, a sweep ends with the bytes of an undisturbed one, and no point was written twice."""
    chance = random.Random(4)
    seen = {}
    for _ in range(kills):
        kill_after(path, chance.randint(1, len(load_sweep(path).all_points) // (kills + 1)))
        now = finished(path)
        assert seen.items() <= now.items()
        seen = now
    last = start(path)
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    assert seen.items() <= finished(path).items()
    swept(path)
    assert (path.parent / "killed" / TABLE).read_bytes() == (path.parent / "out" / TABLE).read_bytes()


def test_a_killed_sweep_loses_nothing(sweep_file):
    check_killed(sweep_file, kills=1)


@pytest.mark.slow
def test_two_hundred_points_killed_three_times(sweep_file):
    rates = ", ".join(f"{1 + rate / 100:.2f}" for rate in range(100))
    sweep_file.write_text(GRID.replace("[2, 4]", f"[{rates}]"))
    check_killed(sweep_file, kills=3)


def test_processes_that_die_are_replaced_and_nothing_is_missing(sweep_file):
    deaths = []

    def kill(progress):
        if progress.done == 1 and not deaths:
            deaths.extend(multiprocessing.active_children())
            for child in deaths:
                child.kill()

    frame = run_sweep(load_sweep(sweep_file), sweep_file.parent / "out", jobs=2, on_point=kill)
    assert deaths
    assert list(frame["status"]) == ["done"] * 4


class Dying(Here):
    """Processes of which two work at once; one dies at a certain rate, and takes its neighbour with it."""

    def submit(self, fn, task, scenario, point):
        future = super().submit(fn, task, scenario, point)
        if point["workload.arrival.rate_per_s"] == 4 or (self.ran and self.ran[0] != point and len(self.ran) == 2):
            future = Future()
            future.set_exception(BrokenProcessPool("died"))
        return future


def test_a_point_that_kills_its_process_is_told_from_its_neighbours(sweep_file, monkeypatch):
    sweep_file.write_text("scenario: base.yaml\ngrid:\n  workload.arrival.rate_per_s: [4, 2, 6]\n")
    monkeypatch.setattr(sweep_run, "processes", lambda jobs: nullcontext(Dying()))
    frame = run_sweep(load_sweep(sweep_file), sweep_file.parent / "out", jobs=2)
    assert list(frame["status"]) == ["failed", "done", "done"]
    assert "its process died" in frame["reason"][0]


class Dropping(Executor):
    """Drops what it is given, as a cluster does whose scheduler is gone."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_points_that_an_executor_drops_are_failed_and_done_next_time(sweep_file):
    frame = run_sweep(load_sweep(sweep_file), sweep_file.parent / "out", Dropping())
    assert set(frame["status"]) == {"failed"}
    assert set(swept(sweep_file)[0]["status"]) == {"done"}


def test_a_script_whose_processes_do_not_start_is_told_why(sweep_file):
    script = sweep_file.parent / "script.py"
    script.write_text("import capsim\ncapsim.run_sweep('sweep.yaml', 'out', jobs=1)\n")
    done = subprocess.run(
        [sys.executable, script], cwd=sweep_file.parent, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(sweep_run.__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_a_run_does_not_take_the_place_of_a_sweep(sweep_file):
    swept(sweep_file)
    with pytest.raises(ScenarioError, match="give another directory"):
        check_target(sweep_file.parent / "out")
    killed = sweep_file.parent / "killed"
    killed.mkdir()
    (killed / "progress.json").touch()
    check_target(killed)


def test_a_point_that_was_interrupted_is_no_result(sweep_file, monkeypatch):
    whole = experiment.run

    def stopped(resolved):
        done = whole(resolved)
        done.summary["run"]["interrupted"] = True
        return done

    monkeypatch.setattr(experiment, "run", stopped)
    with pytest.raises(experiment.Interrupted):
        run_point("run", sweep_file.parent / "base.yaml", {})


def test_dates_are_swept_and_what_a_point_leaves_out_is_blank(sweep_file, capsys):
    sweep_file.write_text("scenario: base.yaml\npoints:\n  - {as_of: 2026-01-02}\n  - {replications: 2}\n")
    frame, _ = swept(sweep_file)
    assert list(frame["status"]) == ["done", "done"], list(frame["reason"])
    assert frame["as_of"][0] == "2026-01-02"
    lines = _render(frame, ["as_of", "replications"], Format.table).splitlines()
    assert lines[1].split()[0] == "2026-01-02"
    assert lines[2].split()[0] == "2"


def test_small_numbers_stay_numbers(sweep_file):
    sweep_file.write_text("scenario: base.yaml\npoints:\n  - {slo.ttft_s: 1.0e-05}\n")
    frame, _ = swept(sweep_file)
    assert list(frame["status"]) == ["done"], frame["reason"][0]
    assert frame["goodput"][0] == 0


def test_an_overload_says_why_it_has_no_percentiles(sweep_file):
    sweep_file.write_text(
        "scenario: base.yaml\npoints:\n  - {workload.arrival.rate_per_s: 5000, workload.requests: 3000}\n"
    )
    frame, _ = swept(sweep_file)
    assert "backlog grows" in frame["reason"][0]
    assert frame["ttft_s_p95"].isna().all()


def test_an_interrupted_sweep_keeps_its_points(sweep_file):
    sweep_file.write_text(GRID.replace("[2, 4]", "[2, 3, 4, 5, 6, 7, 8, 9]"))
    process = start(sweep_file, "--format", "csv", "--jobs", "1")
    while not finished(sweep_file) if (sweep_file.parent / "killed").exists() else True:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "start again" in err
    frame = read_points(load_sweep(sweep_file), sweep_file.parent / "killed")
    assert set(frame["status"]) == {"done", "missing"}
    assert out.count("done") == (frame["status"] == "done").sum()


def test_a_cluster_that_loses_a_worker_gives_the_same(sweep_file):
    distributed = pytest.importorskip("distributed", reason="needs the extra cluster")
    sweep_file.write_text(GRID.replace("[2, 4]", "[2, 3, 4, 5]"))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        lost = []

        def lose_one(progress):
            if progress.done == 1 and not lost:
                worker = next(iter(cluster.workers.values()))
                lost.append(os.kill(worker.process.pid, signal.SIGKILL))

        executor = client.get_executor(pure=False)
        frame = run_sweep(load_sweep(sweep_file), sweep_file.parent / "clustered", executor, on_point=lose_one)
    assert lost
    assert set(frame["status"]) == {"done"}
    swept(sweep_file)
    assert (sweep_file.parent / "clustered" / TABLE).read_bytes() == (sweep_file.parent / "out" / TABLE).read_bytes()


def test_shipped_sweeps_load():
    for path in (Path(__file__).parents[1] / "scenarios" / "sweeps").glob("*.yaml"):
        assert path.read_text().startswith("# For ")
        assert len(load_sweep(path).all_points) > 1


@pytest.mark.parametrize("library", ["duckdb", "polars"])
def test_other_libraries_open_the_table(library, sweep_file):
    module = pytest.importorskip(library)
    frame, _ = swept(sweep_file)
    table = module.read_parquet(str(sweep_file.parent / "out" / TABLE))
    rows = table.fetchall() if library == "duckdb" else table.rows()
    assert [row[:2] for row in rows] == list(zip(*(frame[path] for path in frame.columns[:2]), strict=True))
