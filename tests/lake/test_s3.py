"""The lake on an S3-compatible store, over HTTP: tests of other modules, writers in other processes, the command."""

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
from tests.crash import backfill_command, lake_writers
from tests.crash.fork_server import ForkServer, fork_server
from tests.crash.restated_sandbox import INGESTED_PARTITIONS, PUBLISHED, restated_sandbox
from tests.lake.conftest import DAY, rows

# Imported tests run again, with the fixture `root` of this module.
from tests.lake.test_compaction import (  # noqa: F401
    test_compacted_months_read_the_same_as_daily_files,
    test_concurrent_readers_see_each_row_once_and_no_replaced_version,
    test_dataset_reads_whole_months_from_their_copies,
    test_table_without_instances_in_its_paths_is_compacted,
)
from tests.lake.test_database import (  # noqa: F401
    PARTITIONS,
    POSTS,
    filled,
    test_conditions_on_date_and_instance_open_no_other_file,
    test_unreadable_names_the_damaged_file,
    test_unreadable_names_the_removed_file,
    test_view_has_exact_values_and_types_after_the_date,
    test_view_has_the_requested_partitions_and_ids_stay_strings,
)
from tests.lake.test_lake import (  # noqa: F401
    test_check_writable_leaves_no_file,
    test_dataset_without_instances_in_its_paths_takes_them_from_the_rows,
    test_empty_partition_is_a_file_without_rows,
    test_partitions_are_sorted_and_filtered_by_day,
    test_read_of_a_hundred_partitions,
    test_read_returns_existing_partitions_in_the_order_given,
    test_read_with_date_adds_the_day_of_each_row,
    test_replacement_check_receives_the_stored_and_the_new_rows,
    test_unusual_instance_ids_stay_distinct_strings_in_the_dataset,
    test_write_and_read_round_trip,
    test_write_of_equal_rows_changes_nothing_including_metadata,
)
from tests.lake.test_quarantine import (  # noqa: F401
    test_write_query_stores_rows_by_query,
    test_write_replaces_earlier_rows_and_remove_removes_them,
    test_write_stores_reason_and_raw_json_by_partition,
)

pytestmark = pytest.mark.services

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
    """The URL of an S3-compatible store, in a process of its own."""
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
    """Set the environment variables for this store, remove all others of AWS, and create one empty bucket."""
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
    """The root of an empty lake in the bucket."""
    return f"s3://{BUCKET}/{secrets.token_hex(8)}/a lake"


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Starts processes that write to or read from a lake."""
    with fork_server("tests.crash.lake_writers", "s3fs", log=tmp_path_factory.mktemp("writers") / "log") as writers:
        yield writers


def test_endpoint_from_the_environment_or_from_options(
    endpoint: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lake(root).write("posts", DAY, rows())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    lake = Lake(root, storage_options={"endpoint_url": endpoint, "key": "somebody", "secret": SECRET})
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows())


def test_write_puts_only_partitions(root: str) -> None:
    lake = Lake(root)
    for count in (3, 20):
        lake.write("posts", DAY, rows(count))
    path = root.removeprefix("s3://")
    assert fsspec.filesystem("s3").find(path) == [f"{path}/{partition_path('posts', DAY)}"]


def test_query_is_one_request_for_each_file(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_missing_bucket_is_named() -> None:
    for act in (
        lambda: Lake("s3://no-such-bucket/lake").check_writable(),
        lambda: Lake("s3://no-such-bucket/lake").write("posts", DAY, rows()),
    ):
        with pytest.raises(
            LakeUnavailable, match=r"cannot write s3://no-such-bucket/lake/.* bucket does not exist.*Next"
        ):
            act()


def test_readers_in_other_processes_see_complete_partitions(root: str, writers: ForkServer) -> None:
    writers.start("write", root=root, version=0, seed=0).wait_for_success()
    reader = writers.start("watch", root=root, until=3)
    for version in range(1, 4):
        pair = [writers.start("write", root=root, version=version, seed=each) for each in (1, 2)]
        for child in pair:
            child.wait_for_success()
    reader.wait_for_success()


def test_killed_writers_damage_nothing(root: str, writers: ForkServer) -> None:
    writers.start("write", root=root, version=0, seed=0).wait_for_success()
    started = time.monotonic()
    writers.start("write", root=root, version=1, seed=1).wait_for_success()
    life, draws, lake = time.monotonic() - started, random.Random(0), Lake(root)
    seen = dict.fromkeys(lake_writers.PARTITIONS, 1)
    kills, version, mixed = 0, 1, False
    # A process may be killed before its first write or after its last one: repeat until one was killed in between.
    while kills < KILLS or not mixed:
        version += 1
        child = writers.start("write", root=root, version=version, seed=version)
        time.sleep(draws.uniform(0, life))
        kills += child.kill()
        assert lake.partitions(lake_writers.TABLE_NAME) == sorted(lake_writers.PARTITIONS)
        for partition in lake_writers.PARTITIONS:
            table = lake.read(lake_writers.TABLE_NAME, [partition], schema=POSTS_SCHEMA)
            found = table["campaign_id"][0].as_py() if len(table) else version
            assert seen[partition] <= found <= version
            assert table.equals(lake_writers.partition_rows(partition, found))
            seen[partition] = found
        mixed |= len(set(seen.values())) > 1
    writers.start("write", root=root, version=version + 1, seed=0).wait_for_success()
    for partition in lake_writers.PARTITIONS:
        table = lake.read(lake_writers.TABLE_NAME, [partition], schema=POSTS_SCHEMA)
        assert table.equals(lake_writers.partition_rows(partition, version + 1))


def test_command_writes_to_the_store_of_the_environment(root: str, tmp_path: Path) -> None:
    with restated_sandbox() as service:
        settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        user = backfill_command.user_environment(tmp_path, base_url=service.base_url, lake_root=root) | settings
        outputs = ""
        for arguments in (["doctor"], backfill_command.backfill_arguments(PUBLISHED.name)):
            process = backfill_command.start_command(*arguments, environment=user)
            output, _ = process.communicate()
            assert process.returncode == 0, output
            outputs += output
        assert f"{root} is writable" in outputs
        assert SECRET not in outputs
        filesystem = fsspec.filesystem("s3")
        filesystem.invalidate_cache()
        for each in INGESTED_PARTITIONS:
            with filesystem.open(f"{root}/{partition_path(PUBLISHED.name, each)}") as file:
                assert pq.ParquetFile(file).read().to_pylist() == service.rows_by_version[0][PUBLISHED.name, each]
