"""``capsim calibrate`` on a synthetic machine, and scenarios that rest on its file."""

import json
from dataclasses import replace
from itertools import product

import measured_kernels as machine
import numpy as np
import pytest
import yaml

from capsim.calibrate import calibrate
from capsim.calibrate.device import DRIVER_NAMES
from capsim.calibrate.overhead import batch_of, layer_s
from capsim.catalog import load_catalog
from capsim.cli import main
from capsim.errors import ScenarioError
from capsim.measurements import Kernel
from capsim.parallelism import Parallelism
from capsim.scenario import resolve
from capsim.steptime import Batch
from capsim.steptime.calibrated import Calibrated
from capsim.steptime.roofline import Roofline
from capsim.steptime.whole_step import WholeStep

SCENARIO = """\
model: {model}
node: {node}
kv_format: {kv}
calibration: calibration.yaml
workload: {{arrival: {{kind: poisson, rate_per_s: 0.02}}, prompt_tokens: 300, output_tokens: 20, requests: 20}}
replications: 1
"""
CONFIG = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 8,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 8192,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16", "_name_or_path": "small", "tie_word_embeddings": False,
}  # fmt: skip
MODEL = {"kind": "model", "engine": "vllm", "name": "small", "config": CONFIG, "engine_args": {"kv_dtype": "auto"}}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A folder with a calibration of the synthetic machine and a scenario that rests on it."""
    monkeypatch.chdir(tmp_path)

    def write(model="qwen3-0.6b", node="this-machine", kv="bf16", others=(), device="cpu-test", kernels=None):
        kernels = machine.rows(noise=0.01) if kernels is None else kernels
        main_quietly("calibrate", machine.write(tmp_path / "kernels.jsonl", kernels, others, device))
        path = tmp_path / "scenario.yaml"
        path.write_text(SCENARIO.format(model=model, node=node, kv=kv))
        return path

    return write


def main_quietly(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code
    return ended


def whole_steps(count=120, seed=4):
    """Steps of the small model on the synthetic machine: its kernels, 3 ms a step and 0.1 ms a sequence."""
    draw = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        decode, prefills = int(draw.integers(1, 16)), int(draw.integers(0, 2))
        new = int(draw.integers(64, 1000)) * prefills
        rows.append({
            "kind": "step", "engine": "vllm", "model": "small", "decode_sequences": decode, "step_s": 1.0,
            "kv_tokens": decode * int(draw.integers(600, 3000)), "prefill_tokens": new, "prefills": prefills,
            "prefill_reads": new * new / 2, "active_experts": None, "episode": index // 30,
        })  # fmt: skip
    return rows


def test_the_file_holds_the_machine_its_tables_and_their_errors(tmp_path):
    found = calibrate([machine.write(tmp_path / "kernels.jsonl", machine.rows(noise=0.01))])
    device = found.document["devices"]["cpu-test"]
    assert device["memory_bytes"] == 24e9
    assert device["memory_bytes_per_s"] == pytest.approx(machine.BANDWIDTH, rel=0.05)
    assert 0.5 * machine.RATE < device["bf16_flops"] < machine.RATE
    entry = found.document["calibrations"]["cpu-test/vllm"]
    assert entry["provenance"]["source"] == "kernels.jsonl: kernels_bench 0.1.0 on cpu-test"
    assert str(entry["provenance"]["as_of"]) == "2026-11-24"
    assert entry["provenance"]["values"]["step_s"]["basis"] == "assumed"
    assert entry["measured"]["environment"]["cpu"] == "a test"
    assert len(found.residuals) == len(entry["measured"]["residuals"]) == 1 + len(entry["measured"]["kernels"])
    assert all(residual.table.mape < 0.1 for residual in found.residuals)


def test_dequantisation_and_writes_of_a_format_are_recovered(tmp_path):
    entry = calibrate([machine.write(tmp_path / "k.jsonl", machine.rows())]).document["calibrations"]["cpu-test/vllm"]
    assert entry["memory_fraction"] == pytest.approx(1, abs=0.02)
    assert entry["kv_extra_s"]["bf16"] == pytest.approx(0, abs=2e-11)
    assert entry["kv_extra_s"]["turboquant_4bit_nc"] == pytest.approx(4e-10, rel=0.15)
    write_s = (134 + 512) / machine.BANDWIDTH + 2 * 128 / machine.RATE
    assert entry["kv_write_s"]["turboquant_4bit_nc"] == pytest.approx(write_s, rel=0.05)


def test_the_file_is_read_as_facts_and_rounding_loses_nothing(written, tmp_path):
    resolved = resolve(written())
    assert isinstance(resolved.step_time_model(), Calibrated)
    assert (resolved.node.device, resolved.device.kind) == ("cpu-test", "cpu")
    entry = load_catalog([tmp_path / "calibration.yaml"]).calibrations["cpu-test/vllm"]
    gemm = next(t for t in entry.measured.kernels if t.op == "gemm" and t.shape["out_features"] == 2048)
    true = [machine.seconds("gemm", {"tokens": n, **machine.GEMM}) for n in machine.TOKENS]
    assert gemm.curves[0].seconds == pytest.approx(true, rel=0.05)


def test_a_run_rests_on_the_file_and_says_so(written, capsys):
    path = written()
    capsys.readouterr()
    main_quietly("run", path, "--format", "json")
    summary = json.loads(capsys.readouterr().out)
    step_time = summary["basis"]["step_time"]
    assert (step_time["key"], step_time["basis"]) == ("calibration.yaml", "calibrated")
    assert step_time["source"].startswith("carried over in utilisation to other shapes: kernels.jsonl")
    assert summary["tpot_s"]["mean"] > 0


def test_the_option_stands_for_the_key(written, capsys):
    path = written()
    text = path.read_text()
    capsys.readouterr()
    path.write_text(text.replace("calibration: calibration.yaml\n", ""))
    main_quietly("run", path, "--calibration", "calibration.yaml", "--format", "json")
    assert json.loads(capsys.readouterr().out)["basis"]["step_time"]["key"] == "calibration.yaml"


def test_a_weight_format_that_was_not_measured_is_named(written):
    warnings = resolve(written(), ["weights=int4"]).warnings
    assert "weight formats that were not measured: int4 dense layers by the utilisation of bf16" in warnings


def test_a_result_warns_of_what_was_not_measured_and_of_what_lies_beyond(written, capsys):
    short = [r for r in machine.rows() if r.op not in ("kv_write", "prefill_attention")]
    short = [r for r in short if r.op != "decode_attention" or r.size("context_tokens") <= 512]
    path = written(kernels=short)
    capsys.readouterr()
    main_quietly("run", path, "--set", "workload.prompt_tokens=3000", "--format", "json")
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert "not measured, so by the roofline: prefill attention" in warnings
    assert any(w.startswith("context 3,01") and "of one sequence lies beyond the measured 512" in w for w in warnings)
    assert any("tokens lie beyond the measured 2,048" in w for w in warnings)


def test_another_device_is_carried_over_with_the_lowest_basis(written):
    resolved = resolve(written(node="mac-mini-m4-pro"), ["engine=vllm"])
    _, fact = resolved.basis["step_time"]
    assert fact.basis == "assumed"
    assert fact.source.startswith("carried over in utilisation from cpu-test")
    assert any("no more than a guess" in warning for warning in resolved.warnings)


def test_another_engine_borrows_with_the_lowest_basis(written):
    _, fact = resolve(written(), ["engine=sglang"]).basis["step_time"]
    assert (fact.basis, fact.source[:23]) == ("assumed", "as under another engine")


@pytest.mark.parametrize(
    ("called", "key"),
    [("NVIDIA H200", "h200-sxm"), ("h200-sxm", "h200-sxm"), ("nvidia-h100-80gb-hbm3", "h100-sxm")],
)
def test_a_device_of_the_catalog_is_not_written_again(tmp_path, called, key):
    found = calibrate([machine.write(tmp_path / "k.jsonl", machine.rows(), device=called)])
    assert list(found.document) == ["calibrations"]
    assert (found.device, found.node) == (key, None)
    assert f"{key}/vllm" in found.document["calibrations"]


def test_what_was_not_measured_on_a_known_device_stays_as_in_the_catalog(tmp_path):
    found = calibrate([machine.write(tmp_path / "k.jsonl", machine.rows(), device="h100-sxm")])
    entry, shipped = found.document["calibrations"]["h100-sxm/vllm"], load_catalog().calibrations["h100-sxm/vllm"]
    for name in ("step_s", "sequence_s", "collective_s"):
        assert entry[name] == getattr(shipped, name) > 0
    assert entry["expert_imbalance"] == {"1": 1.0, "8": 1.7, "32": 2.7}
    facts = entry["provenance"]["values"]
    assert facts["step_s"]["source"].startswith("as in the catalog: share of the intercept")
    assert (facts["step_s"]["basis"], facts["expert_imbalance"]["basis"]) == ("assumed", "measured")
    assert entry["layer_s"] == 0  # the kernels' own times hold the launches


def test_names_that_drivers_give_are_of_devices_in_the_catalog():
    assert set(DRIVER_NAMES.values()) <= set(load_catalog().devices)


def test_host_time_is_what_steps_take_beside_their_kernels(written, tmp_path):
    written(others=[MODEL])  # the kernels' own prediction of each step, to which host time is added
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(SCENARIO.format(model="config.json", node="this-machine", kv="bf16"))
    kernels_only = resolve(scenario).step_time_model()
    rows = whole_steps()
    for row in rows:
        batch = batch_of(machine.step(row))
        row["step_s"] = (
            kernels_only.step_time(batch).total_s + 3e-3 + 1e-4 * (row["decode_sequences"] + row["prefills"])
        )
    written(others=[MODEL, *rows])
    entry = yaml.safe_load((tmp_path / "calibration.yaml").read_text())["calibrations"]["cpu-test/vllm"]
    assert entry["step_s"] == pytest.approx(3e-3, rel=0.02)
    assert entry["sequence_s"] == pytest.approx(1e-4, rel=0.05)
    assert "values" not in entry["provenance"] or "step_s" not in entry["provenance"]["values"]
    scenario.write_text(SCENARIO.format(model="config.json", node="this-machine", kv="bf16"))
    steps = resolve(scenario).step_time_model()
    assert isinstance(steps, WholeStep)
    assert isinstance(resolve(scenario, ["kv_format=fp8"]).step_time_model(), Calibrated)
    errors = [steps.step_time(batch_of(machine.step(r))).total_s / r["step_s"] - 1 for r in rows]
    assert np.abs(errors).mean() < 0.08
    residual = next(r for r in entry["measured"]["residuals"] if r["what"] == "step")
    assert residual["held_out"] == 60
    assert residual["fit"]["mape"] < 0.08
    assert residual["table"]["mape"] < 0.001  # the very kernels that made the steps


def test_layers_take_longer_than_their_kernels_by_a_factor_and_a_fixed_time(tmp_path):
    """By 8 % and 0.2 ms, and 0.1 ms more where there are experts."""
    kernels, path = machine.rows(), tmp_path / "calibration.yaml"
    path.write_text(yaml.safe_dump(calibrate([machine.write(tmp_path / "k.jsonl", kernels)]).document))
    catalog = load_catalog([path])
    device, efficiency = catalog.devices["cpu-test"], catalog.calibrations["cpu-test/vllm"]
    formats = catalog.weight_formats["bf16"], catalog.kv_formats["bf16"]
    rows = []
    for sequences, context, experts in product((1, 4, 16), (512, 2048), (0, 64)):
        size = {"sequences": sequences, "context_tokens": context, "new_tokens": 1, "hidden": 1024}
        shape = {**size, **machine.HEADS, "intermediate": 512, "experts": experts, "top_k": 8 if experts else 0}
        layer = {"op": "layer", "backend": "cpu", "kernel": "torch", "shape": shape, "iqr_s": 0.0, "runs": 9}
        row = Kernel(**layer, median_s=1.0, bytes=1, flops=1)
        kernels_s = layer_s(row, lambda spec: Calibrated(spec, *formats, device, Parallelism(1), efficiency, device))
        rows.append(row.model_copy(update={"median_s": 1.08 * kernels_s + 2e-4 + 1e-4 * bool(experts)}))
    found = calibrate([machine.write(tmp_path / "k.jsonl", [*kernels, *rows])])
    entry = found.document["calibrations"]["cpu-test/vllm"]
    assert (entry["kernel_factor"], entry["layer_s"]) == (pytest.approx(1.08, rel=1e-3), pytest.approx(2e-4, rel=0.02))
    assert entry["expert_layer_s"] == pytest.approx(1e-4, rel=0.02)
    judged = found.residuals[-1]
    assert (judged.what, judged.points, judged.held_out) == ("layer", 12, 6)
    assert judged.table.largest < 1e-3
    alone = calibrate([machine.write(tmp_path / "k.jsonl", [*kernels, rows[0]])]).residuals[-1]
    assert (alone.held_out, alone.table) == (0, None)


def test_steps_of_an_engine_that_the_catalog_lacks_are_judged_but_not_written(tmp_path):
    rows = [{**row, "engine": "handmade", "step_s": 0.01 + 1e-3 * row["decode_sequences"]} for row in whole_steps()]
    found = calibrate([machine.write(tmp_path / "k.jsonl", machine.rows(), rows)])
    assert found.left_out == ("steps under handmade are judged but not written: the catalog has no such engine",)
    assert list(found.document["calibrations"]) == ["cpu-test/vllm"]
    assert found.residuals[-1].by == "handmade"


def test_a_calibration_without_kernels_leaves_the_roofline(written):
    rows = whole_steps()
    for row in rows:
        row["step_s"] = 0.01 + 1e-3 * row["decode_sequences"] + 1e-5 * row["prefill_tokens"]
    path = written(kernels=[], others=rows, device="NVIDIA H200", node="h200x1")
    assert isinstance(resolve(path).step_time_model(), Roofline)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": []}, "holds neither kernels nor steps"),
        ({"memory_bytes": None}, "does not say how much memory it has"),
        ({"memory_bytes": 10**400}, "does not say how much memory it has"),
        ({"device": "gpu-b"}, "measured on 'gpu-b', but"),
    ],
)
def test_what_cannot_be_fitted_is_refused(tmp_path, change, message):
    kernels = change.pop("kernels", machine.rows())
    paths = [machine.write(tmp_path / "bad.jsonl", kernels, **change)]
    if "device" in change:
        paths.insert(0, machine.write(tmp_path / "good.jsonl", kernels))
    with pytest.raises(ScenarioError, match=message):
        calibrate(paths)


def test_a_model_that_is_not_understood_is_named_with_its_file(tmp_path):
    others = [{**MODEL, "config": {**CONFIG, "num_hidden_layers": None}}, *whole_steps()]
    with pytest.raises(ScenarioError, match=r"file\.jsonl config of small num_hidden_layers: is missing"):
        calibrate([machine.write(tmp_path / "file.jsonl", machine.rows(), others)])


def test_further_keys_of_a_shape_do_no_harm(tmp_path):
    """An op without a cache whose rows name a KV format all the same, as other people's may."""
    gemms = [row for row in machine.rows() if row.op == "gemm"]
    rows = [Kernel(**{**row.model_dump(), "shape": {**row.shape, "kv_format": "bf16"}}) for row in gemms]
    (entry,) = calibrate([machine.write(tmp_path / "file.jsonl", rows)]).document["calibrations"].values()
    assert {table["op"] for table in entry["measured"]["kernels"]} == {"gemm"}


def test_rates_that_no_ceiling_tells_are_assumed(tmp_path):
    only = [row for row in machine.rows() if row.op == "decode_attention"]
    for kernels, assumed in ((machine.rows(), []), (only, ["memory_bytes_per_s", "bf16_flops"])):
        (device,) = calibrate([machine.write(tmp_path / "file.jsonl", kernels)]).document["devices"].values()
        assert list(device["provenance"]["values"]) == ["power_w", *assumed]


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    path = machine.write(tmp_path / "k.jsonl", machine.rows())
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", str(path), "--out", str(tmp_path / "gone" / "c.yaml")])
    assert ended.value.code == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_file_for_another_device_without_kernels_is_refused(written, tmp_path):
    path = written(node="h100x1")
    document = yaml.safe_load((tmp_path / "calibration.yaml").read_text())
    del document["calibrations"]["cpu-test/vllm"]["measured"]
    (tmp_path / "calibration.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ScenarioError, match="is for cpu-test/vllm, not h100-sxm/vllm"):
        resolve(path)


def test_memory_bandwidth_binds_through_the_tables(written):
    """A device with more bandwidth is quicker, though its tables are the same."""
    resolved = resolve(written())
    device = resolved.device.model_copy(update={"memory_bytes_per_s": resolved.device.memory_bytes_per_s * 2})
    batch = Batch(4, (4 * 4000.0,))
    now, faster = (r.step_time_model().step_time(batch).total_s for r in (resolved, replace(resolved, device=device)))
    assert faster < 0.7 * now


def steps_alone(engine="vllm"):
    """Steps of an engine and the model that it ran, without any kernels."""
    rows = [{**row, "step_s": 0.02 + 1e-3 * row["decode_sequences"] + 2e-5 * row["prefill_tokens"], "engine": engine}
            for row in whole_steps()]  # fmt: skip
    return [{**MODEL, "engine": engine}, *rows]


def test_steps_alone_make_a_node_of_a_machine_that_the_catalog_lacks(written, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    path = written(model="config.json", kernels=[], others=steps_alone())
    found = resolve(path)
    steps = found.step_time_model()
    assert isinstance(steps, WholeStep)
    assert steps.step_time(Batch(4, (4000.0,))).total_s == pytest.approx(0.024, rel=1e-3)
    dense = 2 * (found.model.attention_parameters + found.model.dense_parameters + found.model.embedding_parameters)
    assert dense / 0.023 <= found.device.memory_bytes_per_s <= dense / 0.02  # the quickest step read them in as long
    facts = yaml.safe_load((tmp_path / "calibration.yaml").read_text())["devices"]["cpu-test"]["provenance"]["values"]
    assert facts["memory_bytes_per_s"]["basis"] == facts["bf16_flops"]["basis"] == "assumed"
    other = resolve(written(kernels=[], others=steps_alone()))  # another model: by the roofline of those rates
    assert isinstance(other.step_time_model(), Roofline)


def test_steps_of_an_engine_that_the_catalog_lacks_make_a_node_too(written):
    found = resolve(written(kernels=[], others=steps_alone("transformers")))
    assert found.node.device == "cpu-test"
    assert isinstance(found.step_time_model(), Roofline)


def test_steps_of_models_that_nobody_described_tell_no_rates(tmp_path):
    with pytest.raises(ScenarioError, match="nothing tells the rates of 'cpu-test'.*lines that describe the models"):
        calibrate([machine.write(tmp_path / "k.jsonl", [], steps_alone()[1:])])


def test_the_same_file_twice_is_refused(tmp_path):
    path = machine.write(tmp_path / "k.jsonl", machine.rows())
    with pytest.raises(ScenarioError, match="is given twice"):
        calibrate([path, path])


def test_whole_steps_say_where_a_run_leaves_what_was_measured(written, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    path = written(model="config.json", kernels=[], others=steps_alone())
    steps = resolve(path).step_time_model()
    assert set(steps.domain) == {"sequences", "kv_tokens", "tokens"}
    (fewest, most), (_, reads) = steps.domain["sequences"], steps.domain["kv_tokens"]
    assert (fewest, most) == (1, 15)
    assert steps.beyond({1: 700.0, 15: 1000.0}, 500) == []
    notes = steps.beyond({20: 5000.0}, 5000)
    assert [note.split(" lie beyond")[0] for note in notes] == [
        "batches of 20", "steps that read 100,000 KV tokens", "steps of 5,000 tokens",
    ]  # fmt: skip
    assert f"beyond the measured {reads:,.0f}: the fitted line goes on" in notes[1]
    assert "lie below the measured" in steps.beyond({1: 10.0}, 1)[0]
    capsys.readouterr()
    main_quietly("run", path, "--format", "json")
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("KV tokens lie below the measured" in note for note in warnings)
