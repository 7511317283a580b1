"""Sessions: people and agents who come back with a longer context, and what of it others share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from capsim.hardware import PositiveSeconds, Seconds
from capsim.workload.arrivals import Profile, Rate, RateOrNone
from capsim.workload.distributions import ThinkTime, Tokens

DAY_S = 86_400.0


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Compaction(_Spec):
    """A context that would pass ``at_tokens`` is cut to ``to_tokens``, and the new tokens follow.

    ``to_tokens`` are what all prompts begin with, and a summary. The first prompt is never cut.
    """

    at_tokens: PositiveInt
    to_tokens: PositiveInt

    @model_validator(mode="after")
    def _shorter(self) -> "Compaction":
        if self.to_tokens >= self.at_tokens:
            raise ValueError(f"to_tokens {self.to_tokens} are not below at_tokens {self.at_tokens}")
        return self


class Tools(_Spec):
    """``calls`` to tools in each turn, ``parallel`` at a time.

    A round of calls ends one request, and the next comes when the slowest of them has taken its ``latency_s``, with one
    draw of ``new_tokens`` for all their results. Draws of ``calls`` are rounded; below a half there are none.
    """

    calls: Tokens
    latency_s: ThinkTime
    parallel: Annotated[int, Field(ge=1, le=64)] = 1


class Retries(_Spec):
    """A request turned away by a full queue is sent again up to ``limit`` times, after ``backoff_s`` that doubles.

    Not where the patience would be over by then.
    """

    limit: PositiveInt
    backoff_s: PositiveSeconds


class Session(_Spec):
    """A context that grows: each request brings the whole of the last one, its answer, and ``new_tokens`` more.

    ``turns`` are a person's (rounded); tool calls make more requests of them. A client that has no first token
    ``patience_s`` after its first try gives up; it and one that is turned away for good end their session.
    """

    turns: Tokens
    new_tokens: Tokens
    compaction: Compaction | None = None
    tools: Tools | None = None
    patience_s: ThinkTime | None = None
    retries: Retries | None = None


class Groups(_Spec):
    """``count`` prefixes of ``tokens`` each; a session has one of them, number g in proportion to 1 / g ** ``zipf``."""

    count: Annotated[int, Field(ge=1, le=1_000_000)]
    tokens: PositiveInt
    zipf: float = Field(1.0, ge=0, le=10)


class Prefix(_Spec):
    """How the prompts begin: ``global_tokens`` that all share, then those of a group, then the session's own.

    All of it is part of the prompts and adds nothing to them; a shorter prompt shares what it has of it. ``session``
    says whether a session's later prompts repeat its earlier ones word for word.
    """

    global_tokens: NonNegativeInt = 0
    groups: Groups | None = None
    session: bool = True


def shared_tokens(prefix: Prefix) -> int:
    """How many leading tokens of a long prompt others share."""
    return prefix.global_tokens + (prefix.groups.tokens if prefix.groups else 0)


class Users(_Spec):
    """``users`` who each begin ``sessions_per_day``, over the day or week as ``profile`` of the catalog has it.

    ``rates`` over ``period_s`` are a shape of your own instead. The run begins at ``start_s`` of the period.
    """

    kind: Literal["users"]
    users: PositiveInt
    sessions_per_day: Rate
    profile: str | None = None
    rates: tuple[RateOrNone, ...] | None = Field(None, min_length=1)
    period_s: PositiveSeconds | None = None
    start_s: Seconds = 0.0

    @model_validator(mode="after")
    def _one_shape(self) -> "Users":
        if (self.profile is None) == (self.rates is None):
            raise ValueError("give one of: a profile of the catalog, such as office-hours, or rates")
        if self.rates is not None and self.period_s is None:
            raise ValueError("rates need a period_s, such as 24h")
        if self.rates is not None and not sum(self.rates):
            raise ValueError("no rate is above zero")
        return self

    @property
    def arrivals(self) -> Profile:
        """When sessions begin."""
        return Profile(
            kind="profile", rates=self.rates, period_s=self.period_s, start_s=self.start_s,
            mean_rate_per_s=self.users * self.sessions_per_day / DAY_S,
        )  # fmt: skip
