"""Grouped GEMMs of a mixture-of-experts MLP in Triton: bf16, int8 and 4-bit weights, dequantised in registers.

Tokens are sorted by expert and each expert's rows cut into tiles, so that a tile meets one expert's weights and an
expert without tokens is not read. Two launches: gate, up and SwiGLU; then down. The tiles are laid out on the device,
without waiting for it. Weights are those of ``experts_torch``, but of a 4-bit byte the low half is the even input.
"""

import torch
import triton
import triton.language as tl

from kernels_bench.experts_torch import Weights
from kernels_bench.weights import GROUP

TILE_OUTPUTS, TILE_INPUTS = 64, GROUP  # the inputs of a tile share a 4-bit group
TILE_ROWS = (16, 32, 64)
BITS = {torch.int8: 8, torch.uint8: 4}  # floats are taken as they are


@triton.jit
def grouped_gemm(
    rows, values, scales, out, row_source, row_target, tile_expert, tile_row, expert_end, inputs, outputs,
    BITS: tl.constexpr, SWIGLU: tl.constexpr,
    TILE_ROWS: tl.constexpr, TILE_OUTPUTS: tl.constexpr, TILE_INPUTS: tl.constexpr,
):  # fmt: skip
    """Row ``row_source[i]`` of ``rows`` times its expert's matrix into row ``row_target[i]`` of ``out``.

    ``outputs`` is the width of ``out``; with SWIGLU the matrices are twice as high, the gate's rows first.
    """
    expert = tl.load(tile_expert + tl.program_id(0)).to(tl.int64)
    if expert < 0:
        return
    place = tl.load(tile_row + tl.program_id(0)) + tl.arange(0, TILE_ROWS)
    there = place < tl.load(expert_end + expert)
    source = tl.load(row_source + place, mask=there, other=0)
    column = tl.program_id(1) * TILE_OUTPUTS + tl.arange(0, TILE_OUTPUTS)
    height = outputs * 2 if SWIGLU else outputs
    first = expert * height

    total = tl.zeros((TILE_ROWS, TILE_OUTPUTS), tl.float32)
    up_total = tl.zeros((TILE_ROWS, TILE_OUTPUTS), tl.float32)
    for start in range(0, inputs, TILE_INPUTS):
        own = start + tl.arange(0, TILE_INPUTS)
        tile = tl.load(rows + source[:, None] * inputs + own[None, :], mask=there[:, None], other=0.0)
        group = scales + 2 * (expert * (inputs // TILE_INPUTS) + start // TILE_INPUTS) * height
        weights = weight_tile(values, group, first, column, own, inputs, BITS)
        total = tl.dot(tile, weights.to(tile.dtype), total)
        if SWIGLU:
            weights = weight_tile(values, group, first, column + outputs, own, inputs, BITS)
            up_total = tl.dot(tile, weights.to(tile.dtype), up_total)

    if BITS == 8:
        total *= tl.load(scales + first + column)[None, :].to(tl.float32)
    if SWIGLU:
        if BITS == 8:
            up_total *= tl.load(scales + first + outputs + column)[None, :].to(tl.float32)
        total = total * tl.sigmoid(total) * up_total
    target = tl.load(row_target + place, mask=there, other=0)
    tl.store(out + target[:, None] * outputs + column[None, :], total.to(out.dtype.element_ty), mask=there[:, None])


@triton.jit
def weight_tile(values, group, first, column, own, inputs, BITS: tl.constexpr):
    """Inputs ``own`` of rows ``column`` of an expert's matrix, which begins at row ``first``: (own, column).

    ``group`` points to the scales and zeros of the tile's 4-bit group; an int8 scale is left to the caller.
    """
    row = (first + column)[None, :]
    if BITS == 4:
        packed = tl.load(values + row * (inputs // 2) + own[:, None] // 2)
        value = ((packed >> ((own[:, None] % 2) * 4)) & 15).to(tl.float32) - 8
        scale = tl.load(group + 2 * column).to(tl.float32)
        zero = tl.load(group + 2 * column + 1).to(tl.float32)
        tile = value * scale[None, :] + zero[None, :]
    else:
        tile = tl.load(values + row * inputs + own[:, None])
    return tile


def grouped_mlp(
    tokens: torch.Tensor, ids: torch.Tensor, gates: torch.Tensor, gate_up: Weights, down: Weights
) -> torch.Tensor:
    """Σ over a token's experts of gate times the expert's MLP: (n, hidden) from tokens (n, hidden).

    ``ids`` and ``gates`` (n, top_k) are the experts of each token and their weights. Sizes must be multiples of 64.
    """
    top_k, flat = ids.shape[1], ids.flatten()
    order = flat.argsort()
    counts = torch.bincount(flat, minlength=len(down[0]))
    tile_rows = next((size for size in TILE_ROWS if len(flat) <= size * len(counts)), TILE_ROWS[-1])
    layout = _tiles(counts, len(flat), tile_rows)
    place = torch.arange(len(flat), device=tokens.device)
    hidden = tokens.new_empty(len(flat), gate_up[0].shape[1] // 2)
    _launch(tokens, gate_up, hidden, order // top_k, place, layout, tile_rows, swiglu=True)
    out = tokens.new_empty(len(flat), tokens.shape[1])
    _launch(hidden, down, out, place, order, layout, tile_rows, swiglu=False)
    return torch.bmm(gates[:, None], out.view(*ids.shape, -1))[:, 0]


def _tiles(counts: torch.Tensor, pairs: int, tile_rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The expert of each tile (-1: none) and its first sorted row, and the row after each expert's last."""
    expert_end = counts.cumsum(0)
    tiles = (counts + tile_rows - 1) // tile_rows
    tile_end = tiles.cumsum(0)
    index = torch.arange(min(pairs, len(counts)) + pairs // tile_rows, device=counts.device)
    expert = torch.searchsorted(tile_end, index, right=True)
    mine = expert.clamp(max=len(counts) - 1)
    row = (expert_end - counts)[mine] + (index - (tile_end - tiles)[mine]) * tile_rows
    return torch.where(expert < len(counts), expert, -1), row, expert_end


def _launch(
    rows: torch.Tensor,
    weights: Weights,
    out: torch.Tensor,
    source: torch.Tensor,
    target: torch.Tensor,
    layout: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    tile_rows: int,
    swiglu: bool,
) -> None:
    (inputs, outputs), values = (rows.shape[1], out.shape[1]), weights[0]
    if inputs % TILE_INPUTS or outputs % TILE_OUTPUTS:
        raise ValueError(f"experts of {inputs} x {outputs}: sizes must be multiples of {TILE_INPUTS}")
    grid = len(layout[0]), outputs // TILE_OUTPUTS
    grouped_gemm[grid](
        rows, values, weights[-1], out, source, target, *layout, inputs, outputs,
        BITS=BITS.get(values.dtype, 16), SWIGLU=swiglu,
        TILE_ROWS=tile_rows, TILE_OUTPUTS=TILE_OUTPUTS, TILE_INPUTS=TILE_INPUTS,
    )  # fmt: skip
