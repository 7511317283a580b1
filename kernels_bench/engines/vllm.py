"""vLLM on a CPU: its V1 engine in this process, the scheduler's output read at every step."""

import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from kernels_bench.engines.engine import Arguments, Composition, Done, attended_apart, expected_experts

NAME = "vllm"
DEFAULTS = Arguments(max_num_seqs=16, max_num_batched_tokens=512, block_tokens=128, kv_blocks=100)


class VLLM:
    """A model of random weights under ``LLMEngine``."""

    def __init__(self, config: dict[str, Any], arguments: Arguments) -> None:
        core = max(os.sched_getaffinity(0))
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        import vllm
        from vllm.engine.arg_utils import EngineArgs
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.llm_engine import LLMEngine

        self.name, self.version = NAME, f"vllm {vllm.__version__}"
        self.config, self.arguments = config, arguments
        self._sampling, self._delta = vllm.SamplingParams, RequestOutputKind.DELTA
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            self._engine = LLMEngine.from_engine_args(
                EngineArgs(
                    model=folder, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True,
                    dtype=arguments.weights_dtype, max_model_len=arguments.max_context_tokens,
                    max_num_seqs=arguments.max_num_seqs, max_num_batched_tokens=arguments.max_num_batched_tokens,
                    block_size=arguments.block_tokens, enable_prefix_caching=False, disable_log_stats=True,
                    num_gpu_blocks_override=arguments.kv_blocks + 1,  # one stays empty
                    kv_cache_dtype="fp8" if arguments.kv_dtype == "fp8" else "auto",
                )
            )  # fmt: skip
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        self._schedule = self._scheduler.schedule
        self._scheduler.schedule = self._note_schedule
        self._composition, self._preempted = Composition(0, 0, 0, 0.0, 0, None), list[int]()
        self._numbers: dict[str, int] = {}
        self._draw = random.Random(0)

    def submit(self, request: int, prompt_tokens: int, output_tokens: int) -> None:
        tokens = self._draw.choices(range(3, self.config["vocab_size"]), k=prompt_tokens)
        sampling = self._sampling(
            max_tokens=output_tokens, ignore_eos=True, detokenize=False, temperature=0.0, output_kind=self._delta
        )
        self._engine.add_request(str(request), {"prompt_token_ids": tokens}, sampling)

    @property
    def busy(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def step(self) -> Done:
        outputs = self._engine.step()
        tokens = [int(output.request_id) for output in outputs]
        finished = [int(output.request_id) for output in outputs if output.finished]
        return Done(self._composition, tokens, finished, self._preempted)

    def _note_schedule(self, *arguments: Any, **options: Any) -> Any:
        """The scheduler's decision; requests already count the tokens that it scheduled."""
        decided = self._schedule(*arguments, **options)
        decoding, prefill = [], []
        for key, new in decided.num_scheduled_tokens.items():
            request = self._scheduler.requests[key]
            context = request.num_computed_tokens - new
            if request.num_output_tokens and new == 1 and context + 1 == request.num_tokens:
                decoding.append(context + 1)
            else:
                prefill.append((new, context))
        new = sum(chunk[0] for chunk in prefill)
        experts = expected_experts(self.config, len(decoding) + new)
        self._composition = Composition(
            len(decoding), sum(decoding), new, attended_apart(prefill), len(prefill), experts
        )
        self._preempted = [_number(key) for key in decided.preempted_req_ids or ()]
        return decided


def _number(key: str) -> int:
    """Ours of the engine's key: vLLM adds a random part to it."""
    return int(key.split("-")[0])
