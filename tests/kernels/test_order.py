"""What a short run has: the order of the cases of attention, and the names that capsim's catalog knows."""

import pytest

from kernels_bench import attention, backends
from kernels_bench.attention import COARSE_POINTS, FIRST_FORMATS


def of(op, backend="cpu"):
    return [case for case in attention.cases(backend) if case.op == op]


@pytest.mark.parametrize("op", ["decode_attention", "kv_write"])
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_tables_of_the_first_formats_come_first_then_those_of_all(op, backend):
    cases = of(op, backend)
    series = {(case.kernel, case.shape["kv_format"]) for case in cases}
    first = {one for one in series if one[1] in FIRST_FORMATS}
    assert {kv_format for _, kv_format in first} == {"bf16", "fp8", "turboquant_4bit_nc"}
    for some, before in ((first, 0), (series - first, len(first) * COARSE_POINTS)):
        found = cases[before : before + len(some) * COARSE_POINTS]
        names = [(case.kernel, case.shape["kv_format"]) for case in found]
        assert {name: names.count(name) for name in some} == dict.fromkeys(some, COARSE_POINTS)


def test_both_ends_of_context_come_first_then_those_of_the_largest_batch():
    found = [case for case in of("decode_attention") if case.shape["kv_format"] == "fp8"][:4]
    assert [(case.shape["sequences"], case.shape["context_tokens"]) for case in found] == [
        (1, 512),
        (1, 65536),
        (16, 512),
        (16, 4096),
    ]


@pytest.mark.parametrize("backend", ["cpu", "cuda", "mlx"])
def test_no_case_of_attention_is_measured_twice(backend):
    found = [(case.op, case.kernel, *case.shape.items()) for case in attention.cases(backend)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("backend", "chip", "expected"),
    [
        ("mlx", "Apple M4 Pro", "apple-m4-pro-64-gb"), ("cuda", "NVIDIA H100 PCIe", "nvidia-h100-pcie"),
        ("cuda", "NVIDIA GB10", "dgx-spark"), ("cpu", "Intel(R) Xeon(R) 6980P", "cpu-intel-xeon-6980p"),
    ],
)  # fmt: skip
def test_a_device_is_named_after_its_own_chip(backend, chip, expected, monkeypatch):
    monkeypatch.setattr(backends, "_chip", lambda backend: chip)
    monkeypatch.setattr(backends, "_memory_bytes", lambda backend: 64 << 30)
    assert backends.device_name(backend) == expected


def test_an_accelerators_environment_tells_it_from_its_host(monkeypatch):
    monkeypatch.setattr(backends, "_chip", lambda backend: "Apple M4 Pro")
    monkeypatch.setattr(backends, "_processor", lambda: "some CPU")
    found = backends.environment("mlx")
    assert (found["device"], found["host_cpu"]) == ("Apple M4 Pro", "some CPU")
    assert not {"cpu", "threads"} & found.keys()
    assert backends.environment("cpu")["cpu"] == "some CPU"
