"""A model's shape from its Hugging Face ``config.json``: known families are read, everything else is refused."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from capsim.errors import Problem, ScenarioError, did_you_mean
from capsim.hugging_face.families import DEFAULTS, FAMILIES
from capsim.hugging_face.keys import Keys
from capsim.hugging_face.weights import weight_formats
from capsim.llm import ModelSpec

MAX_BYTES = 10_000_000


def read_config(path: Path) -> ModelSpec:
    """The model of a ``config.json`` file, named after the checkpoint or the folder it lies in.

    Raises
    ------
    ScenarioError
        No such file, not JSON, or not a model that is understood.
    """
    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    if path.stat().st_size > MAX_BYTES:
        raise ScenarioError.one(f"larger than {MAX_BYTES:,} bytes: not a config.json", path=path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ScenarioError.one(f"not JSON: {error}", path=path, line=getattr(error, "lineno", None)) from error
    if not isinstance(config, dict):
        raise ScenarioError.one("expected a JSON object", path=path)
    name = config.get("_name_or_path")
    try:
        return model_from_config(config, name if isinstance(name, str) and name else _folder_name(path))
    except ScenarioError as error:
        placed = [Problem(p.message, path, None, p.key, p.hint) for p in error.problems]
        raise ScenarioError(placed) from error


def model_from_config(config: dict[str, Any], name: str) -> ModelSpec:
    """The decoder that a configuration describes, with the vision encoder in front of it if there is one.

    Raises
    ------
    ScenarioError
        An unknown ``model_type``, a missing key, or a key that may change memory and is not understood.
    """
    outer = Keys(config, {})
    inner = outer.nested("text_config") if "text_config" in config else outer
    family = str(inner.get("model_type") or outer.get("model_type"))
    if family not in FAMILIES:
        hint = did_you_mean(family, list(FAMILIES))
        raise inner.refuse("model_type", f"unknown model type '{family}'", f"{hint}; known: {', '.join(FAMILIES)}")
    shared = {key: outer.get(key) for key in ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")}
    text = Keys(inner.values, {**DEFAULTS.get(family, {}), **_given(shared), "model_type": family}, inner.at)
    text.read.add("model_type")
    text.expect("is_encoder_decoder", False)
    fields = {
        **FAMILIES[family](text),
        "hidden": text.number("hidden_size"),
        "vocab": text.number("vocab_size"),
        "max_context_tokens": text.context(),
        "tied_embedding": text.flag("tie_word_embeddings"),
        "weight_formats": weight_formats(text),
        "tower_parameters": _tower_parameters(outer.nested("vision_config")) if outer.get("vision_config") else 0,
    }
    text.check_unread()
    if inner is not outer:
        outer.check_unread()
    return _spec(name=name, **fields)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _spec(**fields: Any) -> ModelSpec:
    try:
        return ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise ScenarioError([Problem(e["msg"], key=".".join(map(str, e["loc"]))) for e in error.errors()]) from error


def _tower_parameters(vision: Keys) -> int:
    """Matrices of a vision encoder's layers; embeddings and projector are left out."""
    layers = vision.layers("depth", "vt_num_hidden_layers")
    hidden = vision.number("hidden_size", "vt_hidden_size")
    intermediate = vision.number("intermediate_size", "vt_intermediate_size")
    gated = vision.get("model_type") == "pixtral"
    return layers * (4 * hidden * hidden + (3 if gated else 2) * hidden * intermediate)


def _folder_name(path: Path) -> str:
    return path.resolve().parent.name if path.name == "config.json" else path.stem
