"""Hugging Face's continuous batching on a CPU: its scheduler, its paged cache and its model, stepped from here.

Attention is eager over the paged cache: all new tokens of a step against all KV of the step, masked. (The SDPA kernel
does the same product, and changes its way of doing so at some sizes, by a factor of three.)
"""

import os
import random
from typing import Any

from kernels_bench.engines.engine import Arguments, Composition, Done, expected_experts

NAME = "transformers"
DEFAULTS = Arguments(max_num_seqs=4, max_num_batched_tokens=256, block_tokens=16, kv_blocks=230)
"""Four sequences: past four rows oneDNN multiplies otherwise, and a decode step jumps by a quarter. A fit is linear."""


class Transformers:
    """A model of random weights under ``ContinuousBatchProcessor``, without its server thread."""

    def __init__(self, config: dict[str, Any], arguments: Arguments) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        import transformers
        from transformers.generation.continuous_batching.requests import RequestState, RequestStatus

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.name, self.version = NAME, f"transformers {transformers.__version__}, torch {torch.__version__}"
        self.config, self.arguments = config, arguments
        self._no_grad, self._state, self._status = torch.inference_mode, RequestState, RequestStatus
        values = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype")}
        spec = transformers.AutoConfig.for_model(**values)
        self._model = transformers.AutoModelForCausalLM.from_config(
            spec, dtype=getattr(torch, arguments.weights_dtype), attn_implementation="paged|eager"
        ).eval()
        self._manager = self._model.init_continuous_batching(
            generation_config=transformers.GenerationConfig(do_sample=False, eos_token_id=-1),
            continuous_batching_config=transformers.ContinuousBatchingConfig(
                page_size=arguments.block_tokens, num_blocks=arguments.kv_blocks,
                max_batch_tokens=arguments.max_num_batched_tokens, max_requests_per_batch=arguments.max_num_seqs,
                allow_block_sharing=False, use_async_batching=False,
            ),
        )  # fmt: skip
        self._manager.warmup()
        self._processor = self._manager.batch_processor
        self._scheduler = self._processor.scheduler
        self._requeued: list[int] = []
        self._queue = self._scheduler.add_waiting_request
        self._scheduler.add_waiting_request = self._count_requeued
        self._draw = random.Random(0)

    def submit(self, request: int, prompt_tokens: int, output_tokens: int) -> None:
        tokens = self._draw.choices(range(self.config["vocab_size"]), k=prompt_tokens)
        self._queue(self._state(request_id=str(request), initial_tokens=tokens, max_new_tokens=output_tokens))

    @property
    def busy(self) -> bool:
        return bool(self._processor.has_pending_requests())

    def step(self) -> Done:
        processor = self._processor
        self._requeued.clear()
        with self._no_grad():
            if not processor.prepare_next_batch():
                raise RuntimeError("the engine has requests and schedules none of them")
            batch = list(processor.inputs_and_outputs.requests_in_batch)
            composition = self._describe(batch)
            processor._generation_step(self._model)
            processor.update_batch()
        while not processor.output_router.output_queue.empty():
            processor.output_router.output_queue.get()
        finished = [int(future.state.request_id) for future in batch if future.state.status == self._status.FINISHED]
        tokens = [int(future.state.request_id) for future in batch if future.has_new_token]
        return Done(composition, tokens, finished, list(self._requeued))

    def _count_requeued(self, state: Any) -> None:
        """The scheduler's own requests come back when it has dropped their KV."""
        self._requeued.append(int(state.request_id))
        self._queue(state)

    def _describe(self, batch: list[Any]) -> Composition:
        """The step that is about to run; positions already count its tokens."""
        decoding = [future for future in batch if future.state.generated_tokens]
        prefill = [future for future in batch if not future.state.generated_tokens]
        kv_tokens = sum(future.state.position_offset for future in decoding)
        new = sum(future.query_length for future in prefill)
        every = kv_tokens + sum(future.state.position_offset for future in prefill)
        experts = expected_experts(self.config, len(decoding) + new)
        return Composition(len(decoding), kv_tokens, new, float(new * every), len(prefill), experts)
