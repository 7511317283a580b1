"""A measured kernel in the place of one that was not: the same utilisation at another shape or on another device.

Latency = roofline / utilisation, with the utilisation of the nearest measured shape at the same sizes; so a time is the
measured one by the ratio of the two rooflines (bytes at full bandwidth plus arithmetic at full rate).
"""

from collections.abc import Iterable, Mapping
from math import log

from capsim.hardware import Device, Precision
from capsim.kernel_tables import AXES, KernelTable, Polyline, Surface, Work, ideal_s, work
from capsim.kernel_tables.work import precision_of

Shape = dict[str, float]
LIKE_CONTEXT, LIKE_SEQUENCES = 4096.0, 1.0  # where the ratio of two attention kernels is taken: it hardly depends on it


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
        self._factor = self._ratio(LIKE_CONTEXT, LIKE_SEQUENCES) if self._outer else 0.0
        self._known: dict[float, tuple[float, float]] = {}

    def seconds(self, size: float) -> tuple[float, float]:
        """Seconds at a size, and the share of them that is moving bytes; for kernels of one size."""
        if size not in self._known:
            done = self._work(size, 1.0)
            ideal = ideal_s(done, self._device, self._precision)
            moving = ideal_s(Work(done.bytes, 0.0), self._device, self._precision) / ideal
            self._known[size] = self._surface.seconds(size) * self._ratio(size, 1.0), moving
        return self._known[size]

    def along_context(self, at: float) -> tuple[Polyline, float]:
        """Seconds over context of ``at`` sequences or new tokens, but for the factor that comes with them."""
        return self._surface.line(at), self._factor

    def longest_context(self, at: float) -> float:
        """The longest context that was measured at or around that many sequences."""
        return self._surface.last_size(at)

    @property
    def is_exact(self) -> bool:
        """Whether the very shape was measured on the very device."""
        sizes = [LIKE_CONTEXT] if self._outer else [1.0, 1024.0]
        return all(abs(self._ratio(size, LIKE_SEQUENCES) / self._count - 1) < 1e-6 for size in sizes)

    def _work(self, size: float, at: float) -> Work:
        return work(self.table.op, {**self._shape, self._inner: size, **({self._outer: at} if self._outer else {})})

    def _ratio(self, size: float, at: float) -> float:
        sizes = {self._inner: size, **({self._outer: at} if self._outer else {})}
        measured = work(self.table.op, {**self.table.shape, **sizes})
        precision = precision_of(str(self.table.shape.get("weight_format", "bf16")))
        wanted_s = ideal_s(self._work(size, at), self._device, self._precision)
        return self._count * wanted_s / ideal_s(measured, self._measured_on, precision)


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
