"""TurboQuant against its theory, and the bytes of every KV format."""

import numpy as np
import pytest

from kernels_bench.kv_formats import KV_FORMATS, slot_bytes
from kernels_bench.turboquant import (
    codebook,
    distortion,
    pack,
    qjl_inner_product,
    qjl_projection,
    quantise,
    rotate,
    rotation_signs,
    unpack,
    unrotate,
)  # fmt: skip

D = 128


def unit_vectors(count, dimension, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, dimension))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def mean_squared_error(x, bits, signs):
    y = rotate(x, signs)
    return np.mean(np.sum((y - codebook(bits, x.shape[-1])[quantise(y, bits, x.shape[-1])]) ** 2, -1))


def test_rotation_is_orthonormal_and_undone():
    signs, x = rotation_signs(D), unit_vectors(10, D)
    assert rotate(x, signs) @ rotate(x, signs).T == pytest.approx(x @ x.T, abs=1e-12)
    assert unrotate(rotate(x, signs), signs) == pytest.approx(x, abs=1e-12)
    with pytest.raises(ValueError, match="power of two, not 96"):
        rotation_signs(96)


def test_distortion_is_the_papers():
    """arXiv 2504.19874, theorem 1: 0.36, 0.117, 0.03, 0.009 at 1 to 4 bits (0.034 exactly, at 3)."""
    assert [distortion(bits, D) for bits in (1, 2, 3, 4)] == pytest.approx([0.3609, 0.1160, 0.0340, 0.0093], rel=5e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("dimension", [64, 128, 256])
def test_error_of_random_vectors_is_the_theorys(bits, dimension):
    x = unit_vectors(8000, dimension)
    assert mean_squared_error(x, bits, rotation_signs(dimension)) == pytest.approx(
        distortion(bits, dimension), rel=0.02
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_error_of_one_hot_vectors_is_the_theorys(bits):
    errors = [mean_squared_error(np.eye(D), bits, rotation_signs(D, seed)) for seed in range(100)]
    assert np.mean(errors) == pytest.approx(distortion(bits, D), rel=0.02)


@pytest.mark.parametrize(("name", "bits"), [("tq_paper_3.5b", (4, 3)), ("tq_paper_2.5b", (3, 2))])
def test_error_of_mixed_widths_is_the_mean_of_both(name, bits):
    key, _ = KV_FORMATS[name]
    x, signs = unit_vectors(8000, D).astype(np.float32), rotation_signs(D)
    error = np.mean(np.sum((key.decode(key.encode(x, signs), D) - rotate(x, signs)) ** 2, -1))
    assert error == pytest.approx(np.mean([distortion(width, D) for width in bits]), rel=0.02)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_qjl_residual_makes_inner_products_unbiased(bits):
    """Rounded alone they shrink by the distortion; with the residual's signs (bits − 1 and one) the slope is 1."""
    keys, signs = rotate(unit_vectors(4000, D), rotation_signs(D)), rotation_signs(D, 1)
    queries = 0.7 * keys + 0.7 * rotate(unit_vectors(4000, D, seed=1), signs)
    exact = np.sum(queries * keys, -1)
    levels = np.zeros(1) if bits == 1 else codebook(bits - 1, D)
    rounded = levels[quantise(keys, bits - 1, D)] if bits > 1 else np.zeros_like(keys)
    estimates = [
        np.sum(queries * rounded, -1) + qjl_inner_product(queries, keys - rounded, qjl_projection(D, seed))
        for seed in range(4)
    ]
    slope = np.sum(np.mean(estimates, 0) * exact) / np.sum(exact * exact)
    assert slope == pytest.approx(1, abs=0.01)
    plain = codebook(bits, D)[quantise(keys, bits, D)]
    assert np.mean(np.sum(plain * keys, -1)) == pytest.approx(1 - distortion(bits, D), abs=0.01)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_packing_is_undone(bits):
    codes = np.random.default_rng(0).integers(0, 2**bits, (5, D), dtype=np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (5, D * bits // 8)
    assert (unpack(packed, bits) == codes).all()


def test_four_bit_codes_lie_low_nibble_first_and_three_bit_ones_in_groups_of_24():
    assert pack(np.array([1, 2], np.uint8), 4).tolist() == [0x21]
    codes = np.arange(8, dtype=np.uint8)
    word = sum(int(code) << 3 * i for i, code in enumerate(codes))
    assert pack(codes, 3).tolist() == list(word.to_bytes(3, "little"))


@pytest.mark.parametrize(
    ("kv_format", "expected"),
    [
        ("bf16", 512), ("fp8", 256), ("q8_0", 272), ("q4_0", 144),
        ("turboquant_k8v4", 196), ("turboquant_4bit_nc", 134), ("turboquant_k3v4_nc", 118), ("turboquant_3bit_nc", 102),
        ("tq_paper_4b", 132), ("tq_paper_3.5b", 116), ("tq_paper_3b", 100), ("tq_paper_2.5b", 84),
    ],
)  # fmt: skip
def test_slots_to_the_byte(kv_format, expected):
    x = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
    packed = [vector.encode(x, rotation_signs(D)) for vector in KV_FORMATS[kv_format]]
    assert sum(part.shape[-1] for part in packed) == slot_bytes(kv_format, D) == expected


def test_a_four_bit_slot_of_vllm():
    """Keys' codes, fp16 norm, values' codes, fp16 scale, fp16 zero (vLLM, triton_turboquant_store.py)."""
    x = np.random.default_rng(0).normal(size=D).astype(np.float32)
    key, value = (vector.encode(x, rotation_signs(D)) for vector in KV_FORMATS["turboquant_4bit_nc"])
    assert key.shape == (66,)
    scale, zero = value[64:].view("<f2")
    assert zero == np.float16(x.min())
    assert scale == np.float16((x.max() - x.min()) / 15)
    assert value[0] & 15 == int((x[0] - x.min()) / ((x.max() - x.min()) / 15) + 0.5)
    decoded = KV_FORMATS["turboquant_4bit_nc"][0].decode(key, D)
    assert np.linalg.norm(decoded) == pytest.approx(np.linalg.norm(x), rel=1e-3), "the norm correction keeps the norm"


@pytest.mark.parametrize(
    ("kv_format", "tolerance"), [("bf16", 3e-3), ("fp8", 0.05), ("q8_0", 0.01), ("q4_0", 0.12), ("tq_paper_4b", 0.12)]
)
def test_decoding_undoes_encoding(kv_format, tolerance):
    x, signs = np.random.default_rng(0).normal(size=(100, D)).astype(np.float32), rotation_signs(D)
    for vector in KV_FORMATS[kv_format]:
        y = vector.decode(vector.encode(x, signs), D)
        y = unrotate(y, signs) if vector.rotated else y
        assert np.linalg.norm(y - x) <= tolerance * np.linalg.norm(x)


def test_fp8_rounds_as_torch_does():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.concatenate([np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-4, 2.5, 0.5).repeat(77)[:1000],
                        [0, 0.0009765625, 1.0625, 1.1875, 448, -0.5]]).astype(np.float32)  # fmt: skip
    x = np.clip(x, -448, 448)
    ours = KV_FORMATS["fp8"][0].encode(x, rotation_signs(2))
    assert (ours == torch.tensor(x).to(torch.float8_e4m3fn).view(torch.uint8).numpy()).all()
