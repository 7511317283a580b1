"""Whole-step fits recover the model that made the steps, and serve it to the simulation."""

import numpy as np
import pytest

from capsim.calibrate.steps import fit_steps, predict_steps
from capsim.catalog import load_catalog
from capsim.measured import StepCoefficients
from capsim.measurements import Step
from capsim.steptime import Batch, PrefillChunk
from capsim.steptime.whole_step import WholeStep

CATALOG = load_catalog()
TRUE = StepCoefficients(
    base_s=0.01, decode_s=2e-4, kv_token_s=3e-7, prefill_token_s=1e-4, prefill_read_s=4e-9, prefill_s=5e-3,
    expert_s=4e-4,
)  # fmt: skip


def steps(count, noise=0.0, seed=1):
    """Steps of random composition, some decoding only, some prefilling only."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        decode, new = int(draw.integers(0, 17)), int(draw.integers(1, 500) * (draw.random() < 0.6))
        decode, context = decode or int(new == 0), int(draw.integers(0, 600))
        row = Step(
            engine="vllm", model="small", decode_sequences=decode, kv_tokens=decode * draw.uniform(30, 800),
            prefill_tokens=new, prefill_reads=new * (context + new / 2), prefills=int(new > 0),
            active_experts=32 * (1 - (1 - 4 / 32) ** (decode + new)), step_s=1.0,
        )  # fmt: skip
        step_s = predict_steps(TRUE, [row])[0] * np.exp(draw.normal(0, noise))
        rows.append(row.model_copy(update={"step_s": float(step_s)}))
    return rows


def test_exact_steps_give_back_their_coefficients():
    fitted = fit_steps(steps(60)).model_dump()
    assert fitted == pytest.approx(TRUE.model_dump(), rel=1e-6)


def test_noisy_steps_are_predicted_without_bias():
    unseen = steps(500, noise=0.05, seed=2)
    measured = np.array([row.step_s for row in unseen])
    error = predict_steps(fit_steps(steps(800, noise=0.05)), unseen) / measured - 1
    assert abs(error).mean() < 0.05
    assert abs(error.mean()) < 0.01


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="measure more"):
        fit_steps(steps(6))


def test_a_batch_takes_what_the_formula_says():
    mixtral = CATALOG.models["mixtral-8x7b"]
    step = WholeStep(mixtral, TRUE).step_time(Batch(4, (4000.0,), (PrefillChunk(100, 50),), 1))
    touched = 8 * (1 - (1 - 2 / 8) ** 104)
    expected = 0.01 + 4 * 2e-4 + 4000 * 3e-7 + 100 * 1e-4 + 100 * (50 + 50) * 4e-9 + 5e-3 + 4e-4 * touched
    assert step.total_s == pytest.approx(expected, rel=1e-12)


def test_decode_steps_grow_by_what_a_token_of_context_costs():
    steps = WholeStep(CATALOG.models["llama-3.1-8b"], TRUE)
    first, growth_s, _ = steps.decode_run(Batch(4, (4000.0,), read_growth=(4.0,)))
    tenth = steps.step_time(Batch(4, (4040.0,)))
    assert first.total_s + 10 * growth_s == pytest.approx(tenth.total_s, rel=1e-12)


@pytest.mark.parametrize("model", ["gpt-oss-20b", "deepseek-v3.2"])
def test_models_that_do_not_read_their_whole_context_are_refused(model):
    with pytest.raises(ValueError, match="does not read all"):
        WholeStep(CATALOG.models[model], TRUE)
