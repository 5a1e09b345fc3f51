"""Finding the metrics that the API accepts, whatever the text of its rejection names."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client import MetricsRejected, RetriesExhausted
from later_reporting_dagster.contract import METRICS, Metric
from later_reporting_dagster.ingest.metric_search import find_accepted_metrics

DETAILS: dict[str, Callable[[Sequence[str], Sequence[str]], str]] = {
    "invalid": lambda invalid, _valid: f"metrics not supported: {', '.join(invalid)}",
    "first invalid": lambda invalid, _valid: f"metric {invalid[0]} is not supported",
    "valid": lambda _invalid, valid: f"metrics must be of {', '.join(valid)}",
    "both": lambda invalid, valid: f"{', '.join(invalid)} are not metrics of {', '.join(valid)}",
    "none": lambda _invalid, _valid: "metrics are invalid",
}


def find(
    accepted: set[Metric], detail: Callable[[Sequence[str], Sequence[str]], str]
) -> tuple[tuple[Metric, ...], int]:
    """Return the metrics that were found to be accepted, and the number of requests."""
    requests: list[tuple[Metric, ...]] = []

    async def request(metrics: tuple[Metric, ...]) -> None:
        requests.append(metrics)
        if invalid := [metric.api_name for metric in metrics if metric not in accepted]:
            text = detail(invalid, [metric.api_name for metric in METRICS if metric in accepted])
            raise MetricsRejected(text, detail=text)

    return asyncio.run(find_accepted_metrics(METRICS, request)), len(requests)


@pytest.mark.parametrize("names", DETAILS)
@given(accepted=st.sets(st.sampled_from(METRICS)))
def test_accepted_metrics_are_found_whatever_the_detail_names(names: str, accepted: set[Metric]) -> None:
    found, requests = find(accepted, DETAILS[names])
    assert found == tuple(metric for metric in METRICS if metric in accepted)
    assert requests <= 2 * len(METRICS)


@pytest.mark.parametrize("names", ["invalid", "valid"])
@given(accepted=st.sets(st.sampled_from(METRICS)))
def test_details_that_name_all_metrics_save_requests(names: str, accepted: set[Metric]) -> None:
    assert find(accepted, DETAILS[names])[1] <= max(3, 2 * len(METRICS) * (not accepted))


def test_one_refused_metric_without_a_detail_costs_few_requests() -> None:
    assert find({*METRICS[:7], *METRICS[8:]}, DETAILS["none"])[1] <= 13


def test_another_error_is_raised() -> None:
    async def request(_metrics: tuple[Metric, ...]) -> None:
        raise RetriesExhausted("HTTP 503")

    with pytest.raises(RetriesExhausted):
        asyncio.run(find_accepted_metrics(METRICS, request))
