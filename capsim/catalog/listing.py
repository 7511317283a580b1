"""The catalog as a table: for each kind, the figures by which its entries are told apart."""

from collections.abc import Callable
from datetime import date
from typing import Any

from capsim import units
from capsim.catalog import Catalog, Provenance
from capsim.kv_format import growth_bytes_per_token, pair_bytes, window_bytes
from capsim.prices import Price, is_stale

PRICED = ("prices", "api_tiers")
HEAD_DIM = 128

Columns = dict[str, Callable[[Any, Catalog], str]]


def rows(kind: str, catalog: Catalog, today: date) -> list[list[str]]:
    """A head and a row an entry: key, main figures, basis and date; prices older than half a year are marked."""
    columns = COLUMNS[kind]
    table = [[kind, *columns, "basis", "as of"]]
    for key, spec in getattr(catalog, kind).items():
        fact = catalog.provenance[kind, key]
        stale = " stale" if kind in PRICED and is_stale(fact.as_of, today) else ""
        figures = [figure(spec, catalog) for figure in columns.values()]
        table.append([key, *figures, _basis(fact), f"{fact.as_of}{stale}"])
    return table


def _basis(fact: Provenance) -> str:
    """An entry's basis, and whether some of its values are mere assumptions."""
    assumed = any(value.basis == "assumed" for value in fact.values.values())
    return f"{fact.basis}, in part assumed" if assumed and fact.basis != "assumed" else fact.basis


def _total(model: Any, catalog: Catalog) -> str:
    return units.count(model.total_parameters)


def _active(model: Any, catalog: Catalog) -> str:
    return units.count(model.active_parameters) if model.experts else ""


def _kv(model: Any, catalog: Catalog) -> str:
    return f"{growth_bytes_per_token(model, catalog.kv_formats['bf16']):,.0f} B"


def _constant(model: Any, catalog: Catalog) -> str:
    constant = window_bytes(model, catalog.kv_formats["bf16"])
    return units.bytes_(constant) if constant else ""


def _rate(flops: float | None) -> str:
    return "" if flops is None else f"{flops / 1e12:g}"


def _money(price: float | None) -> str:
    return "" if price is None else f"${price:g}"


def _cost(price: Price, catalog: Catalog) -> str:
    if price.own is not None:
        return f"{units.usd(price.own.purchase_usd)} over {price.own.life_years:g} years"
    term = "" if price.quote is None else f" for {price.quote.term_months} months"
    return f"${price.all_in_usd_per_hour:,.2f} an hour{term}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _caching(engine: Any, catalog: Catalog) -> str:
    return "not modelled" if engine.prefix_caching is None else "on" if engine.prefix_caching else "off"


def _arrival(workload: Any, catalog: Catalog) -> str:
    return workload.arrival.kind if workload.arrival is not None else ""


COLUMNS: dict[str, Columns] = {
    "models": {
        "parameters": _total, "active": _active, "KV a token, bf16": _kv, "windows, states": _constant,
        "context": lambda m, _: units.count(m.max_context_tokens),
        "weights": lambda m, _: ", ".join(m.weight_formats),
    },
    "weight_formats": {
        "dense bits": lambda w, _: f"{8 * w.dense_bytes:g}", "expert bits": lambda w, _: f"{8 * w.experts_bytes:g}",
        "arithmetic": lambda w, _: w.compute,
    },
    "kv_formats": {
        f"K and V of a head of {HEAD_DIM}": lambda f, _: f"{pair_bytes(f, HEAD_DIM):.4g} B",
        "bf16 layers": lambda f, _: str(f.uncompressed_layers),
        "engines": lambda f, _: "any" if f.engines is None else ", ".join(f.engines),
    },
    "devices": {
        "memory": lambda d, _: units.bytes_(d.memory_bytes),
        "bandwidth": lambda d, _: f"{d.memory_bytes_per_s / 1e9:,.0f} GB/s",
        "bf16 TFLOP/s": lambda d, _: _rate(d.bf16_flops), "fp8": lambda d, _: _rate(d.fp8_flops),
        "fp4": lambda d, _: _rate(d.fp4_flops), "power": lambda d, _: f"{d.power_w:,.0f} W",
    },
    "nodes": {
        "devices": lambda n, _: f"{n.devices} x {n.device}",
        "memory": lambda n, c: units.bytes_(n.devices * c.devices[n.device].memory_bytes),
        "engine": lambda n, _: n.engine,
    },
    "engines": {
        "prefill": lambda e, _: "first" if e.prefill_first else "in what decoding leaves",
        "reserve": lambda e, _: e.reserve, "at once": lambda e, _: str(e.max_num_seqs),
        "tokens a step": lambda e, _: units.count(e.max_num_batched_tokens),
        "block": lambda e, _: str(e.block_tokens), "prefix cache": _caching,
    },
    "prices": {"node": lambda p, _: p.node, "kind": lambda p, _: p.kind, "price": _cost},
    "calibrations": {
        "of bandwidth": lambda e, _: f"{e.memory_fraction:g}", "of arithmetic": lambda e, _: f"{e.flops_fraction:g}",
    },
    "workloads": {"arrival": _arrival},
    "traffic": {
        "requests/s": lambda f, _: _figure(f.rate_per_s), "CV": lambda f, _: _figure(f.cv),
        "IDC 1 s": lambda f, _: _figure(f.idc_1s), "10 s": lambda f, _: _figure(f.idc_10s),
        "60 s": lambda f, _: _figure(f.idc_60s), "prompt": lambda f, _: _figure(f.prompt_tokens.mean),
        "output": lambda f, _: _figure(f.output_tokens.mean),
    },
    "profiles": {
        "period": lambda p, _: f"{p.period_s / 3600:g} h", "rates": lambda p, _: str(len(p.rates)),
        "peak over mean": lambda p, _: f"{max(p.rates) * len(p.rates) / sum(p.rates):.3g}",
    },
    "api_tiers": {
        "input": lambda t, _: _money(t.input_usd_per_million),
        "cached input": lambda t, _: _money(t.cached_input_usd_per_million),
        "output a million tokens": lambda t, _: _money(t.output_usd_per_million),
    },
}  # fmt: skip
