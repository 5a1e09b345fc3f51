"""Bad rows that do not tell their partition: where they may belong, and when a later answer has dealt with them.

An answer says all that there is to say of the partitions that it fills. So whatever an older answer had of them is
cleared, and a row that may yet belong to a partition that was not asked again stays until that is.
"""

import json
from collections.abc import Collection, Hashable, Mapping, Sequence
from datetime import date, timedelta
from urllib.parse import parse_qs

from later_reporting_dagster.contract import BadRow, Post
from later_reporting_dagster.lake import Partition, QuarantinedRow


def possible_partitions(rows: Sequence[BadRow], partitions: Collection[Partition]) -> frozenset[Partition]:
    """Which of `partitions` the rows may belong to, by the instance or the day that they tell."""
    told = {row.instance_id for row in rows}
    days = {None if row.post_date is None else row.post_date.date() for row in rows}
    return frozenset(
        partition
        for partition in partitions
        if (None in told or partition.instance_id in told) and (None in days or partition.day in days)
    )


def possible_of(row: QuarantinedRow) -> frozenset[Partition]:
    """The partitions that a row may belong to which tells none; by its query where the row's file is too old to say."""
    return row.possible or _partitions_of(row.query)


def identity_of(row: BadRow | QuarantinedRow | Post) -> Hashable:
    """What tells a row from the others of the service in whatever state it is: its key, or else all that it is."""
    # Not by being a `Post`: each selection of metrics has posts of a type of its own.
    if not isinstance(row, BadRow | QuarantinedRow):
        return row.key
    try:
        fields = json.loads(row.raw)
    except ValueError:
        return row.raw
    if not isinstance(fields, Mapping):
        return row.raw
    key = tuple(fields.get(name) for name in ("instanceId", "campaignId", "postId"))
    # What cannot be part of a key tells nothing apart.
    return key if all(isinstance(part, int | str) for part in key) else row.raw


def still_homeless(
    rows: Sequence[QuarantinedRow], *, landed: Collection[Partition], answered: Collection[Hashable]
) -> tuple[list[QuarantinedRow], frozenset[Partition]]:
    """What is left of the homeless rows of one query once an answer has landed, and where these may belong.

    Args:
        rows: all of the query.
        landed: the partitions that the answer filled.
        answered: the identities of rows that are known to lie in no other partition than those, or to be set aside.
    """
    known = possible_of(rows[0])
    possible = known - frozenset(landed)
    left = [row for row in rows if identity_of(row) not in answered] if possible or not known else []
    return left, possible


def _partitions_of(query: str) -> frozenset[Partition]:
    """The partitions of a query by its text, which is all that older files tell."""
    told = parse_qs(query)
    try:
        first, last = (date.fromisoformat(told[name][0]) for name in ("startDate", "endDate"))
    except (KeyError, ValueError):
        return frozenset()
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    return frozenset(Partition(day, instance_id) for day in days for instance_id in told.get("instanceIds", []))
