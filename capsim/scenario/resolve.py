"""From names to numbers: every catalog entry looked up, memory laid out, lengths checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from capsim import units
from capsim.catalog import Catalog, Fact
from capsim.engine_spec import EngineSpec
from capsim.errors import Infeasible, Problem, ScenarioError, did_you_mean
from capsim.hardware import Node
from capsim.kv_format import KVFormat
from capsim.llm import ModelSpec
from capsim.memory import memory_budget
from capsim.parallelism import Parallelism, divides, layouts
from capsim.prices import Price, stale_notes
from capsim.scenario.calibration import calibration_of, graded
from capsim.scenario.notes import session_notes, trace_notes
from capsim.scenario.own_facts import catalog_of
from capsim.scenario.presets import DRAWN_BY_PRESET, apply_preset, inline_profiles
from capsim.scenario.resolved import Resolved
from capsim.scenario.spec import ALL, Scenario
from capsim.source import Source, load, override, validate
from capsim.workload.traces import Trace, read_trace
from capsim.workload.traces.follow import why_not_closed


def resolve(path: Path | str, overrides: Sequence[str] = (), *, own_files: bool = True) -> Resolved:
    """Read a scenario file, apply ``path=value`` overrides and look everything up.

    Without ``own_files`` it may name no file: a stranger's scenario must not make this machine read its own.

    Raises
    ------
    ScenarioError
        Mistakes in the file, the overrides, the trace or the calibration.
    Infeasible
        The model, or every request, is too large for the node.
    """
    return _checked_lengths(_look_up(*_read(path, overrides, own_files)))


def scenario_of(path: Path | str, overrides: Sequence[str] = ()) -> Scenario:
    """A scenario file as it stands once its preset is filled in, whether or not it fits its node.

    Raises
    ------
    ScenarioError
        Mistakes in the file or the overrides.
    """
    return _read(path, overrides)[0]


def _read(path: Path | str, overrides: Sequence[str], own_files: bool = True) -> "tuple[Scenario, _Lookup]":
    source = load(Path(path))
    source.own_files = own_files
    for assignment in overrides:
        override(source, assignment)
    _keep_set_length(source)
    catalog, mistakes = catalog_of(source)
    try:
        preset = apply_preset(source, catalog)
        inline_profiles(source, catalog)
        scenario = validate(Scenario, source.values, source)
    except ScenarioError as error:
        raise ScenarioError([*error.problems, *mistakes]) from error
    if mistakes:
        raise ScenarioError(mistakes)
    return scenario, _Lookup(source, catalog, preset)


def variant(resolved: Resolved, overrides: Sequence[str]) -> Resolved:
    """The same scenario resolved again, with more overrides; what was replaced in ``resolved`` since is not kept.

    Raises
    ------
    ScenarioError, Infeasible
        As ``resolve``.
    """
    assert resolved.path is not None
    return resolve(resolved.path, [*resolved.overrides, *overrides])


def _keep_set_length(source: Source) -> None:
    """A length of the run that is set from outside takes the place of the file's, be that in the other measure."""
    workload = source.values.get("workload")
    given = [name for name in ("requests", "duration_s") if f"workload.{name}" in source.overrides]
    if isinstance(workload, dict) and len(given) == 1:
        workload.pop({"requests": "duration_s", "duration_s": "requests"}[given[0]], None)


@dataclass
class _Lookup:
    """Finds names in the catalog, and collects what is wrong so that all of it is reported at once."""

    source: Source
    catalog: Catalog
    preset: dict[str, tuple[str, Fact]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    basis: dict[str, tuple[str, Fact]] = field(default_factory=dict)

    def get(self, kind: str, key: str, place: str) -> Any:
        try:
            entry = self.catalog.get(kind, key)
        except ScenarioError as error:
            self.complain(error.problems[0].message, place, hint=error.problems[0].hint)
            return None
        self.basis[place] = (key, self.catalog.provenance[kind, key])
        return entry

    def complain(self, message: str, *place: str, hint: str = "") -> None:
        self.problems.append(self.source.problem(place, message, hint))

    def check(self) -> None:
        if self.problems:
            raise ScenarioError(self.problems)


def _look_up(scenario: Scenario, find: _Lookup) -> Resolved:
    model = find.get("models", scenario.model, "model")
    node = find.get("nodes", scenario.node, "node")
    kv_format = find.get("kv_formats", scenario.kv_format, "kv_format")
    _check_candidates(scenario, find)
    _check_workload(scenario, find)
    trace = _trace(scenario, find)
    find.check()
    weights = find.get("weight_formats", _weights(scenario, model, find), "weights")
    engine = find.get("engines", scenario.engine or node.engine, "engine")
    price = _price(scenario, node, find)
    api_tier = None if scenario.api_tier is None else find.get("api_tiers", scenario.api_tier, "api_tier")
    calibration = calibration_of(find.catalog, find.source, scenario, node, find.complain)
    _check_engine(scenario, engine, scenario.engine or node.engine, kv_format, find)
    find.check()
    assert calibration is not None
    efficiency, find.basis["step_time"] = calibration
    device = find.get("devices", node.device, "device")
    if kv_format.arithmetic is not None and not device.computes_in(kv_format.arithmetic):
        missing = f"{device.name} does not compute in {kv_format.arithmetic}, which {kv_format.name} KV needs"
        find.complain(missing, "kv_format")
    find.check()
    find.basis |= find.preset
    engine = _with_settings(engine, scenario)

    def at(layout: Parallelism) -> Resolved:
        budget = memory_budget(
            model, weights, kv_format, device, engine, layout,
            activation_bytes=scenario.memory.activation_bytes, kv_capacity_tokens=scenario.kv_capacity_tokens,
        )  # fmt: skip
        priced = dict(find.basis[place] for place in ("price", "api_tier") if place in find.basis)
        stale = stale_notes({key: fact.as_of for key, fact in priced.items()}, scenario.as_of)
        warnings = (*(() if trace is None else trace.warnings), *stale)
        return graded(
            Resolved(
                scenario, scenario.workload, trace, model, weights, kv_format, node, device, engine, efficiency, price,
                layout, budget, dict(find.basis), find.catalog.devices[efficiency.device], find.catalog, warnings,
                api_tier, path=find.source.path, overrides=tuple(find.source.overrides.values()),
            )
        )  # fmt: skip

    if scenario.parallelism is None:
        return _best_layout(model, node, scenario, at)
    return at(_pinned_layout(scenario, model, node, find))


def _check_candidates(scenario: Scenario, find: _Lookup) -> None:
    """The names that a plan may choose from."""
    for kind, names in (("nodes", scenario.plan.nodes), ("kv_formats", scenario.plan.kv_formats)):
        known = getattr(find.catalog, kind)
        for name in names:
            if name != ALL and name not in known:
                find.complain(f"unknown {name!r}", "plan", kind, hint=did_you_mean(name, list(known)))


def _check_workload(scenario: Scenario, find: _Lookup) -> None:
    workload = scenario.workload
    if workload.trace is not None:
        both = [name for name in ("prompt_tokens", "output_tokens") if getattr(workload, name) is not None]
        for name in both:
            find.complain("a trace brings its own lengths: leave one of the two out", "workload", name)
        return
    for name in ("arrival",) if workload.classes else DRAWN_BY_PRESET:
        if getattr(workload, name) is None:
            hint = _for_example(scenario) if name == "arrival" else ""
            find.complain("is required where there is neither a preset nor a trace", "workload", name, hint=hint)


def _for_example(scenario: Scenario) -> str:
    """Arrivals as a planner asks for them."""
    users = scenario.plan.users or 1000
    return f"such as {{kind: users, users: {users}, sessions_per_day: 4, profile: office-hours}}"


def _trace(scenario: Scenario, find: _Lookup) -> Trace | None:
    workload = scenario.workload
    if workload.trace is None:
        return None
    columns = None if workload.columns is None else workload.columns.model_dump()
    try:
        trace = read_trace(find.source.file(workload.trace, "workload.trace"), columns)
    except ScenarioError as error:
        find.problems += error.problems
        return None
    if workload.replay == "closed" and (message := why_not_closed(trace)):
        find.complain(message, "workload", "replay", hint="replay: open keeps the recorded arrivals")
    return trace


def _weights(scenario: Scenario, model: ModelSpec, find: _Lookup) -> str:
    key = scenario.weights or model.weight_formats[0]
    if key in find.catalog.weight_formats and key not in model.weight_formats:
        known = ", ".join(model.weight_formats)
        find.complain(f"the catalog has no {key} weights of {model.name}", "weights", hint=f"known: {known}")
    return key


def _price(scenario: Scenario, node: Node, find: _Lookup) -> Price | None:
    """The price asked for; else the first of the catalog for that node type; else none is known."""
    asked = scenario.price
    if asked is None:
        key = next((key for key, price in find.catalog.prices.items() if price.node == scenario.node), None)
        return None if key is None else find.get("prices", key, "price")
    if asked.catalog is None:
        kind = "own" if asked.own is not None else "rent"
        return Price(
            name="from the scenario", node=scenario.node, kind=kind,
            usd_per_hour=asked.usd_per_hour, quote=asked.quote, own=asked.own,
        )  # fmt: skip
    price = find.get("prices", asked.catalog, "price")
    if price is not None and price.node != scenario.node:
        find.complain(f"'{asked.catalog}' is a price of {price.node}, not of {scenario.node}", "price")
    return price


def _check_engine(scenario: Scenario, engine: EngineSpec, key: str, kv_format: KVFormat, find: _Lookup) -> None:
    if kv_format.engines is not None and key not in kv_format.engines:
        find.complain(f"{engine.name} does not serve {kv_format.name} KV", "kv_format", hint="bf16 works everywhere")
    if engine.serial and (scenario.scheduler.max_num_seqs or 1) > 1:
        find.complain(f"{engine.name} serves one request at a time", "scheduler", "max_num_seqs")
    if engine.prefix_caching is None and scenario.scheduler.enable_prefix_caching:
        find.complain(f"prefix caching of {engine.name} is not modelled", "scheduler", "enable_prefix_caching")
    asked = _with_settings(engine, scenario)
    if scenario.kv_offload is not None and not asked.prefix_caching:
        hint = "" if engine.prefix_caching is None else "set scheduler.enable_prefix_caching"
        find.complain("offloaded KV is found by its prefix, but prefixes are not cached", "kv_offload", hint=hint)
    batch = -(-asked.max_num_seqs // (scenario.parallelism.pp if scenario.parallelism else 1))
    if asked.max_num_batched_tokens < batch and not engine.prefill_first:
        find.complain(
            f"{asked.max_num_batched_tokens} tokens a step starve a batch of {batch} sequences",
            "scheduler", "max_num_batched_tokens", hint="raise it, or lower max_num_seqs",
        )  # fmt: skip


def _with_settings(engine: EngineSpec, scenario: Scenario) -> EngineSpec:
    """The engine with the scenario's settings in place of its defaults."""
    asked = {
        "max_num_seqs": scenario.scheduler.max_num_seqs,
        "max_num_batched_tokens": scenario.scheduler.max_num_batched_tokens,
        "prefix_caching": scenario.scheduler.enable_prefix_caching,
        "memory_fraction": scenario.memory.fraction,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    return EngineSpec.model_validate({**dict(engine), **given})


def _pinned_layout(scenario: Scenario, model: ModelSpec, node: Node, find: _Lookup) -> Parallelism:
    asked = scenario.parallelism
    assert asked is not None
    layout = Parallelism(asked.tp, asked.dp, asked.expert, asked.pp)
    if layout.devices != node.devices:
        sizes = f"tp {asked.tp} x pp {asked.pp} x dp {asked.dp}"
        message = f"{sizes} is {layout.devices} devices, but {node.name} has {node.devices}"
        find.complain(message, "parallelism")
    if not divides(model, asked.tp):
        find.complain(f"the attention heads of {model.name} do not split over tp {asked.tp}", "parallelism", "tp")
    if asked.pp > model.layers:
        find.complain(f"{model.name} has only {model.layers} layers for {asked.pp} stages", "parallelism", "pp")
    if asked.expert and model.experts is None:
        find.complain(f"{model.name} has no experts to spread", "parallelism", "expert")
    find.check()
    return layout


def _best_layout(model: ModelSpec, node: Node, scenario: Scenario, at: Callable[[Parallelism], Resolved]) -> Resolved:
    """The layout that serves most inside the SLO's TPOT, by the closed form; the widest tp if none fits, to say why.

    The closed form does not see replicas wait for each other, so layouts in lockstep are taken where no other will do.
    """
    tpot_s = (scenario.slo.tpot_s if scenario.slo else None) or np.inf
    found: list[tuple[tuple[bool, bool, float, int], Resolved]] = []
    failure: Infeasible | None = None
    for layout in layouts(model, node.devices):
        try:
            candidate = at(layout)
        except Infeasible as error:
            failure = error
            continue
        best = candidate.saturation(tpot_s)
        per_s = best.requests_per_s * layout.replicas
        found.append(((best.tpot_s <= tpot_s, not layout.in_lockstep, per_s, layout.tp), candidate))
    if not found:
        assert failure is not None
        raise failure
    return max(found, key=lambda pair: pair[0])[1]


def _checked_lengths(resolved: Resolved) -> Resolved:
    """Refuse a workload of which no request fits; warn of one of which some do not."""
    prompt, output = resolved.lengths
    length = prompt + np.maximum(output, resolved.workload.max_tokens or 0)
    limit = resolved.model.max_context_tokens
    if length.min() > limit:
        message = f"every request is longer than {resolved.model.name}'s context of {limit:,} tokens"
        raise ScenarioError.one(
            f"{message} (the shortest has {length.min():,.0f})",
            key="workload",
            hint="shorten prompt_tokens or max_tokens",
        )
    place, longest = _largest_place(resolved), resolved.longest
    if length.min() > longest.tokens:
        raise Infeasible(
            f"no request fits {place} (the shortest has {length.min():,.0f} tokens)",
            remedies=["shorten prompts or max_tokens", "use a smaller KV format", "spread the model over more devices"],
        )
    _check_tiers(resolved)
    if prompt.min() > longest.prompt_tokens:
        most = f"{longest.prompt_tokens:,} tokens"
        raise Infeasible(
            f"{resolved.engine.name} computes prompts of up to {most}, and every one here is longer",
            remedies=["raise scheduler.max_num_batched_tokens", "shorten prompts"],
        )
    shares = {
        f"are longer than {resolved.model.name}'s context of {limit:,} tokens": (length > limit).mean(),
        f"are larger than {place}": ((length > longest.tokens) & (length <= limit)).mean(),
        f"have prompts longer than a step's {longest.prompt_tokens:,} tokens": (prompt > longest.prompt_tokens).mean(),
    }
    warnings = [f"{share:.1%} of requests {what} and are rejected" for what, share in shares.items() if share > 0]
    return replace(resolved, warnings=(*resolved.warnings, *warnings, *session_notes(resolved), *trace_notes(resolved)))


def _largest_place(resolved: Resolved) -> str:
    """Where a request must fit."""
    tokens, seqs = resolved.memory.capacity_tokens, resolved.max_num_seqs
    if resolved.engine.reserve == "slot":
        return f"a slot of {tokens // seqs:,} tokens ({seqs} share the KV pool)"
    return f"the KV pool of {tokens:,} tokens a replica"


def _check_tiers(resolved: Resolved) -> None:
    offload = resolved.scenario.kv_offload
    for name, tier in offload.tiers.items() if offload else ():
        least_bytes = resolved.replica_block_bytes * resolved.layout.dp
        if tier.capacity < least_bytes:
            raise ScenarioError.one(
                "is less than one KV block",
                key=f"kv_offload.{name}.capacity",
                hint=f"give at least {units.bytes_(least_bytes)}, or leave {name} out",
            )
