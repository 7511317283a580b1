"""Hugging Face's own scheduler and the simulation of it, on bursts that outgrow small pools."""

import random
from dataclasses import replace

import numpy as np
import pytest

from capsim.hugging_face import model_from_config
from capsim.measured import StepCoefficients
from capsim.memory import BlockRule
from capsim.parallelism import Parallelism
from capsim.sim.cluster import simulate
from capsim.sim.spec import ClusterSpec, Policy
from capsim.steptime.whole_step import WholeStep
from capsim.workload.requests import OpenArrivals, Request
from kernels_bench.engines.drive import drive
from kernels_bench.engines.loads import Load
from kernels_bench.engines.models import MODELS

TINY = {
    **MODELS["llama-32m"], "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64,
}  # fmt: skip
BLOCK_TOKENS = 16
STEP = StepCoefficients(base_s=0.01, decode_s=1e-3, kv_token_s=0, prefill_token_s=1e-4, prefill_read_s=0, prefill_s=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_starved_burst_takes_the_engines_steps_and_preempts_the_same_requests(seed):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from kernels_bench.engines.transformers import DEFAULTS, Transformers

    draw = random.Random(seed)
    seqs, budget, blocks = draw.randint(2, 8), draw.choice([16, 48, 96, 256]), draw.randint(12, 60)
    room = blocks * BLOCK_TOKENS
    prompts = [draw.randint(1, min(200, room - 60)) for _ in range(draw.randint(5, 25))]
    asked = [(prompt, draw.randint(1, min(120, room - prompt))) for prompt in prompts]

    limits = {"max_num_seqs": seqs, "max_num_batched_tokens": budget}
    arguments = replace(DEFAULTS, **limits, block_tokens=BLOCK_TOKENS, kv_blocks=blocks)
    driven = drive(Transformers(TINY, arguments), Load("starved", [(0.0, *lengths) for lengths in asked]))

    model = model_from_config(TINY, "tiny")
    spec = ClusterSpec(
        1, Parallelism(1), blocks, BlockRule(BLOCK_TOKENS), Policy(**limits, reserve="chunk"), 4096, "least-loaded",
        WholeStep(model, STEP), model.streams,
    )  # fmt: skip
    requests = [Request(prompt, output, output, 0.0) for prompt, output in asked]
    records = simulate(spec, OpenArrivals(np.zeros(len(asked)), requests, None))
    served = records.requests_table()
    assert records.segments_table()["steps"].sum() == driven.steps
    assert served["preemptions"].tolist() == [one.preemptions for one in driven.requests]
    order = [np.argsort(ended, kind="stable") for ended in (served["finished_s"], finished(driven))]
    assert np.array_equal(*order)


def finished(driven):
    return np.array([one.finished_s for one in driven.requests])
