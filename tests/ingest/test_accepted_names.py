"""Finding the metrics that the API accepts, whatever the text of its rejection names."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client import MetricsRejected, RetriesExhausted
from later_reporting_dagster.ingest.accepted_names import find_accepted_names

NAMES = [f"metric{number}" for number in range(20)]
DETAILS: dict[str, Callable[[Sequence[str], Sequence[str]], str]] = {
    "invalid": lambda invalid, _valid: f"metrics not supported: {', '.join(invalid)}",
    "valid": lambda _invalid, valid: f"metrics must be of {', '.join(valid)}",
    "both": lambda invalid, valid: f"{', '.join(invalid)} are not metrics of {', '.join(valid)}",
    "none": lambda _invalid, _valid: "metrics are invalid",
}


def find(accepted: set[str], detail: Callable[[Sequence[str], Sequence[str]], str]) -> tuple[list[str], int]:
    """Return the metrics that were found to be accepted, and the number of requests."""
    requests: list[list[str]] = []

    async def request(names: Sequence[str]) -> None:
        requests.append([*names])
        if invalid := [name for name in names if name not in accepted]:
            text = detail(invalid, sorted(accepted))
            raise MetricsRejected(text, detail=text)

    async def search() -> list[str]:
        try:
            await request(NAMES)
        except MetricsRejected as error:
            return await find_accepted_names(NAMES, detail=error.detail, request=request)
        return NAMES

    return asyncio.run(search()), len(requests)


@pytest.mark.parametrize("names", DETAILS)
@given(accepted=st.sets(st.sampled_from(NAMES)))
def test_accepted_names_are_found_whatever_the_detail_names(names: str, accepted: set[str]) -> None:
    found, requests = find(accepted, DETAILS[names])
    assert found == [name for name in NAMES if name in accepted]
    assert requests <= 2 * len(NAMES)


def test_one_refused_name_costs_few_requests() -> None:
    accepted = {*NAMES} - {"metric7"}
    assert find(accepted, DETAILS["invalid"]) == ([name for name in NAMES if name in accepted], 3)
    assert find(accepted, DETAILS["none"])[1] <= 10


def test_another_error_is_raised() -> None:
    async def request(_names: Sequence[str]) -> None:
        raise RetriesExhausted("HTTP 503")

    with pytest.raises(RetriesExhausted):
        asyncio.run(find_accepted_names(NAMES, detail="", request=request))
