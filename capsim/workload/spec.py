"""What arrives: when, how long the prompts and the answers are, and when it ends."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from capsim.hardware import PositiveSeconds
from capsim.slo import SLO
from capsim.workload.arrivals import (
    ConstantRate,
    Gamma,
    OnOff,
    Poisson,
    Profile,
    Ramp,
    Spike,
    Weibull,
    Windows,
)
from capsim.workload.classes import ClientClass, Superposed
from capsim.workload.distributions import ThinkTime, Tokens
from capsim.workload.sessions import Prefix, Session, Users, shared_tokens


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Closed(_Spec):
    """``users`` who each wait for their answer, think, and ask again. A closed loop throttles itself.

    With a ``session`` each has one at a time, and begins the next when it is over.

    Where there are ``classes``, each request is of one of them, in proportion to their rates.
    """

    kind: Literal["closed"]
    users: PositiveInt
    classes: tuple[ClientClass, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _lengths_of_classes(self) -> Self:
        if any(one.prompt_tokens is None for one in self.classes or ()):
            raise ValueError("each of a closed loop's classes needs prompt_tokens and output_tokens")
        return self


Arrival = Annotated[
    Poisson | ConstantRate | Gamma | Weibull | OnOff | Profile | Windows | Spike | Ramp | Superposed | Users | Closed,
    Field(discriminator="kind"),
]


class TraceColumns(_Spec):
    """Column names of a trace that fits no known schema; arrivals in seconds or as timestamps."""

    arrival: str
    prompt_tokens: str
    output_tokens: str
    session: str | None = None
    turn: str | None = None
    request: str | None = None
    parent: str | None = None
    think_s: str | None = None
    request_class: str | None = None
    prefix_hashes: str | None = None
    hash_tokens: str | None = None


def check_turned_away(workload: "Workload", queue_limit: int | None) -> None:
    """Refuse, with a ValueError, users who are turned away and come back at the same instant, without end."""
    if isinstance(workload.arrival, Closed) and queue_limit is not None and workload.think_s is None:
        raise ValueError("a queue_limit with closed-loop users needs a think_s, or turned-away users ask without end")


class Workload(_Spec):
    """The request stream, either drawn from distributions or replayed from a trace.

    ``requests`` is how many are offered in all, the first ``warmup_requests`` of them outside the statistics (by
    default a tenth or what MSER-5 finds; none for a trace). ``max_tokens`` is what the client asks for at most; by
    default just what it gets, as benchmarks ask. ``max_in_flight`` turns away open arrivals that find as many inside.
    ``think_s`` is the pause of a closed-loop user between an answer and the next request. In a closed ``replay`` a
    later turn of the trace comes its own ``think_s`` after the one before has ended, not when it was recorded.

    With a ``session``, or with ``users`` who begin some, arrivals are those of sessions: ``prompt_tokens`` is a
    session's first prompt, ``think_s`` a person's pause between two turns.
    """

    preset: str | None = None
    arrival: Arrival | None = None
    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    think_s: ThinkTime | None = None
    session: Session | None = None
    prefix: Prefix | None = None
    trace: Path | None = None
    replay: Literal["open", "closed"] = "open"
    columns: TraceColumns | None = None
    max_tokens: PositiveInt | None = None
    max_in_flight: PositiveInt | None = None
    requests: PositiveInt | None = None
    duration_s: PositiveSeconds | None = None
    warmup_requests: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Workload":
        if self.columns is not None and self.trace is None:
            raise ValueError("columns name a trace's columns, but there is no trace")
        if self.replay == "closed" and (self.trace is None or self.arrival is not None):
            raise ValueError("a closed replay is one of a trace: it needs a trace, and no arrival of its own")
        if self.requests is not None and self.duration_s is not None:
            raise ValueError("requests and duration_s are both the length of the run: leave one out")
        if self.requests is not None and (self.warmup_requests or 0) >= self.requests:
            raise ValueError(f"warmup_requests {self.warmup_requests} leave none of {self.requests} requests to count")
        if isinstance(self.arrival, Closed) and self.max_in_flight is not None:
            raise ValueError("max_in_flight caps open arrivals; a closed loop has never more than its users inside")
        if self.classes and any(given is not None for given in (self.prompt_tokens, self.output_tokens, self.trace)):
            raise ValueError("classes bring their own lengths: leave prompt_tokens, output_tokens and trace out")
        if self.in_sessions and (self.trace is not None or self.classes):
            raise ValueError(
                "sessions, users and prefixes are drawn: neither a trace nor classes with lengths of their own take "
                "them; leave session, prefix and users out, or give each class a scenario of its own"
            )
        compaction = self.session.compaction if self.session else None
        if compaction is not None and self.prefix is not None and compaction.to_tokens < shared_tokens(self.prefix):
            raise ValueError(
                f"a summary of {compaction.to_tokens:,} tokens (session.compaction.to_tokens) would cut into the "
                f"{shared_tokens(self.prefix):,} that all prompts begin with (prefix)"
            )
        return self

    def changed(self, **values: Any) -> Self:
        """The same with some values replaced, and checked as if it had been written so."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**given, **values})

    @property
    def in_sessions(self) -> bool:
        """Whether what arrives are sessions, be they of one request, and not requests."""
        return self.session is not None or self.prefix is not None or isinstance(self.arrival, Users)

    @property
    def classes(self) -> tuple[ClientClass, ...]:
        """The client classes that bring the lengths; none where the workload has lengths of its own."""
        match self.arrival:
            case Superposed(brings_lengths=True) | Closed():
                return self.arrival.classes or ()
        return ()


class WorkloadPreset(Workload):
    """A workload to start from, with the latency target of those who published it, where they have one."""

    slo: SLO | None = None
