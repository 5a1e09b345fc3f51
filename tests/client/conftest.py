from collections.abc import Callable, Iterator
from datetime import date

import pytest

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, PAGED, PostPerformanceQuery
from tests.client.service import CLIENT_ID, CLIENT_SECRET, FakeTime, Service
from tests.servers import Stage, running


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    stage = Stage()
    with running(stage) as stage.base_url:
        yield stage


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def service(stage: Stage, time: FakeTime) -> Service:
    stage.app = service = Service(clock=time)
    return service


@pytest.fixture
def base_url(stage: Stage) -> str:
    return stage.base_url


@pytest.fixture
def events() -> list[object]:
    return []


@pytest.fixture
def new_client(base_url: str, time: FakeTime, events: list[object]) -> Callable[..., LaterClient]:
    """Makes a client of the service whose waiting takes no time."""

    def make(**changes: object) -> LaterClient:
        given = {
            "base_url": base_url,
            "credentials": ClientCredentials(CLIENT_ID, CLIENT_SECRET),
            "limiter": RateLimiter(requests=100_000, clock=time, sleep=time.sleep),
            "timeout_seconds": 60.0,  # a busy machine may stall; tests of timeouts pass a short one
            "on_event": events.append,
            "clock": time,
            "sleep": time.sleep,
            "random": lambda: 0.0,
        }
        return LaterClient(**given | changes)

    return make


@pytest.fixture(params=[PAGED, CURSOR], ids=str)
def either(
    request: pytest.FixtureRequest, service: Service, new_client: Callable[..., LaterClient]
) -> Callable[..., LaterClient]:
    """Makes clients of a service that pages by number, and of one that pages by cursor; the clients know which."""
    service.by_cursor = request.param is CURSOR
    return lambda **changes: new_client(**{"revision": request.param} | changes)


@pytest.fixture
def july() -> PostPerformanceQuery:
    return PostPerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 31), instance_ids=("a", "b"))
