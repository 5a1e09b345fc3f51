"""A lake that is fetched from a served lake is the served lake, byte for byte; metrics that it lacks are null."""

from datetime import date
from pathlib import Path

from later_reporting_dagster.contract import DEFAULT_METRICS, PAGED
from tests.independent_server import IndependentServer
from tests.serve.clients import EVERYTHING, authenticated, days_query, fetch_rows, land, serving
from tests.serve.conftest import FIRST_DAY, INSTANCE_IDS, LAST_DAY, REFERENCE


def contents(root: Path) -> dict[str, bytes]:
    """Return the bytes of each file. `land` has a fixed clock, so that even the times of fetches are equal."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_lake_survives_the_round_trip(landed: Path, tmp_path: Path) -> None:
    with serving(landed) as base_url:
        land(base_url, tmp_path, days=(FIRST_DAY, LAST_DAY), instance_ids=INSTANCE_IDS, client=EVERYTHING)
    expected, found = contents(landed), contents(tmp_path)
    assert found.keys() == expected.keys()
    assert [path for path in expected if found[path] != expected[path]] == []
    assert len(expected) == 2 * 10 * len(INSTANCE_IDS) + 1


def test_metric_that_no_file_has_is_null(reference_server: IndependentServer, tmp_path: Path) -> None:
    day = date(2024, 2, 29)
    with reference_server.running() as base_url:
        land(
            base_url,
            tmp_path,
            days=(day, day),
            instance_ids=INSTANCE_IDS,
            client=REFERENCE,
            api_version=PAGED,
            metrics=DEFAULT_METRICS,
        )
    with serving(tmp_path) as base_url, authenticated(base_url) as api:
        for date_basis in ("post_date", "performance_date"):
            pairs = days_query(day, day, ("dateBasis", date_basis), ("metrics", "likes,avgWatchTime,reach,engagements"))
            rows = fetch_rows(api, pairs)
            assert {(row["metrics"]["likes"], row["metrics"]["reach"]) for row in rows} == {(None, None)}
            assert any(row["metrics"]["engagements"] for row in rows)
