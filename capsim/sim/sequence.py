"""A request inside the cluster: what the client asked for, where it stands, and what has happened to it so far."""

from collections.abc import Callable

from capsim.workload.requests import Request

NEVER = float("nan")
OnEnd = Callable[["Sequence"], None]
QUEUE_FULL, IN_FLIGHT_CAP = "queue full", "in-flight cap"
ABANDONED = "abandoned"
BUSY = (QUEUE_FULL, IN_FLIGHT_CAP)
"""Why a request is turned away that might be served later."""


class Sequence:
    """One request. Times are simulated seconds, NaN until they happen.

    ``known_tokens`` are those of the prompt and of the answer so far, ``computed_tokens`` those whose KV is there;
    while a sequence decodes its replica counts for it, and both stand still.
    ``ask`` is the number of the first try of what it asks for, its own but for a retry, and ``asked_s`` that one's
    arrival. ``finished_s`` is when it had its last token, or when its client gave up. ``stalls_s`` are the gaps
    between two of its tokens that a preemption made longer than a step, ``think_s`` its client's pause after it, or
    wait before it is sent again. The true ``output_tokens`` is for the node that counts tokens; queues, schedulers and
    routers see ``max_tokens``. ``ticket`` orders the running sequences of a replica by admission; ``base`` is the
    context less the replica's clock while the sequence decodes, and ``pieces`` what it adds to the sums that its
    replica keeps. It holds the first ``runs`` runs of its ``prefix`` in the cache, ``shared_blocks`` in all; where KV
    was loaded for it, ``loads`` blocks of each tier that are there from ``ready_s`` on, it holds the blocks of
    ``secured_tokens`` of its context from the start. ``loaded_tokens`` are those of ``cached_tokens`` that were loaded.
    ``on_end`` is told when it has ended.
    """

    __slots__ = (
        "arrival_s", "ask", "asked_s", "base", "cached_tokens", "computed_tokens", "decoding", "enqueued_s",
        "finished_s", "first_scheduled_s", "first_token_s", "known_tokens", "last_token_s", "loaded_tokens", "loads",
        "max_tokens", "node", "on_end", "outcome", "output_tokens", "pieces", "preemptions", "prefix", "prompt_tokens",
        "rank", "ready_s", "reason", "request", "runs", "secured_tokens", "session", "settled", "shared_blocks",
        "stalls_s", "think_s", "ticket", "turn",
    )  # fmt: skip

    base: int
    loads: list[int]
    pieces: list[tuple[int, int]]
    ready_s: float
    settled: bool
    ticket: int

    def __init__(
        self, number: int, session: int, turn: int, request: Request, arrival_s: float, on_end: OnEnd | None = None
    ) -> None:
        self.request = self.ask = number
        self.session = session
        self.turn = turn
        self.prompt_tokens, self.output_tokens, self.max_tokens, self.think_s, self.prefix = request
        self.arrival_s = self.asked_s = arrival_s
        self.on_end = on_end
        self.enqueued_s = self.first_scheduled_s = self.first_token_s = NEVER
        self.last_token_s = self.finished_s = NEVER
        self.node = self.rank = -1
        self.known_tokens = self.prompt_tokens
        self.computed_tokens = self.cached_tokens = self.loaded_tokens = self.secured_tokens = self.preemptions = 0
        self.runs = self.shared_blocks = 0
        self.stalls_s: list[float] = []
        self.outcome, self.reason = "unfinished", ""
        self.decoding = False

    @property
    def generated_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self.known_tokens - self.prompt_tokens
