"""Every metric a user sees: its label, its unit and what it means."""

from typing import NamedTuple


class Metric(NamedTuple):
    label: str
    unit: str
    definition: str


METRICS = {
    "ttft_s": Metric("TTFT", "s", "first token - first try, queueing and waits before retries included"),
    "tpot_s": Metric("TPOT", "s", "(E2E - TTFT) / (output tokens - 1), per request; no TTFT in it"),
    "itl_s": Metric("ITL", "s", "gap between two tokens of one answer, over all gaps"),
    "e2e_s": Metric("E2E", "s", "last token - first try"),
    "queue_s": Metric("Queue", "s", "first scheduled - arrival"),
    "goodput": Metric(
        "Goodput", "", "requests inside every SLO threshold / offered, a retry being part of its first try"
    ),
    "attached": Metric("attached", "sessions", "chats that are open, thinking users included"),
    "cached": Metric("cached", "sessions", "sessions whose KV is resident in accelerator memory"),
    "in_flight": Metric("in flight", "sessions", "requests in the running batch"),
    "utilisation": Metric("Utilisation", "", "throughput / closed-form throughput at saturation"),
    "busy_fraction": Metric("Busy", "", "share of time in which a step runs; near 1 from about half load on"),
    "step_time_share": Metric("Step time", "", "share of busy time by component"),
    "binds": Metric("What binds", "", "the resource whose relaxing by 10 % lifts capacity most"),
}
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
