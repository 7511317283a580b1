"""What of a prompt others may share: chains of runs, from the first token on."""

from capsim.workload.sessions import Prefix

RUN_TOKENS = 512
"""No run is longer, so that a cache short of room drops a context in parts."""
GLOBAL_KEY = -1
SUMMARIES = 1 << 16

Run = tuple[int, int]
"""A stretch of a context: a key that stands for all its tokens from the first on, and where the stretch ends."""


def head(prefix: Prefix, group: int) -> tuple[Run, ...]:
    """The runs that a session shares with others: the global ones, then those of its group."""
    ends = prefix.global_tokens
    runs = stretch(GLOBAL_KEY, 0, ends)
    if prefix.groups is not None:
        runs += stretch(GLOBAL_KEY - 1 - group, ends, ends + prefix.groups.tokens)
    return tuple(runs)


def stretch(key: int, start: int, end: int) -> list[Run]:
    """Runs of one key from ``start`` to ``end``."""
    return [(key, min(stop, end)) for stop in range(start + RUN_TOKENS, end + RUN_TOKENS, RUN_TOKENS)]


class Context:
    """The runs of one session's prompts. A summary begins anew after what others share."""

    def __init__(self, shared: tuple[Run, ...], session: int | None) -> None:
        self._shared = shared
        self._session = session
        self._summaries = -1
        self._runs: list[Run] = []

    def chain(self, prompt_tokens: int, output_tokens: int, summaries: int) -> tuple[Run, ...]:
        """Runs of the next request, its answer included, after so many summaries; a retry asks for the same again."""
        if summaries != self._summaries:
            self._summaries = summaries
            self._runs = [run for run in self._shared if run[1] <= prompt_tokens]
        if self._session is not None:
            end = self._runs[-1][1] if self._runs else 0
            self._runs += stretch(self._session * SUMMARIES + summaries, end, prompt_tokens + output_tokens)
        return tuple(self._runs)
