"""Collectives over two processes of this CPU stand in for two devices."""

import gc

import pytest

from kernels_bench import collectives


def test_one_device_says_so():
    cases = list(collectives.cases("cpu"))
    assert {case.op for case in cases} == {"all_reduce", "all_to_all"}
    for case in cases:
        with pytest.raises(ValueError, match="there is one device"):
            case.prepare()


def test_what_leaves_each_device(monkeypatch):
    """A ring's all-reduce sends 2 (n - 1) / n of the buffer, an all-to-all (n - 1) / n."""
    monkeypatch.setattr(collectives, "device_count", lambda _: 8)
    cases = list(collectives.cases("cuda"))
    assert {case.shape["bytes"] for case in cases} == set(collectives.SIZES_BYTES)
    for case in cases:
        assert case.bytes == case.shape["bytes"] * {"all_reduce": 7 / 4, "all_to_all": 7 / 8}[case.op]


@pytest.mark.parametrize(("op", "expected"), [("all_reduce", [6, 6]), ("all_to_all", [1, 2])])
def test_two_processes_exchange_their_values(op, expected):
    """The second holds twos, the first ones: summed to 3 when they meet, 6 at the first call; or half of each."""
    pytest.importorskip("torch")
    import torch.distributed as dist

    call = collectives.join(op, "cpu", 8, 2)
    found = call().float().view(2, 2)
    assert found.tolist() == [[value] * 2 for value in expected]
    del call, found
    gc.collect()
    assert not dist.is_initialized()
