"""Fixtures for the probe: an account of the sandbox, and what an honest one has."""

from dataclasses import replace

import pytest
from starlette.types import ASGIApp

from later_reporting_dagster.contract import API_VERSIONS, ApiVersion
from later_reporting_dagster.probe.assumptions import Result
from later_reporting_dagster.probe.sample import Sample
from later_reporting_dagster.server.sandbox import World, create_app, two_years_before
from tests.conftest import NO_RATE_LIMIT, Service
from tests.probe.account import LAST_DAY, Account, run_probe


@pytest.fixture(scope="session")
def apps() -> dict[ApiVersion, ASGIApp]:
    world = World(first_day=two_years_before(LAST_DAY), last_day=LAST_DAY, instances=2, posts_per_day=3)
    return {
        version: create_app(world, options=replace(NO_RATE_LIMIT, api_version=version))
        for version in API_VERSIONS.values()
    }


@pytest.fixture(params=API_VERSIONS.values(), ids=str)
def version(request: pytest.FixtureRequest) -> ApiVersion:
    found: ApiVersion = request.param
    return found


@pytest.fixture
def account(stage: Service, apps: dict[ApiVersion, ASGIApp], version: ApiVersion) -> Account:
    """The account that is served at `stage.base_url`; once in each API version."""
    stage.app = account = Account(apps[version])
    return account


@pytest.fixture(scope="session")
def honest(stage: Service, apps: dict[ApiVersion, ASGIApp]) -> dict[ApiVersion, tuple[Sample, dict[str, Result]]]:
    """What a probe of the unchanged account fetches and finds, by API version."""
    found = {}
    for version, app in apps.items():
        stage.app = Account(app)
        found[version] = run_probe(stage.base_url)
    return found
