"""Scenario files, and what they mean once every name is looked up."""

from capsim.scenario.resolve import resolve, scenario_of, variant
from capsim.scenario.resolved import Resolved
from capsim.scenario.spec import SLO, Scenario

__all__ = ["SLO", "Resolved", "Scenario", "resolve", "scenario_of", "variant"]
