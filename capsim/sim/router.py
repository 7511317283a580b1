"""Which replica takes a request. Routers see queues and batches, never how long an answer will be."""

from collections.abc import Callable, Sequence

from capsim.sim.replica import Replica

Router = Callable[[Sequence[Replica], int], int]


def round_robin(replicas: Sequence[Replica], routed: int) -> int:
    """In turn; ``routed`` counts the requests routed before this one."""
    return routed % len(replicas)


def least_loaded(replicas: Sequence[Replica], routed: int) -> int:
    """The replica with the fewest requests running and waiting, the first of equals."""
    loads = [replica.in_flight for replica in replicas]
    return loads.index(min(loads))


ROUTERS: dict[str, Router] = {"round-robin": round_robin, "least-loaded": least_loaded}
