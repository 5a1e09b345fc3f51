"""Paths of partitions below the lake's root, and how instance ids are encoded in them."""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from urllib.parse import quote, unquote

from later_reporting_dagster.lake.storage import LEAF

FILE_NAME = "part-0.parquet"

_DAY, _MONTH, _INSTANCE = "date=", "month=", LEAF
# Spark, Hive and other readers skip names that begin with an underscore.
_COMPACTED = "_compacted"
# Common file systems limit the name of a directory to 255 bytes.
_MAX_ENCODED_LENGTH = 255 - len(_INSTANCE)
# Hive's encoding of null: readers would read an instance id with this text as null.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """One file of a partitioned table, as in Hive partitioning: `date=…/instance_id=…`.

    In raw tables, it has the rows of one UTC day and one instance. A Dagster partition is a whole day, with all
    instances.

    Attributes:
        day: the UTC day; in tables of weeks or months, the first day.
        instance_id: None in rollups, in which a file has the rows of all instances.
    """

    day: date
    instance_id: str | None = None

    def __str__(self) -> str:
        return str(self.day) if self.instance_id is None else f"{self.day} {self.instance_id}"


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


@lru_cache(maxsize=16_384)  # A listing has the same few instances on every day.
def decode_instance_id(key: str) -> str:
    """Return the instance id that `encode_instance_id` encoded as `key`.

    Raises:
        ValueError: `key` is not an encoded id; for example, it has a space.
    """
    try:
        instance_id = unquote(key, errors="strict")
        is_encoding = encode_instance_id(instance_id) == key
    except ValueError:
        is_encoding = False
    if not is_encoding:
        raise ValueError(f"{key!r} is not a percent-encoded instance id")
    return instance_id


def partition_path(table_name: str, partition: Partition) -> str:
    """Return the path of a partition's file, `/`-separated and relative to the lake's root.

    Raises:
        ValueError: the instance id cannot be encoded; see `encode_instance_id`.
    """
    return f"{partition_directory(table_name, partition)}/{FILE_NAME}"


def table_path(table_name: str) -> str:
    """Return the path of an unpartitioned table's file, relative to the lake's root."""
    return f"{table_name}/{FILE_NAME}"


def partition_directory(table_name: str, partition: Partition) -> str:
    """Return the directory of a partition's file, relative to the lake's root.

    Raises:
        ValueError: the instance id cannot be encoded; see `encode_instance_id`.
    """
    return _instance_directory(day_directory(table_name, partition.day), partition.instance_id)


def day_directory(table_name: str, day: date) -> str:
    """Return the directory with all partitions of a day, relative to the lake's root."""
    return f"{table_name}/{_DAY}{day.isoformat()}"


def first_of_month(day: date) -> date:
    """Return the first day of the month of `day`; it identifies the month."""
    return day.replace(day=1)


def compacted_directory(table_name: str) -> str:
    """Return the directory of a table's compacted months, relative to the lake's root."""
    return f"{_COMPACTED}/{table_name}"


def compacted_path(table_name: str, month: date, instance_id: str | None) -> str:
    """Return the path of the compacted copy of one month and instance, relative to the lake's root.

    Raises:
        ValueError: the instance id cannot be encoded; see `encode_instance_id`.
    """
    directory = f"{compacted_directory(table_name)}/{_MONTH}{month.isoformat()[: len('YYYY-MM')]}"
    return f"{_instance_directory(directory, instance_id)}/{FILE_NAME}"


def parse_compacted_path(path: str) -> tuple[date, str | None] | None:
    """Return the month and instance of a path relative to `compacted_directory`.

    Returns:
        None if the path is not one that `compacted_path` returns.
    """
    month, _, rest = path.partition("/")
    try:
        first = date.fromisoformat(f"{month.removeprefix(_MONTH)}-01")
        instance, _, _ = rest.rpartition("/")
        instance_id = decode_instance_id(instance.removeprefix(_INSTANCE)) if instance else None
    except ValueError:
        return None
    # Compare with the path that `compacted_path` returns, so that other spellings of the same month or instance are
    # rejected. With an empty table name, that path begins with `_compacted//`.
    return (first, instance_id) if compacted_path("", first, instance_id).endswith(f"//{path}") else None


def parse_partition_directory(directory: str) -> Partition | None:
    """Return the partition of a directory relative to its table, such as `date=2024-01-03/instance_id=a`.

    Returns:
        None if it is not the directory of a partition.
    """
    day, _, instance = directory.partition("/")
    if not day.startswith(_DAY) or (instance and not instance.startswith(_INSTANCE)):
        return None
    try:
        partition = Partition(
            date.fromisoformat(day.removeprefix(_DAY)),
            decode_instance_id(instance.removeprefix(_INSTANCE)) if instance else None,
        )
    except ValueError:
        return None
    # `fromisoformat` also accepts other spellings, such as 20240103: two directories would then be one partition.
    return partition if day == f"{_DAY}{partition.day.isoformat()}" else None


def _instance_directory(parent: str, instance_id: str | None) -> str:
    return parent if instance_id is None else f"{parent}/{_INSTANCE}{encode_instance_id(instance_id)}"
