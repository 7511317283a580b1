"""Triton's grouped experts: in the interpreter against plain numpy, and compiled for an H100 that need not be here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

HERE = Path(__file__).parent


@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("tokens", [3, 60])
def test_experts_equal_plain_numpy(weight_format, tokens):
    """Few tokens leave experts and tiles empty; many make several tiles of an expert."""
    path = os.pathsep.join(map(str, (HERE, HERE.parents[1])))
    command = [sys.executable, HERE / "triton_experts.py", weight_format, str(tokens)]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("swiglu", [True, False])
def test_the_kernel_compiles_for_sm_90(bits, swiglu):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels_bench.experts_triton import TILE_INPUTS, TILE_OUTPUTS, grouped_gemm

    pointers = {"rows": "*bf16", "values": {16: "*bf16", 8: "*i8", 4: "*u8"}[bits], "scales": "*bf16", "out": "*bf16"}
    layout = dict.fromkeys(("row_source", "row_target", "tile_expert", "tile_row", "expert_end"), "*i64")
    sizes = {"inputs": "i32", "outputs": "i32"}
    constants = {
        "BITS": bits,
        "SWIGLU": swiglu,
        "TILE_ROWS": 16,
        "TILE_OUTPUTS": TILE_OUTPUTS,
        "TILE_INPUTS": TILE_INPUTS,
    }
    signature = pointers | layout | sizes | dict.fromkeys(constants, "constexpr")
    compiled = triton.compile(ASTSource(grouped_gemm, signature, constants), target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"][:4] == b"\x7fELF"
