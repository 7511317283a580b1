"""What a run shows while it measures and when it ends: a line for each kernel and format, and what was skipped."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Row = dict[str, object]
_FORMATS = ("kv_format", "weight_format")
_SIZES = (
    "sequences", "new_tokens", "context_tokens", "tokens", "active_experts", "bytes", "devices", "in_features",
    "out_features",
)  # fmt: skip
_LINE = "{:<20} {:>6}  {:<21} {:>7} {:>5} {:>5} {:>7}"  # 78 columns: the narrowest terminal that is common


class Card:
    """Rows as they come; `live` is what fits a screen, `line` what fits a log, `whole` everything."""

    def __init__(self, header: Row, budget_s: float) -> None:
        self._title = f"{header['device']}, {header['source']}"
        self._budget_s = budget_s
        self._kernels: dict[tuple[str, str, str], list[Row]] = {}
        self._skipped: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %, left"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._progress.add_task("measuring", total=budget_s)

    def add(self, row: Row) -> None:
        shape = row["shape"]
        assert isinstance(shape, dict)
        key = str(row["op"]), str(row["kernel"]), next((str(shape[name]) for name in _FORMATS if name in shape), "")
        self._kernels[key] = [*self._kernels.pop(key, []), row]  # the latest is last

    def skip(self, what: str, why: str) -> None:
        line = f"{what.split(' {')[0]}: {why}"
        self._skipped[line] = self._skipped.get(line, 0) + 1

    def live(self, elapsed_s: float, lines: int) -> RenderableType:
        self._progress.update(self._task, completed=elapsed_s)
        latest = list(self._kernels)[-lines:]
        return Group(*self._head(), *list(self._lines(latest))[-lines:], self._progress)

    def line(self, elapsed_s: float) -> str:
        """How far it is, and what was measured last."""
        points = sum(map(len, self._kernels.values()))
        latest = ", ".join(filter(None, next(reversed(self._kernels), ("starting",))))
        left_s = max(0.0, self._budget_s - elapsed_s)
        return f"measuring: {elapsed_s:.0f} s, at most {left_s:.0f} s left, {points} points; {latest}"

    def whole(self) -> RenderableType:
        skipped = (f"skipped {line}" + f" ({count} cases)" * (count > 1) for line, count in self._skipped.items())
        return Group(*self._head(), *self._lines(sorted(self._kernels)), *skipped)

    def _head(self) -> Iterator[Text]:
        yield _text(self._title)
        yield _text(_LINE.format("", "points", "at the slowest", "median", "IQR", "GB/s", "GFLOP/s"))

    def _lines(self, kernels: list[tuple[str, str, str]]) -> Iterator[Text]:
        """A line for each operation and kernel with the names of its sizes, and under it one for each format."""
        before: tuple[str, ...] = ()
        for key in kernels:
            if key[:2] != before:
                before = key[:2]
                yield _text(f"{key[0]}, {key[1]}: {_sizes(self._kernels[key][0]['shape'])}")
            rows = self._kernels[key]
            yield _text(_LINE.format(f"  {key[2]}", len(rows), *_figures(max(rows, key=_median_s))))


def _text(line: str) -> Text:
    return Text(line.rstrip(), no_wrap=True, overflow="ellipsis")


def _median_s(row: Row) -> float:
    return float(str(row["median_s"]))


def _figures(row: Row) -> list[str]:
    shape, median_s, iqr_s = row["shape"], _median_s(row), float(str(row["iqr_s"]))
    assert isinstance(shape, dict)
    rates = [float(str(row[work])) / median_s / 1e9 for work in ("bytes", "flops")]
    sizes = " × ".join(str(shape[key]) for key in _SIZES if key in shape)
    return [sizes, _time(median_s), f"{iqr_s / median_s:.1%}", *(f"{rate:.3g}" if rate else "" for rate in rates)]


def _sizes(shape: object) -> str:
    """The sizes that vary, by name: `sequences × context tokens`."""
    assert isinstance(shape, dict)
    return " × ".join(key.replace("_", " ") for key in _SIZES if key in shape)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
