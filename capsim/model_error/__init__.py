"""Model error: how far answers may lie from what a real engine does, apart from how they vary from run to run."""

from capsim.model_error.factors import ModelError, model_error, separable
from capsim.model_error.runs import bracketed

__all__ = ["ModelError", "bracketed", "model_error", "separable"]
