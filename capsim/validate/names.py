"""What publishers call devices, models, engines and number formats, and what they are in the catalog."""

from dataclasses import dataclass

DISAGGREGATED = "prefill and decode on separate nodes"


class Skip(Exception):  # noqa: N818  an outcome, not a fault
    """A point that is not judged, and why."""


@dataclass(frozen=True)
class Names:
    """Catalog keys by published name; ``refused`` says of others why they cannot be run."""

    kind: str
    keys: dict[str, str]
    refused: dict[str, str]

    def of(self, name: str) -> str:
        """The catalog key.

        Raises
        ------
        Skip
            The name is not known, or is known not to be modelled.
        """
        if name in self.refused:
            raise Skip(self.refused[name])
        if name not in self.keys:
            raise Skip(f"{self.kind} {name or '(none)'} is not in the catalog")
        return self.keys[name]


HARDWARE = Names(
    "device",
    {
        "H100 SXM": "h100-sxm", "H100 SXM 80GB": "h100-sxm", "H100 80GB (79.18 GiB)": "h100-sxm",
        "H200": "h200-sxm", "H200 SXM 141GB": "h200-sxm", "h200": "h200-sxm",
        "b200": "b200", "B200": "b200", "B200 180GB": "b200", "GB200 192GB": "gb200", "GB200": "gb200",
        "GB300": "gb300", "B300": "b300", "mi300x": "mi300x", "mi325x": "mi325x",
        "RTX PRO 6000 Blackwell Server": "rtx-pro-6000", "DGX Spark (GB10)": "dgx-spark",
        "Mac Studio M3 Ultra (80-core GPU, 512 GB)": "m3-ultra-512", "M4 Max 128GB": "m4-max-128",
        "Mac mini M4 Pro 64GB (273 GB/s)": "m4-pro-64", "M5 Pro 64GB (307 GB/s)": "m5-pro-64",
        "Apple M4 (10)": "m4-16", "Apple M4 Pro (20)": "m4-pro-64", "Apple M4 Max (40)": "m4-max-128",
        "Apple M5 Pro (20)": "m5-pro-64",
    },
    {
        "GB200 NVL72": DISAGGREGATED, "H20-3e x8 + 8 (1P1D)": DISAGGREGATED, "H800": DISAGGREGATED,
        "H100 SXM (Atlas Cloud, InfiniBand)": DISAGGREGATED, "Ascend 910C (CloudMatrix384)": DISAGGREGATED,
        "H200 (CoreWeave, CX-7 IB)": "experts over several nodes", "Ascend 910C": "experts over several nodes",
    },
)  # fmt: skip
MODELS = Names(
    "model",
    {
        "DeepSeek-R1-0528": "deepseek-v3", "DeepSeek-R1": "deepseek-v3", "DeepSeek-V3.2": "deepseek-v3.2",
        "Llama-3.3-70B": "llama-3.1-70b", "Llama-3.3-70B-FP8": "llama-3.1-70b",
        "Llama-3.1-405B": "llama-3.1-405b", "Llama-3.1-405B-Instruct": "llama-3.1-405b",
        "Llama-3.1-8B": "llama-3.1-8b", "Meta-Llama-3.1-8B-Instruct": "llama-3.1-8b",
        "Llama-4-Scout": "llama-4-scout", "Llama-4-Maverick": "llama-4-maverick",
        "Qwen3-235B-A22B": "qwen3-235b-a22b", "Qwen3-30B-A3B": "qwen3-30b-a3b", "Qwen3-32B": "qwen3-32b",
        "Qwen3-0.6B": "qwen3-0.6b", "Qwen3-VL-4B": "qwen3-vl-4b", "gpt-oss-20b": "gpt-oss-20b",
        "gpt-oss-120b": "gpt-oss-120b", "Mistral-7B-Instruct-v0.3": "mistral-7b",
        "Mistral-Small-3.2-24B": "mistral-small-3.2-24b", "Mixtral-8x7B-Instruct": "mixtral-8x7b",
    },
    {"Mano-P 1.0-4B": "visual tokens pruned"},
)  # fmt: skip
ENGINES = Names(
    "engine",
    {
        "vLLM": "vllm", "vLLM v0.19.1 FA3": "vllm", "vLLM 0.11.0 (stated for Mistral)": "vllm", "sglang": "sglang",
        "trt": "tensorrt-llm", "TensorRT-LLM": "tensorrt-llm",
        "TensorRT-LLM PyTorch backend (v1.0 docs)": "tensorrt-llm",
        "TensorRT-LLM PyTorch backend (newer docs)": "tensorrt-llm", "mlx_lm": "mlx-lm-serial",
        "llama.cpp": "llama.cpp", "Mano-SDK / Cider MLX": "mlx-lm-serial",
    },
    {
        "SGLang + Mooncake": DISAGGREGATED, "SGLang PD + DeepEP": DISAGGREGATED, "vLLM disaggregated": DISAGGREGATED,
        "CloudMatrix-Infer": DISAGGREGATED, "DeepSeek in-house": DISAGGREGATED,
    },
)  # fmt: skip
WEIGHTS = Names(
    "weight format",
    {
        "bf16": "bf16", "fp16": "bf16", "F16": "bf16", "fp8": "fp8", "fp4": "nvfp4", "nvfp4": "nvfp4",
        "mxfp4": "mxfp4", "Q4": "int4", "Q4_0": "int4", "w4a16": "int4", "4bit": "int4",
    },
    {},
)  # fmt: skip
KV_FORMATS = {
    "bf16": "bf16", "bf16 (auto)": "bf16", "f16": "bf16", "fp16 (default)": "bf16", "fp8": "fp8",
    "k8v4": "turboquant_k8v4", "4bit_nc": "turboquant_4bit_nc", "k3v4_nc": "turboquant_k3v4_nc",
    "3bit_nc": "turboquant_3bit_nc",
}  # fmt: skip
CHECKPOINTS_WITH_FP8_KV = ("fp8", "nvfp4")


def kv_format_of(name: str, weights: str, engine: str) -> tuple[str, str]:
    """The KV format, and what was assumed where it is not stated.

    Raises
    ------
    Skip
        The catalog does not have it.
    """
    if name in KV_FORMATS:
        return KV_FORMATS[name], ""
    if name not in ("", "auto/unknown"):
        raise Skip(f"KV format {name} is not in the catalog")
    if engine == "tensorrt-llm" and weights in CHECKPOINTS_WITH_FP8_KV:
        return "fp8", "FP8 KV, as NVIDIA's quantised checkpoints ask for"
    return "bf16", "bf16 KV, the engine's default"
