"""Nodes of one's own, rented or bought, against the price lists of hosted models, for the same workload."""

from capsim.breakeven.document import breakeven

__all__ = ["breakeven"]
