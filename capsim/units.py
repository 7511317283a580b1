"""Units at the edge: parse ``3.35 TB/s`` into SI floats, print SI floats for people.

Inside capsim every quantity is an SI float whose name ends in its unit (``_s``, ``_bytes``, ``_usd``).
Decimal prefixes are powers of ten, ``Ki``/``Mi``/``Gi``/``Ti`` powers of 1024.
"""

import re

_PREFIX = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "P": 1e15, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
_TIME = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"^\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*$")
_PREFIXED_UNITS = {"bytes": ("B",), "bytes_per_s": ("B/s",), "flops": ("FLOP/s", "FLOPS"), "w": ("W",)}
_EXAMPLE = {
    "s": "'50 ms'",
    "bytes": "'80 GiB'",
    "bytes_per_s": "'3.35 TB/s'",
    "flops": "'989 TFLOP/s'",
    "w": "'700 W'",
}


def parse(value: float | int | str, unit: str) -> float:
    """Return ``value`` as an SI float.

    Parameters
    ----------
    value
        A number, already in SI, or a text such as ``"3.35 TB/s"``.
    unit
        What is expected: ``s``, ``bytes``, ``bytes_per_s``, ``flops`` or ``w``.

    Raises
    ------
    ValueError
        The text is not a number with that unit.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a quantity such as {_EXAMPLE[unit]}, got {value}")
    if isinstance(value, (int, float)):
        return float(str(value))  # a whole number beyond the floats is infinite, and refused as such
    match = _NUMBER.match(value)
    scale = _scale(match.group(2), unit) if match else None
    if match is None or scale is None:
        raise ValueError(f"expected a quantity such as {_EXAMPLE[unit]}, got '{value}'")
    return float(match.group(1).replace("_", "")) * scale


def _scale(suffix: str, unit: str) -> float | None:
    if suffix == "":
        return 1.0
    if unit == "s":
        return _TIME.get(suffix)
    for base in _PREFIXED_UNITS[unit]:
        if suffix.endswith(base) and suffix.removesuffix(base) in _PREFIX:
            return _PREFIX[suffix.removesuffix(base)]
    return None


def _scaled(value: float, digits: int, steps: list[tuple[float, str]]) -> str:
    rounded = float(f"{value:.{digits}g}")
    scale, name = next(((s, n) for s, n in steps if abs(rounded) >= s), steps[-1])
    return f"{value / scale:.{digits}g} {name}"


def seconds(value_s: float) -> str:
    """``0.0123`` → ``12.3 ms``."""
    if value_s == 0:
        return "0 s"
    return f"{value_s:,.0f} s" if value_s >= 999.5 else _scaled(value_s, 3, [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")])


def bytes_(value_bytes: float) -> str:
    """``8.59e10`` → ``80 GiB``: binary prefixes, as GPU tools print memory."""
    steps = [(2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")]
    return _scaled(value_bytes, 4, steps)


def count(value: float) -> str:
    """``1234567`` → ``1.23 M``; exact below ten thousand."""
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
    return _scaled(value, 3, [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")])


def usd(value_usd: float) -> str:
    """``17228`` → ``$17,228``; cents below a hundred dollars."""
    return f"${value_usd:,.0f}" if abs(value_usd) >= 100 else f"${value_usd:,.2f}"
