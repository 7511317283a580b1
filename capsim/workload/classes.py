"""Traffic of several client classes, each with its own arrivals and, if they differ in them, its own lengths."""

from collections.abc import Iterator
from itertools import count
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.workload.arrivals import Single, long_run_rate_per_s
from capsim.workload.distributions import Tokens, Uniforms, draw_tokens
from capsim.workload.drawing import CHUNK, times
from capsim.workload.streams import stream

Lengths = tuple[np.ndarray, np.ndarray]
"""Prompt and output tokens, shape (n,) each."""
Arrivals = tuple[np.ndarray, np.ndarray]
"""Times in order and the class of each, shape (n,) both."""


class ClientClass(BaseModel):
    """Clients alike: their arrivals and, where these are not the workload's, their prompts and their answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    arrival: Single
    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.prompt_tokens is None) != (self.output_tokens is None):
            raise ValueError("give both prompt_tokens and output_tokens, or neither: those of the workload")
        return self


class Superposed(BaseModel):
    """The arrivals of all ``classes`` together.

    Every request has the lengths of its class; where no class has any, those of the workload.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["superposed"]
    classes: tuple[ClientClass, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_apart(self) -> "Superposed":
        names = [one.name for one in self.classes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two classes are named '{twice}'")
        if len({one.prompt_tokens is None for one in self.classes}) > 1:
            raise ValueError("either every class has lengths of its own, or none has")
        return self

    @property
    def brings_lengths(self) -> bool:
        return self.classes[0].prompt_tokens is not None


def mean_rate_per_s(arrival: Single | Superposed) -> float:
    """How many come each second over a long time, of all classes together."""
    if isinstance(arrival, Superposed):
        return sum(long_run_rate_per_s(one.arrival) for one in arrival.classes)
    return long_run_rate_per_s(arrival)


def together(arrival: Superposed, seed: int, replication: int) -> Iterator[Arrivals]:
    """All arrivals in chunks without end. A class draws from a stream of its own, found by name."""
    ahead = [times(one.arrival, stream(seed, replication, f"arrivals/{one.name}")) for one in arrival.classes]
    drawn = [np.empty(0) for _ in ahead]
    part_s = CHUNK / mean_rate_per_s(arrival)
    for part in count(1):
        for index, source in enumerate(ahead):
            while not len(drawn[index]) or drawn[index][-1] <= part * part_s:
                drawn[index] = np.append(drawn[index], next(source))
        counts = [int(np.searchsorted(one, part * part_s, side="right")) for one in drawn]
        arrival_s = np.concatenate([one[:until] for one, until in zip(drawn, counts, strict=True)])
        order = np.argsort(arrival_s, kind="stable")
        yield arrival_s[order], np.repeat(np.arange(len(drawn)), counts)[order]
        drawn = [one[until:] for one, until in zip(drawn, counts, strict=True)]


def superposed_arrivals(
    arrival: Superposed, limit: int | None, duration_s: float | None, seed: int, replication: int
) -> Arrivals:
    """The first ``limit`` arrivals, or those up to ``duration_s``."""
    parts: list[Arrivals] = []
    for chunk in together(arrival, seed, replication):
        parts.append(chunk)
        if sum(len(one) for one, _ in parts) >= (limit or np.inf) or (chunk[0][-1:] > (duration_s or np.inf)).any():
            break
    arrival_s, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
    end = np.searchsorted(arrival_s, duration_s or np.inf, side="right")
    return arrival_s[:end][:limit], classes[:end][:limit]


def mixed(classes: tuple[ClientClass, ...], uniforms: np.ndarray) -> np.ndarray:
    """A class for each uniform, by the classes' rates. Shape (n,)."""
    shares = np.cumsum([long_run_rate_per_s(one.arrival) for one in classes])
    return np.minimum(np.searchsorted(shares / shares[-1], uniforms, side="right"), len(classes) - 1)


def class_lengths(
    classes: tuple[ClientClass, ...], chosen: np.ndarray, prompts: Uniforms, outputs: Uniforms
) -> Lengths:
    """Lengths of requests of the classes ``chosen``, from two uniforms each (of which there may be more)."""
    prompts, outputs = prompts[: len(chosen)], outputs[: len(chosen)]
    prompt, output = (np.empty(len(chosen), dtype=np.int64) for _ in range(2))
    for index, one in enumerate(classes):
        assert one.prompt_tokens is not None
        assert one.output_tokens is not None
        mine = chosen == index
        prompt[mine] = draw_tokens(one.prompt_tokens, prompts[mine])
        output[mine] = draw_tokens(one.output_tokens, outputs[mine])
    return prompt, output
