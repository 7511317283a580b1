"""Memory per rank, against vLLM's own start-up figures (llm-d-planner, H100, 16k context)."""

import pytest

from capsim.catalog import load_catalog
from capsim.errors import Infeasible
from capsim.memory import blocks_of, memory_budget, weights_per_rank_bytes
from capsim.parallelism import Parallelism

CATALOG = load_catalog()
GIB = 2**30
VLLM, H100 = CATALOG.engines["vllm"], CATALOG.devices["h100-sxm"]


def budget(model, weights, tp, activation_gib=None, non_torch_gib=None, **options):
    engine = VLLM
    if non_torch_gib is not None:
        engine = VLLM.model_copy(update={"runtime_reserve_bytes": non_torch_gib * GIB})
    activations = None if activation_gib is None else activation_gib * GIB
    return memory_budget(
        CATALOG.models[model], CATALOG.weight_formats[weights], CATALOG.kv_formats["bf16"], H100, engine,
        Parallelism(tp), activation_bytes=activations, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "weights", "tp", "activation_gib", "non_torch_gib", "weights_gib", "kv_gib"),
    [
        ("llama-3.1-70b", "fp8", 2, 4.84, 0.55, 33.88, 32.00),
        ("llama-3.1-8b", "bf16", 1, 4.76, 0.13, 14.99, 51.38),
    ],
)
def test_vllm_start_up_memory(model, weights, tp, activation_gib, non_torch_gib, weights_gib, kv_gib):
    split = budget(model, weights, tp, activation_gib, non_torch_gib)
    assert split.weights_bytes / GIB == pytest.approx(weights_gib, rel=0.01)
    assert split.kv_pool_bytes / GIB == pytest.approx(kv_gib, abs=0.1)
    total = split.weights_bytes + split.activation_bytes + split.runtime_bytes + split.kv_pool_bytes
    assert total == pytest.approx(0.9 * H100.memory_bytes, rel=1e-12)


def test_weights_that_do_not_fit_name_the_shortfall_and_the_remedies():
    with pytest.raises(Infeasible, match="short on each device") as caught:
        budget("llama-3.1-70b", "bf16", 1)
    assert caught.value.bytes_short > 60 * GIB
    assert any("fp8" in remedy for remedy in caught.value.remedies)


def test_expert_parallel_ranks_hold_whole_experts():
    model, weights = CATALOG.models["deepseek-v3"], CATALOG.weight_formats["fp8"]
    sliced = weights_per_rank_bytes(model, weights, Parallelism(8))
    whole = weights_per_rank_bytes(model, weights, Parallelism(1, 8, expert=True))
    assert sliced < whole < 2 * sliced


def test_windowed_sequences_hold_both_groups_until_the_window_fills():
    model, bf16 = CATALOG.models["gpt-oss-120b"], CATALOG.kv_formats["bf16"]
    split = budget("gpt-oss-120b", "mxfp4", 2)
    assert blocks_of(split, model, bf16, 100, 2) == 2 * 7
    assert blocks_of(split, model, bf16, 1600, 2) == 100 + 8
