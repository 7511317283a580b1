"""KV streams: the one form to which every kind of attention reduces."""

from dataclasses import dataclass, replace
from functools import cached_property


@dataclass(frozen=True)
class KVStream:
    """One kind of cache entry of ``layers`` like layers.

    A sequence with ``c`` tokens of context stores ``stored(c)`` entries in each layer and a decode step reads
    ``read(c)`` of them. An entry has ``elements`` numbers in each of ``heads`` KV heads; ``flops_per_read`` is the
    arithmetic of one query token against one entry, all query heads together.

    Attributes
    ----------
    ratio
        Tokens that share one entry.
    window_tokens
        The last tokens that are kept, None where all are.
    chunked
        The window does not slide: reads begin anew with every ``window_tokens`` tokens.
    top_k
        Entries that a query chooses to read, None where it reads all.
    value_elements
        Those of ``elements`` that belong to a V vector of its own; the others are K, or K and V in one.
    element_bytes
        Bytes of an element as the model computes it.
    quantisable
        Whether a KV format applies.
    written_back
        A decode step writes what it reads, as a recurrent state.
    """

    name: str
    layers: int
    heads: int
    elements: int
    flops_per_read: float
    flops_per_prefill_read: float
    ratio: int = 1
    window_tokens: int | None = None
    chunked: bool = False
    top_k: int | None = None
    value_elements: int = 0
    element_bytes: int = 2
    quantisable: bool = True
    written_back: bool = False

    def stored(self, context_tokens: float) -> float:
        kept = context_tokens if self.window_tokens is None else min(context_tokens, self.window_tokens)
        return kept / self.ratio

    def read(self, context_tokens: float) -> float:
        if self.chunked:
            return (context_tokens - self._chunk_start(context_tokens)) / self.ratio
        stored = self.stored(context_tokens)
        return stored if self.top_k is None else min(stored, self.top_k)

    def prefill_reads(self, new_tokens: float, context_tokens: float) -> float:
        """Σ read(c) over the new tokens of a prefill chunk that follows ``context_tokens`` cached ones."""
        if self.chunked:
            return (self._chunked_reads(context_tokens + new_tokens) - self._chunked_reads(context_tokens)) / self.ratio
        last = context_tokens + new_tokens
        knee = last if self.knee_tokens is None else self.knee_tokens
        if last <= knee:
            return new_tokens * (context_tokens + (new_tokens + 1) / 2) / self.ratio
        growing = max(0.0, min(last, knee) - context_tokens)
        ramp = growing * (context_tokens + (growing + 1) / 2) / self.ratio
        flat = (new_tokens - growing) * self.read(knee) if growing < new_tokens else 0.0
        return ramp + flat

    @property
    def has_kinks(self) -> bool:
        """Whether a decode step reads something else than the whole context."""
        return self.window_tokens is not None or self.top_k is not None

    @cached_property
    def knee_tokens(self) -> int | None:
        """Context from which on a decode step reads no more, None where it always does."""
        window = [] if self.window_tokens is None or self.chunked else [self.window_tokens]
        chosen = [] if self.top_k is None else [self.top_k * self.ratio]
        return min(window + chosen, default=None)

    def piece(self, context_tokens: int) -> tuple[int, int, int | None]:
        """The straight piece of ``read`` at a context, as (slope, level, last context; None where it has no end).

        On it, read(c) · ratio = slope · c + level.
        """
        if self.chunked:
            start = int(self._chunk_start(context_tokens))
            return 1, -start, start + self._chunk
        knee = self.knee_tokens
        if knee is None:
            return 1, 0, None
        return (1, 0, knee) if context_tokens < knee else (0, knee, None)

    @property
    def whole(self) -> "KVStream":
        """The same stream where a window of tokens does not end what is kept, as a cache sees it."""
        windowed = self.name in ("sliding", "chunked")
        return replace(self, window_tokens=None, chunked=False) if windowed else self

    @property
    def grows(self) -> bool:
        return self.window_tokens is None

    @property
    def _chunk(self) -> int:
        assert self.window_tokens is not None
        return self.window_tokens

    def _chunk_start(self, context_tokens: float) -> float:
        """Tokens before the chunk that holds the last one."""
        return max(0.0, context_tokens - 1) // self._chunk * self._chunk

    def _chunked_reads(self, tokens: float) -> float:
        """Σ read(c) · ratio over the first ``tokens`` tokens."""
        whole, rest = divmod(tokens, self._chunk)
        return whole * self._chunk * (self._chunk + 1) / 2 + rest * (rest + 1) / 2
