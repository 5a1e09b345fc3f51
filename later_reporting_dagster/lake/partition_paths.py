"""Paths of partitions below the lake's root, and how instance ids are encoded in them."""

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, unquote

FILE_NAME = "part-0.parquet"

_DAY, _MONTH, _INSTANCE = "date=", "month=", "instance_id="
# Spark, Hive and other readers skip names that begin with an underscore.
_COMPACTED = "_compacted"
# Common file systems limit the name of a directory to 255 bytes.
_MAXIMUM_ENCODED_LENGTH = 255 - len(_INSTANCE)
# Hive's encoding of null: readers would take an instance with this id for a missing one.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """A partition of a table: one UTC day, of one instance.

    Attributes:
        day: the day; the first day of a longer period for tables of weeks or months.
        instance_id: None for a table that holds all instances in one file, as rollups do.
    """

    day: date
    instance_id: str | None = None

    def __str__(self) -> str:
        return str(self.day) if self.instance_id is None else f"{self.day} {self.instance_id}"


def encode_instance_id(instance_id: str) -> str:
    """Return the percent-encoded id, of ASCII letters, digits and `_.-~%` only.

    It is valid as the name of a directory and as a Dagster partition key.

    Raises:
        ValueError: the id is empty, is not valid Unicode, or is too long for the name of a directory once encoded.
    """
    if not instance_id:
        raise ValueError("an instance id cannot be empty: omit it, or give an id that GET /v2/instances returns")
    try:
        encoded = quote(instance_id, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"instance id {instance_id!a} is not valid Unicode") from None
    if len(encoded) > _MAXIMUM_ENCODED_LENGTH:
        raise ValueError(
            f"instance id {instance_id[:40]!r}… has {len(encoded)} characters when percent-encoded;"
            f" the name of its directory may have at most {_MAXIMUM_ENCODED_LENGTH}"
        )
    return encoded if encoded != _HIVE_NULL else encoded.replace("_", "%5F", 1)


def decode_instance_id(key: str) -> str:
    """Return the instance id that `encode_instance_id` encoded as `key`.

    Raises:
        ValueError: `key` is not the encoding of any id, such as an unencoded id with a space.
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
    """Return the path of the file of an unpartitioned table, relative to the lake's root."""
    return f"{table_name}/{FILE_NAME}"


def partition_directory(table_name: str, partition: Partition) -> str:
    """Return the directory of a partition's file, relative to the lake's root.

    Raises:
        ValueError: the instance id cannot be encoded; see `encode_instance_id`.
    """
    return _instance_directory(day_directory(table_name, partition.day), partition.instance_id)


def day_directory(table_name: str, day: date) -> str:
    """Return the directory that holds all partitions of a day, relative to the lake's root."""
    return f"{table_name}/{_DAY}{day.isoformat()}"


def first_of_month(day: date) -> date:
    """Return the first day of a day's month, which identifies the month."""
    return day.replace(day=1)


def compacted_directory(table_name: str) -> str:
    """Return the directory of a table's compacted months, relative to the lake's root."""
    return f"{_COMPACTED}/{table_name}"


def compacted_path(table_name: str, month: date, instance_id: str | None) -> str:
    """Return the path of the file of one compacted month of one instance, relative to the lake's root.

    Raises:
        ValueError: the instance id cannot be encoded; see `encode_instance_id`.
    """
    directory = f"{compacted_directory(table_name)}/{_MONTH}{month.isoformat()[: len('YYYY-MM')]}"
    return f"{_instance_directory(directory, instance_id)}/{FILE_NAME}"


def parse_compacted_path(path: str) -> tuple[date, str | None] | None:
    """Return the month and instance of a path relative to `compacted_directory`.

    Returns:
        None when the path is not one that `compacted_path` returns.
    """
    month, _, rest = path.partition("/")
    try:
        first = date.fromisoformat(f"{month.removeprefix(_MONTH)}-01")
        instance, _, _ = rest.rpartition("/")
        instance_id = decode_instance_id(instance.removeprefix(_INSTANCE)) if instance else None
    except ValueError:
        return None
    return (first, instance_id) if compacted_path("", first, instance_id).endswith(f"//{path}") else None


def parse_partition_directory(directory: str) -> Partition | None:
    """Return the partition of a directory relative to its table, such as `date=2024-01-03/instance_id=a`.

    Returns:
        None when the directory is not named as a partition's.
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
    # `fromisoformat` accepts other spellings too, such as 20240103: two directories would be one partition.
    return partition if day == f"{_DAY}{partition.day.isoformat()}" else None


def _instance_directory(parent: str, instance_id: str | None) -> str:
    return parent if instance_id is None else f"{parent}/{_INSTANCE}{encode_instance_id(instance_id)}"
