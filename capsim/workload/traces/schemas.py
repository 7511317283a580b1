"""Which columns of whose trace mean what."""

from dataclasses import dataclass, field
from pathlib import Path

from capsim.errors import ScenarioError, did_you_mean

NEEDED = ("arrival", "prompt_tokens", "output_tokens")
NUMBERS = (*NEEDED, "turn", "think_s")
TOGETHER = (("request", "parent"), ("prefix_hashes", "hash_tokens"))
NAMES = ("session", "request", "parent", "request_class")


@dataclass(frozen=True)
class Schema:
    """Column names by role; a column of ``optional`` may be missing.

    Numeric arrivals count units of ``seconds_per_unit``; hashes stand for ``tokens_a_hash`` tokens each, if no column
    ``hash_tokens`` says how many.
    """

    columns: dict[str, str]
    optional: dict[str, str] = field(default_factory=dict)
    seconds_per_unit: float = 1.0
    tokens_a_hash: int | None = None


def _schema(arrival: str, prompt: str, output: str, *, unit_s: float = 1.0, tokens_a_hash: int | None = None,
            **optional: str) -> Schema:  # fmt: skip
    return Schema(dict(zip(NEEDED, (arrival, prompt, output), strict=True)), optional, unit_s, tokens_a_hash)


# The first that fits counts: one with more columns stands before one with fewer.
SCHEMAS = {
    "capsim": _schema(
        "arrival_s", "prompt_tokens", "output_tokens", session="session", turn="turn", request="request",
        parent="parent", think_s="think_s", request_class="request_class", prefix_hashes="prefix_hashes",
        hash_tokens="hash_tokens",
    ),
    "azure": _schema("TIMESTAMP", "ContextTokens", "GeneratedTokens", request_class="NumImages"),
    "burstgpt": _schema(
        "Timestamp", "Request tokens", "Response tokens", session="Session ID", request_class="Log Type"
    ),
    "mooncake": _schema(
        "timestamp", "input_length", "output_length", unit_s=1e-3, tokens_a_hash=512, prefix_hashes="hash_ids"
    ),
    "vidur": _schema("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    "vllm-bench": _schema("start_times", "input_lens", "output_lens"),
}  # fmt: skip
BAILIAN = _schema(
    "timestamp", "input_length", "output_length", tokens_a_hash=16, request="chat_id", parent="parent_chat_id",
    turn="turn", request_class="type", prefix_hashes="hash_ids",
)  # fmt: skip
"""Qwen-Bailian: Mooncake's names, but seconds, and a chat and its parent to tell it by."""


def schema_of(present: list[str], columns: dict[str, str] | None, path: Path) -> Schema:
    """The schema that the user's ``columns`` say, or else the known one that the columns present fit.

    Raises
    ------
    ScenarioError
        A column that is named is missing, or no known schema fits.
    """
    if columns is not None:
        return _named(present, columns, path)
    if {*BAILIAN.columns.values(), "chat_id", "parent_chat_id"} <= set(present):
        return _present(BAILIAN, present)
    for schema in SCHEMAS.values():
        if set(schema.columns.values()) <= set(present):
            return _present(schema, present)
    if "input_lens" in present:
        raise ScenarioError.one(
            "the benchmark result has no start_times", path=path,
            hint="save it with a version of vLLM that writes them beside input_lens",
        )  # fmt: skip
    raise ScenarioError.one(
        f"columns {', '.join(present) or '(none)'} fit no known trace schema ({', '.join([*SCHEMAS, 'qwen-bailian'])})",
        path=path,
        line=1,
        hint="name them with columns: {arrival: …, prompt_tokens: …, output_tokens: …}",
    )


def _present(schema: Schema, present: list[str]) -> Schema:
    kept = {role: name for role, name in schema.optional.items() if name in present}
    return Schema(schema.columns, kept, schema.seconds_per_unit, schema.tokens_a_hash)


def _named(present: list[str], columns: dict[str, str], path: Path) -> Schema:
    for role in NEEDED:
        if role not in columns:
            hint = did_you_mean(role, list(columns))
            raise ScenarioError.one(f"columns must name '{role}'", path=path, hint=hint)
    for pair in TOGETHER:
        named = [role for role in pair if role in columns]
        if len(named) == 1:
            raise ScenarioError.one(f"columns name '{named[0]}', but {' and '.join(pair)} go together", path=path)
    for name in columns.values():
        if name not in present:
            raise ScenarioError.one(f"no column '{name}'", path=path, line=1, hint=did_you_mean(name, present))
    optional = {role: name for role, name in columns.items() if role not in NEEDED}
    return Schema({role: columns[role] for role in NEEDED}, optional)
