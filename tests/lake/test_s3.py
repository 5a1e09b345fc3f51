"""The lake on an S3-compatible store, over HTTP: the suite of every storage, and what a user of the command does."""

import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import s3fs

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, open_database, partition_path
from tests.crash import backfills, writes
from tests.crash.landings import BOX, PUBLISHED, restated_service
from tests.crash.nursery import Nursery, nursery
from tests.lake.conftest import DAY, rows

# What holds on a disk holds here.
from tests.lake.test_compaction import (  # noqa: F401
    test_a_table_without_instances_in_its_paths_is_compacted_too,
    test_months_are_read_as_their_daily_files_are,
    test_readers_see_each_row_once_and_no_version_that_was_replaced_while_months_are_restated_and_compacted,
    test_the_dataset_reads_whole_months_from_their_copy_and_sees_the_same,
)
from tests.lake.test_database import (  # noqa: F401
    PARTITIONS,
    POSTS,
    filled,
    test_a_damaged_file_is_named_with_what_to_do,
    test_a_file_that_has_been_removed_is_named,
    test_a_view_has_the_rows_of_its_partitions_and_ids_stay_text,
    test_conditions_on_the_day_and_the_instance_open_no_other_file,
    test_values_and_types_are_exact_and_the_day_comes_first,
)
from tests.lake.test_lake import (  # noqa: F401
    test_a_day_without_posts_is_a_file_with_no_rows_and_not_no_file,
    test_a_hundred_partitions_are_read_together,
    test_a_writable_lake_is_found_so_and_left_as_it_was,
    test_days_are_read_one_after_the_other_with_their_partitions_apart,
    test_odd_instance_ids_keep_apart_and_stay_text_for_readers_of_the_dataset,
    test_partitions_are_listed_sorted_and_by_day,
    test_read_gives_the_partitions_that_exist_in_the_order_asked,
    test_rows_are_read_with_the_day_of_their_partition_when_asked,
    test_the_dataset_of_a_table_without_instances_in_its_path_takes_them_from_its_rows,
    test_the_same_rows_again_change_nothing_not_even_the_facts,
    test_what_is_written_is_read_back_exactly,
)
from tests.lake.test_quarantine import (  # noqa: F401
    test_bad_rows_are_set_aside_with_reason_and_raw_json_by_partition,
    test_bad_rows_that_name_no_partition_are_filed_under_their_query_with_its_days,
    test_newer_bad_rows_replace_older_ones_and_none_clear_them,
)
from tests.lake.test_review import test_a_replacement_is_reviewed_with_what_is_there_and_what_is_to_be  # noqa: F401

BUCKET = "a-bucket"
SECRET = "s3cr3t/of+nobody"  # noqa: S105
SERVER = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
input()
"""
KILLS = 6


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A store in a process of its own, with one empty bucket."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


@pytest.fixture(scope="module", autouse=True)
def environment(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user sets for a store that is not Amazon's; nothing of what this machine knows of AWS."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [*os.environ]:
            if name.startswith("AWS_"):
                environment.delenv(name)
        nowhere = tmp_path_factory.mktemp("aws") / "none"
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(nowhere),
            "AWS_SHARED_CREDENTIALS_FILE": str(nowhere),
        }.items():
            environment.setenv(name, value)
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def root() -> str:
    return f"s3://{BUCKET}/{secrets.token_hex(8)}/a lake"


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery("tests.crash.writes", "s3fs", log=tmp_path_factory.mktemp("writers") / "log") as writers:
        yield writers


def test_the_endpoint_is_given_by_the_environment_or_by_options(
    endpoint: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lake(root).write("posts", DAY, rows())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    lake = Lake(root, storage_options={"endpoint_url": endpoint, "key": "somebody", "secret": SECRET})
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows())


def test_nothing_but_partitions_is_ever_put(root: str) -> None:
    lake = Lake(root)
    for count in (3, 20):
        lake.write("posts", DAY, rows(count))
    path = root.removeprefix("s3://")
    assert fsspec.filesystem("s3").find(path) == [f"{path}/{partition_path('posts', DAY)}"]


def test_sql_over_a_store_is_a_listing_and_one_request_a_file(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = filled(Lake(root))
    requests: list[str] = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: s3fs.S3FileSystem, method: str, *args: Any, **options: Any) -> Any:
        requests.append(method)
        return await call(self, method, *args, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    with open_database(lake) as database:
        database.add_view(POSTS)
        requests.clear()
        database.connection.execute("SELECT date, sum(impressions), max(extra) FROM posts GROUP BY date").fetchall()
        assert requests == ["get_object"] * len(PARTITIONS)


def test_a_bucket_that_is_not_there_is_named() -> None:
    for use in (
        lambda: Lake("s3://no-such-bucket/lake").check_writable(),
        lambda: Lake("s3://no-such-bucket/lake").write("posts", DAY, rows()),
    ):
        with pytest.raises(
            LakeUnavailable, match=r"cannot write s3://no-such-bucket/lake/.* bucket does not exist.*Next"
        ):
            use()


def test_readers_in_other_processes_see_each_partition_present_and_whole(root: str, writers: Nursery) -> None:
    writers.start("write", root=root, version=0, seed=0).succeed()
    reader = writers.start("watch", root=root, until=3)
    for version in range(1, 4):
        pair = [writers.start("write", root=root, version=version, seed=each) for each in (1, 2)]
        for child in pair:
            child.succeed()
    reader.succeed()


def test_writers_that_are_killed_damage_nothing(root: str, writers: Nursery) -> None:
    writers.start("write", root=root, version=0, seed=0).succeed()
    started = time.monotonic()
    writers.start("write", root=root, version=1, seed=1).succeed()
    life, draws, lake = time.monotonic() - started, random.Random(0), Lake(root)
    seen = dict.fromkeys(writes.PARTITIONS, 1)
    kills, version, mixed = 0, 1, False
    # A kill may come before the first write or after the last one, so go on until one came between two.
    while kills < KILLS or not mixed:
        version += 1
        child = writers.start("write", root=root, version=version, seed=version)
        time.sleep(draws.uniform(0, life))
        kills += child.kill()
        assert lake.partitions(writes.ASSET) == sorted(writes.PARTITIONS)
        for partition in writes.PARTITIONS:
            table = lake.read(writes.ASSET, [partition], schema=POSTS_SCHEMA)
            found = table["campaign_id"][0].as_py() if len(table) else version
            assert seen[partition] <= found <= version
            assert table.equals(writes.version_of(partition, found))
            seen[partition] = found
        mixed |= len(set(seen.values())) > 1
    writers.start("write", root=root, version=version + 1, seed=0).succeed()
    for partition in writes.PARTITIONS:
        table = lake.read(writes.ASSET, [partition], schema=POSTS_SCHEMA)
        assert table.equals(writes.version_of(partition, version + 1))


def test_the_command_lands_in_a_store_that_the_environment_names(root: str, tmp_path: Path) -> None:
    with restated_service() as service:
        settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        user = backfills.user_environment(tmp_path, base_url=service.base_url, lake_root=root) | settings
        said = ""
        for typed in (["doctor"], backfills.arguments(PUBLISHED.asset)):
            process = backfills.command(*typed, environment=user)
            output, _ = process.communicate()
            assert process.returncode == 0, output
            said += output
        assert f"{root} is writable" in said
        assert SECRET not in said
        filesystem = fsspec.filesystem("s3")
        filesystem.invalidate_cache()
        for each in BOX:
            with filesystem.open(f"{root}/{partition_path(PUBLISHED.asset, each)}") as file:
                assert pq.ParquetFile(file).read().to_pylist() == service.answers[0][PUBLISHED.asset, each]
