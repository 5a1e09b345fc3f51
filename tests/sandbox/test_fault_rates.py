"""Fault rates on the command line."""

import pytest

from later_reporting_dagster.sandbox import FAULTS, parse_rates


def test_parse_rates_orders_by_known_names() -> None:
    rates = parse_rates(["http-503:0.25", "http-429:1e-1", "slow:0"], known=FAULTS, kind="fault")
    assert list(rates.items()) == [("http-429", 0.1), ("http-503", 0.25), ("slow", 0.0)]


def test_parse_rates_tolerates_float_rounding_of_the_sum() -> None:
    tenths = [f"{name}:0.1" for name in list(FAULTS)[:10]]
    assert len(parse_rates(tenths, known=FAULTS, kind="fault")) == 10


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["http-500"], "'http-500': expected a fault and its probability, such as http-429-seconds:0.05"),
        (["http-500:"], "expected a fault and its probability"),
        (["http-500:often"], "expected a fault and its probability"),
        (["http-500:1.5"], "from 0 to 1, not 1.5"),
        (["http-500:-0.1"], "from 0 to 1, not -0.1"),
        (["http-500:nan"], "from 0 to 1, not nan"),
        (["http-500:0.1", "http-500:0.1"], "http-500 is given twice"),
        (["http-500:0.6", "http-503:0.6"], "add up to 1.2, more than 1"),
        (["http-599:0.1"], r"unknown fault 'http-599'; use one of http-429-seconds, .*, page-short"),
        (["nan:0.1"], "unknown fault 'nan'"),
    ],
)
def test_parse_rates_rejects_invalid_value_in_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        parse_rates(texts, known=FAULTS, kind="fault")
    assert "\n" not in str(raised.value)
