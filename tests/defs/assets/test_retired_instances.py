"""Only `retire` takes an instance out of rollups and the report: no listing of the API does, and no setting."""

import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS_TABLE,
    CAMPAIGNS_TABLE,
    Lake,
    Partition,
    schema_of,
)
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE, CAMPAIGN_PERIODS
from tests.conftest import INSTANCE_IDS, Service, files
from tests.defs.assets.test_report import page_data
from tests.defs.conftest import (
    DAYS,
    PERIOD_ROLLUPS,
    RAW_ASSETS,
    ROLLUPS,
    WINDOWS,
    Project,
    assert_success,
    fill_once,
    list_instances,
)

REPORT = "organic_paid_report"
FETCHED = (*RAW_ASSETS, CAMPAIGN_PERFORMANCE_TABLE)
LISTED = (CAMPAIGNS_TABLE, CAMPAIGN_PERIODS_TABLE, "instances")
GONE = INSTANCE_IDS[2]
THREE_DAYS = range_tags(DAYS[0], DAYS[-1])


@pytest.fixture
def complete(project: Project, module_lake: Path) -> Project:
    """The project with everything in the lake."""

    def fill(project: Project) -> bool:
        assert_success(project.run(*FETCHED, *LISTED, tags=THREE_DAYS))
        bad = [BadRow(reason="impressions: -1 is below 0", raw="{}")]
        path = project.lake.quarantine.path_of(RAW_ASSETS[0], Partition(DAYS[0], GONE))
        project.lake.quarantine.write(path, bad, query="?")
        derive(project)
        return True

    return fill_once(project, module_lake, fill)


def derive(project: Project) -> None:
    for asset in PERIOD_ROLLUPS:
        assert_success(project.roll_up(asset))
    assert_success(project.run(*ROLLUPS, *WINDOWS, REPORT, tags=THREE_DAYS))


def derived(project: Project) -> dict[str, dict[str, Any]]:
    """Return the rows of the files of each rollup table, and the report, without what they were made from."""
    return {
        name: {
            path: content.partition(b"<!-- made_from")[0]
            if name == REPORT
            else pq.read_table(BytesIO(content)).replace_schema_metadata()
            for path, (content, _) in files(project.root / name).items()
        }
        for name in (*ROLLUPS, *PERIOD_ROLLUPS, *WINDOWS, REPORT)
    }


def without_instance(project: Project, root: Path, name: str) -> Project:
    """Return the project with a copy of its raw files, in which an instance and its campaigns never were."""
    for folder in (*FETCHED, *LISTED):
        shutil.copytree(project.root / folder, root / folder)
    lake = Lake(str(root))
    for asset in RAW_ASSETS:
        for partition in lake.partitions(asset):
            if partition.instance_id == name:
                Path(lake.url(asset, partition)).unlink()
    campaigns = lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
    assert campaigns is not None
    others = campaigns.filter(pc.field("instance_id") != name)
    lake.write_table(CAMPAIGNS_TABLE, others)
    periods = lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema)
    assert periods is not None
    is_kept = pc.is_in(pc.field("campaign_id"), others["campaign_id"].combine_chunks())
    lake.write_table(CAMPAIGN_PERIODS_TABLE, periods.filter(is_kept))
    for day in lake.partitions(CAMPAIGN_PERFORMANCE_TABLE):
        schema = CAMPAIGN_PERFORMANCE.table.schema
        totals = lake.read(CAMPAIGN_PERFORMANCE_TABLE, [day], schema=schema)
        lake.write(CAMPAIGN_PERFORMANCE_TABLE, day, totals.select(schema.names).filter(is_kept))
    return replace(project, root=root)


def test_retired_instance_leaves_every_table_and_the_report_and_returns(
    complete: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = derived(complete)
    assert GONE in page_data(complete)["instances"]

    complete.lake.retired.add(GONE)
    # The mark does not depend on the dimension.
    (complete.root / "instances" / "part-0.parquet").write_bytes(b"no Parquet")
    derive(complete)
    after = derived(complete)
    unchanged = {"organic_by_age"}  # without rows in a lake of three days
    assert {name for name in before if before[name] != after[name]} == before.keys() - unchanged
    assert GONE not in json.dumps(page_data(complete), ensure_ascii=False)
    results = complete.check()
    assert all(result.passed for (_, check), result in results.items() if check == "is_current")

    with monkeypatch.context() as of_copy:
        of_copy.setenv("LATER_LAKE_ROOT", str(tmp_path / "never"))
        never = without_instance(complete, tmp_path / "never", GONE).reloaded()
        derive(never)
    assert derived(never) == after
    complete.lake.retired.remove(GONE)
    derive(complete)
    assert derived(complete) == before


def test_no_listing_and_no_setting_changes_a_rollup(
    complete: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = derived(complete)
    service.override = list_instances(*INSTANCE_IDS[:1])
    monkeypatch.setenv("LATER_INSTANCE_IDS", INSTANCE_IDS[1])
    project = complete.reloaded()
    assert_success(project.run(*FETCHED, *LISTED, tags=THREE_DAYS))
    derive(project)
    after = derived(complete)
    assert {name for name in before if after[name] != before[name]} == {REPORT}
    page = page_data(complete)
    assert "no longer fetched, because LATER_INSTANCE_IDS does not name them" in " ".join(page["outdated"])


def test_days_of_retired_instances_only_become_empty(complete: Project) -> None:
    for name in INSTANCE_IDS:
        complete.lake.retired.add(name)
    derive(complete)
    assert complete.check((WINDOWS[0], "is_current"))[WINDOWS[0], "is_current"].passed
    assert complete.lake.read(ROLLUPS[0], complete.lake.partitions(ROLLUPS[0]), schema=schema_of([])).num_rows == 0
