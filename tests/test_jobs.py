"""Jobs beside the app: started once, watched, cancelled, queued, found again."""

import json
import time

import pytest

from capsim import jobs
from capsim.errors import ScenarioError

SMALL = """
model: llama-3.1-8b
weights: int4
node: mac-mini-m4-pro
workload: {arrival: {kind: poisson, rate_per_s: 0.02}, prompt_tokens: {kind: constant, value: 200},
  output_tokens: {kind: constant, value: 20}, requests: REQUESTS}
replications: 1
"""


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSIM_RUNS", str(tmp_path / "runs"))
    yield tmp_path / "runs"
    for name in jobs.names():
        jobs.cancel(name)


def job(requests=50):
    return jobs.Job("run", {"scenario.yaml": SMALL.replace("REQUESTS", str(requests))}, "small")


def until(name, wanted, seconds=30):
    ends = time.monotonic() + seconds
    while jobs.status(name).state not in wanted and time.monotonic() < ends:
        time.sleep(0.05)
    return jobs.status(name)


def test_a_job_writes_what_the_verb_writes_and_says_how_it_went(runs):
    name = jobs.start(job())
    assert jobs.status(name).alive
    assert until(name, ["done"]).progress["done"] == 1
    assert json.loads((runs / name / "summary.json").read_text())["requests"]["offered"] == 50
    assert jobs.asked(name) == job()
    assert jobs.names("run") == [name]
    assert jobs.names("plan") == []


def test_what_cannot_be_done_says_why(runs):
    name = jobs.start(jobs.Job("run", {"scenario.yaml": "model: llama-3.1-8b\nnode: nowhere\n"}, "wrong"))
    seen = until(name, ["failed", "done"])
    assert seen.state == "failed"
    assert "scenario.yaml:2 node: unknown node 'nowhere'" in seen.message
    assert str(runs) not in seen.message


def test_a_cancelled_job_keeps_what_is_known_by_then(runs):
    name = jobs.start(job(3_000_000))
    ends = time.monotonic() + 30
    while not jobs.status(name).progress.get("message") and time.monotonic() < ends:  # until requests have ended
        time.sleep(0.05)
    jobs.cancel(name)
    assert until(name, ["interrupted", "done", "failed"]).state == "interrupted"
    assert json.loads((runs / name / "summary.json").read_text())["run"]["interrupted"]


def test_at_most_so_many_run_at_once_and_the_same_question_is_one_job():
    names = [jobs.start(job(3_000_000 + more)) for more in range(jobs.AT_ONCE + 1)]
    assert jobs.start(job(3_000_000)) == names[0]
    assert jobs.ahead() == len(names)
    running = []
    ends = time.monotonic() + 30
    while len(running) < jobs.AT_ONCE and time.monotonic() < ends:
        running = [name for name in names if jobs.status(name).state == "running"]
    (waiting,) = set(names) - set(running)
    assert jobs.status(waiting).state == "queued"
    jobs.cancel(running[0])
    assert until(waiting, ["running"]).state == "running"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 13, "ABCDEF012345"])
def test_a_name_leads_nowhere_else(name):
    with pytest.raises(ScenarioError, match="not the id of a run"):
        jobs.status(name)


def test_a_job_of_another_version_is_passed_over(runs):
    (runs / ".jobs" / ("1" * 12)).mkdir(parents=True)
    (runs / ".jobs" / ("1" * 12) / "job.json").write_text('{"verb": "run"}')
    assert jobs.asked("1" * 12) is None


def test_nobody_asked_for_it():
    assert jobs.status("0" * 12) is None
    assert jobs.asked("0" * 12) is None
    assert jobs.ahead() == 0
