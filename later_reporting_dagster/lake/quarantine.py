"""Bad rows, set aside with their reasons, under `{root}/_quarantine/{asset}/`: by partition, or by query.

A row that does not tell its partition lies under the query that it came from. Other readers of the lake skip what
begins with an underscore.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import chain

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake.file import damaged
from later_reporting_dagster.lake.listing import by_day, directories_with
from later_reporting_dagster.lake.partition import Partition, partition_directory
from later_reporting_dagster.lake.side_by_side import side_by_side
from later_reporting_dagster.lake.storage import Storage

_DIRECTORY = "_quarantine"
_FILE_NAME = "part-0.jsonl"


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A bad row as it was set aside.

    `partition` is None when the row does not tell which one it belongs to; then it is one of `possible`, where known.
    """

    partition: Partition | None
    reason: str
    raw: str
    query: str
    possible: frozenset[Partition] = field(default=frozenset(), repr=False)


class Quarantine:
    """The bad rows of a lake, for `Lake.quarantine`, `Lake.quarantine_query` and `Lake.quarantined`: see these."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def set_aside(self, asset: str, partition: Partition, bad_rows: Sequence[BadRow], *, query: str) -> str | None:
        """Those of a partition, in place of those set aside before; where they lie, None when there are none."""
        return self._replace(partition_directory(asset, partition), bad_rows, query=query)

    def set_aside_of_query(
        self, asset: str, bad_rows: Sequence[BadRow], *, query: str, possible: Collection[Partition]
    ) -> str | None:
        """Those of a query that do not tell their partition, likewise."""
        digest = hashlib.sha256(query.encode(errors="backslashreplace")).hexdigest()
        days: dict[str, list[str]] = {}
        for partition in sorted(possible, key=by_day):
            days.setdefault(partition.day.isoformat(), []).append(partition.instance_id or "")
        return self._replace(f"{asset}/query={digest[:32]}", bad_rows, query=query, possible=days)

    def rows(self, asset: str, *, days: Iterable[date] | None) -> list[QuarantinedRow]:
        """The rows set aside, by partition; with `days`, those of these days and those that tell no partition."""
        under = f"{_DIRECTORY}/{asset}"
        found = list(directories_with(self._storage, under, _FILE_NAME, days=days))
        if days is not None:
            everywhere = directories_with(self._storage, under, _FILE_NAME)
            found += [(directory, None) for directory, partition in everywhere if partition is None]

        def rows_in(place: tuple[str, Partition | None]) -> list[QuarantinedRow]:
            directory, partition = place
            path = f"{directory}/{_FILE_NAME}"
            try:
                lines = [json.loads(line) for line in (self._storage.read(path) or b"").splitlines()]
                possible = _partitions_in(lines.pop(0)["possible"]) if lines and "possible" in lines[0] else frozenset()
                return [
                    QuarantinedRow(partition, line["reason"], line["raw"], line["query"], possible) for line in lines
                ]
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise damaged(self._storage.shown(path), error) from error

        return list(chain.from_iterable(side_by_side(rows_in, sorted(found, key=lambda place: place[0]))))

    def _replace(
        self,
        directory: str,
        bad_rows: Sequence[BadRow],
        *,
        query: str,
        possible: Mapping[str, Sequence[str]] | None = None,
    ) -> str | None:
        path = f"{_DIRECTORY}/{directory}/{_FILE_NAME}"
        if not bad_rows:
            self._storage.remove(path)
            return None
        # What holds of all rows is said once, in a line before them.
        lines = [json.dumps({"possible": possible})] if possible else []
        lines += [json.dumps({"reason": row.reason, "raw": row.raw, "query": query}) for row in bad_rows]
        self._storage.write(path, "".join(f"{line}\n" for line in lines).encode())
        return self._storage.shown(path)


def _partitions_in(days: Mapping[str, Sequence[str]]) -> frozenset[Partition]:
    return frozenset(
        Partition(date.fromisoformat(day), instance_id) for day, instances in days.items() for instance_id in instances
    )
