"""Which replica takes a request. Routers see queues, batches and caches, never how long an answer will be."""

from collections.abc import Callable, Sequence

from capsim.sim import sequence as sim
from capsim.sim.replica import Replica

Router = Callable[[Sequence[Replica], sim.Sequence], int]


def round_robin(replicas: Sequence[Replica], request: sim.Sequence) -> int:
    """In turn."""
    return request.request % len(replicas)


def least_loaded(replicas: Sequence[Replica], request: sim.Sequence) -> int:
    """The replica with the fewest requests running and waiting, the first of equals."""
    loads = [replica.in_flight for replica in replicas]
    return loads.index(min(loads))


def home(session: int, replicas: int) -> int:
    """The replica, of so many, where a session is when a run begins; always, where the router is session-affine."""
    return session % replicas


def session_affine(replicas: Sequence[Replica], request: sim.Sequence) -> int:
    """Every session to its home, whatever the load."""
    return home(request.session, len(replicas))


def prefix_aware(replicas: Sequence[Replica], request: sim.Sequence) -> int:
    """The replica with the least to compute and to hold: prompt not cached there, prompts waiting, KV in use.

    The cost is that of NVIDIA Dynamo's KV router at its default weights.
    """
    costs = [replica.waiting_tokens + replica.held_tokens - replica.cached_tokens(request) for replica in replicas]
    return costs.index(min(costs))


ROUTERS: dict[str, Router] = {
    "round-robin": round_robin,
    "least-loaded": least_loaded,
    "session-affine": session_affine,
    "prefix-aware": prefix_aware,
}
