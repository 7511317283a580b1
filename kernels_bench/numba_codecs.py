"""Packing and unpacking one vector of a KV slot, compiled by numba: `kv_formats` at speed.

Codes become numbers two at a time, through a table of pairs: a 4-bit byte, or six bits of 3-bit codes, fetches two
levels in one 8-byte load. Only functions of this file are kept in numba's cache: a function elsewhere that uses them
would be taken from it unchanged when this file changes.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels_bench.kv_formats import BF16, FP8, GGML_BLOCK, Q4_0, Q8_0, TURBO, UNIFORM, VectorFormat
from kernels_bench.turboquant import codebook, midpoints

FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums may be reordered; infinities and NaN stay what they are
MAX_BITS = 4
UNIFORM_ROWS = MAX_BITS  # rows 1–4 of the tables are Lloyd–Max levels, rows 5–8 the integers of uniform codes


def codec(vector: VectorFormat) -> tuple[int, int, int, int]:
    """What the compiled code needs to know of a format: kind, both halves' widths, whether the norm is corrected."""
    return (vector.kind, *vector.bits, int(vector.norm_correction))


def level_tables(dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels (float32, 9 × 16), midpoints (9 × 15) and pairs of levels (two float32 in a uint64, 9 × 256) by width."""
    levels = np.zeros((2 * MAX_BITS + 1, 2**MAX_BITS), np.float32)
    middles = np.full((2 * MAX_BITS + 1, 2**MAX_BITS - 1), np.inf, np.float32)
    pairs = np.zeros((2 * MAX_BITS + 1, 2 ** (2 * MAX_BITS), 2), np.float32)
    for bits in range(1, MAX_BITS + 1):
        levels[bits, : 2**bits] = codebook(bits, dimension)
        levels[UNIFORM_ROWS + bits, : 2**bits] = np.arange(2**bits)
        middles[bits, : 2**bits - 1] = midpoints(codebook(bits, dimension))
        for row in (bits, UNIFORM_ROWS + bits):
            code = np.arange(4**bits)
            pairs[row, : 4**bits] = np.stack([levels[row, code % 2**bits], levels[row, code >> bits]], -1)
    return levels, middles, pairs.view(np.uint64)[..., 0]


unsigned = np.uintp
_LINE_BYTES = 64  # of a cache, and of an AVX-512 register


@njit(cache=True)
def aligned(nbytes):
    """Zeroed bytes that begin with a cache line.

    Where the allocator put an array decides otherwise whether every vector that is loaded from it crosses two lines: a
    tenth of the time of a decode, and another one at each allocation.
    """
    raw = np.zeros(nbytes + _LINE_BYTES, np.uint8)
    first = (_LINE_BYTES - raw.ctypes.data % _LINE_BYTES) % _LINE_BYTES
    return raw[first : first + nbytes]


@njit(cache=True)
def aligned_floats(rows, columns):
    """Zeroed float32 (rows, columns) that begin with a cache line."""
    return aligned(4 * rows * columns).view(np.float32).reshape(rows, columns)


@intrinsic
def _float_of_bits(context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _bits_of_float(context, number):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _float_of_half(context, bits):
    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _half_of_float(context, number):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def _prefetch_line(context, address):
    def generate(context, builder, signature, arguments):
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = (ir.Constant(word, number) for number in (0, 3, 1))
        builder.call(fetch, [builder.inttoptr(arguments[0], byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@njit(cache=True)
def prefetch(address, nbytes):
    """Ask for memory that is needed soon: the hardware's own prefetch ends with a page of 4 KiB."""
    for line in range(0, nbytes, 64):
        _prefetch_line(np.uintp(address + line))


@njit(cache=True)
def float_of_bf16(bits):
    return _float_of_bits(np.uint32(bits) << np.uint32(16))


@njit(cache=True)
def _bf16_of_float(number):
    bits = _bits_of_float(number)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@njit(cache=True)
def _fp8_of_float(number):
    """e4m3, to nearest even: the exponent is rebiased from 127 to 7; below 2^-6 a code is a multiple of 2^-9."""
    bits = _bits_of_float(number)
    sign = (bits >> np.uint32(24)) & np.uint32(128)
    size = min(abs(number), np.float32(448))
    bits = _bits_of_float(size)
    normal = ((bits + np.uint32(0x7FFFF) + ((bits >> np.uint32(20)) & np.uint32(1))) >> np.uint32(20)) - np.uint32(960)
    small = np.uint32(np.rint(size * np.float32(512)))
    return np.uint8(sign | (normal if size >= np.float32(2.0**-6) else small))


@njit(fastmath=FAST, cache=True)
def exp(x):
    """e^x of x ≤ 0 to 2 units in the last place, without a call, so that loops over it become vectors."""
    x = max(x, np.float32(-87))
    n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)  # ln 2 in two parts (Cephes expf)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return (p * r * r + r + np.float32(1)) * _float_of_bits(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))


@njit(fastmath=FAST, cache=True)
def hadamard(x, spare):
    """The orthonormal transform of x, in place: every stage reads halves and writes pairs, so that it vectorises."""
    half = len(x) // 2
    scale = np.float32(1 / np.sqrt(len(x)))
    width = 1
    while width < len(x):
        low, high = x[:half], x[half:]
        for i in range(half):
            spare[2 * i] = low[i] + high[i]
            spare[2 * i + 1] = low[i] - high[i]
        for i in range(len(x)):
            x[i] = spare[i]
        width *= 2
    for i in range(len(x)):
        x[i] *= scale


@njit(fastmath=FAST, cache=True)
def rotate(x, signs, spare):
    for stage in range(len(signs)):
        for i in range(len(x)):
            x[i] *= signs[stage, i]
        hadamard(x, spare)


@njit(fastmath=FAST, cache=True)
def unrotate(x, signs, spare):
    for stage in range(len(signs) - 1, -1, -1):
        hadamard(x, spare)
        for i in range(len(x)):
            x[i] *= signs[stage, i]


@njit(cache=True)
def _unpack_codes(slots, at, tokens, bits, pairs, out, first, count):
    """`count` pairs of codes of `bits` (4, 3 or 2) from byte `at` on, as pairs of float32 (uint64) from `first` on."""
    for token in range(tokens):
        if bits == 4:
            for i in range(count):
                out[token, unsigned(first + i)] = pairs[slots[token, unsigned(at + i)]]
        elif bits == 3:
            for i in range(count // 4):
                word = np.uint32(slots[token, unsigned(at + 3 * i)])
                word |= np.uint32(slots[token, unsigned(at + 3 * i + 1)]) << np.uint32(8)
                word |= np.uint32(slots[token, unsigned(at + 3 * i + 2)]) << np.uint32(16)
                for j in range(4):
                    pair = (word >> np.uint32(6 * j)) & np.uint32(63)
                    out[token, unsigned(first + 4 * i + j)] = pairs[pair]
        else:
            for i in range(count // 2):
                byte = slots[token, unsigned(at + i)]
                out[token, unsigned(first + 2 * i)] = pairs[byte & 15]
                out[token, unsigned(first + 2 * i + 1)] = pairs[byte >> 4]


@njit(fastmath=FAST, cache=True)
def unpack_tile(codec, slots, halves, at, tokens, pairs, tile, tile_pairs, scales, offsets):
    """The packed vectors of the first `tokens` slots, from byte `at` on, as rows of `tile` × scale + offset.

    `halves` are the slots' bytes as uint16, `tile_pairs` is the tile (float32) as uint64. Indices are unsigned, so that
    numba need not ask whether they count from the end, and loops become vectors.
    """
    kind, first, second, _ = codec
    dimension = tile.shape[1]
    for token in range(tokens):
        scales[token], offsets[token] = np.float32(256 if kind == FP8 else 1), np.float32(0)
    if kind == BF16:
        for token in range(tokens):
            for i in range(dimension):
                tile[token, i] = float_of_bf16(halves[token, unsigned(at // 2 + i)])
    elif kind == FP8:  # sign and magnitude are those of a half, but for the exponent's bias: 15 against 7
        for token in range(tokens):
            for i in range(dimension):
                code = np.uint16(slots[token, unsigned(at + i)])
                half = (code & np.uint16(128)) << np.uint16(8) | (code & np.uint16(127)) << np.uint16(7)
                tile[token, i] = _float_of_half(np.uint16(half))
    elif kind == Q8_0:
        for token in range(tokens):
            for block in range(dimension // GGML_BLOCK):
                start, to = at + 34 * block, GGML_BLOCK * block
                factor = _float_of_half(halves[token, unsigned(start // 2)])
                for i in range(GGML_BLOCK):
                    level = np.int8(slots[token, unsigned(start + 2 + i)])
                    tile[token, unsigned(to + i)] = np.float32(level) * factor
    elif kind == Q4_0:
        for token in range(tokens):
            for block in range(dimension // GGML_BLOCK):
                start, to = at + 18 * block, GGML_BLOCK * block
                factor = _float_of_half(halves[token, unsigned(start // 2)])
                for i in range(GGML_BLOCK // 2):
                    byte = np.int32(slots[token, unsigned(start + 2 + i)])
                    tile[token, unsigned(to + i)] = np.float32((byte & 15) - 8) * factor
                    tile[token, unsigned(to + i + 16)] = np.float32((byte >> 4) - 8) * factor
    else:
        row = UNIFORM_ROWS if kind == UNIFORM else 0
        middle, end, half = at + dimension * first // 16, at + dimension * (first + second) // 16, dimension // 4
        _unpack_codes(slots, at, tokens, first, pairs[row + first], tile_pairs, 0, half)
        _unpack_codes(slots, middle, tokens, second, pairs[row + second], tile_pairs, half, half)
        for token in range(tokens):
            scales[token] = _float_of_half(halves[token, end // 2])
            if kind == UNIFORM:
                offsets[token] = _float_of_half(halves[token, end // 2 + 1])


@njit(cache=True)
def _pack_codes(codes, bits, out):
    if bits == 4:
        for i in range(len(out)):
            out[i] = codes[2 * i] | codes[2 * i + 1] << 4
    elif bits == 3:
        for i in range(len(out) // 3):
            word = np.uint32(0)
            for j in range(8):
                word |= np.uint32(codes[8 * i + j]) << np.uint32(3 * j)
            out[3 * i], out[3 * i + 1], out[3 * i + 2] = word & 255, (word >> 8) & 255, word >> 16
    else:
        for i in range(len(out)):
            out[i] = codes[4 * i] | codes[4 * i + 1] << 2 | codes[4 * i + 2] << 4 | codes[4 * i + 3] << 6


@njit(fastmath=FAST, cache=True)
def _nearest_levels(y, inverse_norm, middles, levels, count, codes):
    """The codes of y × inverse_norm, by counting the midpoints below; returns the levels' squared norm."""
    for i in range(len(y)):
        codes[i] = 0
    for j in range(count - 1):
        middle = middles[j]
        for i in range(len(y)):
            codes[i] += np.uint8(y[i] * inverse_norm > middle)
    squared = np.float32(0)
    for i in range(len(y)):
        squared += levels[codes[i]] * levels[codes[i]]
    return squared


@njit(fastmath=FAST, cache=True)
def pack_vector(codec, x, signs, levels, middles, slot, halves, spare, codes):
    """Vector x (float32, overwritten) into its bytes `slot` (`halves` the same memory as uint16)."""
    kind, first, second, norm_correction = codec
    half = len(x) // 2
    middle, end = len(x) * first // 16, len(x) * (first + second) // 16
    if kind == BF16:
        for i in range(len(x)):
            halves[i] = _bf16_of_float(x[i])
    elif kind == FP8:
        for i in range(len(x)):
            slot[i] = _fp8_of_float(x[i])
    elif kind == Q8_0:
        for block in range(len(x) // GGML_BLOCK):
            part, data = x[GGML_BLOCK * block : GGML_BLOCK * (block + 1)], slot[34 * block + 2 : 34 * block + 34]
            largest = np.float32(0)
            for i in range(GGML_BLOCK):
                largest = max(largest, abs(part[i]))
            scale = largest / np.float32(127)
            inverse = np.float32(1) / max(scale, np.float32(1e-30))
            halves[17 * block] = _half_of_float(scale)
            for i in range(GGML_BLOCK):
                data[i] = np.uint8(np.int8(np.rint(part[i] * inverse)))
    elif kind == Q4_0:
        for block in range(len(x) // GGML_BLOCK):
            part, data = x[GGML_BLOCK * block : GGML_BLOCK * (block + 1)], slot[18 * block + 2 : 18 * block + 18]
            extreme = np.float32(0)
            for i in range(GGML_BLOCK):
                if abs(part[i]) > abs(extreme):
                    extreme = part[i]
            scale = extreme / np.float32(-8)
            inverse = np.float32(1) / scale if scale != 0 else np.float32(0)
            halves[9 * block] = _half_of_float(scale)
            for i in range(16):
                low = np.int32(part[i] * inverse + np.float32(8.5))
                high = np.int32(part[i + 16] * inverse + np.float32(8.5))
                data[i] = np.minimum(low, 15) | np.minimum(high, 15) << 4
    elif kind == UNIFORM:
        zero, highest, top = x[0], x[0], np.int32(2**first - 1)
        for i in range(len(x)):
            zero, highest = min(zero, x[i]), max(highest, x[i])
        scale = max((highest - zero) / np.float32(top), np.float32(1e-8))
        for i in range(len(x)):
            codes[i] = min(np.int32((x[i] - zero) / scale + np.float32(0.5)), top)
        _pack_codes(codes[:half], first, slot[:middle])
        _pack_codes(codes[half:], second, slot[middle:end])
        halves[end // 2], halves[end // 2 + 1] = _half_of_float(scale), _half_of_float(zero)
    elif kind == TURBO:
        squared = np.float32(0)
        for i in range(len(x)):
            squared += x[i] * x[i]
        norm = np.sqrt(squared)
        inverse = np.float32(1) / max(norm, np.float32(1e-30))
        rotate(x, signs, spare)
        squared = _nearest_levels(x[:half], inverse, middles[first], levels[first], 2**first, codes[:half])
        squared += _nearest_levels(x[half:], inverse, middles[second], levels[second], 2**second, codes[half:])
        _pack_codes(codes[:half], first, slot[:middle])
        _pack_codes(codes[half:], second, slot[middle:end])
        halves[end // 2] = _half_of_float(norm / np.sqrt(squared) if norm_correction else norm)
