"""Mixture-of-experts MLPs in plain numpy, one token and one expert at a time, and weights in every format."""

import numpy as np

GROUP = 64


def silu(values):
    return values / (1 + np.exp(-values))


def mlp(token, gate_up, down):
    gate, up = np.split(gate_up @ token, 2)
    return down @ (silu(gate) * up)


def experts_mlp(tokens, ids, gates, gate_up, down):
    return np.array(
        [
            sum(gate * mlp(token, gate_up[expert], down[expert]) for gate, expert in zip(own_gates, own, strict=True))
            for token, own, own_gates in zip(tokens, ids, gates, strict=True)
        ]
    )


def inputs(rng, tokens=6, hidden=128, top_k=2, experts=5):
    """Tokens, each one's experts (the last expert unused), and their gates."""
    ids = np.array([rng.permutation(experts - 1)[:top_k] for _ in range(tokens)])
    return rng.normal(size=(tokens, hidden)), ids, rng.dirichlet(np.ones(top_k), size=tokens)


def int8_weights(rng, experts, outputs, columns):
    """Values and the scale of each output: the weights are their product."""
    values = rng.integers(-127, 128, (experts, outputs, columns)).astype(np.int8)
    return values, rng.uniform(0.0005, 0.001, (experts, outputs)).astype(np.float32)


def int4_weights(rng, experts, outputs, columns):
    """Values 0 to 15, and scales and zeros (experts, groups, outputs, 2): weight = (value - 8) * scale + zero."""
    values = rng.integers(0, 16, (experts, outputs, columns)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.02, (experts, columns // GROUP, outputs, 1))
    zeros = rng.normal(scale=0.02, size=scales.shape)
    return values, np.concatenate([scales, zeros], -1).astype(np.float32)


def plain_int8(values, scales):
    return values * scales[..., None]


def plain_int4(values, scales_zeros):
    scales, zeros = (np.repeat(part, GROUP, 1).swapaxes(1, 2) for part in np.moveaxis(scales_zeros, -1, 0))
    return (values - 8.0) * scales + zeros
