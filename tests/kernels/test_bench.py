"""The command: the file it writes, what it prints last, and what Ctrl-C leaves."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kernels_bench import bench as bench_module
from kernels_bench.__main__ import app
from kernels_bench.backends import MODULES
from kernels_bench.bench import MissingError, bench
from kernels_bench.card import Card
from kernels_bench.worker import header

ROOT = Path(__file__).parents[2]
ROW = {
    "kind": "kernel", "op": "gemm", "backend": "cpu", "kernel": "plain",
    "shape": {"tokens": 8, "weight_format": "bf16"},
    "median_s": 2e-3, "iqr_s": 1e-4, "runs": 9, "repeated_windows": 0, "bytes": 4e6, "flops": 8e6,
}  # fmt: skip
HEADER = header("cpu") | {"device": "cpu-test"}


@pytest.fixture
def says(monkeypatch):
    """Has the worker say these lines, and then run this code."""

    def arrange(*lines, then=""):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        code = f"import sys; sys.stdout.write({text!r}); sys.stdout.flush(); {then}"

        def start(backend, budget_s):
            return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

        monkeypatch.setattr(bench_module, "_start", start)

    return arrange


@pytest.fixture
def console():
    return Console(record=True, width=200, quiet=False, file=open(os.devnull, "w"))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_header_first_then_every_measurement(says, console, tmp_path):
    says(HEADER, ROW, {"skipped": "numba", "why": "numba is not installed"}, ROW | {"median_s": 4e-3})
    summary = bench("cpu", 60, tmp_path / "out.jsonl", console)
    lines = read(tmp_path / "out.jsonl")
    assert lines == [HEADER, ROW, ROW | {"median_s": 4e-3}]
    assert summary["rows"] == 2
    assert (summary["file"], summary["device"]) == (str(tmp_path / "out.jsonl"), "cpu-test")
    card = console.export_text()
    assert "gemm, plain: tokens bf16 2 8 4 ms 2.5% 1 2" in " ".join(card.split()), "the largest of two points"
    assert "skipped numba: numba is not installed" in card


def test_the_file_has_a_name_without_out(says, console, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    says(HEADER)
    assert bench("cpu", 60, None, console)["file"] == "kernels-cpu-test.jsonl"
    assert read(tmp_path / "kernels-cpu-test.jsonl") == [HEADER]


def test_an_interrupt_keeps_what_was_measured(says, console, tmp_path):
    path = tmp_path / "out.jsonl"
    written = f"import os, pathlib, time; path = pathlib.Path({str(path)!r})\nwhile not path.exists() or "
    written += "path.read_text().count('\\n') < 2: time.sleep(0.01)\n"
    says(HEADER, ROW, then=written + f"os.kill({os.getpid()}, {int(signal.SIGINT)}); time.sleep(60)")
    summary = bench("cpu", 60, path, console)
    assert summary["interrupted"]
    assert read(path) == [HEADER, ROW]


def test_a_backend_that_is_missing_says_what_it_lacks(says, console, tmp_path):
    says({"lacks": "torch sees no CUDA device"})
    with pytest.raises(MissingError, match="no CUDA device"):
        bench("cuda", 60, tmp_path / "out.jsonl", console)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_worker_that_dies_is_an_error(says, console, tmp_path):
    says(HEADER, ROW, then="sys.exit(1)")
    with pytest.raises(MissingError, match="died"):
        bench("cpu", 60, tmp_path / "out.jsonl", console)
    assert read(tmp_path / "out.jsonl") == [HEADER, ROW]


def test_the_card_fits_a_terminal_of_80_columns():
    card = Card(HEADER, 60)
    for op, kernel, shape in (
        ("experts", "mlx-gather_qmm", {"tokens": 4096, "active_experts": 128, "weight_format": "int4"}),
        ("gemm", "mlx-quantized_matmul", {"tokens": 128, "in_features": 4096, "out_features": 128256}),
        ("decode_attention", "triton-fused", {"context_tokens": 131072, "kv_format": "turboquant_4bit_nc"}),
    ):
        card.add(ROW | {"op": op, "kernel": kernel, "shape": shape, "iqr_s": 2.5e-3})
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(card.whole())
    lines = console.export_text().splitlines()
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 + 2 * 3
    assert len({line.rindex("2 ms") for line in lines if "2 ms" in line}) == 1, "figures stand below one another"


def test_off_a_terminal_a_line_says_how_far_it_is(says, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "LOG_EVERY_S", 0.0)
    says(HEADER, ROW)
    text = io.StringIO()
    bench("cpu", 60, tmp_path / "out.jsonl", Console(file=text, width=80))
    assert re.search(r"measuring: \d+ s, at most (59|60) s left, 1 points; gemm, plain, bf16\n", text.getvalue())


def run(*arguments):
    command = [sys.executable, "-m", "kernels_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"COLUMNS": "120"})


def test_a_run_that_measured_nothing_fails_and_says_so(monkeypatch, capsys):
    empty = {"file": "x.jsonl", "device": "cpu", "rows": 0, "seconds": 1.0, "interrupted": False}
    monkeypatch.setattr("kernels_bench.__main__.bench", lambda *_: empty)
    with pytest.raises(SystemExit) as ended:
        app(["--device", "cpu"])
    assert ended.value.code == 1
    assert "nothing was measured" in capsys.readouterr().err


def test_bad_arguments_are_named():
    for arguments, message in ((["--budget", "soon"], "say 60s, 10m or 1h"), (["--device", "tpu"], "not one of auto")):
        done = run(*arguments)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("verb", [[], ["engine", "transformers"]])
def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_measured(verb, tmp_path):
    for out, message in ((tmp_path / "missing" / "k.jsonl", "there is no folder"), (tmp_path, "cannot be written")):
        done = run(*verb, "--out", str(out))
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_names_the_engines():
    assert "engine transformers|vllm" in run("--help").stdout


def test_every_backend_names_what_it_lacks_or_runs():
    """No accelerator where this is tested: each says why, and none runs."""
    for backend in set(MODULES) - {"cpu"}:
        done = run("--device", backend, "--budget", "1s")
        if done.returncode == 0:
            pytest.skip(f"this machine has {backend}")
        assert done.returncode == 1
        assert f"{backend}: " in done.stderr
        assert "installed" in done.stderr or "sees no" in done.stderr


@pytest.mark.slow
def test_a_measured_file(tmp_path):
    pytest.importorskip("numba", reason="numba is not installed")
    done = run("--device", "cpu", "--budget", "20s", "--out", str(tmp_path / "out.jsonl"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    first, *rows = read(tmp_path / "out.jsonl")
    assert (first["schema"], first["version"], first["device"]) == ("capsim-measurements", 1, summary["device"])
    assert len(rows) == summary["rows"] > 0, "a busy machine compiles for most of the 20 s"
    assert all(row["kind"] == "kernel" and row["median_s"] > 0 for row in rows)
