"""A run as one HTML page that opens offline: its tables, its charts, and what they rest on."""

from html import escape

from capsim.charts import embed
from capsim.charts import run as charts
from capsim.metrics import curves
from capsim.store import Saved

SHOWN = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
Rows = list[list[str]]
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
.note { border-left: 4px solid #E69F00; padding: .25rem .75rem; margin: .5rem 0; }
.chart { width: 100%; min-height: 10rem; margin: 1.5rem 0; }
@media print { body { margin: 0; max-width: none; } .chart, table { break-inside: avoid; } }
"""


def page(saved: Saved, blocks: list[Rows], notes: list[str]) -> str:
    """The page of a run, its tables given as rows of text; the first replication is the one drawn over time."""
    run, scenario = saved.summary["run"], saved.summary["scenario"]["scenario"]
    title = scenario.get("name") or f"{scenario['model']} on {scenario['node']}"
    drawn = _charts(saved)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(scenario.get('description', ''))}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        *(_table(rows) for rows in blocks if rows),
        "<h2>Charts</h2>",
        *(
            f'<div class="chart" id="{name}" role="img" aria-label="{escape(text)}"></div>'
            for name, text in ALT.items()
        ),
        f"<p>capsim {escape(run['version'])}, run {escape(run['id'])}, seed {run['seed']}</p>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            *body,
            f'<script type="module">{embed.script()}\n{embed.drawn(drawn)}</script>',
            "</body></html>",
            "",
        ]
    )


ALT = {
    "latencies": "Share of requests by how long they took, for each latency",
    "occupancy": "Share of KV blocks in use over simulated time",
    "batch": "Requests running and waiting over simulated time",
    "steps": "Share of busy time by component of a step",
}


def _charts(saved: Saved) -> dict[str, object]:
    first = saved.replications["replication"].iloc[0]
    segments = saved.segments()
    resolved = saved.summary["scenario"]["resolved"]
    layout, nodes = resolved["parallelism"], saved.summary["scenario"]["scenario"].get("nodes", 1)
    over_time = curves.timeline(
        segments[segments["replication"] == first], resolved["memory"]["blocks"], layout["dp"] * nodes
    )  # fmt: skip
    warmup_s = float(saved.replications["start_s"].iloc[0])
    return {
        "latencies": charts.latencies(curves.latency_curves(saved.requests(), SHOWN)),
        "occupancy": charts.occupancy(over_time, warmup_s),
        "batch": charts.batch(over_time, warmup_s),
        "steps": charts.step_time(curves.component_shares(saved.summary["step_time_share"])),
    }


def _table(rows: Rows) -> str:
    """Rows of text as a table; the first row is its head where it has more than two columns."""
    head, body = (rows[0], rows[1:]) if max(map(len, rows)) > 2 else ([], rows)
    top = f"<tr>{''.join(f'<th scope=col>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f"<table>{top}{lines}</table>"
