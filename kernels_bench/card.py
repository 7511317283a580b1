"""What a run shows while it measures and when it ends: one row for each kernel and format, and what was skipped."""

from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Row = dict[str, object]
_FORMATS = ("kv_format", "weight_format")
_SIZES = (
    "sequences", "new_tokens", "context_tokens", "tokens", "active_experts", "bytes", "devices", "in_features",
    "out_features",
)  # fmt: skip


class Card:
    """Rows as they come; `live` is what fits a screen, `whole` everything."""

    def __init__(self, header: Row, budget_s: float) -> None:
        self._title = f"{header['device']}, {header['source']}"
        self._kernels: dict[tuple[str, ...], list[Row]] = {}
        self._skipped: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %, left"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._progress.add_task("measuring", total=budget_s)

    def add(self, row: Row) -> None:
        shape = row["shape"]
        assert isinstance(shape, dict)
        formats = [str(shape[key]) for key in _FORMATS if key in shape]
        key = (str(row["op"]), str(row["kernel"]), *formats)
        self._kernels[key] = [*self._kernels.pop(key, []), row]  # the latest is last

    def skip(self, what: str, why: str) -> None:
        line = f"{what.split(' {')[0]}: {why}"
        self._skipped[line] = self._skipped.get(line, 0) + 1

    def live(self, elapsed_s: float, rows: int) -> RenderableType:
        self._progress.update(self._task, completed=elapsed_s)
        return Group(self._table(list(self._kernels)[-rows:]), self._progress)

    def whole(self) -> RenderableType:
        skipped = (f"skipped {line}" + f" ({count} cases)" * (count > 1) for line, count in self._skipped.items())
        return Group(self._table(sorted(self._kernels)), *skipped)

    def _table(self, kernels: list[tuple[str, ...]]) -> Table:
        table = Table(title=self._title, title_justify="left", box=None, padding=(0, 1))
        table.add_column("operation")
        table.add_column("kernel")
        table.add_column("format")
        for name in ("points", "largest shape", "median", "IQR", "GB/s", "GFLOP/s"):
            table.add_column(name, justify="left" if name == "largest shape" else "right", no_wrap=True)
        for key in kernels:
            rows = self._kernels[key]
            table.add_row(*(*key, "")[:3], str(len(rows)), *_figures(max(rows, key=_median_s)))
        return table


def _median_s(row: Row) -> float:
    return float(str(row["median_s"]))


def _figures(row: Row) -> list[str]:
    median_s, iqr_s = _median_s(row), float(str(row["iqr_s"]))
    rates = [float(str(row[work])) / median_s / 1e9 for work in ("bytes", "flops")]
    figures = [_shape(row["shape"]), _time(median_s), f"{iqr_s / median_s:.1%}"]
    return figures + [f"{rate:.3g}" if rate else "" for rate in rates]


def _shape(shape: object) -> str:
    """The sizes that vary: `4 sequences, 4096 context tokens`."""
    assert isinstance(shape, dict)
    return ", ".join(f"{shape[key]} {key.replace('_', ' ')}" for key in _SIZES if key in shape)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
