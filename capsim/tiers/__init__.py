"""One workload staged over tiers, a frontier API, nodes of one's own, the edge: by request class and quality floor."""

from capsim.tiers.document import tiers
from capsim.tiers.spec import Tiers, load_tiers

__all__ = ["Tiers", "load_tiers", "tiers"]
