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
from itertools import chain

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake.concurrency import side_by_side
from later_reporting_dagster.lake.parquet_file import damaged
from later_reporting_dagster.lake.partition_listing import directories_with
from later_reporting_dagster.lake.partition_paths import Partition, partition_directory
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


class Quarantine:
    """The bad rows of a lake's tables."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, asset: str, partition: Partition, bad_rows: Sequence[BadRow], *, query: str) -> str | None:
        """Replace the bad rows that are set aside for a partition; without any, remove their file.

        Args:
            asset: the name of the table that the rows were meant for.
            partition: the partition that they belong to.
            bad_rows: all of them.
            query: the query that returned them, without secrets.

        Returns:
            Where they lie; None when there are none.
        """
        path = f"{_DIRECTORY}/{partition_directory(asset, partition)}/{_FILE_NAME}"
        if not bad_rows:
            self._storage.remove(path)
            return None
        return self._write(path, bad_rows, query=query)

    def write_query(self, asset: str, bad_rows: Sequence[BadRow], *, query: str, days: tuple[date, date]) -> str:
        """Replace the bad rows of a query that name no partition; return where they lie.

        Args:
            asset: the name of the table that the rows were meant for.
            bad_rows: all of them, one or more.
            query: the query that returned them, without secrets.
            days: the first and the last day of the query.
        """
        digest = hashlib.sha256(query.encode(errors="backslashreplace")).hexdigest()
        directory = f"query={days[0].isoformat()}_{days[1].isoformat()}_{digest[:32]}"
        return self._write(f"{_DIRECTORY}/{asset}/{directory}/{_FILE_NAME}", bad_rows, query=query)

    def files(self, asset: str) -> list[QuarantineFile]:
        """List the files of a table, sorted by path: one listing."""
        found = sorted(directories_with(self._storage, f"{_DIRECTORY}/{asset}", _FILE_NAME), key=lambda each: each[0])
        return [
            QuarantineFile(f"{directory}/{_FILE_NAME}", partition, _days_of(directory.rpartition("/")[2]))
            for directory, partition in found
        ]

    def rows(self, asset: str) -> list[QuarantinedRow]:
        """Read all rows of a table that are set aside.

        Raises:
            PartitionDamaged: as `rows_in`.
        """
        return list(chain.from_iterable(side_by_side(self.rows_in, self.files(asset))))

    def rows_in(self, file: QuarantineFile) -> list[QuarantinedRow]:
        """Read the rows of a file; none when it is gone.

        Raises:
            PartitionDamaged: it is not what `write` or `write_query` writes.
        """
        try:
            lines = [json.loads(line) for line in (self._storage.read(file.path) or b"").splitlines()]
            return [
                QuarantinedRow(file.partition, line["reason"], line["raw"], line["query"], file.days) for line in lines
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise damaged(self._storage.shown(file.path), error) from error

    def remove(self, file: QuarantineFile) -> None:
        """Remove a file, if it is still there."""
        self._storage.remove(file.path)

    def _write(self, path: str, bad_rows: Sequence[BadRow], *, query: str) -> str:
        lines = [json.dumps({"reason": row.reason, "raw": row.raw, "query": query}) for row in bad_rows]
        self._storage.write(path, "".join(f"{line}\n" for line in lines).encode())
        return self._storage.shown(path)


def _days_of(directory: str) -> tuple[date, date] | None:
    match = _OF_QUERY.fullmatch(directory)
    try:
        return None if match is None else (date.fromisoformat(match[1]), date.fromisoformat(match[2]))
    except ValueError:
        return None
