"""KV formats to the byte, in plain numpy: how a head's key and value lie in their slot, and back.

A slot holds one token's key and value of one KV head: the packed key, then the packed value. The TurboQuant presets
are vLLM's (`turboquant_k8v4` and so on: vllm-project/vllm, v1/attention/ops/triton_turboquant_store.py): little-endian
bit streams, keys as Lloyd–Max codes with an fp16 norm, values uniformly rounded with an fp16 scale and zero. The norm
correction of the `_nc` presets is here part of the stored norm, which needs no work when it is read.
"""

from dataclasses import dataclass

import numpy as np

from kernels_bench.turboquant import Bytes, Floats, codebook, pack, quantise, rotate, unpack

BF16, FP8, Q8_0, Q4_0, UNIFORM, TURBO = range(6)
GGML_BLOCK = 32


@dataclass(frozen=True)
class VectorFormat:
    """How one vector is packed.

    TURBO and UNIFORM give the first and the second half of the coordinates widths of their own: (4, 3) is 3.5 bits.
    """

    kind: int
    bits: tuple[int, int] = (0, 0)
    norm_correction: bool = False

    @property
    def rotated(self) -> bool:
        return self.kind == TURBO

    def nbytes(self, dimension: int) -> int:
        """Bytes of a packed vector."""
        code_bytes = sum(self.bits) * dimension // 16
        blocks = dimension // GGML_BLOCK
        return (2 * dimension, dimension, 34 * blocks, 18 * blocks, code_bytes + 4, code_bytes + 2)[self.kind]

    def encode(self, x: Floats, signs: Floats) -> Bytes:
        """Vectors (…, d), packed: uint8 (…, nbytes(d)); `signs` are those of the TurboQuant rotation."""
        encode = (_encode_bf16, _encode_fp8, _encode_q8_0, _encode_q4_0)
        if self.kind == UNIFORM:
            return _encode_uniform(x, self.bits[0])
        return self._encode_turbo(x, signs) if self.kind == TURBO else encode[self.kind](x)

    def decode(self, packed: Bytes, dimension: int) -> Floats:
        """The vectors (…, d) that `encode` packed; TurboQuant's come back still rotated."""
        decode = (_decode_bf16, _decode_fp8, _decode_q8_0, _decode_q4_0)
        if self.kind == UNIFORM:
            return _decode_uniform(packed, self.bits[0])
        return self._decode_turbo(packed, dimension) if self.kind == TURBO else decode[self.kind](packed)

    def _encode_turbo(self, x: Floats, signs: Floats) -> Bytes:
        dimension, half = x.shape[-1], x.shape[-1] // 2
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        y = rotate(x / np.maximum(norm, np.float32(1e-30)), signs)
        halves = (y[..., :half], y[..., half:])
        codes = [quantise(part, bits, dimension) for part, bits in zip(halves, self.bits, strict=True)]
        if self.norm_correction:
            levels = [codebook(bits, dimension)[code] for code, bits in zip(codes, self.bits, strict=True)]
            norm = norm / np.linalg.norm(np.concatenate(levels, -1), axis=-1, keepdims=True)
        packed = [pack(code, bits) for code, bits in zip(codes, self.bits, strict=True)]
        return np.concatenate([*packed, _half_bytes(norm)], -1)

    def _decode_turbo(self, packed: Bytes, dimension: int) -> Floats:
        first = self.bits[0] * dimension // 16
        parts = packed[..., :first], packed[..., first:-2]
        levels = [codebook(bits, dimension)[unpack(part, bits)] for part, bits in zip(parts, self.bits, strict=True)]
        return np.concatenate(levels, -1) * _halves(packed[..., -2:])


def _turbo(first: int, second: int | None = None, norm_correction: bool = False) -> VectorFormat:
    return VectorFormat(TURBO, (first, second or first), norm_correction)


def _uniform(bits: int) -> VectorFormat:
    return VectorFormat(UNIFORM, (bits, bits))


def _both(vector: VectorFormat) -> tuple[VectorFormat, VectorFormat]:
    return vector, vector


KV_FORMATS: dict[str, tuple[VectorFormat, VectorFormat]] = {
    "bf16": _both(VectorFormat(BF16)),
    "fp8": _both(VectorFormat(FP8)),  # e4m3, scale 1
    "q8_0": _both(VectorFormat(Q8_0)),
    "q4_0": _both(VectorFormat(Q4_0)),
    "turboquant_k8v4": (VectorFormat(FP8), _uniform(4)),
    "turboquant_4bit_nc": (_turbo(4, norm_correction=True), _uniform(4)),
    "turboquant_k3v4_nc": (_turbo(3, norm_correction=True), _uniform(4)),
    "turboquant_3bit_nc": (_turbo(3, norm_correction=True), _uniform(3)),
    "tq_paper_4b": _both(_turbo(4)),
    "tq_paper_3.5b": _both(_turbo(4, 3)),
    "tq_paper_3b": _both(_turbo(3)),
    "tq_paper_2.5b": _both(_turbo(3, 2)),
}


def slot_bytes(kv_format: str, head_dim: int) -> int:
    """Bytes of one token's key and value of one KV head."""
    return sum(vector.nbytes(head_dim) for vector in KV_FORMATS[kv_format])


def _half_bytes(x: Floats) -> Bytes:
    return np.ascontiguousarray(x.astype("<f2")).view(np.uint8)


def _halves(packed: Bytes) -> Floats:
    return np.ascontiguousarray(packed).view("<f2").astype(np.float32)


def _encode_bf16(x: Floats) -> Bytes:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view(np.uint8)  # round to nearest even


def _decode_bf16(packed: Bytes) -> Floats:
    return (np.ascontiguousarray(packed).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _fp8_magnitudes() -> Floats:
    """The values of the 127 non-negative finite e4m3 codes (OCP 8-bit floating point, 2023)."""
    code = np.arange(127)
    exponent, fraction = code >> 3, (code & 7) / 8
    return np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent - 7)).astype(np.float32)


def _encode_fp8(x: Floats) -> Bytes:
    middles, size = (_fp8_magnitudes()[1:] + _fp8_magnitudes()[:-1]) / 2, np.abs(x)
    code = np.searchsorted(middles, size)
    tie = size == middles[np.minimum(code, 125)]
    return (code + (tie & (code % 2 == 1)) + 128 * np.signbit(x)).astype(np.uint8)


def _decode_fp8(packed: Bytes) -> Floats:
    size = np.append(_fp8_magnitudes(), np.float32(np.nan))[packed & 127]
    return np.where(packed & 128, -size, size)


def _encode_q8_0(x: Floats) -> Bytes:
    blocks = x.reshape(*x.shape[:-1], -1, GGML_BLOCK)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    codes = np.rint(blocks / np.maximum(scale, np.float32(1e-30))).astype(np.int8).view(np.uint8)
    return np.concatenate([_half_bytes(scale), codes], -1).reshape(*x.shape[:-1], -1)


def _decode_q8_0(packed: Bytes) -> Floats:
    blocks = packed.reshape(*packed.shape[:-1], -1, 34)
    codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return (codes * _halves(blocks[..., :2])).reshape(*packed.shape[:-1], -1)


def _encode_q4_0(x: Floats) -> Bytes:
    """Two codes a byte, elements i and i + 16; the value that is largest in size gets code 0."""
    blocks = x.reshape(*x.shape[:-1], -1, GGML_BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scale = extreme / np.float32(-8)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.minimum(15, (blocks * inverse + np.float32(8.5)).astype(np.uint8))
    packed = codes[..., :16] | codes[..., 16:] << 4
    return np.concatenate([_half_bytes(scale), packed], -1).reshape(*x.shape[:-1], -1)


def _decode_q4_0(packed: Bytes) -> Floats:
    blocks = packed.reshape(*packed.shape[:-1], -1, 18)
    codes = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1).astype(np.float32) - 8
    return (codes * _halves(blocks[..., :2])).reshape(*packed.shape[:-1], -1)


def _encode_uniform(x: Floats, bits: int) -> Bytes:
    zero, top = x.min(-1, keepdims=True), np.float32(2**bits - 1)
    scale = np.maximum((x.max(-1, keepdims=True) - zero) / top, np.float32(1e-8))
    codes = np.clip((x - zero) / scale + np.float32(0.5), 0, top).astype(np.uint8)
    return np.concatenate([pack(codes, bits), _half_bytes(scale), _half_bytes(zero)], -1)


def _decode_uniform(packed: Bytes, bits: int) -> Floats:
    scale, zero = _halves(packed[..., -4:-2]), _halves(packed[..., -2:])
    return unpack(packed[..., :-4], bits) * scale + zero
