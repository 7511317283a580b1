"""Run by test_experts_triton.py in Triton's interpreter: grouped experts against plain numpy.

In fp32, because the interpreter multiplies the bits of bf16 as whole numbers.
"""

import sys

import numpy as np
import torch
from plain_experts import experts_mlp, inputs, int4_weights, int8_weights, plain_int4, plain_int8

from kernels_bench.experts_triton import grouped_mlp

HIDDEN, INTERMEDIATE, EXPERTS = 128, 64, 5


def weights(rng, weight_format, outputs, columns):
    """Tensors as the kernel takes them, and the plain weights that they hold."""
    if weight_format == "bf16":
        values = torch.tensor(rng.normal(scale=0.1, size=(EXPERTS, outputs, columns))).float()
        return (values,), values.double().numpy()
    make, plain = (int8_weights, plain_int8) if weight_format == "int8" else (int4_weights, plain_int4)
    values, scales = make(rng, EXPERTS, outputs, columns)
    scales = torch.from_numpy(scales)
    packed = values if weight_format == "int8" else values[..., ::2] | values[..., 1::2] << 4
    return (torch.from_numpy(packed), scales), plain(values, scales.double().numpy())


def relative_error(weight_format, tokens):
    rng = np.random.default_rng(0)
    rows, ids, gates = inputs(rng, tokens)
    gate_up, plain_gate_up = weights(rng, weight_format, 2 * INTERMEDIATE, HIDDEN)
    down, plain_down = weights(rng, weight_format, HIDDEN, INTERMEDIATE)
    rows, gates = torch.tensor(rows).float(), torch.tensor(gates).float()
    found = grouped_mlp(rows, torch.from_numpy(ids), gates, gate_up, down).double().numpy()
    plain = experts_mlp(rows.double().numpy(), ids, gates.double().numpy(), plain_gate_up, plain_down)
    return np.abs(found - plain).max() / np.abs(plain).max()


print(relative_error(sys.argv[1], int(sys.argv[2])))
