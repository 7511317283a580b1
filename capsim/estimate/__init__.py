"""Closed forms, before anything is simulated: throughput at saturation, and the users that are served inside an SLO."""

from capsim.estimate.saturation import Estimate, saturation

__all__ = ["Estimate", "saturation"]
