"""Rows and instance ids as no document foresees them, and as they come some day.

They are properties of the data and not of requests: the seed and a row's key choose it, so that it is the same in every
answer. What no JSON encoder would write, as `NaN`, is spliced in as text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

from msgspec import Raw

from later_reporting_dagster.sandbox.fault_rates import checked_chances, drawn

Row = dict[str, Any]
Key = tuple[str, int, int]

HOSTILE_INSTANCE_IDS = ("a/b", "..", "a|b", "a,b", "a b", "Zoë 😀", "%2F", "x" * 300, "")
"""Instance ids that break paths, query strings and partition keys. No query can name the empty one."""

_FAR_EAST = timezone(timedelta(hours=14))


@dataclass(frozen=True, slots=True)
class HostileRow:
    """A way to alter a row; what `change` returns is sent in its place. Keys that differ stay different."""

    name: str
    description: str
    change: Callable[[Row], Row | Raw]


class HostileRows:
    """Alters some rows, each in at most one way.

    Attributes:
        altered: By the name of the way, the true keys of the rows that were altered so and served, whether or not the
            altered row still has that key.

    Args:
        shares: of all rows, by the name of the way, 0 to 1.
        seed: another seed alters other rows.

    Raises:
        ValueError: a name is unknown, or the shares are none.
    """

    def __init__(self, shares: Mapping[str, float], *, seed: int) -> None:
        self._shares = checked_chances(shares, known=HOSTILE, what="hostile row")
        self._seed = seed
        self.altered: dict[str, set[Key]] = {name: set() for name in self._shares}

    def __call__(self, row: Row) -> Row | Raw:
        """The row as it is served."""
        if not self._shares:
            return row
        key: Key = (row["instanceId"], row["campaignId"], row["postId"])
        name = drawn(self._shares, Random(f"{self._seed} {key}"))
        if name is None:
            return row
        changed = HOSTILE[name].change(row)
        if changed != row:
            self.altered[name].add(key)
        return changed


def _with(**fields: object) -> Callable[[Row], Row]:
    return lambda row: row | fields


def _with_name(text: object) -> Callable[[Row], Row]:
    return lambda row: row | {"creatorProfile": row["creatorProfile"] | {"fullName": text}}


def _without_profile(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "creatorProfile"}


def _without_nulls(row: Row) -> Row:
    profile = {name: value for name, value in row["creatorProfile"].items() if value is not None}
    return {name: value for name, value in row.items() if value is not None} | {"creatorProfile": profile}


def _with_date(change: Callable[[str], str]) -> Callable[[Row], Row]:
    return lambda row: row | {"postDate": change(row["postDate"])}


def _with_post_id(change: Callable[[int], int | Raw]) -> Callable[[Row], Row]:
    return lambda row: row | {"postId": change(row["postId"])}


def _with_ids_of_zero(row: Row) -> Row:
    # A campaign of its own keeps two posts apart whose id is 0.
    return row | {"creatorId": 0, "postId": 0, "campaignId": row["postId"] * 100_000 + row["campaignId"]}


_HOSTILE_ROWS = (
    HostileRow(
        "unknown-fields",
        "fields that the document does not have, of the post and of its profile",
        lambda row: (
            row
            | {"reach": 12, "audience": {"ages": [18, None, 24.5], "größte": "Zoë"}}
            | {"creatorProfile": row["creatorProfile"] | {"followers": 2**53 + 1}}
        ),
    ),
    HostileRow(
        "unknown-content-type",
        "a contentType of a known platform that the document does not list",
        _with(contentType="instagram_hologram"),
    ),
    HostileRow("unknown-platform", "a contentType of a platform that nobody knows", _with(contentType="threads_post")),
    HostileRow("profile-missing", "no creatorProfile", _without_profile),
    HostileRow("profile-null", "creatorProfile is null", _with(creatorProfile=None)),
    HostileRow("absent-for-null", "fields are left out where null is due", _without_nulls),
    HostileRow("whole-float", "impressions is 8500.0", _with(impressions=Raw(b"8500.0"))),
    HostileRow("fractional-count", "impressions is 8500.5", _with(impressions=Raw(b"8500.5"))),
    HostileRow("infinite-number", "cpe is 1e400, which no float can hold", _with(cpe=Raw(b"1e400"))),
    HostileRow("nan", "cpe is the bare word NaN, which is no JSON", _with(cpe=Raw(b"NaN"))),
    HostileRow("negative-count", "impressions is -1", _with(impressions=-1)),
    HostileRow("count-beyond-floats", "impressions is 2^53+1, which no float holds", _with(impressions=2**53 + 1)),
    HostileRow("count-beyond-int64", "impressions is 2^64", _with(impressions=Raw(b"18446744073709551616"))),
    HostileRow("text-for-number", "engagements is a string", _with(engagements="1240")),
    HostileRow("date-without-milliseconds", "postDate ends in whole seconds", _with_date(lambda date: f"{date[:19]}Z")),
    HostileRow(
        "date-with-offset",
        "postDate is the same instant, told in +14:00 and so mostly on the next day",
        _with_date(lambda date: datetime.fromisoformat(date).astimezone(_FAR_EAST).isoformat()),
    ),
    HostileRow("date-without-zone", "postDate ends without a zone", _with_date(lambda date: date.rstrip("Z"))),
    HostileRow(
        "date-last-microsecond",
        "postDate is the last microsecond of its day",
        _with_date(lambda date: f"{date[:10]}T23:59:59.999999Z"),
    ),
    HostileRow(
        "date-impossible",
        "postDate is Feb 29 of a year that has none",
        _with_date(lambda date: f"2023-02-29{date[10:]}"),
    ),
    HostileRow("ids-zero", "postId and creatorId are 0", _with_ids_of_zero),
    HostileRow("id-negative", "postId is negative", _with_post_id(lambda post_id: -post_id)),
    HostileRow("id-huge", "postId is near 2^63", _with_post_id(lambda post_id: 2**63 - 1 - post_id)),
    HostileRow(
        "id-beyond-int64", "postId is beyond 2^64", _with_post_id(lambda post_id: Raw(str(2**64 + post_id).encode()))
    ),
    HostileRow("right-to-left", "a name turns the text around it", _with_name("\u202eadA\u202c \u2067عادة\u2069")),
    HostileRow("newlines", "a name has every kind of line break, and NUL", _with_name("A\r\nd\n\x00a\x85\u2028b")),
    HostileRow("lone-surrogate", "a name has half of a character, as an escape", _with_name(Raw(rb'"A\ud83dd"'))),
    HostileRow("megabyte-text", "a name of 1 MB", _with_name("Ada " * 2**18)),
)

HOSTILE: Mapping[str, HostileRow] = {row.name: row for row in _HOSTILE_ROWS}
"""All ways to alter a row, by name."""
