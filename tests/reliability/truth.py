"""What a service holds and what a lake holds, read plainly and held against each other row for row, value for value.

Nothing here goes through the project's own reading of answers: a misreading would otherwise be its own proof.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import httpx

from later_reporting_dagster.lake import Partition
from later_reporting_dagster.sandbox import FAULTS_HEADER
from tests.conftest import UNHURRIED, partition_file, stored_rows

Row = dict[str, Any]
Cell = tuple[str, Partition]  # of a raw table
Key = tuple[str, int, int]

DATE_BASES = {"post_metrics_daily": "performance_date", "posts_published": "post_date"}

_IDS = ("campaignId", "creatorId", "postId")
_COUNTS = ("engagements", "impressions", "paidEngagements", "paidImpressions")
_DECIMALS = ("cpe", "cpm", "engagementRate", "estimatedValueGenerated", "paidCpe", "paidCpm", "paidEngagementRate")
_TEXTS = ("contentImageUrl", "contentType", "contentUrl", "instanceId")
_PROFILE = ("contentType", "fullName", "handleName", "profileImage", "profileLink")
_COLUMNS = {
    name: re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
    for name in (*_IDS, *_COUNTS, *_DECIMALS, *_TEXTS, *_PROFILE)
}
_METRICS = ",".join((*_COUNTS, *_DECIMALS))
_KNOWN = {*_IDS, *_COUNTS, *_DECIMALS, *_TEXTS, "postDate", "creatorProfile"}
_PLATFORMS = ("facebook", "instagram", "tiktok", "twitter", "youtube")


def rows_of_the_sandbox(
    base_url: str, *, days: Iterable[date], instance_ids: Iterable[str], by_cursor: bool = False
) -> dict[Cell, list[Row]]:
    """What a sandbox holds now, by cell and as numbered pages have it: asked a day at a time, without faults."""
    ids = list(instance_ids)
    found: dict[Cell, list[Row]] = {}
    with httpx.Client(base_url=base_url, headers={FAULTS_HEADER: "off"}) as client:
        body = {"clientId": UNHURRIED.client_id, "clientSecret": UNHURRIED.client_secret}
        client.headers["Authorization"] = f"Bearer {client.post('/oauth/token', json=body).json()['jwt']}"
        for asset, date_basis in DATE_BASES.items():
            for day in days:
                found |= {(asset, Partition(day, instance_id)): [] for instance_id in ids}
                query = {"startDate": str(day), "endDate": str(day), "dateBasis": date_basis}
                for row in _all_rows(client, query, by_cursor=by_cursor):
                    found[asset, Partition(day, row["instanceId"])].append(row)
    return found


def _all_rows(client: httpx.Client, query: dict[str, Any], *, by_cursor: bool) -> Iterator[Row]:
    place: dict[str, Any] | None = (
        {"limit": 100, "metrics": _METRICS} if by_cursor else {"pageSize": 100, "pageNumber": 1}
    )
    while place:
        answer = client.get("/v2/posts/performance", params={**query, **place})
        document = json.loads(answer.raise_for_status().content)
        if by_cursor:
            yield from map(flat, document["data"])
            place = {**place, "nextCursor": document["nextCursor"]} if document["nextCursor"] else None
        else:
            yield from document["data"]
            following = place["pageNumber"] + 1
            place = {**place, "pageNumber": following} if following <= document["pagination"]["totalPages"] else None


def flat(row: Row) -> Row:
    """A row with its metrics where numbered pages have them."""
    return {name: value for name, value in row.items() if name != "metrics"} | row.get("metrics", {})


def can_be_true(row: Row) -> bool:
    """Whether the lake's columns can hold a row as it is: others belong in quarantine."""
    return (
        all(_is_whole(row.get(name)) for name in _IDS)
        and all(row.get(name) is None or (_is_whole(row[name]) and row[name] >= 0) for name in _COUNTS)
        and all(row.get(name) is None or _is_decimal(row[name]) for name in _DECIMALS)
        and _is_instant(row["postDate"])
        and _is_unicode(json.dumps(row, ensure_ascii=False))
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float) and value == value // 1 and -(2**63) <= value < 2**63


def _is_decimal(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_stored(row: Row) -> Row:
    """A row of JSON as the lake must hold it, with `extra` as JSON has it."""
    profile = row.get("creatorProfile") or {}
    stored = {_COLUMNS[name]: row.get(name) for name in (*_IDS, *_COUNTS, *_DECIMALS, *_TEXTS)}
    stored |= {f"creator_{_COLUMNS[name]}": profile.get(name) for name in _PROFILE}
    platform = row["contentType"].partition("_")[0]
    extra = {name: value for name, value in row.items() if name not in _KNOWN}
    if extra_of_profile := {name: value for name, value in profile.items() if name not in _PROFILE}:
        extra["creatorProfile"] = extra_of_profile
    return stored | {
        "post_date": datetime.fromisoformat(row["postDate"]),
        "platform": platform if platform in _PLATFORMS else None,
        "extra": extra or None,
    }


def in_the_lake(root: Path, cell: Cell) -> list[Row] | None:
    """The rows of a partition, with `extra` as JSON has it; None when there is no such partition."""
    asset, partition = cell
    place = (root, asset, partition.day, partition.instance_id or "")
    if not partition_file(*place).exists():
        return None
    return [row | {"extra": row["extra"] and json.loads(row["extra"])} for row in stored_rows(*place)]


@dataclass(frozen=True, slots=True)
class Differences:
    """How many rows of a lake are not as they have to be."""

    lost: int = 0
    doubled: int = 0
    invented: int = 0
    changed: int = 0

    def __add__(self, other: "Differences") -> "Differences":
        return Differences(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __bool__(self) -> bool:
        return any(astuple(self))


def differences(stored: Sequence[Row], *, due: Iterable[Row], ever: Iterable[Row]) -> Differences:
    """What is wrong with the rows of a partition.

    Args:
        stored: the rows, as `in_the_lake` gives them.
        due: rows of JSON that have to be there.
        ever: rows of JSON that may be: those that were true at any time while they were fetched.
    """
    times = Counter(map(key, stored))
    true = {key(row): row for row in map(as_stored, ever)}
    return Differences(
        lost=len({(row["instanceId"], row["campaignId"], row["postId"]) for row in due} - times.keys()),
        doubled=times.total() - len(times),
        invented=len(times.keys() - true.keys()),
        changed=sum(key(row) in true and row != true[key(row)] for row in stored),
    )


def key(row: Row) -> Key:
    """The key of a stored row."""
    return (row["instance_id"], row["campaign_id"], row["post_id"])


def as_text(rows: Iterable[Row]) -> Counter[str]:
    """Rows of JSON in a form that can be compared even where a number is none."""
    return Counter(json.dumps(row, sort_keys=True) for row in rows)
