"""Numeric claims, each a small file: what it says, what capsim computes, and a verdict that follows from the two."""

from capsim.claims.document import claims, find_files
from capsim.claims.spec import Claim, load_claim

__all__ = ["Claim", "claims", "find_files", "load_claim"]
