"""Sign for a term or stay flexible, while prices and the load move."""

from capsim.contract.document import contract

__all__ = ["contract"]
