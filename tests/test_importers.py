"""Profiles of other simulators and outputs of benchmarks as measurements, from small made files."""

import json

import pytest

from capsim.calibrate.steps import fit_steps, predict_steps
from capsim.errors import ScenarioError
from capsim.importers import import_llama_bench, import_llmservingsim, import_vidur, import_vllm_bench
from capsim.measurements import read_measurements

QWEN3_MOE = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip


def read_back(found, tmp_path):
    found.write(tmp_path / "imported.jsonl")
    return read_measurements(tmp_path / "imported.jsonl")


def by_op(measurements):
    return {row.op: row for row in measurements.kernels}


# Vidur


def vidur(tmp_path, name, columns, *rows):
    path = tmp_path / name
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


MLP = ["attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj", "input_layernorm"]
MLP_COLUMNS = [
    *(f"time_stats.{name}.median" for name in MLP), "n_head", "n_kv_head", "n_embd", "n_expanded_embd",
    "use_gated_mlp", "num_tokens", "num_tensor_parallel_workers",
]  # fmt: skip
ATTENTION_COLUMNS = [
    "time_stats.attn_decode.median", "time_stats.attn_prefill.median", "time_stats.attn_kv_cache_save.median", "n_embd",
    "n_q_head", "n_kv_head", "num_tensor_parallel_workers", "batch_size", "prefill_chunk_size", "kv_cache_size",
    "is_prefill",
]  # fmt: skip


def test_vidurs_matrices_are_those_of_one_rank_in_seconds(tmp_path):
    path = vidur(tmp_path, "mlp.csv", MLP_COLUMNS, [0.1, 0.2, 0.3, 0.4, 0.05, 32, 8, 4096, 14336, True, 256, 2])
    measured = read_back(import_vidur("a100-80g", [path], "2024-05-01"), tmp_path)
    found = {
        (row.shape["in_features"], row.shape["out_features"]): row.median_s
        for row in measured.kernels
        if row.op == "gemm"
    }
    assert found == {
        (4096, (16 + 2 * 4) * 128): pytest.approx(1e-4), (16 * 128, 4096): pytest.approx(2e-4),
        (4096, 14336): pytest.approx(3e-4), (7168, 4096): pytest.approx(4e-4),
    }  # fmt: skip
    assert by_op(measured)["norm"].shape == {"tokens": 256, "hidden": 4096}


def test_vidurs_attention_is_decode_or_one_prompts_prefill(tmp_path):
    rows = [
        [0.02, "", 0.003, 8192, 64, 8, 2, 16, 0, 2048, False], ["", 0.5, 0.006, 8192, 64, 8, 2, 1, 512, 1024, True],
        ["", 0.9, 0.006, 8192, 64, 8, 2, 4, 512, 0, True],
    ]  # fmt: skip
    found = import_vidur("a100-80g", [vidur(tmp_path, "attention.csv", ATTENTION_COLUMNS, *rows)], "2024-05-01")
    measured = read_back(found, tmp_path)
    decode, prefill = by_op(measured)["decode_attention"], by_op(measured)["prefill_attention"]
    assert decode.shape == {
        "sequences": 16, "context_tokens": 2048, "q_heads": 32, "kv_heads": 4, "head_dim": 128, "kv_format": "bf16",
    }  # fmt: skip
    assert (prefill.shape["new_tokens"], prefill.shape["context_tokens"], prefill.median_s) == (512, 1024, 5e-4)
    assert [row.shape["tokens"] for row in measured.kernels if row.op == "kv_write"] == [16, 512, 2048]
    assert sum(found.left_out.values()) == 1


def test_vidurs_all_reduces_are_in_bytes(tmp_path):
    columns = ["time_stats.all_reduce.median", "rank", "num_workers", "size", "collective"]
    path = vidur(
        tmp_path, "all_reduce.csv", columns, [0.03, 0, 4, 65536, "all_reduce"], [0.1, 0, 4, 65536, "send_recv"]
    )
    (row,) = read_back(import_vidur("a100-80g", [path], "2024-05-01"), tmp_path).kernels
    assert (row.shape, row.median_s) == ({"bytes": 65536, "devices": 4}, pytest.approx(3e-5))


def test_a_table_that_is_none_of_vidurs_says_what_it_lacks(tmp_path):
    path = vidur(tmp_path, "other.csv", ["a", "b"], [1, 2])
    with pytest.raises(ScenarioError, match=r"other.csv:1: lacks the columns n_embd"):
        import_vidur("a100-80g", [path], "2024-05-01")


# LLMServingSim


@pytest.fixture
def profile(tmp_path):
    """A profile of Qwen3-30B-A3B, and the model's configuration."""
    folder = tmp_path / "bf16-kvfp8" / "tp2"
    folder.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_MOE))
    meta = "gpu: NVIDIA H200\nprofiled_at: '2026-08-17T19:43:32+00:00'\nvllm_version: 0.19.0\nmodel: Qwen/Qwen3-30B\n"
    (folder.parent / "meta.yaml").write_text(meta)
    (folder / "dense.csv").write_text("layer,tokens,time_us\nqkv_proj,16,20.5\nlayernorm,16,2.5\nact_fn,16,3\n")
    (folder / "per_sequence.csv").write_text("layer,sequences,time_us\nlm_head,4,100\nsampler,4,25\n")
    (folder / "attention.csv").write_text(
        "layer,prefill_chunk,kv_prefill,n_decode,kv_decode,decode_q_len,time_us\n"
        "attention,0,0,8,1024,1,30\nattention,512,2048,0,0,1,90\nattention,512,0,8,1024,1,100\n"
        "attention,0,0,8,1024,2,31\nindexer,0,0,8,1024,1,99\n"
    )
    (folder / "moe.csv").write_text("ep,tokens,activated_experts,time_us\n4,16,30,250\n")
    return folder, tmp_path / "config.json"


def test_llmservingsims_categories_become_operations(profile, tmp_path):
    found = import_llmservingsim(*profile)
    measured = read_back(found, tmp_path)
    assert measured.header.device == "NVIDIA H200"
    gemms = {row.shape["out_features"]: row for row in measured.kernels if row.op == "gemm"}
    assert (gemms[(16 + 2 * 2) * 128].shape["tokens"], gemms[(16 + 2 * 2) * 128].median_s) == (
        16,
        pytest.approx(20.5e-6),
    )
    assert gemms[151936 // 2].shape["tokens"] == 4, "the LM head by sequences"
    decode, prefill = by_op(measured)["decode_attention"], by_op(measured)["prefill_attention"]
    assert (decode.shape["sequences"], decode.shape["kv_format"], decode.median_s) == (8, "fp8", pytest.approx(30e-6))
    assert (prefill.shape["new_tokens"], prefill.shape["context_tokens"]) == (512, 2048)
    experts = by_op(measured)["experts"].shape
    assert [experts[key] for key in ("experts", "top_k", "intermediate", "active_experts")] == [32, 2, 384, 30]
    assert found.left_out == {
        "act_fn: no operation of capsim's": 1, "sampler: no operation of capsim's": 1,
        "attention: prefill and decode in one call, which a step adds up": 1,
    }  # fmt: skip


def test_llmservingsims_first_schema_has_no_layers_in_attention(profile):
    folder, config = profile
    (folder / "attention.csv").write_text("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,8.1\n")
    (folder / "moe.csv").write_text("tokens,activated_experts,time_us\n16,72,250\n")
    experts = next(row["shape"] for row in import_llmservingsim(folder, config).rows if row["op"] == "experts")
    assert (experts["experts"], experts["top_k"]) == (128, 8)


def test_llmservingsims_dense_layers_are_shared_out(profile):
    folder, config = profile
    config.write_text(json.dumps(LLAMA))
    (folder / "dense.csv").write_text("layer,tokens,time_us\ngate_up_proj,16,20\ndown_proj,16,10\n")
    (folder / "moe.csv").unlink()
    shapes = [row["shape"] for row in import_llmservingsim(folder, config).rows if row["op"] == "gemm"]
    assert [(shape["in_features"], shape["out_features"]) for shape in shapes] == [
        (4096, 14336), (7168, 4096), (4096, 64128),
    ]  # fmt: skip


def test_a_folder_that_is_no_profile_is_refused(profile, tmp_path):
    _, config = profile
    with pytest.raises(ScenarioError, match=r"meta.yaml: file not found"):
        import_llmservingsim(tmp_path, config)
    (tmp_path / "bf16-kvfp8" / "first").mkdir()
    with pytest.raises(ScenarioError, match=r"not named tp<N>"):
        import_llmservingsim(tmp_path / "bf16-kvfp8" / "first", config)


# llama-bench


def llama_test(prompt=0, generated=0, depth=0, ns=1e9, **changed):
    return {
        "build_commit": "abc", "gpu_info": "NVIDIA L40S", "cpu_info": "AMD", "backends": "CUDA", "n_threads": 8,
        "model_type": "llama 8B Q4_K - Medium", "type_k": "f16", "type_v": "f16", "n_ubatch": 512, "n_prompt": prompt,
        "n_gen": generated, "n_depth": depth, "test_time": "2026-10-01T10:00:00Z", "avg_ns": ns, **changed,
    }  # fmt: skip


def true_step_s(test):
    """Whole steps of a machine: 5 ms, 20 µs a prefilled token, 2 ns a pair, 10 ns a token of context."""
    if test["n_gen"]:
        contexts = (test["n_depth"] + i for i in range(1, test["n_gen"] + 1))
        return sum(0.005 + 1e-8 * context for context in contexts)
    total, done = 0.0, 0
    while done < test["n_prompt"]:
        new = min(512, test["n_prompt"] - done)
        total += 0.005 + 2e-5 * new + 2e-9 * new * (test["n_depth"] + done + new / 2)
        done += new
    return total


def test_llama_bench_gives_steps_that_a_fit_recovers(tmp_path):
    tests = [llama_test(prompt=n, depth=d) for n in (512, 1024, 4096) for d in (0, 4096, 32768)]
    tests += [llama_test(generated=n, depth=d) for n in (32, 128) for d in (0, 4096, 32768)]
    tests = [{**test, "avg_ns": 1e9 * true_step_s(test)} for test in tests]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps([*tests, llama_test(512, 128)]))
    found = import_llama_bench([path], model="llama-3.1-8b")
    measured = read_back(found, tmp_path)
    assert (measured.header.device, measured.header.environment["kv"]) == ("NVIDIA L40S", "f16/f16")
    assert {(row.engine, row.model) for row in measured.steps} == {("llama.cpp", "llama-3.1-8b")}
    assert found.left_out == {"a prompt and its generation in one time": 1}
    predicted = predict_steps(fit_steps(measured.steps), measured.steps)
    assert predicted == pytest.approx([row.step_s for row in measured.steps], rel=1e-6)


def test_llama_bench_in_lines_and_of_two_models(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(llama_test(512, model_type=name)) + "\n" for name in ("a", "b")))
    with pytest.raises(ScenarioError, match=r"tests of several models: a, b"):
        import_llama_bench([path])
    path.write_text("| model | t/s |\n")
    with pytest.raises(ScenarioError, match=r"not JSON.*-o json"):
        import_llama_bench([path])
    path.write_text('[{"n_prompt": 1}]')
    with pytest.raises(ScenarioError, match=r"test 1 lacks n_gen"):
        import_llama_bench([path])


# vllm bench


def bench(**changed):
    return {
        "date": "20261124-101500", "model_id": "Qwen/Qwen3-32B", "duration": 12.5, "request_rate": 2.0,
        "max_concurrency": None, "input_lens": [100, 200, 50], "output_lens": [3, 1, 0], "ttfts": [0.5, 0.25, 0.0],
        "itls": [[0.1, 0.2], [], []], "start_times": [1000.5, 1000.0, 1001.0], "errors": ["", "", "timeout"], **changed,
    }  # fmt: skip


def test_vllm_bench_gives_a_run_and_its_requests(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(bench()))
    found = import_vllm_bench([path], "h100-sxm")
    measured = read_back(found, tmp_path)
    (run,) = measured.runs
    assert (run.load, run.rate_per_s, run.steps, run.preemptions) == ("poisson", 2.0, None, None)
    assert measured.header.created == "2026-11-24T10:15:00"
    first, second = measured.requests
    assert (first.arrival_s, first.first_token_s, first.finished_s) == (0.5, 1.0, pytest.approx(1.3))
    assert (second.arrival_s, second.first_token_s, second.finished_s) == (0.0, 0.25, 0.25)
    assert found.left_out == {"a request that failed": 1}


def test_vllm_bench_at_once_is_a_burst_and_needs_the_detailed_lists(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(bench(request_rate="inf", max_concurrency=64)))
    run = import_vllm_bench([path], "h100-sxm").rows[0]
    assert (run["load"], run["rate_per_s"], run["concurrency"]) == ("burst", None, 64)
    path.write_text(json.dumps({key: value for key, value in bench().items() if key != "itls"}))
    with pytest.raises(ScenarioError, match=r"lacks itls \(run vllm bench serve with --save-result --save-detailed\)"):
        import_vllm_bench([path], "h100-sxm")


@pytest.mark.parametrize(
    ("wrong", "message"), [({"n_ubatch": 0}, "division by zero"), ({"avg_ns": "fast"}, "could not convert")]
)
def test_a_test_of_llama_bench_with_a_value_that_is_none_names_the_file(tmp_path, wrong, message):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps([llama_test(prompt=512) | wrong]))
    with pytest.raises(ScenarioError, match=rf"bench\.json: has a value that cannot be used: .*{message}"):
        import_llama_bench([path])


@pytest.mark.parametrize("wrong", [{"ttfts": ["soon", "later", "no"]}, {"input_lens": 5}, {"request_rate": "high"}])
def test_a_run_of_vllm_bench_with_a_value_that_is_none_names_the_file(tmp_path, wrong):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench() | wrong))
    with pytest.raises(ScenarioError, match=r"bench\.json: has a value that cannot be used"):
        import_vllm_bench([path], "h100-sxm")


def test_a_date_that_is_none_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ScenarioError, match="created: 'soon' is no date"):
        import_vidur("a100-80g", [tmp_path / "mlp.csv"], "soon")


def test_an_import_without_rows_says_why(tmp_path):
    columns = ["time_stats.all_reduce.median", "num_workers", "size", "collective"]
    found = import_vidur("x", [vidur(tmp_path, "a.csv", columns, [0.0, 4, 64, "all_reduce"])], "2024-05-01")
    with pytest.raises(ScenarioError, match=r"nothing was imported \(1 rows: no time\)"):
        found.write(tmp_path / "none.jsonl")
