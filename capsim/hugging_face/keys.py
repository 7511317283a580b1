"""A config.json that remembers which of its keys were read, so that none that matters is passed over."""

import re
from typing import Any

from capsim.errors import Problem, ScenarioError

MAX_SIZE = 10_000_000
MAX_LAYERS = 10_000
MAX_CONTEXT = 1_000_000_000

# Words of keys that may change what a model stores or holds.
_MATTERS = re.compile(
    r"layer|head|dim|size|rank|expert|window|chunk|index|top_?k|hidden|intermediate|compress|sparse|sliding|kv|latent"
    r"|quant|lora|cache|interval|conv|block|ple|ngram|group|_config$|shared|attn|attention|moe|mlp"
)
# Of those, the ones that do not: biases, routing arithmetic, numerics, generation settings, prediction heads that
# engines leave out of plain serving.
_HARMLESS = re.compile(
    r"token_(index|id)s?$|^mtp_|dropout|_loss|_eps$|^hc_|^image_|^video_|^vision_feature|^architectures$"
    r"|^(attention_bias|mlp_bias|hidden_act|hidden_activation|mlp_hidden_act|use_cache|cache_implementation"
    r"|n_group|topk_group|topk_method|norm_topk_prob|num_expert_group|moe_renormalize|moe_router_activation_func"
    r"|latent_moe_use_norm|attn_res_block_size|num_hash_layers|num_nextn_predict_layers|ep_size|max_window_layers"
    r"|attn_logit_softcapping|attn_temperature_tuning|attn_scale|_attn_implementation|qk_layernorm|attn_qkv_bias"
    r"|use_qk_norm|indexer_rope_interleave|vocab_size_per_layer_input|mla_use_nope|mamba_ssm_dtype|attention_type"
    r"|attention_multiplier|output_attentions|output_hidden_states|chunk_size_feed_forward|top_k|num_beam_groups"
    r"|no_repeat_ngram_size|encoder_no_repeat_ngram_size|use_bidirectional_attention|qk_head_dim|moe_router_dtype)$"
)


class Keys:
    """The keys of a configuration; ``at`` is where it stands inside the file."""

    def __init__(self, values: dict[str, Any], defaults: dict[str, Any], at: str = "") -> None:
        self.values = {**defaults, **values}
        self.at = at
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """A value, ``default`` where the key is missing or null."""
        self.read.add(name)
        value = self.values.get(name)
        return default if value is None else value

    def need(self, *names: str) -> Any:
        """The value of the first key that is there."""
        for name in names:
            if (value := self.get(name)) is not None:
                return value
        raise self.refuse(names[0], "is missing")

    def nested(self, name: str) -> "Keys":
        values = self.need(name)
        if not isinstance(values, dict):
            raise self.refuse(name, "expected keys and values")
        return Keys(values, {}, f"{self.at}{name}.")

    def number(self, *names: str, most: int = MAX_SIZE) -> int:
        """A positive whole number."""
        value = self.need(*names)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(names[0], f"expected a positive whole number (got {value!r})")
        if value > most:
            raise self.refuse(names[0], f"more than {most:,} is not a model's")
        return value

    def layers(self, *names: str) -> int:
        """A number of layers: few enough to be gone through one by one."""
        return self.number("num_hidden_layers", *names, most=MAX_LAYERS)

    def context(self) -> int:
        return self.number("max_position_embeddings", "model_max_length", most=MAX_CONTEXT)

    def count(self, name: str, default: int = 0) -> int:
        """A whole number that may be zero or left out."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SIZE:
            raise self.refuse(name, f"expected a whole number up to {MAX_SIZE:,} (got {value!r})")
        return value

    def flag(self, name: str) -> bool:
        """True or false, false where the key is missing."""
        value = self.get(name, False)
        if not isinstance(value, bool):
            raise self.refuse(name, f"expected true or false (got {value!r})")
        return value

    def items(self, name: str) -> list[Any]:
        """A list, empty where the key is missing."""
        value = self.get(name, [])
        if not isinstance(value, list):
            raise self.refuse(name, f"expected a list (got {value!r})")
        return value

    def expect(self, name: str, value: Any, *others: Any) -> None:
        """Refuse a config that departs from what is understood of a key; a missing key is the first of the values."""
        given = self.get(name, value)
        if not any(given == one and type(given) is type(one) for one in (value, *others)):
            raise self.refuse(name, f"{given!r} is not understood")

    def check_unread(self) -> None:
        """Refuse keys that may change memory and were not read."""
        unread = [
            name for name, value in self.values.items()
            if name not in self.read and value and _MATTERS.search(name) and not _HARMLESS.search(name)
        ]  # fmt: skip
        if unread:
            raise ScenarioError([self._problem(name, "is not understood and may change memory") for name in unread])

    def refuse(self, name: str, message: str, hint: str = "") -> ScenarioError:
        return ScenarioError([self._problem(name, message, hint)])

    def _problem(self, name: str, message: str, hint: str = "") -> Problem:
        return Problem(message, key=f"{self.at}{name}", hint=hint)
