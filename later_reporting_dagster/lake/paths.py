"""Where the files of the lake are: `{table}/date=YYYY-MM-DD/instance_id={percent-encoded id}/part-0.parquet`.

An unpartitioned table is `{table}/part-0.parquet`. Paths are relative to the lake's root.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from urllib.parse import quote, unquote

FILE_NAME = "part-0.parquet"
# The directory of one instance in a table: there are no partitions below it.
INSTANCE_PREFIX = "instance_id="

# Common file systems limit the name of a directory to 255 bytes.
_MAX_ENCODED_LENGTH = 255 - len(INSTANCE_PREFIX)
# Hive's encoding of null: readers would read an instance id with this text as null.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_DAY_DIRECTORY = re.compile(r"date=([0-9]{4}-[0-9]{2}-[0-9]{2})")


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """One file of a partitioned table, as in Hive partitioning: `date=…/instance_id=…`.

    In tables of posts, it has the rows of one UTC day and one instance. A Dagster partition is a whole day, with all
    instances.

    Attributes:
        day: the UTC day; in tables of weeks or months, the first day.
        instance_id: None where a file has the rows of all instances: in rollups, and of the performance of campaigns.
    """

    day: date
    instance_id: str | None = None

    def __str__(self) -> str:
        return str(self.day) if self.instance_id is None else f"{self.day} {self.instance_id}"


def partition_sort_key(partition: Partition) -> tuple[date, str]:
    """Return the key that sorts partitions by day, then instance; partitions without an instance come first."""
    return partition.day, partition.instance_id or ""


def days_by_instance(partitions: Iterable[Partition]) -> dict[str | None, set[date]]:
    days: dict[str | None, set[date]] = {}
    for partition in partitions:
        days.setdefault(partition.instance_id, set()).add(partition.day)
    return days


@lru_cache(maxsize=16_384)  # A table has the same few instances on every day.
def encode_instance_id(instance_id: str) -> str:
    """Return the id percent-encoded: it has only ASCII letters, digits and `_.-~%`.

    The result is valid as the name of a directory and as a Dagster partition key.

    Raises:
        ValueError: the id is empty, is not valid Unicode, or is too long for the name of a directory when encoded.
    """
    if not instance_id:
        raise ValueError("an instance id cannot be empty: omit it, or give an id that GET /v2/instances returns")
    try:
        encoded = quote(instance_id, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"instance id {instance_id!a} is not valid Unicode") from None
    if len(encoded) > _MAX_ENCODED_LENGTH:
        raise ValueError(
            f"instance id {instance_id[:40]!r}… has {len(encoded)} characters when percent-encoded;"
            f" the name of its directory may have at most {_MAX_ENCODED_LENGTH}"
        )
    return encoded if encoded != _HIVE_NULL else encoded.replace("_", "%5F", 1)


@lru_cache(maxsize=16_384)
def decode_instance_id(encoded: str) -> str:
    instance_id = unquote(encoded, errors="strict")
    if encode_instance_id(instance_id) != encoded:
        raise ValueError("another encoding, such as `a b`: two directories would be one partition")
    return instance_id


def step_to_replace(path: str) -> str:
    """Return what to do about a file of a table that cannot be read, or about that of its rows in quarantine."""
    table, _, directory = path.rpartition("/")[0].partition("/")
    partition = parse_directory(directory)
    days = f" --start {partition.day} --end {partition.day}" if partition else ""
    what = "partition" if partition else "table"
    return f"materialize this {what} again, as `later-reporting backfill --asset {table}{days}` does"


def table_path(table_name: str) -> str:
    return f"{table_name}/{FILE_NAME}"


def partition_path(table_name: str, partition: Partition | None) -> str:
    """Return the path of a partition, or of an unpartitioned table."""
    return table_path(partition_directory(table_name, partition) if partition else table_name)


def partition_directory(table_name: str, partition: Partition) -> str:
    directory = day_directory(table_name, partition.day)
    if partition.instance_id is None:
        return directory
    return f"{directory}/{INSTANCE_PREFIX}{encode_instance_id(partition.instance_id)}"


def day_directory(table_name: str, day: date) -> str:
    return f"{table_name}/date={day.isoformat()}"


def parse_directory(directory: str) -> Partition | None:
    """Return the partition of a directory relative to its table, such as `date=2024-01-03/instance_id=a`."""
    first, separator, instance = directory.partition("/")
    try:
        day = _parse_day(first)
        if not separator:
            return None if day is None else Partition(day)
        if day is None or not instance.startswith(INSTANCE_PREFIX):
            return None
        return Partition(day, decode_instance_id(instance.removeprefix(INSTANCE_PREFIX)))
    except ValueError:
        return None


@lru_cache(maxsize=16_384)  # A listing has the same day for each instance.
def _parse_day(directory: str) -> date | None:
    match = _DAY_DIRECTORY.fullmatch(directory)
    return None if match is None else date.fromisoformat(match[1])
