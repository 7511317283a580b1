"""The documents name every key there is."""

import re
import typing
from pathlib import Path

import pytest

from capsim.catalog import SPECS as KINDS
from capsim.catalog import Basis
from capsim.claims import Claim
from capsim.claims.quantities import Quantity
from capsim.hugging_face.families import FAMILIES
from capsim.levers import Lever, Stack
from capsim.llm import Attention
from capsim.prices import OwnPrice, Quote
from capsim.scenario.spec import (
    ContractSpec,
    MemorySpec,
    ParallelismSpec,
    PlanSpec,
    PricePath,
    PriceSpec,
    Scenario,
    SchedulerSpec,
)
from capsim.sim.records import REQUESTS, SEGMENTS
from capsim.slo import SLO
from capsim.tiers.spec import RequestClass, Tier, Tiers
from capsim.workload.arrivals import Window
from capsim.workload.classes import ClientClass
from capsim.workload.distributions import Distribution, Part
from capsim.workload.sessions import Compaction, Groups, Prefix, Retries, Session, Tools
from capsim.workload.spec import Arrival, TraceColumns, Workload
from capsim.workload.traces.schemas import SCHEMAS

DOCS = Path(__file__).parents[1] / "docs"
DISTRIBUTIONS = typing.get_args(typing.get_args(Distribution)[0])
ARRIVALS = typing.get_args(typing.get_args(Arrival)[0])
SPECS = [
    Scenario, ParallelismSpec, SchedulerSpec, MemorySpec, PriceSpec, OwnPrice, Quote, SLO, PlanSpec, Workload,
    ContractSpec, PricePath,
    TraceColumns, Part, *DISTRIBUTIONS, Window, ClientClass, *ARRIVALS, Session, Compaction, Tools, Retries, Prefix,
    Groups,
]  # fmt: skip


def words(name):
    return set(re.findall(r"\w+", (DOCS / name).read_text()))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_key_of_a_scenario_is_documented(spec):
    assert set(spec.model_fields) <= words("scenario.md")


def test_every_kind_basis_attention_and_family_is_documented():
    kinds = typing.get_args(Attention.model_fields["kind"].annotation)
    assert {*KINDS, *typing.get_args(Basis), *kinds, *FAMILIES} <= words("catalog.md")


def test_every_column_of_the_tables_is_documented():
    assert {*REQUESTS.names, *SEGMENTS.names} <= words("results.md")


def test_every_family_of_arrivals_and_column_of_a_trace_is_documented():
    kinds = {typing.get_args(family.model_fields["kind"].annotation)[0] for family in ARRIVALS}
    assert kinds <= words("scenario.md")
    own = SCHEMAS["capsim"]
    assert {*own.columns.values(), *own.optional.values()} <= words("workloads.md")
    assert all(f"`{name}`" in (DOCS / "workloads.md").read_text() for name in SCHEMAS)


QUANTITIES = typing.get_args(typing.get_args(Quantity)[0])


@pytest.mark.parametrize("spec", [Stack, Lever, Claim, *QUANTITIES, Tiers, RequestClass, Tier])
def test_every_key_of_stacks_claims_and_tiers_is_documented(spec):
    assert set(spec.model_fields) <= words("levers.md")
    kind = spec.model_fields.get("kind")
    assert kind is None or set(typing.get_args(kind.annotation)) <= words("levers.md")
