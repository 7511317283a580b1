"""What NVIDIA's published runs of TensorRT-LLM were set to: by ``trtllm-bench`` itself, or as its R1 guide states it.

The commands of the performance overview name neither a batch nor a token budget. ``trtllm-bench`` then reckons both
from the memory that it expects for KV (tensorrt_llm/bench/build/tuning.py, TensorRT-LLM 1.0). It takes KV as shared by
all ranks and as heads of equal size, whatever the attention: data-parallel ranks each get the batch meant for all of
them, and a latent counts as if it were not compressed.
"""

from dataclasses import dataclass
from math import ceil

from capsim.llm import ModelSpec

KV_SHARE = 0.95
STORED_ELEMENTS = {"nvfp4": 1 / 2 + 1 / 16}
"""Elements of a file for each parameter: two of 4 bits share a byte, and 16 a scale."""
ELEMENT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5}
"""What ``trtllm-bench`` takes an element to be, by weight format; it tunes no other."""
UNTUNED = 2048, 8192
MOST_REQUESTS, MOST_TOKENS, LEAST_BATCH, LEAST_TOKENS = 4096, 32768, 64, 2048


@dataclass(frozen=True)
class Guided:
    """Settings that the guide to DeepSeek-R1 states: of a rank, and of the run."""

    max_num_seqs: int
    max_num_batched_tokens: int
    memory_fraction: float
    requests: int


GUIDE = "TensorRT-LLM DeepSeek-R1 best-perf guide"
GUIDED = {
    7168: Guided(896, 2048, 0.93, 114688),
    3072: Guided(384, 1536, 0.85, 49152),
    1024: Guided(128, 1151, 0.8, 5120),
}
"""By concurrency. Attention is data-parallel in all of them."""


def tuned(
    model: ModelSpec,
    weights: str,
    kv_bytes: float,
    memory_bytes: float,
    ranks: int,
    stages: int,
    prompt: int,
    output: int,
) -> tuple[int, int]:
    """The most sequences that a replica runs, in all stages, and tokens of a step, as ``trtllm-bench`` sets them.

    Parameters
    ----------
    kv_bytes
        Of an element of KV.
    memory_bytes, ranks, stages
        Of a device, devices of a stage, and stages of the pipeline.
    prompt, output
        Tokens of a request.
    """
    if weights not in ELEMENT_BYTES:
        batch, tokens = UNTUNED
    else:
        weight_bytes = model.total_parameters * STORED_ELEMENTS.get(weights, 1.0) * ELEMENT_BYTES[weights]
        free_bytes = KV_SHARE * (memory_bytes * ranks * stages - weight_bytes)
        batch, tokens = _rounded(
            free_bytes / (_token_bytes(model, kv_bytes, ranks) * (prompt + output)), prompt / output, stages
        )
    return batch * stages, max(tokens, prompt + batch)  # a prompt is not cut in parts


def _token_bytes(model: ModelSpec, kv_bytes: float, ranks: int) -> float:
    group = model.attention[0]
    heads = max(ranks, group.kv_heads or group.heads)
    return 2 * model.layers * heads * (group.head_dim or model.hidden // group.heads) * kv_bytes


def _rounded(requests: float, prompts_an_answer: float, stages: int) -> tuple[int, int]:
    batch = min(requests, MOST_REQUESTS) / stages
    tokens = min(batch * (1 + prompts_an_answer), MOST_TOKENS)
    grain = 32 if batch < 256 else 128 if batch < 1024 else 256
    token_grain = 256 if tokens < 4096 else 512 if tokens < 8192 else 1024
    return max(LEAST_BATCH, grain * ceil(batch / grain)), max(LEAST_TOKENS, token_grain * ceil(tokens / token_grain))
