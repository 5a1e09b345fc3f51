"""A lake that is fetched from a served lake is the served lake, byte for byte."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest

from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, METRICS, PAGED, ApiVersion
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.serve.app import ServeOptions
from tests.independent_server import IndependentServer
from tests.serve.clients import EVERYTHING, OPTIONS, authenticated, days_query, fetch_rows, land, serving
from tests.serve.conftest import FIRST_DAY, INSTANCE_IDS, LAST_DAY, REFERENCE

DAYS = (FIRST_DAY, FIRST_DAY + timedelta(days=4))
ALL_DAYS = (FIRST_DAY, LAST_DAY)
Days = tuple[date, date]


def contents(root: Path) -> dict[str, bytes]:
    """Return the bytes of each file. `land` has a fixed clock, so that even the times of fetches are equal."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_round_trip(root: Path, again: Path, *, days: Days, options: ServeOptions, api_version: ApiVersion) -> None:
    """Fetch a lake from itself, and assert that all files are equal."""
    with serving(root, options) as base_url:
        land(
            base_url,
            again,
            days=days,
            instance_ids=INSTANCE_IDS,
            client=EVERYTHING,
            api_version=api_version,
            metrics=options.metrics,
        )
    expected, found = contents(root), contents(again)
    assert found.keys() == expected.keys()
    assert [path for path in expected if found[path] != expected[path]] == []
    assert len(expected) == 2 * len(days_between(*days)) * len(INSTANCE_IDS) + 1


@pytest.fixture(scope="module")
def default_lake(reference_server: IndependentServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that was fetched in the paged version, with the default metrics."""
    root = tmp_path_factory.mktemp("paged")
    with reference_server.running() as base_url:
        land(
            base_url,
            root,
            days=DAYS,
            instance_ids=INSTANCE_IDS,
            client=REFERENCE,
            api_version=PAGED,
            metrics=DEFAULT_METRICS,
        )
    return root


@pytest.mark.parametrize("fixed", [CURSOR, None], ids=str)
def test_lake_with_all_metrics_survives_the_round_trip(fixed: ApiVersion | None, landed: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, api_version=fixed)
    assert_round_trip(landed, tmp_path, days=ALL_DAYS, options=options, api_version=CURSOR)


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_lake_with_default_metrics_survives_the_round_trip(
    api_version: ApiVersion, default_lake: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, metrics=DEFAULT_METRICS)
    assert_round_trip(default_lake, tmp_path, days=DAYS, options=options, api_version=api_version)


@pytest.fixture
def default_api(default_lake: Path) -> Iterator[httpx.Client]:
    """A client of the lake with the default metrics; the server offers all metrics."""
    with serving(default_lake) as base_url, authenticated(base_url) as api:
        yield api


def test_metric_that_no_file_has_is_null(default_api: httpx.Client) -> None:
    for date_basis in ("post_date", "performance_date"):
        pairs = days_query(*DAYS, ("dateBasis", date_basis), ("metrics", "likes,avgWatchTime,reach,engagements"))
        rows = fetch_rows(default_api, pairs)
        assert {(row["metrics"]["likes"], row["metrics"]["reach"]) for row in rows} == {(None, None)}
        assert any(row["metrics"]["engagements"] for row in rows)
    assert len(METRICS) > len(DEFAULT_METRICS)
