"""Names of partitions: which day and instance a file belongs to, and a path that any id survives."""

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, unquote

FILE_NAME = "part-0.parquet"

_DAY, _MONTH, _INSTANCE = "date=", "month=", "instance_id="
# Other readers of the lake skip what begins with an underscore.
_COMPACTED = "_compacted"
# The longest name of one directory on the file systems in use, in bytes.
_MAXIMUM_ENCODED_LENGTH = 255 - len(_INSTANCE)
# Hive's own spelling of null: readers would take a directory of this name for an instance that is not there.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """One UTC day, of one instance or, when `instance_id` is None, of all instances in one file (rollups)."""

    day: date
    instance_id: str | None = None

    def __str__(self) -> str:
        return str(self.day) if self.instance_id is None else f"{self.day} {self.instance_id}"


def encode_instance_id(instance_id: str) -> str:
    """The percent-encoded id: ASCII letters, digits and `_.-~%` only, so it is a path component and a partition key.

    Raises:
        ValueError: the id is empty, is not valid Unicode, or is too long for a directory's name once encoded.
    """
    if not instance_id:
        raise ValueError("an instance id cannot be empty: leave it out, or give the id that GET /v2/instances lists")
    try:
        encoded = quote(instance_id, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"instance id {instance_id!a} is not valid Unicode") from None
    if len(encoded) > _MAXIMUM_ENCODED_LENGTH:
        raise ValueError(
            f"instance id {instance_id[:40]!r}… is {len(encoded)} characters when percent-encoded;"
            f" a directory's name has room for {_MAXIMUM_ENCODED_LENGTH}"
        )
    return encoded if encoded != _HIVE_NULL else encoded.replace("_", "%5F", 1)


def decode_instance_id(key: str) -> str:
    """The instance id that `encode_instance_id` encoded as `key`.

    Raises:
        ValueError: `key` is not the encoding of any id; an id as the API gives it may not be.
    """
    try:
        instance_id = unquote(key, errors="strict")
        is_encoding = encode_instance_id(instance_id) == key
    except ValueError:
        is_encoding = False
    if not is_encoding:
        raise ValueError(f"{key!r} is not a percent-encoded instance id")
    return instance_id


def partition_path(asset: str, partition: Partition) -> str:
    """Where a partition's file lies below the lake's root, `/`-separated.

    Raises:
        ValueError: the instance id cannot be a partition.
    """
    return f"{partition_directory(asset, partition)}/{FILE_NAME}"


def table_path(asset: str) -> str:
    """Where the file of a table without partitions lies below the lake's root."""
    return f"{asset}/{FILE_NAME}"


def partition_directory(asset: str, partition: Partition) -> str:
    """The directory of a partition's file below the lake's root.

    Raises:
        ValueError: the instance id cannot be a partition.
    """
    return _of_instance(day_directory(asset, partition.day), partition.instance_id)


def day_directory(asset: str, day: date) -> str:
    """The directory below the lake's root that holds all of a day."""
    return f"{asset}/{_DAY}{day.isoformat()}"


def month_of(day: date) -> date:
    """The first day of a day's month, which stands for the month."""
    return day.replace(day=1)


def compacted_directory(asset: str) -> str:
    """The directory below the lake's root that holds a table's compacted months."""
    return f"{_COMPACTED}/{asset}"


def compacted_path(asset: str, month: date, instance_id: str | None) -> str:
    """Where the file of a compacted month of an instance lies below the lake's root.

    Raises:
        ValueError: the instance id cannot be a partition.
    """
    directory = f"{compacted_directory(asset)}/{_MONTH}{month.isoformat()[: len('YYYY-MM')]}"
    return f"{_of_instance(directory, instance_id)}/{FILE_NAME}"


def compacted_of(path: str) -> tuple[date, str | None] | None:
    """The month and instance of a path below a table's compacted months; None when it is none of `compacted_path`."""
    month, _, rest = path.partition("/")
    try:
        first = date.fromisoformat(f"{month.removeprefix(_MONTH)}-01")
        instance, _, file = rest.rpartition("/")
        instance_id = decode_instance_id(instance.removeprefix(_INSTANCE)) if instance else None
    except ValueError:
        return None
    return (first, instance_id) if compacted_path("", first, instance_id).endswith(f"//{path}") else None


def partition_of(directory: str) -> Partition | None:
    """The partition of a directory below its asset, such as `date=2024-01-03/instance_id=a`; None when it is none."""
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
    # `fromisoformat` reads other spellings of a day too, which would make two directories one partition.
    return partition if day == f"{_DAY}{partition.day.isoformat()}" else None


def _of_instance(directory: str, instance_id: str | None) -> str:
    return directory if instance_id is None else f"{directory}/{_INSTANCE}{encode_instance_id(instance_id)}"
