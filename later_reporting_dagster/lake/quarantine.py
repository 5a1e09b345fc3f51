"""Bad rows, set aside with their reasons, under `{root}/_quarantine/{asset}/`: by partition, or by query.

The rows of a partition lie in `date=…/instance_id=…`. A row that does not name its partition lies with the others of
its query in `query={first day}_{last day}_{digest}`. Other readers of the lake skip what begins with an underscore.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake.file import damaged
from later_reporting_dagster.lake.listing import directories_with
from later_reporting_dagster.lake.partition import Partition, partition_directory
from later_reporting_dagster.lake.storage import Storage

_DIRECTORY = "_quarantine"
_FILE_NAME = "part-0.jsonl"
_DAY = r"\d{4}-\d\d-\d\d"
_OF_QUERY = re.compile(rf"query=({_DAY})_({_DAY})_[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class QuarantineFile:
    """A file of bad rows: of a partition, or of a query for the days from `days[0]` to `days[1]`.

    Both are None when the name of its directory says neither.
    """

    path: str
    partition: Partition | None = None
    days: tuple[date, date] | None = None


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A bad row as it was set aside.

    `partition` is None when the row does not name it; then `days` are the first and the last day of the row's query.
    """

    partition: Partition | None
    reason: str
    raw: str
    query: str
    days: tuple[date, date] | None = None


def path_of_partition(asset: str, partition: Partition) -> str:
    """Where the bad rows of a partition lie below the lake's root."""
    return f"{_DIRECTORY}/{partition_directory(asset, partition)}/{_FILE_NAME}"


def path_of_query(asset: str, query: str, days: tuple[date, date]) -> str:
    """Where the bad rows of a query that name no partition lie below the lake's root."""
    digest = hashlib.sha256(query.encode(errors="backslashreplace")).hexdigest()
    directory = f"query={days[0].isoformat()}_{days[1].isoformat()}_{digest[:32]}"
    return f"{_DIRECTORY}/{asset}/{directory}/{_FILE_NAME}"


def write_bad_rows(storage: Storage, path: str, bad_rows: Sequence[BadRow], *, query: str) -> str:
    """Replace the rows of a quarantine file; return where it lies, for people."""
    lines = [json.dumps({"reason": row.reason, "raw": row.raw, "query": query}) for row in bad_rows]
    storage.write(path, "".join(f"{line}\n" for line in lines).encode())
    return storage.shown(path)


def read_bad_rows(storage: Storage, file: QuarantineFile) -> list[QuarantinedRow]:
    """Read the rows of a quarantine file; none when it is gone.

    Raises:
        PartitionDamaged: it is not what `write_bad_rows` writes.
    """
    try:
        lines = [json.loads(line) for line in (storage.read(file.path) or b"").splitlines()]
        return [QuarantinedRow(file.partition, line["reason"], line["raw"], line["query"], file.days) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(storage.shown(file.path), error) from error


def list_files(storage: Storage, asset: str) -> list[QuarantineFile]:
    """List the quarantine files of a table, sorted by path: one listing."""
    found = sorted(directories_with(storage, f"{_DIRECTORY}/{asset}", _FILE_NAME), key=lambda each: each[0])
    return [
        QuarantineFile(f"{directory}/{_FILE_NAME}", partition, _days_of(directory.rpartition("/")[2]))
        for directory, partition in found
    ]


def _days_of(directory: str) -> tuple[date, date] | None:
    match = _OF_QUERY.fullmatch(directory)
    try:
        return None if match is None else (date.fromisoformat(match[1]), date.fromisoformat(match[2]))
    except ValueError:
        return None
