"""Kernel tables as lines of text: small, and to be read by people.

Tables that share an operation, a kernel, formats and what else of their shape is alike follow a line of these::

    [gemm] vllm 0.24.0; in_features out_features; weight_bytes=2 weight_format=bf16
    4096 4096; 3.1e-06 4.2e-13 1.3e-15; 1 16 7.52 512 21.4
    <shape>; <call_s byte_s flop_s>; <at, then size and microseconds in turn>; <the next curve>
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from capsim.kernel_tables import Curve, KernelTable, SumRoofline

US = 1e-6
TIME_DIGITS = 3  # half a unit of the third is a quarter of a percent, less than a kernel varies from run to run
FIT_DIGITS = 4


def table_lines(tables: Iterable[KernelTable]) -> Iterator[str]:
    """Lines of tables, in an order of their own."""
    ordered = sorted(tables, key=lambda table: (_kind(table), _sizes(table)))
    for kind, group in groupby(ordered, key=_kind):
        alike = list(group)
        shared = set.intersection(*(set(table.shape.items()) for table in alike))
        names = sorted(set(alike[0].shape) - {name for name, _ in shared})
        op, kernel, _ = kind
        told = " ".join(f"{name}={_plain(value)}" for name, value in sorted(shared))
        yield f"[{op}] {kernel}; {' '.join(names)}; {told}"
        for table in alike:
            shape = " ".join(_plain(table.shape[name]) for name in names)
            fit = " ".join(_few(value, FIT_DIGITS) for value in (table.fit.call_s, table.fit.byte_s, table.fit.flop_s))
            yield "; ".join([shape, fit, *map(_curve, table.curves)])


def tables_of_lines(lines: Iterable[str]) -> Iterator[KernelTable]:
    """The tables of such lines."""
    op = kernel = ""
    names: list[str] = []
    shared: dict[str, float | str] = {}
    for line in lines:
        first, second, *rest = line.split("; ")
        if line.startswith("["):
            op, kernel = first[1:].split("] ", 1)
            names = second.split()
            shared = dict(_pair(pair) for pair in rest[0].split())
            continue
        shape = dict(zip(names, map(float, first.split()), strict=True))
        call_s, byte_s, flop_s = map(float, second.split())
        yield KernelTable(
            op=op, kernel=kernel, shape={**shared, **shape}, curves=tuple(map(_curve_of, rest)),
            fit=SumRoofline(call_s=call_s, byte_s=byte_s, flop_s=flop_s),
        )  # fmt: skip


def _kind(table: KernelTable) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    named = sorted((key, value) for key, value in table.shape.items() if isinstance(value, str))
    return table.op, table.kernel, tuple(named)


def _sizes(table: KernelTable) -> list[tuple[str, float]]:
    return sorted((key, value) for key, value in table.shape.items() if not isinstance(value, str))


def _curve(curve: Curve) -> str:
    points = [f"{_plain(x)} {_few(t / US, TIME_DIGITS)}" for x, t in zip(curve.sizes, curve.seconds, strict=True)]
    return " ".join([_plain(curve.at), *points])


def _curve_of(text: str) -> Curve:
    at, *points = map(float, text.split())
    return Curve(at=at, sizes=tuple(points[::2]), seconds=tuple(us * US for us in points[1::2]))


def _pair(text: str) -> tuple[str, float | str]:
    name, value = text.split("=")
    return name, value if name.endswith("_format") else float(value)


def _plain(value: Any) -> str:
    """A whole number without a point, any other number in full."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _few(value: float, digits: int) -> str:
    return f"{float(f'{value:.{digits}g}'):g}"
