from collections.abc import Callable
from datetime import date

import pytest

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, PAGED, PerformanceQuery
from tests.client.scripted_api import CLIENT_ID, CLIENT_SECRET, FakeTime, ScriptedApi
from tests.conftest import Service


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def service(stage: Service, time: FakeTime) -> ScriptedApi:
    stage.app = service = ScriptedApi(clock=time)
    return service


@pytest.fixture
def base_url(stage: Service) -> str:
    return stage.base_url


@pytest.fixture
def events() -> list[object]:
    return []


@pytest.fixture
def new_client(base_url: str, time: FakeTime, events: list[object]) -> Callable[..., LaterClient]:
    """A factory of clients whose waits take no time."""

    def make(**changes: object) -> LaterClient:
        arguments = {
            "base_url": base_url,
            "credentials": ClientCredentials(CLIENT_ID, CLIENT_SECRET),
            "limiter": RateLimiter(requests=100_000, clock=time, sleep=time.sleep),
            "on_event": events.append,
            "clock": time,
            "sleep": time.sleep,
            "random": lambda: 0.0,
        }
        return LaterClient(**arguments | changes)

    return make


@pytest.fixture(params=[PAGED, CURSOR], ids=str)
def new_client_of_each_version(
    request: pytest.FixtureRequest, service: ScriptedApi, new_client: Callable[..., LaterClient]
) -> Callable[..., LaterClient]:
    """A factory of clients with a set API version; the test runs once for each version."""
    service.by_cursor = request.param is CURSOR
    return lambda **changes: new_client(**{"api_version": request.param} | changes)


@pytest.fixture
def july() -> PerformanceQuery:
    return PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 31), instance_ids=("a", "b"))
