"""A measured kernel in the place of one that was not: the same utilisation at another shape or on another device.

Latency = roofline / utilisation, with the utilisation of the nearest measured shape at the same sizes; so a time is the
measured one by the ratio of the two rooflines: the call, which takes as long whatever it does, and bytes at full
bandwidth and arithmetic at full rate.
"""

from collections.abc import Iterable, Mapping
from math import log

from capsim.hardware import Device, Precision
from capsim.kernel_tables import AXES, KernelTable, Polyline, Surface, Work, ideal_s, work
from capsim.kernel_tables.work import precision_of

Shape = dict[str, float]


class Carried:
    """``count`` kernels of ``shape`` on ``device``, by a table that was ``measured_on`` another or the same."""

    def __init__(
        self,
        table: KernelTable,
        shape: Shape,
        measured_on: Device,
        device: Device,
        precision: Precision = "bf16",
        count: float = 1.0,
    ) -> None:
        self.table = table
        self.domain = table.domain
        self._surface = Surface(table)
        self._shape, self._measured_on, self._device, self._precision = shape, measured_on, device, precision
        self._count = count
        self._outer, self._inner = AXES[table.op]
        self._call_s = self._call()
        self._known: dict[float, tuple[float, float]] = {}
        self._lines: dict[float, Polyline] = {}

    def seconds(self, size: float) -> tuple[float, float]:
        """Seconds at a size, and the share of them that is moving bytes; for kernels of one size."""
        if size not in self._known:
            done = self._work(size, 1.0)
            ideal = ideal_s(done, self._device, self._precision)
            moving = ideal_s(Work(done.bytes, 0.0), self._device, self._precision) / ideal
            self._known[size] = self._surface.seconds(size) * self._ratio(size, 1.0), moving
        return self._known[size]

    def along_context(self, at: float) -> Polyline:
        """Seconds over context of ``at`` sequences or new tokens."""
        if at not in self._lines:
            self._lines[at] = self._surface.line(at).scaled(lambda size: self._ratio(size, at))
        return self._lines[at]

    def longest_context(self, at: float) -> float:
        """The longest context that was measured at or around that many sequences."""
        return self._surface.last_size(at)

    @property
    def is_exact(self) -> bool:
        """Whether the very shape was measured on the very device."""
        sizes = [(1024.0, 1.0), (1024.0, 64.0)] if self._outer else [(1.0, 1.0), (1024.0, 1.0)]
        return all(abs(self._ratio(size, at) / self._count - 1) < 1e-6 for size, at in sizes)

    def _work(self, size: float, at: float) -> Work:
        return work(self.table.op, {**self._shape, self._inner: size, **({self._outer: at} if self._outer else {})})

    def _ratio(self, size: float, at: float) -> float:
        wanted_s = ideal_s(self._work(size, at), self._device, self._precision)
        return self._count * (self._call_s + wanted_s) / (self._call_s + self._measured_ideal_s(size, at))

    def _measured_ideal_s(self, size: float, at: float) -> float:
        """The roofline of the measured shape where it was measured."""
        sizes = {self._inner: size, **({self._outer: at} if self._outer else {})}
        measured = work(self.table.op, {**self.table.shape, **sizes})
        precision = precision_of(str(self.table.shape.get("weight_format", "bf16")), self._measured_on)
        return ideal_s(measured, self._measured_on, precision)

    def _call(self) -> float:
        """The fitted seconds of a call, but never more than the shortest measured time leaves beside its roofline."""
        points = [(t, size, c.at) for c in self.table.curves for size, t in zip(c.sizes, c.seconds, strict=True)]
        seconds, size, at = min(points)
        return max(0.0, min(self.table.fit.call_s, seconds - self._measured_ideal_s(size, at)))


def nearest(
    tables: Iterable[KernelTable], op: str, shape: Shape, formats: Mapping[str, tuple[str, ...]]
) -> KernelTable | None:
    """The table of ``op`` in the first of ``formats`` that there is, and among those the nearest in shape.

    A table whose shape has a key that the kernel has not, such as a window, is of another kind.
    """
    keys = {*shape, *formats}
    found = [
        (rank, _distance(table, shape), table)
        for table in tables
        if table.op == op and keys.issuperset(table.shape) and (rank := _rank(table, formats)) is not None
    ]
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _rank(table: KernelTable, formats: Mapping[str, tuple[str, ...]]) -> int | None:
    """The place of a table's format among those that would do; None if it is none of them."""
    ranks = [wanted.index(name) for key, wanted in formats.items() if (name := str(table.shape.get(key))) in wanted]
    return sum(ranks) if len(ranks) == len(formats) else None


def _distance(table: KernelTable, shape: Shape) -> float:
    """Octaves and their like between two shapes, over the sizes that both name."""
    pairs = [(value, shape[key]) for key, value in table.shape.items() if key in shape]
    return sum(abs(log(float(a) / float(b))) for a, b in pairs if float(a) > 0 and float(b) > 0)
