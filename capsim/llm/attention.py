"""Attention in the words of a model's configuration, and the KV streams that each kind of it reduces to.

Capacity, bandwidth and arithmetic are sums over streams, so a new kind of attention is a few lines in
``Attention.streams`` and nothing elsewhere.
"""

from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from capsim.llm.stream import KVStream

AttentionKind = Literal["full", "sliding", "chunked", "mla", "csa", "hca", "linear"]

STATE_BYTES = 4  # recurrent states are kept in fp32
INDEXER = ("top_k", "index_heads", "index_dim")

_NEEDS: dict[str, tuple[str, ...]] = {
    "full": ("kv_heads", "head_dim"),
    "sliding": ("kv_heads", "head_dim", "window_tokens"),
    "chunked": ("kv_heads", "head_dim", "window_tokens"),
    "mla": ("latent_dim", "rope_dim", "nope_dim", "value_dim"),
    "csa": ("head_dim", "window_tokens", "ratio", *INDEXER, "query_rank"),
    "hca": ("head_dim", "window_tokens", "ratio", "query_rank"),
    "linear": ("kv_heads", "head_dim", "value_dim", "conv_tokens"),
}
_TAKES: dict[str, tuple[str, ...]] = {
    "full": (*INDEXER, "output_gate", "shared_projection"),
    "sliding": ("output_gate", "shared_projection"),
    "chunked": ("output_gate", "shared_projection"),
    "mla": (*INDEXER, "output_gate", "query_rank"),
    "csa": ("output_rank", "output_groups"),
    "hca": ("output_rank", "output_groups"),
    "linear": ("decay_rank",),
}


class Attention(BaseModel):
    """A group of like attention layers, in the words of the model's configuration.

    ``kind`` is one of

    - ``full``; ``sliding`` over the last ``window_tokens``; ``chunked``, in which a token sees its own chunk of
      ``window_tokens`` (Llama 4);
    - ``mla``, whose K and V are one latent;
    - ``csa`` and ``hca``, one entry for ``ratio`` tokens, K = V, beside a window of raw ones (DeepSeek V4);
    - ``linear``, a recurrent state instead of a cache: ``heads`` states of ``head_dim`` x ``value_dim``, with
      ``kv_heads`` heads of queries and keys, behind a convolution over ``conv_tokens`` (gated delta; with
      ``decay_rank`` a decay for each channel, Kimi's KDA).

    With an indexer (``index_heads``, ``index_dim``) ``full`` and ``mla`` read the ``top_k`` tokens it chooses; block
    selection counts as the tokens of its blocks. ``output_gate`` gates each head's output; ``shared_projection``
    computes V from K's projection, both are cached.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AttentionKind
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    window_tokens: PositiveInt | None = None
    latent_dim: PositiveInt | None = None
    rope_dim: PositiveInt | None = None
    nope_dim: PositiveInt | None = None
    value_dim: PositiveInt | None = None
    query_rank: PositiveInt | None = None
    output_rank: PositiveInt | None = None
    output_groups: PositiveInt | None = None
    ratio: PositiveInt | None = None
    top_k: PositiveInt | None = None
    index_heads: PositiveInt | None = None
    index_dim: PositiveInt | None = None
    conv_tokens: PositiveInt | None = None
    decay_rank: PositiveInt | None = None
    output_gate: bool = False
    shared_projection: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "Attention":
        needs = {"kind", "layers", "heads", *_NEEDS[self.kind]}
        given = {name for name, value in self if value not in (None, False)}
        if missing := sorted(needs - given):
            raise ValueError(f"{self.kind} attention needs {', '.join(missing)}")
        if foreign := sorted(given - needs - set(_TAKES[self.kind])):
            raise ValueError(f"{self.kind} attention has no {', '.join(foreign)}")
        if 0 < len(given & set(INDEXER)) < len(INDEXER):
            raise ValueError(f"an indexer needs {', '.join(INDEXER)}")
        return self

    def _of(self, name: str) -> int:
        value = getattr(self, name)
        assert value is not None
        return int(value)

    def streams(self) -> list[KVStream]:
        if self.kind in ("full", "sliding", "chunked"):
            return self._plain_streams() + self._indexer_streams()
        if self.kind == "mla":
            return self._latent_streams() + self._indexer_streams()
        if self.kind == "linear":
            return self._state_streams()
        return self._compressed_streams() + self._indexer_streams()

    def _plain_streams(self) -> list[KVStream]:
        dim = self._of("head_dim")
        flops = 4.0 * self.heads * dim
        return [
            KVStream(
                self.kind, self.layers, self._of("kv_heads"), 2 * dim, flops, flops, window_tokens=self.window_tokens,
                chunked=self.kind == "chunked", top_k=self.top_k, value_elements=dim,
            )
        ]  # fmt: skip

    def _latent_streams(self) -> list[KVStream]:
        """Decode attends in the latent space (weights absorbed), and so does all that is sparse; a dense prefill in
        the expanded one."""
        latent, rope = self._of("latent_dim"), self._of("rope_dim")
        decode = 2.0 * self.heads * (2 * latent + rope)
        expanded = 2.0 * self.heads * (self._of("nope_dim") + rope + self._of("value_dim"))
        prefill = expanded if self.top_k is None else decode
        return [KVStream("mla", self.layers, 1, latent + rope, decode, prefill, top_k=self.top_k)]

    def _state_streams(self) -> list[KVStream]:
        """Entries of one token's worth: the state, and the last inputs of the convolution, in the model's bf16."""
        keys, dim, value = self._of("kv_heads"), self._of("head_dim"), self._of("value_dim")
        state = dim * value
        channels = 2 * dim + self.heads // keys * value
        taps = self._of("conv_tokens")
        # Of a state: decay (1), what the key reads (2), the correction (2) and what the query reads (2) an element.
        delta, conv = 7.0 * self.heads * state, 2.0 * taps * keys * channels
        stream = partial(KVStream, layers=self.layers, window_tokens=1, quantisable=False, written_back=True)
        return [
            stream(
                "state", heads=self.heads, elements=state, flops_per_read=delta, flops_per_prefill_read=delta,
                element_bytes=STATE_BYTES,
            ),
            stream(
                "conv", heads=keys, elements=(taps - 1) * channels, flops_per_read=conv, flops_per_prefill_read=conv,
            ),
        ]  # fmt: skip

    def _compressed_streams(self) -> list[KVStream]:
        """DeepSeek V4: one shared entry per ``ratio`` tokens, K = V, and a window of raw ones on every layer."""
        dim, ratio, window = self._of("head_dim"), self._of("ratio"), self._of("window_tokens")
        flops = 4.0 * self.heads * dim
        streams = [KVStream("window", self.layers, 1, dim, flops, flops, window_tokens=window)]
        if ratio > 1:
            streams.append(KVStream(self.kind, self.layers, 1, dim, flops, flops, ratio=ratio, top_k=self.top_k))
        return streams

    def _indexer_streams(self) -> list[KVStream]:
        """The keys by which an indexer chooses: one head a layer, read in full."""
        if self.index_dim is None:
            return []
        flops = 2.0 * self._of("index_heads") * self.index_dim
        return [KVStream("indexer", self.layers, 1, self.index_dim, flops, flops, ratio=self.ratio or 1)]

    def parameters(self, hidden: int) -> int:
        """Weights of one layer's projections (norms left out)."""
        if self.kind in ("full", "sliding", "chunked"):
            query, key = self.heads * self._of("head_dim"), self._of("kv_heads") * self._of("head_dim")
            total = hidden * (2 + self.output_gate) * query + hidden * (1 if self.shared_projection else 2) * key
            return total + self._indexer_parameters(hidden, hidden)
        if self.kind == "mla":
            return self._latent_parameters(hidden)
        if self.kind == "linear":
            return self._state_parameters(hidden)
        return self._compressed_parameters(hidden)

    def _latent_parameters(self, hidden: int) -> int:
        latent, rope = self._of("latent_dim"), self._of("rope_dim")
        nope, value = self._of("nope_dim"), self._of("value_dim")
        queries = self.heads * (nope + rope)
        query = hidden * queries if self.query_rank is None else self.query_rank * (hidden + queries)
        key_value = hidden * (latent + rope) + latent * self.heads * (nope + value)
        output = self.heads * value * hidden * (1 + self.output_gate)
        return query + key_value + output + self._indexer_parameters(hidden, self.query_rank or hidden)

    def _state_parameters(self, hidden: int) -> int:
        key, value = self._of("kv_heads") * self._of("head_dim"), self.heads * self._of("value_dim")
        projections = hidden * (2 * key + 3 * value)  # queries, keys, values, their gate, the output
        rank = self.decay_rank
        decay = hidden * self.heads if rank is None else rank * (hidden + key)
        return projections + decay + hidden * self.heads + self._of("conv_tokens") * (2 * key + value)

    def _compressed_parameters(self, hidden: int) -> int:
        dim, rank = self._of("head_dim"), self._of("query_rank")
        total = hidden * rank + rank * self.heads * dim + hidden * dim
        if self.output_rank is not None:
            total += self.heads * dim * self.output_rank + self.output_rank * (self.output_groups or 1) * hidden
        else:
            total += self.heads * dim * hidden
        if self._of("ratio") > 1:
            total += 2 * hidden * dim  # compressor: values and their gate
        compressor = hidden * self.index_dim if self.index_dim else 0
        return total + compressor + self._indexer_parameters(hidden, rank)

    def _indexer_parameters(self, hidden: int, query_input: int) -> int:
        """Queries from ``query_input``, one key head, and a weight for each query head."""
        if self.index_dim is None:
            return 0
        heads = self._of("index_heads")
        return query_input * heads * self.index_dim + hidden * self.index_dim + hidden * heads
