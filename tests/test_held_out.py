"""Errors at shapes held out, small tables from large ones, and the commands that import and judge."""

import json

import measured_kernels as machine
import numpy as np
import nvidia_package as made
import pytest
import yaml
from test_import_nvidia import GEMM

from capsim.calibrate import held_out, thinning
from capsim.calibrate.tables import grouped, tables_of
from capsim.catalog import load_catalog
from capsim.cli import main
from capsim.hardware import Device
from capsim.importers import nvidia
from capsim.kernel_tables import Surface

CATALOG = load_catalog()
CPU = Device(name="cpu", kind="cpu", memory_bytes=24e9, memory_bytes_per_s=13e9, bf16_flops=1e12, power_w=0)
TOKENS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
WIDTHS = (64, 128, 512, 2048, 8192)


def gemms(noise=0.0, widths=WIDTHS):
    draw = np.random.default_rng(3)
    shape = {"weight_format": "bf16"}
    return [
        machine.row("gemm", {"tokens": n, "in_features": k, "out_features": o, **shape}, noise, draw)
        for k in widths for o in widths for n in TOKENS
    ]  # fmt: skip


def test_shapes_held_out_are_carried_over_from_the_others(tmp_path):
    found = held_out(machine.write(tmp_path / "kernels.jsonl", [*gemms(noise=0.02), *machine.rows(noise=0.02)]))
    told = {(one.op, one.format, one.held_out): one for one in found}
    matrices = told["gemm", "bf16", "shapes"]
    assert matrices.shapes == 25
    assert matrices.median < 0.04, "all shapes take 20 µs a call and follow the same rates"
    assert told["gemm", "bf16", "sizes"].median < 0.04
    assert ("experts", "bf16", "shapes") not in told, "one shape alone cannot be held out"


def test_a_time_of_a_call_halves_no_small_matrix(tmp_path):
    """Without the call a matrix of a quarter of the size would take a quarter of 20 µs."""
    tables = tables_of(grouped(gemms()), CATALOG)
    assert {round(table.fit.call_s, 8) for table in tables} == {machine.CALL_S}
    small = next(table for table in tables if table.shape["in_features"] == table.shape["out_features"] == 64)
    near = thinning.nearest_of(small, [table for table in tables if table is not small])
    assert np.abs(thinning.errors_at(small, near, CPU)).max() < 0.01


def test_large_tables_are_thinned_and_give_back_what_was_left_out(monkeypatch):
    tables = tables_of(grouped(gemms(noise=0.01)), CATALOG)
    assert thinning.thinned(tables, CPU) == tables, "few points stay as they are"
    monkeypatch.setattr(thinning, "LARGE_POINTS", 100)
    few = thinning.thinned(tables, CPU)
    assert len(few) < len(tables)
    assert sum(len(table.curves[0].sizes) for table in few) < sum(len(table.curves[0].sizes) for table in tables) / 3
    for table in tables:
        same = next((one for one in few if one.shape == table.shape), None)
        if same is None:
            errors = np.abs(thinning.errors_at(table, thinning.nearest_of(table, few), CPU))
            assert np.quantile(errors, 0.9) < thinning.SHAPE_ERROR + thinning.KNOT_ERROR
        else:
            surface, curve = Surface(same), table.curves[0]
            told = [surface.seconds(size) for size in curve.sizes]
            assert told == pytest.approx(curve.seconds, rel=thinning.KNOT_ERROR + 1e-9)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A made package in the place of the installed one, with block FP8 rows that are left out."""
    sizes = [(m, n) for n in (512, 1024, 4096, 8192) for m in (1, 4, 16, 64, 256, 1024)]
    rows = [made.gemm(m=m, n=n, ms=0.005 + n * 4096 * (2 / 2.5e12 + m * 2 / 6e14) * 1e3) for m, n in sizes]
    attention = [
        made.decode(batch=b, step=s - 1, num_heads=h, num_key_value_heads=h // 4, ms=0.01 + b * s * h / 4 * 512 / 2.5e9)
        for b in (1, 8, 64) for s in (64, 1024, 16384) for h in (8, 32)
    ]  # fmt: skip
    tables = {
        GEMM: [*rows, made.gemm(dtype="fp8_block", ms=0.06)],
        ("attention", "vllm", "generation_attention"): attention,
    }
    root = made.write(tmp_path, tables)
    monkeypatch.setattr(nvidia, "_systems", lambda _: root / "systems")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_import_lists_writes_and_says_what_it_left_out(package, capsys):
    assert not run("import", "nvidia")
    assert "h100-sxm  vllm    0.24.0" in capsys.readouterr().out
    assert not run("import", "nvidia", "h100-sxm", "vllm")
    said = capsys.readouterr()
    assert said.out == ""
    assert "left out 1: gemm: vLLM's fp8_block rows are times of the host to launch them" in said.err
    assert "42 rows written to h100-sxm-vllm.jsonl" in said.err
    assert json.loads((package / "h100-sxm-vllm.jsonl").read_text().splitlines()[0])["device"] == "h100-sxm"
    assert run("import", "nvidia", "h100-sxm", "sglang") == 2


def test_imported_tables_are_judged_calibrated_and_run(package, capsys):
    assert not run("import", "nvidia", "h100-sxm", "vllm", "--out", "h100.jsonl")
    capsys.readouterr()
    assert not run("residuals", "h100.jsonl")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "device",
        "by",
        "operation",
        "format",
        "held",
        "out",
        "shapes",
        "points",
        "median",
        "p90",
    ]
    matrices = next(line.split() for line in lines if "gemm" in line and "shapes" in line)
    assert matrices[:6] == ["h100-sxm", "vllm", "0.24.0", "gemm", "bf16", "shapes"]
    assert float(matrices[-2].rstrip("%")) < 8
    assert not run("calibrate", "h100.jsonl", "--out", "h100.yaml")
    document = yaml.safe_load((package / "h100.yaml").read_text())
    assert list(document["calibrations"]) == ["h100-sxm/vllm"]
    provenance = document["calibrations"]["h100-sxm/vllm"]["provenance"]
    assert "aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0)" in provenance["source"]


def test_a_calibration_is_of_the_engine_that_the_kernels_were_measured_for(package):
    assert not run("import", "nvidia", "h100-sxm", "vllm", "--out", "h100.jsonl")
    text = (package / "h100.jsonl").read_text().replace('"engine": "vllm"', '"engine": "tensorrt-llm"', 1)
    (package / "h100.jsonl").write_text(text)
    assert not run("calibrate", "h100.jsonl", "--out", "h100.yaml")
    assert list(yaml.safe_load((package / "h100.yaml").read_text())["calibrations"]) == ["h100-sxm/tensorrt-llm"]


def test_a_missing_package_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(nvidia, "find_spec", lambda _: None)
    assert run("import", "nvidia", "h100-sxm") == 2
    assert "pip install 'capsim[tables]'" in capsys.readouterr().err
