"""What nodes cost a month, line by line. A month is 730 hours."""

from typing import Any

from capsim.api_tiers import ApiTier
from capsim.prices import HOURS_PER_MONTH, OwnPrice, Price

SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600


def monthly_cost(price: Price | None, nodes: float) -> dict[str, Any]:
    """Monthly cost of ``nodes`` nodes (their mean, where they come and go): ``{price, monthly_usd, lines}``.

    Every line has ``{name, quantity, unit, unit_usd, monthly_usd}`` and they add up to ``monthly_usd``. Without a price
    the cost is None, never 0.
    """
    if price is None:
        return {"price": "price unknown", "monthly_usd": None, "lines": []}
    lines = _all_in_lines(price, nodes) if price.own is None else _own_lines(price.own, nodes)
    total = sum(line["monthly_usd"] for line in lines)
    return {"price": price.name, "monthly_usd": total, "lines": lines}


def known_first(usd: float | None) -> tuple[bool, float]:
    """What to sort costs by: an unknown one comes last, whatever the others are."""
    return usd is None, usd or 0.0


def unit_costs(monthly_usd: float | None, tokens_per_s: dict[str, float]) -> dict[str, float | None]:
    """Dollars per million tokens at a sustained rate, by kind of token; None without a price or tokens."""
    return {
        f"usd_per_million_{kind}": None
        if monthly_usd is None or not rate > 0
        else monthly_usd / (rate * SECONDS_PER_MONTH) * 1e6
        for kind, rate in tokens_per_s.items()
    }


def api_bill(tier: ApiTier, tokens_per_s: dict[str, float]) -> dict[str, Any]:
    """What a hosted model bills in a month for traffic at a sustained rate: ``{tier, monthly_usd, known_usd, lines}``.

    A kind of token without a known price has a line without dollars: ``known_usd`` is the sum of the others, and the
    whole, ``monthly_usd``, None.
    ``tokens_per_s`` has ``input_tokens_per_s`` in all, ``cached_tokens_per_s`` of these and ``output_tokens_per_s``. A
    token that our cache held is billed as cached input: the vendor's own cache may hold more of them, or fewer.
    """
    cached = tokens_per_s["cached_tokens_per_s"]
    cached_usd = tier.cached_input_usd_per_million
    parts = [
        ("uncached input", tokens_per_s["input_tokens_per_s"] - cached, tier.input_usd_per_million),
        ("cached input", cached, tier.input_usd_per_million if cached_usd is None else cached_usd),
        ("output", tokens_per_s["output_tokens_per_s"], tier.output_usd_per_million),
    ]
    lines = [_line(name, rate * SECONDS_PER_MONTH / 1e6, "million tokens", usd) for name, rate, usd in parts]
    known_usd = sum(line["monthly_usd"] for line in lines if line["unit_usd"] is not None)
    complete = all(line["unit_usd"] is not None for line in lines)
    return {
        "tier": tier.name, "monthly_usd": known_usd if complete else None, "known_usd": known_usd, "lines": lines,
    }  # fmt: skip


def _line(name: str, quantity: float, unit: str, unit_usd: float | None) -> dict[str, Any]:
    monthly_usd = None if unit_usd is None else quantity * unit_usd
    return {"name": name, "quantity": quantity, "unit": unit, "unit_usd": unit_usd, "monthly_usd": monthly_usd}


def _all_in_lines(price: Price, nodes: float) -> list[dict[str, Any]]:
    """Node-hours at the rate; of a quote, those below its minimum too."""
    rate = price.all_in_usd_per_hour
    lines = [_line(f"{price.kind}, {price.name}", nodes * HOURS_PER_MONTH, "node-hour", rate)]
    unused = max(0, price.quote.minimum_nodes - nodes) if price.quote is not None else 0
    if unused:
        lines.append(_line("minimum not used", unused * HOURS_PER_MONTH, "node-hour", rate))
    return lines


def _own_lines(own: OwnPrice, nodes: float) -> list[dict[str, Any]]:
    """Straight-line depreciation, networking as a share of the purchase, power at full draw, colocation by kW; the cost
    of capital on what is bound on average."""
    months = own.life_years * 12
    kilowatts = own.power_w / 1000
    monthly = own.purchase_usd * (1 - own.residual_fraction) / months
    lines = [_line("depreciation", nodes, "node", monthly)]
    if own.network_fraction:
        lines.append(_line("network", nodes, "node", own.purchase_usd * own.network_fraction / months))
    if own.capital_rate:
        bound_usd = own.purchase_usd * (1 + own.residual_fraction + own.network_fraction) / 2
        lines.append(_line("capital", nodes, "node", bound_usd * own.capital_rate / 12))
    energy = nodes * kilowatts * own.power_usage_effectiveness * HOURS_PER_MONTH
    lines.append(_line("electricity", energy, "kWh", own.electricity_usd_per_kwh))
    if own.colocation_usd_per_kw_month:
        lines.append(_line("colocation", nodes * kilowatts, "kW", own.colocation_usd_per_kw_month))
    if own.staff_usd_per_month:
        lines.append(_line("staff", nodes, "node", own.staff_usd_per_month))
    return lines
