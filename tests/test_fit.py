"""Fits find what a stream was drawn from, and reproduce the traces they were made of."""

import csv
import json
import tarfile
from datetime import date
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml

from capsim.catalog import load_catalog, load_entry
from capsim.errors import ScenarioError
from capsim.slo import SLO
from capsim.workload.figures import figures
from capsim.workload.fit import by_the_minute, fit
from capsim.workload.fit_lengths import fit_tokens
from capsim.workload.fit_sessions import fit_sessions
from capsim.workload.generated import generated, generated_beside, requests_per_s
from capsim.workload.inference_perf import read_profile
from capsim.workload.preset import preset_of
from capsim.workload.requests import draw_arrivals, draw_lengths, traffic
from capsim.workload.servegen import read_clients
from capsim.workload.spec import Workload, WorkloadPreset
from capsim.workload.steady import sessions_in
from capsim.workload.streams import stream
from capsim.workload.trace_figures import trace_figures
from capsim.workload.traces import Trace, read_trace

SHARED = Path(__file__).parents[2] / "shared" / "traces"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the trace folder is not beside the checkout")
LENGTHS = {"prompt_tokens": 100, "output_tokens": 9}
HOURS = 2 * 3600.0


def stream_of(arrival, span_s=HOURS):
    workload = Workload.model_validate({"arrival": arrival, **LENGTHS, "duration_s": span_s})
    arrival_s = draw_arrivals(workload, 7, 0)[0]
    return Trace(arrival_s - arrival_s[0], np.full(len(arrival_s), 100), np.full(len(arrival_s), 9))


@pytest.mark.parametrize(
    "arrival",
    [
        {"kind": "poisson", "rate_per_s": 3},
        {"kind": "gamma", "rate_per_s": 6, "cv": 3},
        {"kind": "on_off", "rate_per_s": 3, "on_s": 15, "off_s": 45, "cv": 1.5},
        {"kind": "profile", "rates": [1, 4, 9, 2], "period_s": 3600},
    ],
    ids=lambda arrival: arrival["kind"],
)
def test_the_family_it_came_from_is_found(arrival):
    found = fit(stream_of(arrival))
    kind = found.values["arrival"]["kind"]
    assert kind == arrival["kind"] or (kind, arrival["kind"]) == ("weibull", "gamma")
    assert found.generated.rate_per_s == pytest.approx(found.trace.rate_per_s, rel=0.1)
    nearest = min(apart for _, apart in found.arrivals.values())
    assert found.arrivals[kind][1] <= nearest + 0.1


def test_bursts_are_measured_as_they_were_drawn():
    found = fit(stream_of({"kind": "on_off", "rate_per_s": 3, "on_s": 15, "off_s": 45, "cv": 1.5}, 2 * HOURS))
    arrival = found.values["arrival"]
    assert arrival["off_s"] == pytest.approx(45, rel=0.3)
    assert arrival["on_s"] == pytest.approx(15, rel=0.3)
    assert arrival["cv"] == pytest.approx(1.5, rel=0.3)


def test_a_profile_does_not_repeat_the_noise_of_its_counts():
    arrival_s = stream_of({"kind": "poisson", "rate_per_s": 3}).arrival_s
    rates = np.array(by_the_minute(arrival_s)[0]["rates"])
    counts = np.bincount((arrival_s // 60).astype(int))[: len(rates)] / 60
    assert rates.mean() == pytest.approx(counts.mean(), rel=0.001)
    assert rates.std() < 0.5 * counts.std()


@pytest.mark.parametrize("kind", ["grid", "mixture"])
def test_lengths_are_written_the_closer_way(kind):
    normals = stream(3, 0, "tokens").standard_normal(40_000)
    lognormal = np.where(np.arange(40_000) % 3 == 0, np.exp(7 + 0.1 * normals), np.exp(3 + 0.5 * normals))
    tokens = np.rint(np.maximum(lognormal if kind == "mixture" else 100 + 20 * normals, 1)).astype(int)
    written, apart = fit_tokens(tokens)
    assert written["kind"] == kind
    assert apart < 0.025
    assert fit_tokens(np.full(10, 5))[1] == 0


def test_requests_that_all_come_at_once_have_no_rate(tmp_path):
    path = tmp_path / "burst.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,2,3\n1,2,3\n")
    with pytest.raises(ScenarioError, match="burst.csv: all requests come at once"):
        preset_of(path, None, date(2026, 1, 1))


def test_few_requests_still_fit(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,2,3\n4,2,3\n9,5,1\n")
    preset = preset_of(path, None, date(2026, 1, 1))
    assert preset.workload.arrival.kind == "poisson"
    assert (tmp_path / "p.yaml").write_text(yaml.safe_dump({preset.name: preset.entry}))
    assert load_entry(tmp_path / "p.yaml", "workloads")[0] == preset.workload


@needs_shared
@pytest.mark.parametrize(
    ("name", "kind", "worst", "means"),
    [
        ("AzureLLMInferenceTrace_conv.csv", "profile", 0.12, 0.03),
        ("AzureLLMInferenceTrace_code.csv", "on_off", 0.25, 0.03),
        ("mooncake_conversation_trace.jsonl", "profile", 0.2, 0.05),
        ("mooncake_synthetic_trace.jsonl", "poisson", 0.25, 0.03),
    ],
)
def test_traces_are_reproduced(name, kind, worst, means):
    """Every dispersion within ``worst`` (as |ln ratio|), mean lengths within ``means``, KS within .04."""
    found = fit(read_trace(SHARED / name))
    assert found.values["arrival"]["kind"] == kind
    ratios = [abs(np.log(a / b)) for a, b in zip(found.generated.idc, found.trace.idc, strict=True)]
    assert max(ratios) < worst
    assert max(found.prompt_distance, found.output_distance) < 0.04
    assert found.generated.prompt_tokens.mean == pytest.approx(found.trace.prompt_tokens.mean, rel=means)
    assert found.generated.output_tokens.mean == pytest.approx(found.trace.output_tokens.mean, rel=means)


@needs_shared
@pytest.mark.parametrize(
    ("preset", "name"),
    [("chat-azure23", "AzureLLMInferenceTrace_conv.csv"), ("chat-kimi", "mooncake_conversation_trace.jsonl")],
)
def test_chat_presets_are_what_fit_writes(preset, name):
    assert WorkloadPreset.model_validate(fit(read_trace(SHARED / name)).values) == load_catalog().workloads[preset]


def test_sessions_are_fitted_as_they_were_drawn():
    """A trace made of a workload with sessions gives them back."""
    drawn = Workload.model_validate({
        "arrival": {"kind": "poisson", "rate_per_s": 0.5}, "duration_s": 2 * HOURS, "prompt_tokens": 900,
        "output_tokens": 40, "think_s": {"kind": "exponential", "mean": 50},
        "session": {"turns": {"kind": "geometric", "mean": 4}, "new_tokens": {"kind": "geometric", "mean": 50}},
    })  # fmt: skip
    rows = []
    for number, (at_s, chat) in enumerate(zip(*islice_sessions(drawn, 2500), strict=True)):
        arrival_s = at_s + np.cumsum([0.0, *chat.pause_s[:-1]])
        rows += zip(arrival_s, chat.prompt_tokens, chat.output_tokens, [number] * len(arrival_s), strict=True)
    arrival_s, prompt, output, session = map(np.array, zip(*sorted(rows), strict=True))
    found = fit(Trace(arrival_s, prompt, output, session=session))
    fitted = WorkloadPreset.model_validate(found.values)
    assert found.generated.turns.mean == pytest.approx(4, rel=0.1)
    assert found.generated.gap_s.mean == pytest.approx(50, rel=0.1)
    assert fitted.prompt_tokens.draw(np.zeros((1, 2))) == 900
    assert found.generated.prompt_tokens.mean == pytest.approx(prompt.mean(), rel=0.08)
    assert fitted.session.new_tokens.draw(np.full((1, 2), 0.5))[0] == pytest.approx(50 * np.log(2), abs=4)


def islice_sessions(workload, count):
    begin = traffic(workload, None, 1, 0)
    return list(islice(begin.arrival_s, count)), list(islice(begin.chats, count))


def test_what_the_end_of_a_trace_cut_off_is_made_up_for():
    """An hour of sessions that last half of one shows too few turns and too short pauses; the fit has those drawn."""
    drawn = Workload.model_validate({
        "arrival": {"kind": "poisson", "rate_per_s": 3}, "duration_s": 3600, "prompt_tokens": 900,
        "output_tokens": 40, "think_s": {"kind": "exponential", "mean": 900},
        "session": {"turns": {"kind": "geometric", "mean": 3}, "new_tokens": 50},
    })  # fmt: skip
    rows = [
        (at_s, prompt, number)
        for number, (times_s, chat) in enumerate(sessions_in(drawn, 5, 0))
        for at_s, prompt in zip(times_s, chat.prompt_tokens, strict=True)
    ]
    arrival_s, prompt, session = map(np.array, zip(*sorted(rows), strict=True))
    trace = Trace(arrival_s - arrival_s[0], prompt, np.full(len(rows), 40), session=session)
    fitted = Workload.model_validate(fit_sessions(trace))
    shown = trace_figures(trace)
    assert (shown.turns.mean, shown.gap_s.mean) < (2.3, 750)
    uniforms = stream(0, 0, "any").random((50_000, 2))
    assert fitted.session.turns.draw(uniforms).mean() == pytest.approx(3, rel=0.1)
    assert fitted.think_s.draw(uniforms).mean() == pytest.approx(900, rel=0.1)


def test_parents_alone_make_sessions():
    """The trace's own session column may be empty."""
    rows = np.arange(1200)
    parent = np.where(rows % 3 == 0, -1, rows - 1)
    trace = Trace(rows * 1.0, 100 + 50 * (rows % 3), np.full(1200, 5), session=np.full(1200, -1), parent=parent)
    assert fit(trace).generated.turns.mean == pytest.approx(3, rel=0.005)


def test_pauses_are_those_that_the_trace_knows():
    rows = np.arange(1200)
    parent = np.where(rows % 3 == 0, -1, rows - 1)
    known_s = np.where(rows % 3 == 1, 0.25, np.nan)
    trace = Trace(rows * 1.0, 100 + 50 * (rows % 3), np.full(1200, 5), parent=parent, think_s=known_s)
    assert fit(trace).generated.gap_s.mean == pytest.approx(0.25)


def test_prompts_that_do_not_grow_are_no_sessions():
    session = np.repeat(np.arange(300), 4)
    prompt = stream(2, 0, "prompts").integers(10, 90, 1200)
    found = fit(Trace(np.arange(1200.0), prompt, np.full(1200, 5), session=session))
    assert "session" not in found.values


@needs_shared
@pytest.mark.parametrize(
    ("preset", "name", "cv", "worst"),
    [
        ("chat-azure23", "AzureLLMInferenceTrace_conv.csv", 0.05, 0.15),
        ("chat-kimi", "mooncake_conversation_trace.jsonl", 0.02, 0.2),
        ("code-complete", "AzureLLMInferenceTrace_code.csv", 0.1, 0.35),
    ],
)
def test_presets_generate_what_their_trace_shows(preset, name, cv, worst):
    """Code completion falls short by up to a quarter at 10 and 60 s, as every renewal process tried did."""
    trace = read_trace(SHARED / name)
    seen = load_catalog().traffic[preset]
    made = generated_beside(load_catalog().workloads[preset], seen)
    assert seen.cv == pytest.approx(np.diff(trace.arrival_s).std() / np.diff(trace.arrival_s).mean(), rel=0.001)
    assert made.cv == pytest.approx(seen.cv, rel=cv)
    assert made.rate_per_s == pytest.approx(seen.rate_per_s, rel=0.05)
    assert max(abs(np.log(a / b)) for a, b in zip(made.idc, seen.idc, strict=True)) < worst
    prompt = made.prompt_tokens
    apart = 0.06 if seen.turns.mean else 0.03
    assert [prompt.p50, prompt.p95] == pytest.approx(np.quantile(trace.prompt_tokens, [0.5, 0.95]), rel=apart)
    if seen.turns.mean is not None:
        assert made.turns.mean == pytest.approx(seen.turns.mean, rel=0.02)
        assert [made.gap_s.mean, made.gap_s.p50] == pytest.approx([seen.gap_s.mean, seen.gap_s.p50], rel=0.06)
        assert made.reuse == pytest.approx(seen.reuse, rel=0.05)


@needs_shared
def test_reasoning_comes_as_the_clients_of_its_archive_together(tmp_path):
    """An hour's rate and CV keep three quarters of the dispersion; single clients' CV says nothing of it."""
    with tarfile.open(SHARED / "servegen_deepseek-r1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    clients = read_clients(tmp_path / "data" / "reason" / "deepseek-r1")
    day = Workload.model_validate({**clients, "duration_s": 86400})
    arrival_s = draw_arrivals(day, 3, 0)[0]
    lengths = np.ones(len(arrival_s))
    found, catalog = figures(arrival_s, lengths, lengths, 86400), load_catalog()
    seen, made = catalog.traffic["reasoning"], generated(catalog.workloads["reasoning"], 86400)
    assert found.rate_per_s == pytest.approx(seen.rate_per_s, rel=0.01)
    assert (found.cv, *found.idc) == pytest.approx((seen.cv, *seen.idc), rel=0.03)
    assert made.rate_per_s == pytest.approx(seen.rate_per_s, rel=0.01)
    assert made.cv == pytest.approx(seen.cv, rel=0.02)
    assert max(abs(np.log(a / b)) for a, b in zip(made.idc, seen.idc, strict=True)) < 0.35


@needs_shared
@pytest.mark.parametrize(("preset", "model", "few"), [("api-bursty", "m-large", 12), ("multimodal", "mm-image", 8)])
def test_a_few_clients_and_the_others_at_random_are_as_dispersed_as_all(preset, model, few):
    with (SHARED / "servegen_clients_summary.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if one["model"] == model]
    clients = [(one["client"], float(one["mean_rps"]), float(one["cv_interarrival_rate_weighted"])) for one in rows]
    clients = sorted((one for one in clients if one[1] and one[2]), key=lambda one: -one[1] * one[2] ** 2)
    written = [
        (one.name.removeprefix("client "), one.arrival.rate_per_s, getattr(one.arrival, "cv", 1.0))
        for one in load_catalog().workloads[preset].arrival.classes
    ]
    others = (f"{len(clients) - few} others", sum(rate for _, rate, _ in clients[few:]), 1.0)
    for (name, rate, cv), (theirs, their_rate, their_cv) in zip(written, [*clients[:few], others], strict=True):
        assert (name, rate, cv) == (theirs, pytest.approx(their_rate, rel=1e-3), pytest.approx(their_cv, rel=1e-3))
    classes = [
        {"name": name, **LENGTHS, "arrival": {"kind": "gamma", "rate_per_s": rate, "cv": cv}}
        for name, rate, cv in clients
    ]
    together = Workload.model_validate({"arrival": {"kind": "superposed", "classes": classes}})
    found, seen = generated(together, 3600.0), load_catalog().traffic[preset]
    assert found.rate_per_s == pytest.approx(seen.rate_per_s, rel=0.01)
    assert found.cv == pytest.approx(seen.cv, rel=0.02)
    assert found.idc == pytest.approx(seen.idc, rel=0.15)


def parted(mine, theirs, rel=0.0, apart=0.0):
    """Whether two figures that are both known differ by more."""
    return mine is not None and theirs is not None and mine != pytest.approx(theirs, rel=rel, abs=apart)


def test_every_preset_generates_what_is_known_of_its_source_or_says_why_not():
    """Dispersion within a fifth, all else within an eighth."""
    catalog = load_catalog()
    assert set(catalog.traffic) == set(catalog.workloads)
    differ = {}
    for name, preset in catalog.workloads.items():
        seen = catalog.traffic[name]
        made = generated_beside(preset, seen)
        apart = {
            "rate": parted(made.rate_per_s, seen.rate_per_s, 0.05),
            "cv": parted(made.cv, seen.cv, 0.125),
            **{f"idc {n}": parted(a, b, 0.2) for n, (a, b) in enumerate(zip(made.idc, seen.idc, strict=True))},
            "reuse": parted(made.reuse, seen.reuse, apart=0.06),
            "no sessions": seen.turns.mean is not None and made.turns.mean is None,
        }
        for of in ("prompt_tokens", "output_tokens", "turns", "gap_s"):
            for quantity in ("mean", "p50", "p95"):
                mine, theirs = (getattr(getattr(one, of), quantity) for one in (made, seen))
                apart[f"{of} {quantity}"] = parted(mine, theirs, 0.125, 1 if of == "turns" else 0)
        differ[name] = [what for what, is_so in apart.items() if is_so]
    assert {name for name, found in differ.items() if found} == {n for n, one in catalog.traffic.items() if one.note}, (
        differ
    )


@needs_shared
def test_presets_of_inference_perf_are_its_profiles():
    presets = load_catalog().workloads
    for path in (SHARED / "inference-perf-catalog").glob("*.json"):
        preset = WorkloadPreset.model_validate(read_profile(path))
        assert presets[f"inference-perf-{path.stem}"] == preset
        assert preset.slo or path.stem == "agentic-trace-replay"
    chat = presets["inference-perf-interactive-chat"]
    assert chat.slo == SLO(ttft_s=1, tpot_s=0.05, attained=0.99)
    assert chat.prefix.global_tokens == 1000
    assert presets["inference-perf-code-generation"].slo.attained == 0.99
    for name in ("code-generation", "deep-research", "interactive-chat"):
        assert requests_per_s(presets[f"inference-perf-{name}"]) == pytest.approx(1, rel=0.05)


def test_profiles_of_inference_perf_say_where_they_are_wrong(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"input_sequence_length": {"min": 1, "max": 5}}')
    with pytest.raises(ScenarioError, match=r"p.json input_sequence_length: needs min, max, mean"):
        preset_of(path, None, date(2026, 1, 1))
    with pytest.raises(ScenarioError, match="is a workload profile, not a trace"):
        read_trace(path)


PROFILE = {
    "input_sequence_length": {"min": 1, "max": 50, "mean": 9, "standard_deviation": 3},
    "output_sequence_length": {"min": 1, "max": 50, "mean": 9, "standard_deviation": 3},
}


@pytest.mark.parametrize(
    ("percentiles", "attained", "notes"),
    [(("999",), 0.999, 0), (("50", "99"), 0.99, 1), (("100",), 1.0, 0), (("9999", "95"), 0.9999, 1)],
)
def test_targets_of_a_profile_hold_for_the_largest_share_named(tmp_path, percentiles, attained, notes):
    path = tmp_path / "p.json"
    names = zip(("ttft", "itl"), percentiles, strict=False)
    slos = {f"{latency}_p{percentile}_ms": 50 for latency, percentile in names}
    path.write_text(json.dumps({**PROFILE, "metadata": {"slos": slos}}))
    preset = preset_of(path, None, date(2026, 1, 1))
    assert preset.workload.slo.attained == attained
    assert len(preset.notes) == notes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metadata": [1]}, "p.json metadata.slos: expected latency targets by their names"),
        ({"metadata": {"slos": 5}}, "p.json metadata.slos: expected latency targets"),
        ({"metadata": {"slos": {"ttft_p99_ms": "x"}}}, "metadata.slos.ttft_p99_ms: expected milliseconds (got 'x')"),
        ({"metadata": {"slos": {"ttft_p99_ms": float("inf")}}}, "ttft_p99_ms: expected milliseconds (got inf)"),
        ({"input_sequence_length": {"min": 1, "max": 50, "mean": 9, "standard_deviation": float("nan")}}, "nan"),
        ({"input_sequence_length": {"min": 1, "max": 50, "mean": 9, "standard_deviation": 10**400}}, "needs min"),
        ({"input_sequence_length": {"min": 1, "max": 1e300, "mean": 9, "standard_deviation": 1}}, "between min and"),
        ({"input_sequence_length": [1]}, "input_sequence_length: needs min, max, mean"),
        ({"multi_turn": True}, "time_between_turns: needs min, max, mean"),
        ({"system_prompt": {"min": 1, "max": 1, "mean": -9, "standard_deviation": 0}}, "not a number of tokens: -9"),
        ({"system_prompt": {"min": 1, "max": 1, "mean": float("inf"), "standard_deviation": 0}}, "not finite"),
    ],
)
def test_hostile_profiles_are_refused(tmp_path, given, message):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**PROFILE, **given}))
    with pytest.raises(ScenarioError) as caught:
        preset_of(path, None, date(2026, 1, 1))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '"input_sequence_length"', "[" * 2_000_000])
def test_json_that_is_neither_profile_nor_trace_is_refused(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="p.json"):
        preset_of(path, None, date(2026, 1, 1))


CHUNK = "0,2,3.5,Weibull\n600,4,1,Gamma\n"
DATASET = '{"0": {"input_tokens": "{10: 1.0}", "output_tokens": "{5: 1.0}"}}'


@pytest.mark.parametrize(
    ("chunk", "dataset", "message"),
    [
        (CHUNK.replace("Gamma", "Pareto"), DATASET, "chunk-0-trace.csv:2: expected start, rate, cv and family"),
        (CHUNK.replace("600", "0"), DATASET, "chunk-0-trace.csv:2: starts no later than the window before it"),
        (CHUNK.replace("600", "nan"), DATASET, "chunk-0-trace.csv:2: starts no later"),
        (CHUNK.replace(",4,", ",nan,").replace(",2,", ",nan,"), DATASET, "chunk-0-trace.csv:1: expected start, rate"),
        (CHUNK.replace(",4,", ",0,").replace(",2,", ",0,"), DATASET, "model: no client ever asks"),
        (CHUNK.replace("600", "1e-6"), DATASET, "must be >= 1 (got 1e-06)"),
        (CHUNK.encode() + b"\xff\xfe", DATASET, "chunk-0-trace.csv: not a readable CSV"),
        (CHUNK, "[1]", "chunk-0-dataset.json: expected distributions"),
        (CHUNK, "[" * 200_000, "chunk-0-dataset.json: expected distributions"),
        (CHUNK, b"\xff", "chunk-0-dataset.json: expected distributions"),
        (CHUNK, DATASET.replace("{10: 1.0}", "{10: -1.0}"), "chunk-0-dataset.json: expected distributions"),
        (CHUNK, DATASET.replace("{10: 1.0}", "{10: 0.0}"), "chunk-0-dataset.json: expected distributions"),
        (CHUNK, DATASET.replace("{10: 1.0}", "{'x': 1.0}"), "chunk-0-dataset.json: expected distributions"),
        (CHUNK, DATASET.replace("{10: 1.0}", "(" * 5000), "chunk-0-dataset.json: expected distributions"),
    ],
)
def test_hostile_clients_are_refused(tmp_path, chunk, dataset, message):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in (("chunk-0-trace.csv", chunk), ("chunk-0-dataset.json", dataset)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScenarioError) as caught:
        preset_of(folder, None, date(2026, 1, 1))
    assert message in str(caught.value)


def test_clients_have_numbers(tmp_path):
    (tmp_path / "chunk-x-trace.csv").write_text(CHUNK)
    with pytest.raises(ScenarioError, match=r"expected chunk-NUMBER-trace.csv, got 'chunk-x-trace.csv'"):
        preset_of(tmp_path, None, date(2026, 1, 1))


def test_servegen_clients_become_classes(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "chunk-0-trace.csv").write_text("0,2,3.5,Weibull,0.4,0.4\n600,0,0,,0,0\n1200,4,1,Gamma,1,0.25\n")
    (folder / "chunk-0-dataset.json").write_text(
        '{"0": {"input_tokens": "{10: 1.0}", "output_tokens": "{5: 0.5, 7: 0.5}"}, '
        '"1200": {"input_tokens": "{20: 1.0}", "output_tokens": "{5: 1.0}"}}'
    )
    (folder / "chunk-1-trace.csv").write_text("0,0,0,,0,0\n600,0,0,,0,0\n")
    workload = preset_of(folder, None, date(2026, 1, 1)).workload
    (only,) = workload.classes
    assert [window.gaps for window in only.arrival.windows] == ["weibull", "gamma", "gamma"]
    made = generated(workload, 5400.0)
    assert made.rate_per_s == pytest.approx(2, rel=0.1)
    prompt, output = draw_lengths(workload, 4000)
    assert (prompt == 20).mean() == pytest.approx(2 / 3, abs=0.05)
    assert set(output) <= {5, 6, 7}
    (folder / "chunk-0-trace.csv").write_text("0,2,3.5,Weibull\n600,oops,0,\n")
    with pytest.raises(ScenarioError, match="chunk-0-trace.csv:2: expected start, rate, cv"):
        read_clients(folder)
