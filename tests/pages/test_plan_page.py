"""The plan as a visitor sees it: full at once, changed by inputs, with errors that say what to do."""

import json
import shlex
import time

import pytest
from conftest import ROOT, text_of

from capsim import jobs
from capsim.capacity import answers, plan
from capsim.pages.parts.results import SAVED
from capsim.pages.parts.scenarios import FIRST
from capsim.scenario import resolve

MAC = {"scenario": "edge-llama8b-mac"}


def metrics(app):
    return {metric.label: metric.value for metric in app.metric}


def test_the_first_screen_is_full(opened):
    app = opened("plan")
    assert not app.exception
    saved = json.loads((SAVED / f"{FIRST}.plan.json").read_text())["candidates"][0]
    assert metrics(app)["Sessions a node"] == f"{saved['sessions']['attached'][0]:,}"
    assert metrics(app)["Nodes"] == f"{saved['nodes']:,}"
    assert saved["binds"] in text_of(app)


def test_the_saved_result_has_the_shape_of_a_plan(monkeypatch):
    """When this fails, ``make saved`` writes it anew."""
    monkeypatch.setattr("capsim.capacity.sessions.MIN_REQUESTS", 300)
    monkeypatch.setattr("capsim.capacity.sessions.TURNOVERS", 2)
    quick = ["plan.users=null", "replications=1", "slo={ttft_s: 2 s, attained: 0.8}"]
    fresh, _ = plan(resolve(ROOT / "scenarios/edge-llama8b-mac.yaml", quick), lambda number, run: None)
    saved = json.loads((SAVED / f"{FIRST}.plan.json").read_text())
    assert saved.keys() == fresh.keys()
    assert saved["candidates"][0].keys() == fresh["candidates"][0].keys()
    assert saved["schema_version"] == fresh["schema_version"]


def test_the_estimate_is_what_the_python_interface_gives(opened):
    app = opened("plan", **MAC, users="40")
    row = answers(resolve(ROOT / "scenarios/edge-llama8b-mac.yaml", ["plan.users=40"]))["estimates"][0]
    assert metrics(app)["Sessions a node"] == f"{row['sessions']:,}"
    assert metrics(app)["Nodes"] == f"{row['nodes']:,}"
    assert metrics(app)["Limited by"] == row["limited_by"]


def test_the_command_line_it_offers_asks_the_same(opened):
    app = opened("plan", **MAC, users="40", ttft="20 s", replications="1")
    words = shlex.split(app.code[0].value.replace("\\\n", ""))
    assert words[:3] == ["capsim", "plan", "scenarios/edge-llama8b-mac.yaml"]
    assert words[3:] == ["--set", "plan.users=40", "--set", "slo.ttft_s=20 s", "--set", "replications=1"]


def test_another_scenario_brings_its_own_answers(opened):
    app = opened("plan")
    app.selectbox(key="scenario").select("edge-llama8b-mac").run()
    assert app.selectbox(key="model").value == "llama-3.1-8b"
    assert app.number_input(key="users").value == 20
    assert not app.exception


def test_a_changed_model_takes_weights_that_it_has(opened):
    app = opened("plan")
    app.selectbox(key="model").select("gpt-oss-120b").run()
    assert app.selectbox(key="weights").value == "mxfp4"
    assert not app.exception
    assert not app.error


def test_node_types_stand_side_by_side_and_the_excluded_say_why(opened):
    app = opened("plan", nodes=["h100x8", "ascend-910bx8", "mac-studio-m3-ultra"])
    assert [text for text in text_of(app).splitlines() if text.startswith("**ascend-910bx8**")]
    assert "unknown" in [metric.value for metric in app.metric if metric.label == "A month"]
    excluded = next(table.value for table in app.table if "Excluded" in table.value)
    assert list(excluded["Excluded"]) == ["mac-studio-m3-ultra"]
    assert "fp8" in excluded["why"].iloc[0]


def test_a_model_that_does_not_fit_says_what_is_short_and_mends_it(opened):
    app = opened("plan", model="llama-3.1-405b", weights="bf16")
    assert "short on each device" in app.error[0].value
    mend = next(button for button in app.button if button.label.startswith("Take fp8 weights"))
    mend.click().run()
    assert not app.error
    assert metrics(app)["Sessions a node"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"ttft": "abc"}, "expected a quantity such as '50 ms'"),
        ({"ttft": "", "tpot": ""}, "give at least one threshold"),
        ({"tpot": "1 us"}, "not even one session"),
        ({"kv": "q8_0"}, "does not serve q8_0"),
    ],
)
def test_mistakes_are_told(opened, query, says):
    app = opened("plan", **query)
    assert says in "\n".join(error.value for error in app.error)
    assert not app.exception


@pytest.mark.parametrize(
    "query",
    [
        {"scenario": "../../etc/passwd"}, {"model": "'; drop table"}, {"users": "-5"}, {"users": "1e99"},
        {"nodes": ["", "x" * 5000]}, {"price": "nan"}, {"nonsense": "\x00\x1b[31m"}, {"attained": "2"},
        {"ttft": "!!python/object:os.system"},
    ],
)  # fmt: skip
def test_nonsense_in_the_url_does_no_harm(opened, query):
    app = opened("plan", **query)
    assert not app.exception


def test_simulate_starts_a_job_that_can_be_cancelled_and_found_again(opened):
    app = opened("plan", replications="20")
    next(button for button in app.button if button.label == "Simulate").click().run()
    (name,) = jobs.names("plan")
    assert jobs.status(name).alive
    again = opened("plan", replications="20")
    cancel = next(button for button in again.button if button.label == "Cancel")
    cancel.click().run()
    ends = time.monotonic() + 30
    while jobs.status(name).alive and time.monotonic() < ends:
        time.sleep(0.1)
    assert jobs.status(name).state == "interrupted"


def test_why_a_job_failed_is_told(opened):
    app = opened("plan", **MAC)
    text = app.get("download_button")[0]
    assert text.proto.label == "scenario.yaml"


def test_an_uploaded_scenario_opens_and_one_that_names_files_is_refused(opened):
    app = opened("plan")
    own = (ROOT / "scenarios/edge-llama8b-mac.yaml").read_bytes()
    for content, says in ((own, None), (own.replace(b"workload:", b"calibration: /etc/passwd\nworkload:"), "a file")):
        app.file_uploader(key="file").upload("own.yaml", content, "application/yaml").run()
        next(button for button in app.button if button.label == "Open it").click().run()
        assert not app.exception
        if says is None:
            assert app.selectbox(key="scenario").value.startswith("uploaded-")
            assert metrics(app)["Sessions a node"]
        else:
            assert says in app.error[0].value


def test_its_own_load_is_run_and_shown_in_depth(opened):
    app = opened("plan", **MAC, replications="1")
    next(button for button in app.button if button.label == "Run its own load").click().run()
    assert not app.exception
    (name,) = jobs.names("run")
    assert jobs.asked(name).title == "Llama-3.1-8B on a Mac mini"
    jobs.cancel(name)
