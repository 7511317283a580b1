"""The CUDA kernels on a CPU: in Triton's interpreter against the plain reference, and compiled for sm_90."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels_bench.attention import KERNELS

missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
FORMATS = next(formats for kernel, _, formats in KERNELS["cuda"] if kernel == "triton-fused")
HERE = Path(__file__).parent


def run(*arguments, **environment):
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    command = [sys.executable, str(HERE / "triton_decode.py"), *arguments]
    paths = os.environ | {"PYTHONPATH": str(HERE.parents[1])} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=paths)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_fused_decode_equals_attention_over_dequantised():
    errors = run("compare", "float32", *FORMATS, TRITON_INTERPRET="1")
    assert set(errors) == set(FORMATS)
    assert max(errors.values()) <= 1e-5, errors


def test_tensor_core_operands_cost_little():
    errors = run("compare", "float16", "turboquant_4bit_nc", "turboquant_3", TRITON_INTERPRET="1")
    assert 1e-6 < max(errors.values()) <= 2e-3, errors


def test_written_bytes_are_the_references():
    shares = run("write", *FORMATS, TRITON_INTERPRET="1")
    assert set(shares) == set(FORMATS)
    eight_bits = [shares.pop(kv_format) for kv_format in ("fp8", "turboquant_k8v4")]
    assert max(shares.values()) <= 2e-3, shares
    assert max(eight_bits) <= 0.08, "the interpreter rounds e4m3 ties up and cuts the smallest off; a device does not"


def test_they_compile_for_sm_90():
    sizes = run("compile", "bf16", "fp8", "turboquant_k8v4", "turboquant_4bit_nc", "turboquant_3bit_nc")
    assert min(sizes.values()) > 1000
