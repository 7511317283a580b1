"""MLA, sparse and prefill attention against plain numpy, and what their cases say they read."""

import numpy as np
import pytest

from kernels_bench import gqa, mla, sparse
from kernels_bench.clocks import clock

RNG = np.random.default_rng(0)


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_mla_reads_each_latent_once_whatever_the_heads():
    few, many = (mla.mla_case("cpu", heads, 2, 4096) for heads in (16, 128))
    assert few.bytes == 2 * 2 * (4096 * 576 + 16 * (576 + 512))
    assert many.bytes - few.bytes == 2 * 2 * 112 * (576 + 512)
    assert few.flops == 2 * 2 * 16 * 4096 * (576 + 512)
    assert many.flops == 8 * few.flops


def test_sparse_attention_reads_all_index_keys_and_no_more_than_top_k_tokens():
    short, long, longer = (sparse.sparse_case("cpu", 1, context) for context in (1024, 8192, 16384))
    token_bytes = 2 * 2 * 8 * 128
    assert short.bytes == 1024 * (2 * 128 + token_bytes)
    assert long.bytes == 8192 * 2 * 128 + 2048 * token_bytes
    assert longer.bytes - long.bytes == 8192 * 2 * 128
    assert longer.flops - long.flops == 8192 * 2 * 64 * 129


@pytest.mark.parametrize("module", [mla, sparse])
@pytest.mark.parametrize("backend", ["cpu", "cuda", "ascend"])
def test_no_case_is_measured_twice(module, backend):
    found = list(module.cases(backend))
    assert found
    assert len({tuple(case.shape.items()) for case in found}) == len(found)
    assert max(case.shape["sequences"] * case.shape["context_tokens"] for case in found) <= module.MOST_TOKENS


def test_latent_attention_equals_plain_numpy():
    torch = pytest.importorskip("torch")
    queries, latents = RNG.normal(size=(2, 4, 576)), RNG.normal(size=(2, 9, 576))
    found = mla.latent_attention(torch.tensor(queries), torch.tensor(latents)).numpy()
    for sequence in range(2):
        weights = softmax(queries[sequence] @ latents[sequence].T / np.sqrt(192))
        np.testing.assert_allclose(found[sequence], weights @ latents[sequence, :, :512], atol=1e-5)


@pytest.mark.parametrize("top_k", [4, 50])
def test_the_indexer_picks_the_tokens_of_the_highest_scores(top_k):
    torch = pytest.importorskip("torch")
    queries, weights, keys = RNG.normal(size=(2, 3, 8)), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 20, 8))
    found = sparse.best_tokens(*map(torch.tensor, (queries, weights, keys)), top_k)
    for sequence in range(2):
        scores = [weights[sequence] @ np.maximum(queries[sequence] @ key, 0) for key in keys[sequence]]
        assert set(found[sequence].tolist()) == set(np.argsort(scores)[::-1][:top_k].tolist())


def test_attention_reads_the_picked_tokens_alone():
    torch = pytest.importorskip("torch")
    queries, keys, values = RNG.normal(size=(2, 4, 8)), RNG.normal(size=(2, 2, 9, 8)), RNG.normal(size=(2, 2, 9, 8))
    tokens = np.array([[7, 0, 3], [2, 8, 1]])
    found = sparse.gathered_attention(*map(torch.tensor, (queries, keys, values, tokens))).numpy()
    for sequence, head in np.ndindex(2, 4):
        own_keys, own_values = (cache[sequence, head // 2, tokens[sequence]] for cache in (keys, values))
        expected = softmax(own_keys @ queries[sequence, head] / np.sqrt(8)) @ own_values
        np.testing.assert_allclose(found[sequence, head], expected, atol=1e-6)


@pytest.mark.parametrize("case", [mla.mla_case("cpu", 16, 2, 512), sparse.sparse_case("cpu", 2, 512)])
def test_cases_run_on_the_cpu(case):
    pytest.importorskip("torch")
    call = case.prepare()
    assert all(clock("cpu").time_s(call) > 0 for _ in range(2))


@pytest.mark.parametrize(("context", "new"), [(0, 1), (0, gqa.BLOCK + 3), (7, gqa.BLOCK), (70, 2 * gqa.BLOCK + 1)])
def test_prefill_equals_plain_numpy(context, new):
    torch = pytest.importorskip("torch")
    queries = RNG.normal(size=(4, new, 8))
    keys, values = RNG.normal(size=(2, 2, context + new, 8))
    found = gqa.prefill(*map(torch.tensor, (queries, keys, values))).numpy()
    for head in range(4):
        for index in range(new):
            seen = slice(context + index + 1)
            weights = softmax(keys[head // 2, seen] @ queries[head, index] / np.sqrt(8))
            np.testing.assert_allclose(found[head, index], weights @ values[head // 2, seen], atol=1e-5)
