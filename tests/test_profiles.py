"""What a workload takes from elsewhere: rates of the catalog or of a file, presets of a file."""

import pytest
import yaml

from capsim.catalog import load_catalog
from capsim.errors import ScenarioError
from capsim.experiment import run
from capsim.scenario import resolve
from capsim.scenario.lock import locked
from capsim.workload.profiles import read_rates

SCENARIO = {
    "model": "llama-3.1-8b",
    "node": "h100x1",
    "workload": {"prompt_tokens": 200, "output_tokens": 20, "requests": 60},
    "replications": 2,
}


def scenario(folder, **workload):
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({**SCENARIO, "workload": {**SCENARIO["workload"], **workload}}))
    return path


@pytest.mark.parametrize(("key", "peak"), [("azure24-chat-week", 1.67), ("azure24-code-week", 3.0)])
def test_weeks_of_the_catalog_have_the_published_shape(key, peak):
    week = load_catalog().profiles[key]
    assert (len(week.rates), week.period_s) == (168, 7 * 86400)
    assert sum(week.rates) / 168 == pytest.approx(1, abs=0.001)
    assert max(week.rates) == pytest.approx(peak, abs=0.01)


def test_a_profile_of_the_catalog_is_written_into_the_scenario(tmp_path):
    path = scenario(
        tmp_path, arrival={"kind": "profile", "profile": "azure24-code-week", "start_s": "19 h", "mean_rate_per_s": 5}
    )
    resolved = resolve(path)
    arrival = resolved.workload.arrival
    assert (len(arrival.rates), arrival.period_s, arrival.start_s) == (168, 604800, 19 * 3600)
    assert arrival.rates_per_s[19] == pytest.approx(5 * 2.2036, rel=0.001)
    assert run(resolved).summary["requests"]["completed"] == 120
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(locked(resolved)["scenario"]))
    assert resolve(again).workload == resolved.workload


def test_a_profile_of_a_file_is_relative_to_the_scenario(tmp_path):
    (tmp_path / "day.csv").write_text("hour,load\n0,1\n1,3\n")
    classes = [{
        "name": "night", "prompt_tokens": 5, "output_tokens": 6,
        "arrival": {"kind": "profile", "file": "day.csv", "column": "load", "period_s": "24h"},
    }]  # fmt: skip
    path = tmp_path / "s.yaml"
    workload = {"arrival": {"kind": "superposed", "classes": classes}, "requests": 50}
    path.write_text(yaml.safe_dump({**SCENARIO, "workload": workload}))
    resolved = resolve(path)
    assert resolved.workload.classes[0].arrival.rates == (1, 3)
    assert run(resolved).summary["requests"]["completed"] == 100


@pytest.mark.parametrize(
    ("arrival", "message"),
    [
        ({"profile": "azure24-chat-weak"}, "unknown profile 'azure24-chat-weak' (did you mean 'azure24-chat-week'?)"),
        ({"file": "gone.csv", "period_s": "1h"}, "profile file not found"),
        ({"file": "bad.csv", "period_s": "1h"}, "bad.csv:3 rate_per_s: not a rate: '-2'"),
        ({"file": "bad.csv", "column": "rates", "period_s": "1h"}, "no column 'rates' (did you mean 'rate_per_s'?)"),
        ({"file": "bad.csv", "profile": "azure24-chat-week"}, "give one of: rates"),
        ({"period_s": "1h"}, "give one of: rates"),
    ],
)
def test_mistakes_in_profiles_say_where(tmp_path, arrival, message):
    (tmp_path / "bad.csv").write_text("rate_per_s\n1\n-2\n")
    with pytest.raises(ScenarioError) as caught:
        resolve(scenario(tmp_path, arrival={"kind": "profile", **arrival}))
    assert message in str(caught.value)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ScenarioError, match="not a readable CSV"):
        read_rates(tmp_path / "empty.csv", "rate_per_s")


def test_a_preset_of_a_file_is_named_in_what_the_answer_rests_on(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "mine:\n  provenance: {basis: measured, source: my trace, as_of: 2026-01-02}\n"
        "  arrival: {kind: gamma, rate_per_s: 4, cv: 2}\n  prompt_tokens: 30\n  output_tokens: 4\n"
    )
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**SCENARIO, "workload": {"preset": "mine.yaml", "requests": 40}}))
    resolved = resolve(path)
    assert resolved.workload.arrival.cv == 2
    assert resolved.basis["workload"][0] == "mine.yaml"
    assert resolved.basis["workload"][1].source == "my trace"
    elsewhere = tmp_path / "elsewhere" / "s.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(yaml.safe_dump(locked(resolved)["scenario"]))
    assert resolve(elsewhere).workload == resolved.workload
    path.write_text(yaml.safe_dump({**SCENARIO, "workload": {"preset": "gone.yaml"}}))
    with pytest.raises(ScenarioError, match=r"s.yaml:\d+ workload.preset: no file .*gone.yaml"):
        resolve(path)


CHAT = {"model": "llama-3.1-8b", "node": "h100x1", "workload": {"preset": "inference-perf-interactive-chat"}}


def test_a_presets_target_stands_where_the_scenario_has_none(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**CHAT, "replications": 1}))
    summary = run(resolve(path, ["workload.requests=200"])).summary
    assert (summary["slo"]["tpot_s"], summary["slo"]["attained"]) == (0.05, 0.99)
    assert summary["basis"]["slo"]["key"] == "inference-perf-interactive-chat"
    assert "inference-perf" in summary["basis"]["slo"]["source"]
    path.write_text(yaml.safe_dump({**CHAT, "slo": {"ttft_s": 3}}))
    own = resolve(path)
    assert own.scenario.slo.thresholds == {"ttft_s": 3}
    assert "slo" not in own.basis


def test_people_begin_a_presets_sessions(tmp_path):
    """Four hundred people who chat 80 times a day are met in the middle of what they began."""
    path = tmp_path / "s.yaml"
    arrival = {"kind": "users", "users": 400, "sessions_per_day": 80, "rates": [1], "period_s": "24h"}
    path.write_text(yaml.safe_dump({**CHAT, "workload": {**CHAT["workload"], "arrival": arrival, "requests": 900}}))
    summary = run(resolve(path, ["replications=1"])).summary
    begun_per_s, turns, gap_s = 400 * 80 / 86_400, 4, 45
    assert summary["throughput"]["requests_per_s"] == pytest.approx(begun_per_s * turns, rel=0.15)
    assert summary["sessions"]["attached"]["mean"] == pytest.approx(begun_per_s * (turns - 1) * gap_s, rel=0.2)
    assert summary["turns"]["later"]["hit_rate"] > 0.8


def test_a_trace_takes_the_place_of_a_presets_sessions(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,50,5\n1,60,5\n")
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**CHAT, "workload": {"preset": "chat-kimi", "trace": "t.csv"}}))
    resolved = resolve(path)
    assert not resolved.workload.in_sessions
    assert run(resolved).summary["requests"]["completed"] == 2


def test_bursty_traffic_runs(tmp_path):
    path = scenario(tmp_path, arrival={"kind": "on_off", "rate_per_s": 4, "on_s": "5 s", "off_s": "20 s", "cv": 2})
    assert run(resolve(path)).summary["requests"]["completed"] == 120
