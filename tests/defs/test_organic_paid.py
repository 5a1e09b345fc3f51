"""The rollup assets, run for real on what has landed."""

from collections import defaultdict
from datetime import date
from typing import Any

import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.definitions import ORGANIC_PAID_BY_PUBLISH_DAY, ORGANIC_PAID_DAILY
from later_reporting_dagster.lake import Partition
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Row, Truth, files
from tests.defs.conftest import DAYS, KEYS, Project, failure, values

ROLLUPS = {"organic_paid_daily": "post_metrics_daily", "organic_paid_by_publish_day": "posts_published"}
BASIS = {"organic_paid_daily": "performance_date", "organic_paid_by_publish_day": "post_date"}

both_rollups = pytest.mark.parametrize("asset", ROLLUPS)


def stored(project: Project, asset: str, day: date) -> list[Row]:
    """The rows of a rolled-up day, from where it is promised to lie."""
    rows: list[Row] = pq.ParquetFile(project.root / asset / f"date={day}" / "part-0.parquet").read().to_pylist()
    return rows


def summed(rows: list[Row]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The sums of posts by instance, campaign, platform and content type, by hand."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["instance_id"], row["campaign_id"], row["platform"], row["content_type"]].append(row)

    def total(posts: list[Row], name: str) -> Any:
        reported = [post[name] for post in posts if post[name] is not None]
        return sum(reported) if reported else None

    return {
        group: {
            "posts": len(posts),
            "organic_impressions": total(posts, "impressions"),
            "organic_engagements": total(posts, "engagements"),
            "paid_impressions": total(posts, "paid_impressions"),
            "paid_engagements": total(posts, "paid_engagements"),
        }
        for group, posts in groups.items()
    }


def truth_of(truth: Truth, asset: str, day: date, instance_ids: tuple[str, ...] = INSTANCE_IDS) -> list[Row]:
    return [row for instance_id in instance_ids for row in truth.partition(BASIS[asset], day, instance_id)]


def assert_sums(rolled_up: list[Row], posts: list[Row]) -> None:
    wanted = summed(posts)
    found = {
        (row["instance_id"], row["campaign_id"], row["platform"], row["content_type"]): {
            name: row[name] for name in next(iter(wanted.values()))
        }
        for row in rolled_up
    }
    assert len(found) == len(rolled_up)
    assert found == wanted


@both_rollups
def test_days_are_rolled_up_in_one_run(asset: str, project: Project, truth: Truth) -> None:
    project.fetch(ROLLUPS[asset])
    result = project.roll_up(asset)
    assert result.success
    told_of = project.materializations(result)
    assert told_of.keys() == set(map(str, DAYS))
    for day in DAYS:
        rolled_up, posts = stored(project, asset, day), truth_of(truth, asset, day)
        assert_sums(rolled_up, posts)
        found = values(told_of[str(day)])
        assert (found["rows"], found["posts"], found["instances"]) == (len(rolled_up), len(posts), len(INSTANCE_IDS))
        assert found["missing_instances"] == []
        assert found["path"] == str(project.root / asset / f"date={day}" / "part-0.parquet")
        assert found["preview"].startswith("| instance_id | campaign_id |")
        facts = project.lake.facts(asset, Partition(day))
        assert facts is not None
        assert told_of[str(day)].tags["dagster/data_version"] == facts.content_hash
    assert project.verdicts(result) == {"reconciles_with_raw_rows": True, "newest_due_day_is_present": False}


def test_only_what_was_published_has_spend(project: Project) -> None:
    for asset, raw in ROLLUPS.items():
        project.fetch(raw, days=[FIRST_DAY])
        project.roll_up(asset, days=[FIRST_DAY])
    daily, published = (stored(project, asset, FIRST_DAY)[0] for asset in ROLLUPS)
    assert not [name for name in daily if "spend" in name]
    assert [name for name in published if "spend" in name]


def test_each_is_made_from_its_own_raw_table() -> None:
    assert ORGANIC_PAID_DAILY.source.date_basis is DateBasis.PERFORMANCE_DATE
    assert ORGANIC_PAID_BY_PUBLISH_DAY.source.date_basis is DateBasis.POST_DATE


def test_a_missing_instance_is_told_and_the_rest_rolled_up(project: Project, truth: Truth) -> None:
    project.fetch("posts_published", keys=KEYS[1:3])
    result = project.roll_up("organic_paid_by_publish_day")
    assert result.success
    for day in DAYS:
        assert_sums(
            stored(project, "organic_paid_by_publish_day", day),
            truth_of(truth, "organic_paid_by_publish_day", day, INSTANCE_IDS[1:3]),
        )
    for event in project.materializations(result).values():
        assert values(event)["instances"] == 2
        assert values(event)["missing_instances"] == [INSTANCE_IDS[0], INSTANCE_IDS[3]]


def test_a_day_without_raw_rows_is_rolled_up_to_none(project: Project) -> None:
    project.fetch_one("posts_published", date(2024, 3, 2), KEYS[2])
    result = project.roll_up("organic_paid_by_publish_day", days=[date(2024, 3, 2)])
    assert result.success
    assert stored(project, "organic_paid_by_publish_day", date(2024, 3, 2)) == []


def test_a_day_without_raw_partitions_fails_alone(project: Project) -> None:
    project.fetch("posts_published", days=DAYS[:1])
    project.fetch("posts_published", days=DAYS[2:])
    result = project.roll_up("organic_paid_by_publish_day")
    description, metadata = failure(result)
    assert description.splitlines()[0] == "1 partition failed and stayed as before; 2 landed."
    assert metadata["failed_partitions"] == {
        str(DAYS[1]): "no instance of later/posts_published has landed for it: materialize that first"
    }
    assert set(project.materializations(result)) == {str(DAYS[0]), str(DAYS[2])}
    assert project.verdicts(result)["reconciles_with_raw_rows"] is True


def test_a_damaged_raw_file_fails_its_day_alone(project: Project) -> None:
    project.fetch("posts_published")
    next((project.root / "posts_published" / f"date={DAYS[1]}").rglob("*.parquet")).write_bytes(b"no Parquet")
    result = project.roll_up("organic_paid_by_publish_day")
    _, metadata = failure(result)
    assert metadata["failed_partitions"].keys() == {str(DAYS[1])}
    assert "materialize this partition again" in metadata["failed_partitions"][str(DAYS[1])]
    assert set(project.materializations(result)) == {str(DAYS[0]), str(DAYS[2])}


def test_a_day_that_cannot_be_written_fails_alone(project: Project) -> None:
    project.fetch("posts_published")
    (project.root / "organic_paid_by_publish_day").mkdir()
    (project.root / "organic_paid_by_publish_day" / f"date={DAYS[1]}").write_bytes(b"a file where a directory is due")
    result = project.roll_up("organic_paid_by_publish_day")
    _, metadata = failure(result)
    assert metadata["failed_partitions"].keys() == {str(DAYS[1])}


def test_a_rerun_changes_no_byte_and_no_data_version(project: Project) -> None:
    project.fetch("posts_published")
    first = project.roll_up("organic_paid_by_publish_day")
    before = files(project.root)
    second = project.roll_up("organic_paid_by_publish_day")
    assert files(project.root) == before
    assert project.data_versions(first) == project.data_versions(second)
    assert len(project.data_versions(second)) == len(DAYS)


def test_an_inverted_range_fails_clearly(project: Project) -> None:
    description, _ = failure(project.roll_up("organic_paid_daily", days=DAYS[::-1]))
    assert f"{DAYS[-1]} to {DAYS[0]} holds no partition: its end comes before its start" in description
