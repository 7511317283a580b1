"""What of a prompt others may share: chains of runs, from the first token on."""

from capsim.workload.sessions import Prefix, shared_tokens

RUN_TOKENS = 512
"""No run is longer, so that a cache short of room drops a context in parts."""
SHORT_RUN_TOKENS = 64
"""Of what is shared, where prompts end inside of it."""
GLOBAL_KEY = -1
SUMMARIES = 1 << 16

Run = tuple[int, int]
"""A stretch of a context: a key that stands for all its tokens from the first on, and where the stretch ends."""


def stretch(key: int, start: int, end: int, run_tokens: int = RUN_TOKENS) -> list[Run]:
    """Runs of one key from ``start`` to ``end``."""
    runs = [(key, stop) for stop in range(start + run_tokens, end, run_tokens)]
    if end > start:
        runs.append((key, end))
    return runs


def held_tokens(prefix: Prefix, prompt_tokens: int) -> int:
    """How many leading tokens of a prompt others share."""
    return min(shared_tokens(prefix), prompt_tokens)


class Context:
    """The runs of one session's prompts. A summary begins anew after what others share.

    Prompts that end inside of it share their runs of ``shared_run_tokens``, and the rest with prompts as long.
    """

    def __init__(self, prefix: Prefix, group: int, session: int, shared_run_tokens: int = RUN_TOKENS) -> None:
        self._prefix = prefix
        self._group = group
        self._session = session
        self._shared_run_tokens = shared_run_tokens
        self._summaries = -1
        self._runs: list[Run] = []

    def chain(self, prompt_tokens: int, output_tokens: int, summaries: int) -> tuple[Run, ...]:
        """Runs of the next request, its answer included, after so many summaries; a retry asks for the same again."""
        self.grow(prompt_tokens, output_tokens, summaries)
        return self.runs

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of the context as it is now."""
        return tuple(self._runs)

    def grow(self, prompt_tokens: int, output_tokens: int, summaries: int) -> None:
        """Take a request into the context."""
        if summaries != self._summaries:
            self._summaries = summaries
            self._runs = self._head(prompt_tokens)
        if self._prefix.session:
            end = self._runs[-1][1] if self._runs else 0
            self._runs += stretch(self._session * SUMMARIES + summaries, end, prompt_tokens + output_tokens)

    def _head(self, prompt_tokens: int) -> list[Run]:
        """The runs that a prompt shares with others: the global ones, then those of its group."""
        for_all = min(self._prefix.global_tokens, prompt_tokens)
        all_shared = held_tokens(self._prefix, prompt_tokens)
        runs = stretch(GLOBAL_KEY, 0, for_all, self._shared_run_tokens)
        return runs + stretch(GLOBAL_KEY - 1 - self._group, for_all, all_shared, self._shared_run_tokens)
