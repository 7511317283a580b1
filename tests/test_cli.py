"""The command line as a user runs it: what it prints, where, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pandas as pd
import pytest
import yaml
from configs import CONFIGS

from capsim.cli import main
from capsim.metrics.requests import OUTCOMES

SCENARIOS = Path(__file__).parents[1] / "scenarios"
EDGE = SCENARIOS / "edge-llama8b-mac.yaml"
SCENARIO = """\
name: small
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {kind: poisson, rate_per_s: 4}
  prompt_tokens: 200
  output_tokens: {kind: geometric, mean: 40}
  requests: 300
slo: {ttft_s: 1 s, tpot_s: 50 ms}
replications: 2
"""


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture
def capsim(capsys):
    """Runs a command line in this process: its output, errors and exit code."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return SimpleNamespace(stdout=captured.out, stderr=captured.err, returncode=end.value.code)

    return run


def start(*arguments, **environment):
    command = [sys.executable, "-m", "capsim", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment)


def test_run_prints_the_json_contract(capsim, scenario):
    done = capsim("run", scenario, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    latency = {"mean", "p50", "p90", "p95", "p99", "ci95"}
    assert all(latency <= set(summary[name]) for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s"))
    assert set(summary["requests"]) == {"offered", *OUTCOMES, "asks", "served_share"}
    assert set(summary["kv"]) == {
        "capacity_tokens", "peak_tokens", "mean_utilisation", "hit_rate", "evicted_blocks", "offload",
    }  # fmt: skip
    assert set(summary["throughput"]) == {
        "requests_per_s", "input_tokens_per_s", "cached_tokens_per_s", "output_tokens_per_s",
    }  # fmt: skip
    assert summary["requests"]["offered"] == 600
    assert summary["cost"]["monthly_usd"] == pytest.approx(2.95 * 730)
    assert summary["ttft_s"]["p50"] <= summary["ttft_s"]["p95"] < 1
    for key in ("schema_version", "scenario", "run", "saturated", "goodput", "preemptions", "steps", "step_time_share",
                "utilisation", "basis", "warnings"):  # fmt: skip
        assert key in summary


def test_run_alone_never_prints_sessions_per_node(capsim, scenario):
    assert "session" not in capsim("run", scenario).stdout


def test_same_scenario_and_seed_give_the_same_bytes(capsim, scenario):
    first = capsim("run", scenario, "--format", "json").stdout
    elsewhere, _ = start("run", scenario, "--format", "json").communicate(timeout=120)
    assert first == elsewhere
    assert capsim("run", scenario, "--seed", 2, "--format", "json").stdout != first


def test_out_holds_the_lock_the_summary_and_its_tables(capsim, scenario, tmp_path):
    out = tmp_path / "runs" / "a"
    assert capsim("run", scenario, "--out", out).returncode == 0
    assert {p.name for p in out.iterdir()} == {
        "scenario.lock.yaml", "summary.json", "replications.parquet", "requests.parquet", "segments.parquet",
        "progress.json",
    }  # fmt: skip
    assert len(pd.read_parquet(out / "requests.parquet")) == 600
    assert [p.name for p in out.parent.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_is_refused_before_the_run(scenario, capsim, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = capsim("run", scenario, "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_out_refuses_a_directory_that_is_not_ours(capsim, scenario, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    done = capsim("run", scenario, "--out", tmp_path / "precious")
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("format_", ["table", "csv", "markdown"])
def test_other_formats(capsim, scenario, format_):
    done = capsim("run", scenario, "--format", format_)
    assert done.returncode == 0, done.stderr
    expected = {"table": "TTFT", "csv": "ttft_s.p95,", "markdown": "| TTFT |"}[format_]
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ("slo.ttf_s=1", 2, "slo.ttf_s: unknown key (did you mean 'ttft_s'?)"),
        ("workload.users=300", 2, "workload.users: unknown key (did you mean 'arrival.users'?)"),
        ("workload={prompt_tokens: 9, output_tokens: 9}", 2, "(such as {kind: users, users: 1000, sessions_per_day"),
        ("workload.arrival={rate_per_s: 4}", 2, "needs a 'kind' (known: closed, constant, gamma, on_off, poisson"),
        ("workload={requests: 5, duration_s: 9}", 2, "both the length of the run: leave one out"),
        ("slo.ttft_s=5 GB", 2, "expected a quantity such as '50 ms', got '5 GB'"),
        ("workload.arrival.rate_per_s=-2", 2, "must be > 0 (got -2)"),
        ("workload.prompt_tokens=-5", 2, "must be > 0 (got -5)"),
        ("model=llama-3.1-7b", 2, "unknown model 'llama-3.1-7b' (did you mean 'llama-3.1-70b'?)"),
        ("workload.prompt_tokens=140000", 2, "longer than Llama-3.1-8B's context of 131,072 tokens"),
        ("parallelism={tp: 1, pp: 64}", 2, "layers for 64 stages"),
        ("model=llama-3.1-70b", 3, "short on each device"),
        ("kv_capacity_tokens=100", 3, "no request fits the KV pool"),
        ("workload.trace=gone.csv", 2, "a trace brings its own lengths"),
        ("workload={trace: gone.csv}", 2, "trace file not found"),
        ("workload={trace: small.yaml}", 2, "fit no known trace schema"),
        ("calibration=gone.yaml", 2, "gone.yaml: file not found"),
        ("calibration=small.yaml", 2, "small.yaml:1 name: unknown kind 'name'"),
        ("slo=5", 2, "slo: expected keys and values (got 5)"),
        ("nodes=1.5", 2, "valid integer"),
        ("slo.ttft_s=.inf", 2, "finite"),
        ("workload.arrival.rate_per_s=400", 3, ""),
    ],
)
def test_bad_input_says_what_and_ends_with_its_code(capsim, scenario, setting, code, message):
    done = capsim("run", scenario, "--set", setting)
    assert done.returncode == code, done.stderr + done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_length_set_from_outside_takes_the_place_of_the_files(capsim, scenario):
    done = capsim("check", scenario, "--resolved", "--set", "workload.duration_s=60")
    assert yaml.safe_load(done.stdout)["scenario"]["workload"]["duration_s"] == 60, done.stderr
    done = capsim("run", scenario, "--set", "workload.requests=60", "--duration", "60s")
    assert "both the length of the run" in done.stderr


def test_an_engine_refuses_what_it_cannot_do(capsim):
    settings = ("--set", "kv_format=fp8", "--set", "scheduler.max_num_seqs=4")
    done = capsim("check", EDGE, *settings)
    assert done.returncode == 2
    assert "mlx-lm, serial does not serve fp8 KV" in done.stderr
    assert "mlx-lm, serial serves one request at a time" in done.stderr


def test_a_malformed_trace_is_refused_with_its_line(capsim, scenario, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0.5,100,20\n0.9,many,20\n")
    done = capsim("run", scenario, "--set", f"workload={{trace: {trace}}}")
    assert done.returncode == 2
    assert f"{trace}:3 ContextTokens: not a number: 'many'" in done.stderr


def test_a_calibration_file_replaces_the_catalogs_step_time(capsim, scenario, tmp_path):
    shown = capsim("catalog", "show", "calibrations", "h100-sxm/vllm").stdout
    slower = tmp_path / "mine.yaml"
    entry = shown.replace("memory_fraction: 0.895", "memory_fraction: 0.4475")
    slower.write_text("calibrations:\n" + textwrap.indent(entry, "  "))
    settings = ("--replications", 1, "--format", "json")
    before, after = (
        json.loads(capsim("run", scenario, *settings, *more).stdout)
        for more in ((), ("--set", f"calibration={slower}"))
    )
    assert 1.3 < after["tpot_s"]["p50"] / before["tpot_s"]["p50"] < 2
    assert after["basis"]["step_time"]["key"] == "mine.yaml"


def test_every_mistake_of_a_file_comes_with_its_line(capsim, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(SCENARIO.replace("model:", "modle:").replace("ttft_s: 1 s", "ttft_s: -2"))
    done = capsim("check", path)
    assert done.returncode == 2
    assert f"{path}:2 modle: unknown key (did you mean 'model'?)" in done.stderr
    assert f"{path}:9 slo.ttft_s: must be > 0 (got -2)" in done.stderr
    assert "model: is required" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys and values"),
        ("model: [", "not valid YAML"),
        ("model: a\nmodel: b\n", ":2 model: given twice (first in line 1)"),
        ("a: &x 1\nb: *x\n", "aliases (*x) are not supported"),
    ],
)
def test_broken_files(capsim, tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    done = capsim("check", path)
    assert done.returncode == 2
    assert message in done.stderr


def test_overload_withholds_percentiles(capsim, scenario):
    done = capsim("run", scenario, "--set", "workload.arrival.rate_per_s=400", "--format", "json")
    summary = json.loads(done.stdout)
    assert done.returncode == 3
    assert summary["saturated"] is True
    assert summary["ttft_s"]["p95"] is None
    assert summary["backlog_growth_per_s"] > 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["engine=llama.cpp", "kv_capacity_tokens=400"], "no request fits a slot of 100 tokens (4 share the KV pool)"),
        (["engine=tensorrt-llm", "workload.prompt_tokens=9000"], "computes prompts of up to 8,192 tokens"),
    ],
)
def test_a_load_that_the_engine_can_never_serve_is_refused_before_the_run(capsim, scenario, settings, message):
    done = capsim("run", scenario, *[word for setting in settings for word in ("--set", setting)])
    assert done.returncode == 3
    assert message in done.stderr


def test_a_trace_whose_prefixes_are_left_out_says_so(capsim, scenario, tmp_path):
    rows = [{"timestamp": 10 * n, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]} for n in range(200)]
    (tmp_path / "hashed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replayed = ["workload={trace: hashed.jsonl}", "replications=1"]
    drawn = ["workload={trace: hashed.jsonl, arrival: {kind: poisson, rate_per_s: 5}, requests: 200}", "replications=1"]
    summaries = [
        json.loads(capsim("run", scenario, "--format", "json", *[w for s in each for w in ("--set", s)]).stdout)
        for each in (replayed, drawn)
    ]
    assert [summary["kv"]["hit_rate"] > 0.9 for summary in summaries] == [True, False]
    notes = [any("prefixes are left out" in note for note in summary["warnings"]) for summary in summaries]
    assert notes == [False, True]


def test_assert_slo_has_its_own_exit_code(capsim, scenario):
    assert capsim("run", scenario, "--assert-slo").returncode == 0
    assert capsim("run", scenario, "--assert-slo", "--set", "slo.tpot_s=1 ms").returncode == 4


def test_an_interrupted_run_keeps_what_it_had(scenario, tmp_path):
    out = tmp_path / "partial"
    # More than the node serves, so that somebody is inside whenever the signal comes
    settings = ["--set", "workload.arrival={kind: poisson, rate_per_s: 1000}", "--set", "workload.requests=3000000"]
    process = start("run", scenario, *settings, "--replications", "1", "--out", out, TMPDIR=str(tmp_path))
    while not list(tmp_path.glob("capsim-*")):  # its first rows are on the disk
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    summary = json.loads((out / "summary.json").read_text())
    assert summary["run"]["interrupted"] is True
    counts = summary["requests"]
    assert counts["unfinished"] > 0
    assert counts["offered"] == sum(counts[outcome] for outcome in OUTCOMES) < 3_000_000


def test_plan_brackets_sessions_and_names_what_binds(capsim, scenario, tmp_path):
    settings = [
        "workload.think_s=20 s",
        "plan.users=1000",
        "scheduler.max_num_seqs=4",
        "slo.ttft_s=200 ms",
        "workload.output_tokens=8",
    ]
    options = ["--format=json", "--replications=1", f"--out={tmp_path / 'plan'}"]
    done = capsim("plan", scenario, *(f"--set={setting}" for setting in settings), *options)
    assert done.returncode == 0, done.stderr
    candidate = json.loads(done.stdout)["candidates"][0]
    passing, failing = candidate["sessions"]["attached"]
    assert 0 < passing < failing <= max(passing + 1, 1.05 * passing)
    assert candidate["nodes"] == candidate["fleet"]["one_down"]["nodes"] + 1 == -(-1000 // passing) + 1
    assert candidate["binds"] == "batch cap"
    assert candidate["goodput"][0] >= 0.95 > candidate["goodput"][1]
    assert (tmp_path / "plan" / "plan.json").read_text() == done.stdout
    assert len(pd.read_parquet(tmp_path / "plan" / "requests.parquet")) >= 2000


def test_plan_says_when_no_session_fits(capsim, scenario):
    done = capsim("plan", scenario, "--set", "slo.tpot_s=1 ms", "--replications", 1)
    assert done.returncode == 3
    assert "not even one session" in done.stderr


def test_the_schema_takes_every_shipped_scenario(capsim):
    schema = json.loads(capsim("schema").stdout)
    for path in set(SCENARIOS.glob("*.yaml")) - set(SCENARIOS.glob("stack-*.yaml")):
        values = json.dumps(yaml.safe_load(path.read_text()), default=str)  # dates as editors see them
        jsonschema.validate(json.loads(values), schema)
    with pytest.raises(jsonschema.ValidationError, match="attaned"):
        jsonschema.validate({"model": "m", "node": "n", "workload": {}, "slo": {"attaned": 1}}, schema)


def test_the_doctor_tells_versions_calibrations_and_old_prices(capsim):
    told = capsim("doctor").stdout
    assert re.search(r"^simpy +\d", told, re.MULTILINE)
    assert re.search(r"^h100-sxm +vllm.* calibrated", told, re.MULTILINE)
    assert re.search(r"^prices +\d+ +\d+ +20\d\d-\d\d-\d\d", told, re.MULTILINE)


def test_catalog_shows_values_with_their_provenance(capsim):
    assert "llama-3.1-70b" in capsim("catalog", "list", "models").stdout
    shown = capsim("catalog", "show", "devices", "h100-sxm").stdout
    assert "basis: datasheet" in shown
    assert "did you mean" in capsim("catalog", "show", "devices", "h100").stderr


def test_catalog_lists_main_figures_and_sees_the_user_s_files(capsim, tmp_path):
    facts = tmp_path / "facts.yaml"
    shown = capsim("catalog", "show", "devices", "h100-sxm").stdout
    facts.write_text("devices:\n" + "".join(f"  {line}\n" for line in shown.replace("h100-sxm", "mine").splitlines()))
    listed = capsim("catalog", "list", "devices", "--file", facts).stdout
    assert any(line.split()[:3] == ["mine", "79.18", "GiB"] for line in listed.splitlines())
    assert "3,350 GB/s" in listed
    again = capsim("catalog", "show", "devices", "mine", "--file", facts).stdout
    assert again == shown.replace("h100-sxm", "mine")
    assert "$25" in capsim("catalog", "list", "api_tiers").stdout
    assert capsim("catalog", "show", "devices", "mine").returncode == 2
    assert "file not found" in capsim("catalog", "list", "--file", tmp_path / "gone.yaml").stderr


def test_a_model_is_read_from_its_config(capsim, scenario):
    folder = scenario.parent / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIGS["llama-3.1-8b"]))
    shipped, own = (
        json.loads(capsim("run", scenario, *setting, "--format", "json").stdout)
        for setting in ((), ("--set", "model=my-llama/config.json"))
    )
    assert own["ttft_s"] == shipped["ttft_s"]
    assert own["basis"]["model"]["key"] == "my-llama/config.json"
    assert own["basis"]["model"]["as_of"] == "undated"
    assert own["scenario"]["resolved"]["model"]["name"] == "my-llama"
    scenario.write_text(SCENARIO.replace("llama-3.1-8b", "my-llama/config.json"))
    assert capsim("check", scenario.name).returncode == 0
    (folder / "config.json").write_text('{"model_type": "rwkv"}')
    done = capsim("check", scenario, "--set", "node=h100x9")
    assert "config.json model_type: unknown model type 'rwkv'" in done.stderr
    assert "unknown node 'h100x9'" in done.stderr
    assert "unknown model 'my-llama" not in done.stderr
    assert "gone.json: file not found" in capsim("check", scenario, "--set", "model=gone.json").stderr


def test_the_same_config_prints_the_same_whenever_it_was_saved(capsim, scenario):
    path = scenario.parent / "config.json"
    path.write_text(json.dumps({**CONFIGS["llama-3.1-8b"], "_name_or_path": "mine"}))
    printed = []
    for moment in (1_000_000_000, 1_700_000_000):
        os.utime(path, (moment, moment))
        printed.append(capsim("run", scenario, "--set", "model=config.json", "--quiet").stdout)
    assert printed[0] == printed[1] != ""
    assert "config.json vendor undated" in " ".join(printed[0].split())


def test_help_imports_nothing_heavy():
    heavy = ("pandas", "numpy", "simpy", "scipy", "pydantic", "altair", "streamlit")
    code = f"import sys, capsim.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
