"""Sweeps: what a file may say, what a directory keeps, and that no way to end loses or repeats a finished point."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pandas as pd
import pytest
import yaml

from capsim.cli import main
from capsim.errors import ScenarioError
from capsim.progress import ProgressFile, read_progress
from capsim.scenario import resolve
from capsim.sweep import figures, load_sweep, run_sweep
from capsim.sweep.results import Results, as_table
from capsim.sweep.run import _Sweeping
from capsim.sweep.workers import solve

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "scenarios" / "sweeps").glob("*.yaml"))
SCENARIO = """\
model: llama-3.1-8b
weights: int4
node: mac-mini-m4-pro
workload:
  arrival: {kind: poisson, rate_per_s: 0.02}
  prompt_tokens: 200
  output_tokens: {kind: geometric, mean: 40}
  requests: 30
slo: {ttft_s: 30 s}
replications: 2
"""
OVERLOAD = {"workload.arrival.rate_per_s": 5, "workload.requests": 300}


@pytest.fixture
def sweep_file(tmp_path):
    """Writes a sweep of the small scenario."""
    (tmp_path / "small.yaml").write_text(SCENARIO)

    def write(**keys):
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"scenario": "small.yaml", **keys}, sort_keys=False))
        return path

    return write


@pytest.fixture
def here():
    """An executor in this process, so that nothing has to start."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def rates(count):
    return {"workload.arrival.rate_per_s": [round(0.01 + 0.0005 * index, 6) for index in range(count)]}


def stamps(directory):
    return {path.name: path.stat().st_mtime_ns for path in (directory / "points").iterdir()}


def test_a_grid_is_every_combination_the_last_path_changing_fastest(sweep_file):
    sweep = load_sweep(sweep_file(grid={"seed": [1, 2], "kv_format": ["bf16", "fp8"]}))
    assert [list(point.values.values()) for point in sweep.points] == [[1, "bf16"], [1, "fp8"], [2, "bf16"], [2, "fp8"]]


def test_rows_are_those_of_runs_in_the_order_of_points(sweep_file, here, tmp_path):
    sweep = load_sweep(sweep_file(list=[{"seed": 7}, {"nodes": 2}, {"seed": 7, "nodes": 2}]))
    table = run_sweep(sweep, tmp_path / "out", executor=here)
    for point, row in zip(sweep.points, table.to_dict("records"), strict=True):
        alone = solve(resolve(sweep.scenario, point.overrides), "run")
        assert all(row[name] == alone[name] for name in ("ttft_p95_s", "goodput", "monthly_usd", "run_id"))
        assert row["tokens_per_s_per_user"] == pytest.approx(1 / row["tpot_mean_s"])
    assert list(table["point"]) == [0, 1, 2]
    assert table["seed"].isna().tolist() == [False, True, False]


def test_the_table_opens_as_it_was_returned(sweep_file, here, tmp_path):
    values = {"parallelism": [{"tp": 1}, "auto"], "nodes": [1, 2]}
    table = run_sweep(load_sweep(sweep_file(grid=values)), tmp_path / "out", executor=here)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "points.parquet"), table)
    assert table["parallelism"].tolist() == ["{tp: 1}", "{tp: 1}", "auto", "auto"]
    assert table["nodes"].dtype.kind == "i"


@pytest.mark.parametrize("library", ["duckdb", "polars"])
def test_other_libraries_open_the_table(library, sweep_file, here, tmp_path):
    module = pytest.importorskip(library)
    run_sweep(load_sweep(sweep_file(grid={"nodes": [1, 2]})), tmp_path / "out", executor=here)
    path = str(tmp_path / "out" / "points.parquet")
    seen = module.read_parquet(path).fetchall() if library == "duckdb" else module.read_parquet(path).rows()
    assert [row[:2] for row in seen] == [(0, 1), (1, 2)]


def test_a_plan_brackets_sessions_at_every_point(sweep_file, here, tmp_path):
    sweep = load_sweep(sweep_file(task="plan", grid={"slo.ttft_s": [30, 0.001], "workload.think_s": [60]}))
    table = run_sweep(sweep, tmp_path / "out", executor=here)
    assert table["status"].tolist() == ["ok", "infeasible"]
    assert table["sessions"][0] < table["sessions_failing"][0]
    assert "not even one session" in table["reason"][1]


def test_failures_are_rows_with_reasons_and_an_exit_code(sweep_file, tmp_path, capsys):
    points = [{"seed": 1}, {"node": "h100x3"}, {"weights": "bf16", "model": "llama-3.1-70b"}, OVERLOAD]
    with pytest.raises(SystemExit) as end:
        main(["sweep", str(sweep_file(list=points)), "--out", str(tmp_path / "out"), "--format", "json", "--jobs", "1"])
    assert end.value.code == 5
    rows = json.loads(capsys.readouterr().out)["points"]
    assert [row["status"] for row in rows] == ["ok", "failed", "infeasible", "saturated"]
    assert rows[1]["reason"].startswith("node: unknown")
    assert "backlog grows" in rows[3]["reason"]
    assert rows[3]["ttft_p95_s"] is None
    assert read_progress(tmp_path / "out")["message"] == "2 points failed"


@pytest.mark.parametrize("format_", ["table", "csv", "markdown"])
def test_other_formats_say_what_was_swept(format_, sweep_file, tmp_path, capsys, here):
    path = sweep_file(list=[{"workload.arrival.rate_per_s": 0.02}, OVERLOAD])
    run_sweep(load_sweep(path), tmp_path / "out", executor=here)
    with pytest.raises(SystemExit):
        main(["sweep", str(path), "--out", str(tmp_path / "out"), "--format", format_])
    seen = capsys.readouterr().out
    assert "arrival.rate_per_s" in seen
    assert "backlog grows" in seen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenario: small.yaml", "give one of grid"),
        ("scenario: small.yaml\ngrid:\n  nodes: [1]\n  kv_fromat: [fp8]", "sweep.yaml:4 grid.kv_fromat: unknown key"),
        ("scenario: small.yaml\nlist:\n  - workload.arival.users: 2", "did you mean 'arrival'"),
        ("scenario: small.yaml\ngrid: {nodes: []}", "at least one value"),
        ("scenario: small.yaml\ngrid: {nodes: 3}", "sweep.yaml:2 grid.nodes"),
        ("scenario: none.yaml\ngrid: {nodes: [1]}", "sweep.yaml:1 scenario: file not found"),
        ("scenario: small.yaml\ntask: walk\ngrid: {nodes: [1]}", "sweep.yaml:2 task: unknown value 'walk'"),
    ],
)
def test_mistakes_are_named_with_their_line(text, message, sweep_file):
    path = sweep_file()
    path.write_text(text)
    with pytest.raises(ScenarioError) as error:
        load_sweep(path)
    assert message in str(error.value)


def test_a_second_start_does_what_is_missing_and_gives_the_same_bytes(sweep_file, here, tmp_path):
    sweep, out = load_sweep(sweep_file(grid=rates(4))), tmp_path / "out"
    run_sweep(sweep, out, executor=here)
    table, first = (out / "points.parquet").read_bytes(), stamps(out)
    gone = sorted(first)[1]
    (out / "points" / gone).unlink()
    run_sweep(sweep, out, executor=here)
    assert (out / "points.parquet").read_bytes() == table
    assert [name for name, stamp in stamps(out).items() if stamp != first[name]] == [gone]


def test_another_value_is_another_point_and_another_version_too(sweep_file, here, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_sweep(load_sweep(sweep_file(grid=rates(1))), out, executor=here)
    run_sweep(load_sweep(sweep_file(grid=rates(2))), out, executor=here)
    assert len(stamps(out)) == 2
    monkeypatch.setattr("capsim.scenario.lock.__version__", "another")
    run_sweep(load_sweep(sweep_file(grid=rates(2))), out, executor=here)
    assert len(stamps(out)) == 4


def test_points_that_mean_the_same_run_once(sweep_file, here, tmp_path):
    table = run_sweep(load_sweep(sweep_file(list=[{"seed": 1}, {"nodes": 1}])), tmp_path / "out", executor=here)
    assert len(stamps(tmp_path / "out")) == 1
    assert table["run_id"].nunique() == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sha256": "0", "row": {"status": "ok"}}'])
def test_a_damaged_point_is_named_and_done_again(damage, sweep_file, here, tmp_path):
    sweep, out, notes = load_sweep(sweep_file(grid=rates(2))), tmp_path / "out", []
    run_sweep(sweep, out, executor=here)
    table = (out / "points.parquet").read_bytes()
    path = next((out / "points").iterdir())
    path.write_text(damage)
    run_sweep(sweep, out, executor=here, on_note=notes.append)
    assert len(notes) == 1
    assert path.name in notes[0]
    assert (out / "points.parquet").read_bytes() == table


def test_a_full_disk_is_said_and_the_rest_is_kept(sweep_file, here, tmp_path, monkeypatch):
    sweep, out = load_sweep(sweep_file(grid=rates(4))), tmp_path / "out"
    whole, writes = Path.write_text, iter(range(100))

    def full(path, text):
        if path.name == ".writing" and next(writes) >= 2:
            whole(path, text[: len(text) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(ScenarioError, match="No space left on device; finished points are kept"):
            run_sweep(sweep, out, executor=here)
    assert len(kept := stamps(out)) == 2
    assert not list(out.rglob(".writing"))
    assert run_sweep(sweep, out, executor=here)["status"].eq("ok").all()
    assert kept.items() <= stamps(out).items()


def test_a_directory_in_use_or_of_something_else_is_refused(sweep_file, here, tmp_path):
    sweep, out = load_sweep(sweep_file(grid=rates(2))), tmp_path / "out"
    said = []

    def second(done, total, left_s):
        with pytest.raises(ScenarioError) as error:
            run_sweep(sweep, out, executor=here)
        said.append(str(error.value))

    run_sweep(sweep, out, executor=here, on_point=second)
    assert "another process runs a sweep there" in said[0]
    with pytest.raises(ScenarioError, match="holds no sweep"):
        run_sweep(sweep, tmp_path, executor=here)


def test_workers_that_die_are_replaced_and_nothing_is_missing(sweep_file, tmp_path):
    deaths = []

    def kill(done, total, left_s):
        if done == 1 and not deaths:
            deaths.extend(multiprocessing.active_children())
            for child in deaths:
                child.kill()

    table = run_sweep(load_sweep(sweep_file(grid=rates(6))), tmp_path / "out", jobs=2, on_point=kill)
    assert deaths
    assert table["status"].tolist() == ["ok"] * 6


class Deadly:
    """A crew of two of whom one dies at a certain seed, and takes its neighbour with it."""

    width = 2

    def __init__(self, seed):
        self.seed, self.given, self.renewals = seed, [], 0

    def submit(self, resolved, task):
        future = Future()
        self.given.append((resolved.scenario.seed, future))
        if resolved.scenario.seed == self.seed:
            for _, other in self.given:
                if not other.done():
                    other.set_exception(BrokenProcessPool("died"))
        elif len(self.given) % 2 == 0 or self.renewals:
            for _, other in self.given:
                if not other.done():
                    other.set_result({"status": "ok"})
        return future

    def renew(self):
        self.renewals += 1
        return True


def test_a_point_that_kills_its_worker_is_told_from_its_neighbours(sweep_file, tmp_path):
    sweep = load_sweep(sweep_file(grid={"seed": [1, 2, 3, 4]}))
    (tmp_path / "out" / "points").mkdir(parents=True)
    crew = Deadly(seed=2)
    at_work = _Sweeping(
        sweep, Results(tmp_path / "out"), crew, lambda *told: None, lambda note: None, ProgressFile(None)
    )
    at_work.go()
    table = as_table(sweep, at_work.rows).to_pandas()
    assert table["status"].tolist() == ["ok", "failed", "ok", "ok"]
    assert "worker died" in table["reason"][1]
    assert len(stamps(tmp_path / "out")) == 3  # a later start tries the deadly one again


def start(path, out, *more):
    command = [sys.executable, "-m", "capsim", "sweep", str(path), "--out", str(out), "--jobs", "2", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until_points(out, count, process):
    while process.poll() is None and (not (out / "points").is_dir() or len(stamps(out)) < count):
        time.sleep(0.01)


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []


def alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def killed_again_and_again(path, tmp_path, count, at):
    """Kill a sweep whenever so many points are there; what it wrote must stay as it is, its workers must not."""
    out, seen = tmp_path / "killed", {}
    for points in at:
        process = start(path, out)
        until_points(out, points, process)
        workers = children(process)
        process.kill()
        process.communicate()
        now = stamps(out)
        assert seen.items() <= now.items()
        assert points <= len(now) < count
        seen = now
        deadline = time.monotonic() + 10
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, workers))
    last = start(path, out)
    assert last.wait() == 0, last.stderr.read()
    last.communicate()
    assert seen.items() <= stamps(out).items()
    undisturbed = start(path, tmp_path / "undisturbed")
    undisturbed.communicate()
    assert len(stamps(out)) == count
    assert (out / "points.parquet").read_bytes() == (tmp_path / "undisturbed" / "points.parquet").read_bytes()


def test_a_killed_sweep_loses_nothing_and_repeats_nothing(sweep_file, tmp_path):
    killed_again_and_again(sweep_file(grid=rates(12)), tmp_path, 12, at=[3])


@pytest.mark.slow
def test_a_sweep_of_200_points_killed_three_times_is_the_undisturbed_one(sweep_file, tmp_path):
    moments = sorted(random.Random().sample(range(1, 180), 3))
    killed_again_and_again(sweep_file(grid=rates(200)), tmp_path, 200, at=moments)


def test_an_interrupted_sweep_keeps_what_it_has_and_says_what_is_pending(sweep_file, tmp_path):
    process = start(sweep_file(grid=rates(200)), tmp_path / "out")
    until_points(tmp_path / "out", 2, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    table = pd.read_parquet(tmp_path / "out" / "points.parquet")
    assert table["status"].value_counts()["ok"] >= 2
    assert set(table["status"]) == {"ok", "pending"}
    assert read_progress(tmp_path / "out")["state"] == "interrupted"


def test_a_dask_cluster_gives_the_same_though_a_worker_is_lost(sweep_file, tmp_path):
    distributed = pytest.importorskip("distributed")
    sweep = load_sweep(sweep_file(grid=rates(20)))
    run_sweep(sweep, tmp_path / "here", jobs=1)
    lost = []

    def lose(done, total, left_s):
        if done == 3 and not lost:
            lost.append(os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL))

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        run_sweep(sweep, tmp_path / "dask", executor=client.get_executor(retries=3), on_point=lose)
    assert lost
    tables = [(tmp_path / place / "points.parquet").read_bytes() for place in ("here", "dask")]
    assert tables[0] == tables[1]


def test_a_cluster_that_does_not_answer_is_named(sweep_file, tmp_path, capsys):
    pytest.importorskip("distributed")
    with pytest.raises(SystemExit) as end:
        main(["sweep", str(sweep_file(grid=rates(1))), "--out", str(tmp_path / "o"), "--cluster", "tcp://127.0.0.1:9"])
    assert end.value.code == 2
    assert "no scheduler answers" in capsys.readouterr().err


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_say_why_and_every_point_resolves(path):
    assert path.read_text().startswith("# For ")
    sweep = load_sweep(path)
    for point in sweep.points:
        resolve(sweep.scenario, point.overrides, sweep.folder)


def test_every_column_is_documented():
    text = (ROOT / "docs" / "sweeps.md").read_text()
    assert all(f"`{name}`" in text for task in figures.PATHS for name in figures.columns(task))
