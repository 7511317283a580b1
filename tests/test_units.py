import pytest

from capsim import units


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("3.35 TB/s", "bytes_per_s", 3.35e12),
        ("80 GiB", "bytes", 80 * 2**30),
        ("80GB", "bytes", 80e9),
        ("50 ms", "s", 0.05),
        ("2 h", "s", 7200.0),
        ("989 TFLOP/s", "flops", 989e12),
        (1.5, "s", 1.5),
        ("1_000", "s", 1000.0),
    ],
)
def test_parse(text, unit, value):
    assert units.parse(text, unit) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "unit"), [("50 GB", "s"), ("fast", "bytes_per_s"), (True, "s"), ("3 TB", "bytes_per_s")]
)
def test_parse_refuses_wrong_units(text, unit):
    with pytest.raises(ValueError, match="expected a quantity such as"):
        units.parse(text, unit)


def test_for_people():
    assert units.seconds(0.0123) == "12.3 ms"
    assert [units.seconds(s) for s in (0.9996, 59.96, 999.6)] == ["1 s", "60 s", "1,000 s"]
    assert units.bytes_(80 * 2**30) == "80 GiB"
    assert units.usd(17228) == "$17,228"
    assert units.count(19366) == "19.4 k"
