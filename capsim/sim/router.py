"""Which replica takes a request. Routers see queues and batches, never how long an answer will be."""

from collections.abc import Callable, Sequence

from capsim.sim.node import Rank

Router = Callable[[Sequence[Rank], int], int]


def round_robin(replicas: Sequence[Rank], routed: int) -> int:
    """In turn; ``routed`` counts the requests routed before this one."""
    return routed % len(replicas)


def least_loaded(replicas: Sequence[Rank], routed: int) -> int:
    """The replica with the fewest requests running and waiting, the first of equals."""
    return min(range(len(replicas)), key=lambda index: replicas[index].in_flight)


ROUTERS: dict[str, Router] = {"round-robin": round_robin, "least-loaded": least_loaded}
