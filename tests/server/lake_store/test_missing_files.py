"""Days and instances without a file: headers, or refusal; and damaged files."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.coverage import intact_files
from later_reporting_dagster.lake.tables import POSTS_NAMES
from later_reporting_dagster.quality.instances import instances_table, load_instances
from tests.rollups.conftest import posts_of, row
from tests.server.lake_store.clients import assert_problem, days_query, get, page_of, served

INSTANCE_IDS = ("north", "a,b/c ü")
FIRST_DAY = date(2024, 3, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(10)]
TABLES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}
GAPS = {Partition(DAYS[number], "north") for number in (2, 3, 7)} | {Partition(DAYS[3], "a,b/c ü")}
each_basis = pytest.mark.parametrize("date_basis", [*TABLES])


def write(root: Path, partition: Partition, *, rows: int = 1) -> None:
    published = datetime.combine(partition.day, datetime.min.time(), UTC)
    fields = {"instance_id": partition.instance_id, "post_date": published, "engagements": 5}
    posts = posts_of(*(row(post_id=number, **fields) for number in range(rows)))
    for table_name in TABLES.values():
        Lake(str(root)).write(table_name, partition, posts)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which four files are missing; files of one day have no rows."""
    root = tmp_path_factory.mktemp("gaps")
    for partition in {Partition(day, name) for day in DAYS for name in INSTANCE_IDS} - GAPS:
        write(root, partition, rows=0 if partition.day == DAYS[5] else 1)
    return root


@pytest.fixture(scope="module")
def gaps(root: Path) -> Iterator[httpx.Client]:
    with served(root) as api:
        yield api


def missing(response: httpx.Response) -> tuple[str | None, str | None]:
    page_of(response)
    return response.headers.get("X-Later-Missing-Days"), response.headers.get("X-Later-Missing-Instances")


@each_basis
def test_headers_name_missing_days_and_instances(date_basis: str, gaps: httpx.Client) -> None:
    def query(first: int, last: int, *instance_ids: str) -> tuple[str | None, str | None]:
        instances = [("instanceIds[]", name) for name in instance_ids]
        return missing(get(gaps, days_query(DAYS[first], DAYS[last], ("dateBasis", date_basis), *instances)))

    both = f"{quote(INSTANCE_IDS[1], safe='')}, north"
    assert query(0, 9) == ("2024-03-03/2024-03-04, 2024-03-08", both)
    assert query(0, 9, "north") == ("2024-03-03/2024-03-04, 2024-03-08", "north")
    assert query(0, 9, "a,b/c ü") == ("2024-03-04", quote(INSTANCE_IDS[1], safe=""))
    assert query(7, 7) == ("2024-03-08", "north")
    assert query(7, 7, "a,b/c ü") == (None, None)
    assert query(4, 6) == (None, None)


def test_instances_with_files_are_expected_whatever_the_api_lists(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for name in ("north", "south", "gone"):
        write(tmp_path, Partition(DAYS[0], name))
    write(tmp_path, Partition(DAYS[1], "north"))
    for listed in (["north", "south", "gone"], ["north", "south", "new"]):
        files = intact_files(lake, POSTS_NAMES)
        instances = load_instances(lake, listed=listed, files=files)
        rows = instances_table(lake, instances, files=files, stale=(), days=[], today=DAYS[1])
        lake.write_table("instances", rows)
    with served(tmp_path) as api:
        assert missing(get(api, days_query(DAYS[0], DAYS[0]))) == (None, None)
        assert missing(get(api, days_query(DAYS[1], DAYS[1]))) == (str(DAYS[1]), "gone, south")
        assert missing(get(api, days_query(DAYS[1], DAYS[1], ("instanceIds", "gone")))) == (str(DAYS[1]), "gone")
        assert missing(get(api, days_query(DAYS[0], DAYS[0], ("instanceIds", "gone")))) == (None, None)
        assert page_of(get(api, days_query(DAYS[0], DAYS[0])))["pagination"]["totalItems"] == 3
        assert_problem(get(api, days_query(DAYS[0], DAYS[0], ("instanceIds", "nowhere"))), 403, "ANL_00403")
        instances = page_of(get(api, [], "/v2/instances"))["data"]["instanceIds"]
        assert {"gone", "north", "south"} <= {*instances} <= {"gone", "new", "north", "south"}


@each_basis
def test_days_that_are_not_over_are_not_missing(date_basis: str, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    for offset in range(4):
        write(tmp_path, Partition(today - timedelta(days=offset), "north"))
    with served(tmp_path) as api:
        pairs = days_query(today - timedelta(days=2), today + timedelta(days=30), ("dateBasis", date_basis))
        assert missing(get(api, pairs)) == (None, None)
        pairs = days_query(today + timedelta(days=5), today + timedelta(days=6), ("dateBasis", date_basis))
        assert missing(get(api, pairs)) == (None, None)


def test_headers_name_at_most_100_ranges(tmp_path: Path) -> None:
    days = [FIRST_DAY + timedelta(days=2 * offset) for offset in range(131)]
    empty = {Partition(day, "north"): POSTS_SCHEMA.empty_table() for day in days}
    Lake(str(tmp_path)).write_all("posts_published", empty)
    with served(tmp_path) as api:
        found, instances = missing(get(api, days_query(days[0], days[-1])))
    assert found is not None
    assert instances == "north"
    assert found.startswith("2024-03-02, 2024-03-04, ")
    assert found.endswith(" and 30 more")
    assert found.count("2024-") + found.count("2025-") == 100


def test_every_page_has_the_headers_also_after_many_other_queries(
    gaps: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = days_query(DAYS[0], DAYS[-1], ("pageSize", 5))
    monkeypatch.setattr("later_reporting_dagster.server.lake_store.snapshots.MAX_FILES", 1)
    for number in (1, 2, 50):
        assert missing(get(gaps, [*pairs, ("pageNumber", number)]))[0] == "2024-03-03/2024-03-04, 2024-03-08"
        get(gaps, days_query(DAYS[number % 10], DAYS[number % 10]))


@each_basis
def test_strict_server_refuses_a_range_with_missing_files(date_basis: str, root: Path) -> None:
    with served(root, strict=True) as api:
        for page in ([], [("metrics", "cpe")]):
            pairs = days_query(DAYS[0], DAYS[9], ("dateBasis", date_basis), *page)
            detail = assert_problem(get(api, pairs), 409, "ANL_00409")
            assert "2024-03-08" in detail
            assert "backfill" in detail or "materialize" in detail.lower()
        assert page_of(get(api, days_query(DAYS[4], DAYS[6], ("dateBasis", date_basis))))["data"]
        assert_problem(get(api, [*pairs, ("pageSize", 0)]), 400, "ANL_00400")


def test_lake_without_files_is_empty(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "not" / "there"):
        with served(root) as api:
            response = get(api, days_query(DAYS[0], DAYS[1]))
            assert response.status_code == 200
            assert response.json()["data"] == []
            assert page_of(get(api, [], "/v2/instances"))["data"]["instanceIds"] == []
            for route in ("/v2/campaigns", "/v2/campaigns/performance", "/v2/nothing"):
                assert_problem(get(api, [], route), 404, "ANL_00404")
            assert api.get("/healthz").json() == {"status": "ok"}
    assert not (tmp_path / "not").exists()


# Damaged files


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped"])
@each_basis
def test_damaged_file_is_named_and_other_ranges_are_served(date_basis: str, damage: str, tmp_path: Path) -> None:
    for day in DAYS[:3]:
        for name in INSTANCE_IDS:
            write(tmp_path, Partition(day, name), rows=30)
    table_name = TABLES[date_basis]
    (path,) = (tmp_path / table_name / f"date={DAYS[1]}").glob("*a%2Cb*/part-0.parquet")
    data = path.read_bytes()
    with served(tmp_path) as api:
        changed = {
            "empty": b"",
            "truncated": data[: len(data) // 2],
            "flipped": data[:60] + bytes(byte ^ 255 for byte in data[60:90]) + data[90:],
        }
        path.write_bytes(changed[damage])
        pairs = days_query(DAYS[0], DAYS[2], ("dateBasis", date_basis))
        for _ in range(2):
            detail = assert_problem(get(api, pairs), 500, "ANL_00500")
            for part in (table_name, str(DAYS[1])):
                assert part in detail
            assert INSTANCE_IDS[1] in detail or quote(INSTANCE_IDS[1], safe="") in detail
            assert "materialize" in detail.lower() or "backfill" in detail
        for other in ([("instanceIds", "north")], [("startDate", DAYS[2])]):
            values = {**dict(pairs), **dict(other)}
            assert len(page_of(get(api, [*values.items()]))["data"]) > 29
        path.write_bytes(data)
        assert page_of(get(api, pairs))["pagination"]["totalItems"] in (30 * 2, 30 * 2 * 3)
