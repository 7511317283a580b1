"""Traffic of several client classes, each with its own arrivals and lengths."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.workload.arrivals import Single, long_run_rate_per_s
from capsim.workload.distributions import Tokens, Uniforms, draw_tokens
from capsim.workload.drawing import CHUNK, times
from capsim.workload.streams import stream

Lengths = tuple[np.ndarray, np.ndarray]
"""Prompt and output tokens, shape (n,) each."""


class ClientClass(BaseModel):
    """Clients alike: their arrivals, their prompts and their answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    arrival: Single
    prompt_tokens: Tokens
    output_tokens: Tokens


class Superposed(BaseModel):
    """The arrivals of all ``classes`` together; every request has the lengths of its class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["superposed"]
    classes: tuple[ClientClass, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_apart(self) -> "Superposed":
        names = [one.name for one in self.classes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two classes are named '{twice}'")
        return self


def superposed_arrivals(
    arrival: Superposed, limit: int | None, duration_s: float | None, seed: int, replication: int
) -> tuple[np.ndarray, np.ndarray]:
    """Times in order and the class of each, shape (n,) both. A class draws from a stream of its own, found by name."""
    ahead = [times(one.arrival, stream(seed, replication, f"arrivals/{one.name}")) for one in arrival.classes]
    drawn = [[np.empty(0)] for _ in ahead]
    rate_per_s = sum(long_run_rate_per_s(one.arrival) for one in arrival.classes)
    horizon_s = duration_s or (limit or CHUNK) / rate_per_s
    while True:
        for source, parts in zip(ahead, drawn, strict=True):
            while not len(parts[-1]) or parts[-1][-1] <= horizon_s:
                parts.append(next(source))
        arrival_s = np.concatenate([part for parts in drawn for part in parts])
        classes = np.repeat(np.arange(len(drawn)), [sum(map(len, parts)) for parts in drawn])
        order = np.argsort(arrival_s, kind="stable")
        order = order[: np.searchsorted(arrival_s[order], horizon_s, side="right")]
        if duration_s is not None or len(order) >= (limit or 0):
            return arrival_s[order[:limit]], classes[order[:limit]]
        horizon_s *= 2


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
        mine = chosen == index
        prompt[mine] = draw_tokens(one.prompt_tokens, prompts[mine])
        output[mine] = draw_tokens(one.output_tokens, outputs[mine])
    return prompt, output
