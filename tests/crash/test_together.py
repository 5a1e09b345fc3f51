"""Writers and readers at the same time, in processes of their own: no reader sees less than a whole partition."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake
from tests.conftest import stored_rows
from tests.crash import backfills, writes
from tests.crash.landings import BOX, DAYS, PUBLISHED, SOURCES, Answers, RestatedService, restated_service
from tests.crash.nursery import Nursery, nursery

VERSIONS = 6


@pytest.fixture(scope="module")
def service() -> Iterator[RestatedService]:
    with restated_service() as service:
        yield service


def versions_in(root: Path) -> list[int | None]:
    """The version that each partition is, exactly; None for one without rows, which all versions have alike."""
    found: list[int | None] = []
    for partition in writes.PARTITIONS:
        table = Lake(str(root)).read(writes.ASSET, [partition], schema=POSTS_SCHEMA)
        version = table["campaign_id"][0].as_py() if len(table) else None
        assert table.equals(writes.version_of(partition, version or 0))
        found.append(version)
    return found


def assert_lake_is(answers: Answers, root: Path, *, sources: tuple[str, ...]) -> None:
    assert {path.parts[-4] for path in root.rglob("*.parquet")} == set(sources)
    assert len([*root.rglob("*.parquet")]) == len(sources) * len(BOX)
    for asset in sources:
        for each in BOX:
            assert stored_rows(root, asset, each.day, each.instance_id or "") == answers[asset, each]


def test_partitions_written_by_two_processes_at_once_are_of_one_of_them_whole(tmp_path: Path, writers: Nursery) -> None:
    for version in range(0, 2 * VERSIONS, 2):
        pair = [writers.start("write", root=str(tmp_path), version=version + each, seed=7) for each in (0, 1)]
        for child in pair:
            child.succeed()
        assert {each for each in versions_in(tmp_path) if each is not None} <= {version, version + 1}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != "part-0.parquet"] == []


def test_a_reader_in_a_process_of_its_own_sees_each_partition_present_and_whole(
    tmp_path: Path, writers: Nursery
) -> None:
    writers.start("write", root=str(tmp_path), version=0, seed=0).succeed()
    reader = writers.start("watch", root=str(tmp_path), until=VERSIONS)
    for version in range(1, VERSIONS + 1):
        pair = [writers.start("write", root=str(tmp_path), version=version, seed=each) for each in (1, 2)]
        for child in pair:
            child.succeed()
    reader.succeed()


def test_two_ingests_of_the_same_partitions_at_once_land_the_truth(tmp_path: Path, service: RestatedService) -> None:
    root = tmp_path / "lake"
    with nursery("tests.crash.landings", log=tmp_path / "log") as landers:
        for version in (0, 1):
            service.restate(version)
            pair = [landers.start("land", root=str(root), base_url=service.base_url) for _ in range(2)]
            for child in pair:
                child.succeed()
            assert_lake_is(service.answers[version], root, sources=tuple(source.asset for source in SOURCES))


def test_two_backfills_of_the_same_partitions_at_once_land_the_truth(tmp_path: Path, service: RestatedService) -> None:
    service.restate(2)
    root = tmp_path / "lake"
    environment = backfills.user_environment(tmp_path, base_url=service.base_url, lake_root=str(root))
    pair = [backfills.command(*backfills.arguments(PUBLISHED.asset), environment=environment) for _ in range(2)]
    for process in pair:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert_lake_is(service.answers[2], root, sources=(PUBLISHED.asset,))
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 2
        key = dg.AssetKey(["later", PUBLISHED.asset])
        assert len(instance.get_materialized_partitions(key)) == len(DAYS)
