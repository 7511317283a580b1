"""Sessions drawn whole: every attribute of request ``r`` of session ``s`` is row (r, s) of its own random stream."""

from collections.abc import Iterator
from itertools import accumulate, count
from math import inf
from operator import add
from typing import NamedTuple

import numpy as np

from capsim.workload.distributions import Constant, Distribution, draw_tokens
from capsim.workload.sessions import Prefix, Session, shared_tokens
from capsim.workload.spec import Workload
from capsim.workload.streams import stream

TOGETHER = 64
PARTS = 500
MAX_REQUESTS = 10_000
"""Of one session, however long its draws make it."""
SAMPLE_SESSIONS = 64
"""No sample has fewer."""
_ONE = Constant(kind="constant", value=1)
ONE_REQUEST = Session(turns=_ONE, new_tokens=_ONE)


class Longest(NamedTuple):
    """What a server takes: tokens of a prompt, and of a prompt with the longest answer that its client allows."""

    prompt_tokens: float = inf
    tokens: float = inf

    def takes(self, prompt_tokens: int, max_tokens: int) -> bool:
        return prompt_tokens <= self.prompt_tokens and prompt_tokens + max_tokens <= self.tokens


ANY = Longest()


class Chat(NamedTuple):
    """One session: lists with a value for each of its requests, of which the server takes the first ``served``.

    ``turn`` is the person's, from 0: requests that tools make are of the same. ``pause_s`` follows a request; after the
    last it is the user's, before another session. ``summaries`` counts those of its context by then, ``patience_s`` is
    infinite where nobody gives up.
    """

    prompt_tokens: list[int]
    output_tokens: list[int]
    pause_s: list[float]
    patience_s: list[float]
    summaries: list[int]
    group: int
    served: int
    turn: list[int]

    def first(self, requests: int) -> "Chat":
        """The session as if it had so many requests."""
        return self._replace(
            prompt_tokens=self.prompt_tokens[:requests], output_tokens=self.output_tokens[:requests],
            pause_s=self.pause_s[:requests], patience_s=self.patience_s[:requests],
            summaries=self.summaries[:requests], served=min(self.served, requests), turn=self.turn[:requests],
        )  # fmt: skip


def sample(
    workload: Workload, requests: int, longest: Longest = ANY, seed: int = 0, replication: int = 0, where: str = ""
) -> list[Chat]:
    """Some whole sessions, of about so many requests in all."""
    drawn: list[Chat] = []
    for chat in draw(workload, longest, seed, replication, where):
        drawn.append(chat)
        requests -= len(chat.prompt_tokens)
        if requests <= 0 and len(drawn) >= SAMPLE_SESSIONS:
            return drawn
    raise AssertionError("sessions ended")


def requests(workload: Workload) -> np.ndarray:
    """How many each of many sessions has, shape (sessions,): a few long ones may have most of them."""
    if workload.session is None:
        return np.ones(1)
    parts = (_Part(workload, ANY, 0, 0, f"session {{}}/{part}") for part in range(PARTS))
    return np.array([len(rounds) for part in parts for rounds in part.rounds()])


def tokens(some: list[Chat]) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of all their requests, shape (n,) each."""
    return np.concatenate([c.prompt_tokens for c in some]), np.concatenate([c.output_tokens for c in some])


def reused_tokens(chat: Chat, prefix: Prefix) -> list[int]:
    """Of each prompt, what a cache that forgets nothing holds: the last context, or what others share."""
    shared = shared_tokens(prefix)
    reused = []
    for request, prompt in enumerate(chat.prompt_tokens):
        grown = request and prefix.session and chat.summaries[request] == chat.summaries[request - 1]
        last = chat.prompt_tokens[request - 1] + chat.output_tokens[request - 1] - 1 if grown else 0
        reused.append(min(prompt - 1, max(last, shared)))
    return reused


def draw(workload: Workload, longest: Longest, seed: int, replication: int, where: str) -> Iterator[Chat]:
    """Sessions without end, each up to the first request that is too long for the server."""
    for part in count():
        yield from _Part(workload, longest, seed, replication, f"{where}session {{}}/{part}").chats()


class _Part:
    """``TOGETHER`` sessions, whose streams are theirs alone: a longer one takes more rows and shifts nobody's."""

    def __init__(self, workload: Workload, longest: Longest, seed: int, replication: int, streams: str) -> None:
        self._workload = workload
        self._longest = longest
        self._session = workload.session or ONE_REQUEST
        self._stream = lambda purpose: stream(seed, replication, streams.format(purpose))

    def chats(self) -> list[Chat]:
        workload, session = self._workload, self._session
        assert workload.prompt_tokens is not None
        assert workload.output_tokens is not None
        rounds = self.rounds()
        rows = max(map(len, rounds))
        first, groups = self._tokens("first prompt", workload.prompt_tokens, 1)[0].tolist(), self._groups()
        new = self._tokens("new", session.new_tokens, rows)
        output = self._tokens("output", workload.output_tokens, rows)
        pause_s = self._pauses(rounds, rows)
        patience_s = self._seconds("patience", session.patience_s, rows, np.inf)
        if workload.max_tokens is not None:
            output = np.minimum(output, workload.max_tokens)
        chats = []
        for one, long in enumerate(map(len, rounds)):
            answers = output[:long, one].tolist()
            prompts, summaries, served = self._grown(first[one], new[1:long, one].tolist(), answers)
            asked = len(prompts)
            turn = list(accumulate((calls == 0 for calls in rounds[one][: asked - 1]), initial=0))
            waits = pause_s[:asked, one].tolist(), patience_s[:asked, one].tolist()
            chats.append(Chat(prompts, answers[:asked], *waits, summaries, groups[one], served, turn))
        return chats

    def _grown(self, first: int, new: list[int], output: list[int]) -> tuple[list[int], list[int], int]:
        """Prompts of a session, each the last one with its answer and what is new, and the summaries made by then.

        The last is the first that is not served, if there is one.
        """
        prompts, summaries = self._contexts(first, new, output)
        takes, cap = self._longest.takes, self._workload.max_tokens
        if takes(max(prompts), cap or max(output)):
            return prompts, summaries, len(prompts)
        each = zip(prompts, output, strict=True)
        served = next((n for n, (prompt, answer) in enumerate(each) if not takes(prompt, cap or answer)), len(prompts))
        return prompts[: served + 1], summaries[: served + 1], served

    def _contexts(self, first: int, new: list[int], output: list[int]) -> tuple[list[int], list[int]]:
        """Prompts as long as the session goes on, and the summaries made by then."""
        compaction = self._session.compaction
        if compaction is None:
            prompts = list(accumulate(map(add, output, new), initial=first))
            return prompts, [0] * len(prompts)
        prompts, summaries, made = [first], [0], 0
        at_tokens, to_tokens = compaction.at_tokens, compaction.to_tokens
        for answer, more in zip(output, new, strict=False):
            prompt = prompts[-1] + answer + more
            if prompt > at_tokens:
                prompt, made = to_tokens + more, made + 1
            prompts.append(prompt)
            summaries.append(made)
        return prompts, summaries

    def rounds(self) -> list[list[int]]:
        """For each session and each of its requests the calls to tools that follow at once; none before a pause."""
        turns = self._tokens("turns", self._session.turns, 1)[0].clip(max=MAX_REQUESTS)
        tools = self._session.tools
        if tools is None:
            return [[0] * one for one in turns.tolist()]
        rows = int(turns.max())
        drawn = tools.calls.draw(self._uniforms("calls", rows))
        calls = np.rint(drawn.clip(max=MAX_REQUESTS)).astype(int).reshape(rows, TOGETHER)
        return [
            [min(tools.parallel, left) for each in calls[:long, one].tolist()
             for left in (*range(each, 0, -tools.parallel), 0)][:MAX_REQUESTS]
            for one, long in enumerate(turns.tolist())
        ]  # fmt: skip

    def _pauses(self, rounds: list[list[int]], rows: int) -> np.ndarray:
        """Seconds after each request: those of the slowest tool of its round, else a person's."""
        pause_s = self._seconds("pause", self._workload.think_s, rows, 0.0)
        tools = self._session.tools
        if tools is None:
            return pause_s
        running = np.zeros((rows, TOGETHER), dtype=int)
        for one, calls in enumerate(rounds):
            running[: len(calls), one] = calls
        slowest_s = np.zeros((rows, TOGETHER))
        for call in range(tools.parallel):
            latency_s = self._seconds(f"tool {call}", tools.latency_s, rows, 0.0)
            slowest_s = np.where(running > call, np.maximum(slowest_s, latency_s), slowest_s)
        return np.where(running > 0, slowest_s, pause_s)

    def _groups(self) -> list[int]:
        """Which group's prefix each session has; number 0 is the most frequent."""
        groups = self._workload.prefix.groups if self._workload.prefix is not None else None
        if groups is None:
            return [0] * TOGETHER
        shares = np.cumsum(np.arange(1.0, groups.count + 1) ** -groups.zipf)
        uniforms = self._uniforms("group", 1)[:, 0]
        return np.searchsorted(shares, uniforms * shares[-1], side="right").clip(max=groups.count - 1).tolist()

    def _uniforms(self, purpose: str, rows: int, of: Distribution | None = None) -> np.ndarray:
        shape = rows * TOGETHER, 2
        return np.zeros(shape) if isinstance(of, Constant) else self._stream(purpose).random(shape)

    def _tokens(self, purpose: str, distribution: Distribution, rows: int) -> np.ndarray:
        return draw_tokens(distribution, self._uniforms(purpose, rows, distribution)).reshape(rows, TOGETHER)

    def _seconds(self, purpose: str, distribution: Distribution | None, rows: int, otherwise: float) -> np.ndarray:
        if distribution is None:
            return np.full((rows, TOGETHER), otherwise)
        return distribution.draw(self._uniforms(purpose, rows, distribution)).reshape(rows, TOGETHER)
