"""The trace verbs as a user runs them."""

import json

import numpy as np
import pytest
import yaml

from capsim.cli import main
from capsim.workload.streams import stream


@pytest.fixture
def trace(tmp_path):
    generator = stream(1, 0, "cli")
    arrival_s = np.cumsum(generator.exponential(0.5, 2400))
    rows = (f"{a:.6f},{p},{o},{s}\n" for a, p, o, s in zip(
        arrival_s, generator.integers(10, 90, 2400), generator.integers(1, 9, 2400), generator.integers(0, 800, 2400),
        strict=True,
    ))  # fmt: skip
    path = tmp_path / "mine.csv"
    path.write_text("when,in,out,who\n" + "".join(rows))
    return path


COLUMNS = "arrival=when,prompt_tokens=in,output_tokens=out,session=who"


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_describe_prints_the_same_in_every_format(capsys, trace, form):
    code, out, err = printed(capsys, "trace", "describe", trace, "--columns", COLUMNS, "--format", form)
    assert (code, err) == (0, "")
    told = {"json": '"idc_60s"', "csv": "figures.idc_60s,", "table": "IDC at 60 s", "markdown": "| IDC at 60 s"}
    assert told[form] in out
    if form == "json":
        document = json.loads(out)
        assert document["requests"] == 2400
        assert document["figures"]["rate_per_s"] == pytest.approx(2, rel=0.1)
        assert document["sessions"]["turns_mean"] == pytest.approx(3.1, rel=0.1)
        assert list(document["distances"].values()) == sorted(document["distances"].values())
    if form == "markdown":
        assert all(line.startswith("|") for line in out.splitlines() if line)


def test_fit_writes_a_preset_that_a_scenario_runs(capsys, trace, tmp_path):
    target = tmp_path / "preset.yaml"
    code, out, _ = printed(capsys, "trace", "fit", trace, "--columns", COLUMNS, "--out", target)
    assert code == 0
    assert "Arrivals tried" in out
    assert "generated" in out
    entry = yaml.safe_load(target.read_text())["mine"]
    assert entry["arrival"]["kind"] == "poisson"
    assert "mine.csv (sha256 " in entry["provenance"]["source"]
    scenario = tmp_path / "s.yaml"
    scenario.write_text("model: llama-3.1-8b\nnode: h100x1\nworkload: {preset: preset.yaml, requests: 50}\n")
    code, out, _ = printed(capsys, "run", scenario, "--quiet")
    assert code == 0
    assert "preset.yaml" in out


def test_fit_prints_the_preset_where_no_file_is_named(capsys, trace):
    code, out, _ = printed(capsys, "trace", "fit", trace, "--columns", COLUMNS)
    assert code == 0
    assert yaml.safe_load(out[out.index("mine:") :])["mine"]["arrival"]["kind"] == "poisson"


def test_presets_stand_beside_their_sources(capsys):
    code, out, _ = printed(capsys, "trace", "presets", "--format", "json")
    document = json.loads(out)
    assert code == 0
    source, made = (document[f"code-complete: {which}"] for which in ("source", "generated"))
    assert made["idc_1s"] == pytest.approx(source["idc_1s"], rel=0.35)
    source, made = (document[f"chat-kimi: {which}"] for which in ("source", "generated"))
    assert made["gap_s"]["p50"] == pytest.approx(source["gap_s"]["p50"], rel=0.05)
    assert made["reuse"] == pytest.approx(source["reuse"], abs=0.03)
    told = {name: document[f"{name}: generated"]["arrivals"] for name in ("api-bursty", "reasoning", "rag-summarise")}
    assert told == {"api-bursty": "calibrated", "reasoning": "calibrated", "rag-summarise": "assumed"}
    source, made = (document[f"reasoning: {which}"] for which in ("source", "generated"))
    assert made["idc_60s"] == pytest.approx(source["idc_60s"], rel=0.35)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "gone.csv"], "gone.csv: trace file not found"),
        (["describe", "mine.csv"], "columns when, in, out, who fit no known trace schema"),
        (["describe", "mine.csv", "--columns", "arival=when"], "did you mean 'arrival'?"),
        (["describe", "mine.csv", "--columns", "arrival"], "expected role=column"),
        (["fit", "mine.csv", "--columns", COLUMNS, "--out", "no/where.yaml"], "cannot be written"),
    ],
)
def test_mistakes_end_with_2_and_say_what(capsys, trace, monkeypatch, arguments, message):
    monkeypatch.chdir(trace.parent)
    code, out, err = printed(capsys, "trace", *arguments)
    assert (code, out) == (2, "")
    assert message in err
