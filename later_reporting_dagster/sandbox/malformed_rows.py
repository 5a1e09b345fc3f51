"""Malformed rows: input that the API reference does not describe but that may arrive.

A row is chosen by the seed and its key, not by the request: it is malformed in the same way in every response. Values
that a JSON encoder does not write, such as `NaN`, are inserted as raw text.

The probabilities of faults and of malformed rows are parsed and drawn in the same way.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import accumulate
from random import Random
from typing import Any

from msgspec import Raw

Row = dict[str, Any]
RowKey = tuple[str, int, int]
"""A row's `instanceId`, `campaignId` and `postId`."""

_UTC_PLUS_14 = timezone(timedelta(hours=14))
_FLOAT_TOLERANCE = 1e-9  # ten times 0.1 adds up to a little more than 1


def parse_rates(texts: Iterable[str], *, known: Collection[str], kind: str) -> dict[str, float]:
    """Parse command-line values such as `http-500:0.05` into probabilities by name, in the order of `known`.

    Args:
        kind: What the names stand for, for error messages: `fault` or `malformed row`.
    """
    rates: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition(":")
        try:
            rate = float(number)
        except ValueError:
            example = f"{next(iter(known))}:0.05"
            raise ValueError(f"{text!r}: expected a {kind} and its probability, such as {example}") from None
        if name in rates:
            raise ValueError(f"the {kind} {name} is given twice")
        rates[name] = rate
    return validate_rates(rates, known=known, kind=kind)


def validate_rates(rates: Mapping[str, float], *, known: Collection[str], kind: str) -> dict[str, float]:
    """Return the probabilities in the order of `known`, so that draws do not depend on the order of the input."""
    for name, rate in rates.items():
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; use one of {', '.join(known)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"the probability of {name} must be from 0 to 1, not {rate:g}")
    if sum(rates.values()) > 1 + _FLOAT_TOLERANCE:
        raise ValueError(f"the {kind} probabilities add up to {sum(rates.values()):g}, more than 1")
    return {name: rates[name] for name in known if name in rates}


def draw(rates: Mapping[str, float], random: Random) -> str | None:
    """Draw one name with its probability; None with the remaining probability."""
    number = random.random()
    for name, bound in zip(rates, accumulate(rates.values()), strict=True):
        if number < bound:
            return name
    return None


@dataclass(frozen=True, slots=True)
class Malformation:
    """One way to alter a row; rows with different keys must get different keys."""

    name: str
    description: str
    alter: Callable[[Row], Row | Raw]


class MalformedRows:
    """Alters a share of the rows, each in at most one way.

    Attributes:
        altered: By malformation, the original keys of the altered rows that were served.
    """

    def __init__(self, rates: Mapping[str, float], *, seed: int) -> None:
        self._rates = validate_rates(rates, known=MALFORMATIONS, kind="malformed row")
        self._seed = seed
        self.altered: dict[str, set[RowKey]] = {name: set() for name in self._rates}

    def __call__(self, row: Row) -> Row | Raw:
        if not self._rates:
            return row
        key: RowKey = (row["instanceId"], row["campaignId"], row["postId"])
        name = draw(self._rates, Random(f"{self._seed} {key}"))
        if name is None:
            return row
        altered = MALFORMATIONS[name].alter(row)
        if altered != row:
            self.altered[name].add(key)
        return altered


def _with_fields(**fields: object) -> Callable[[Row], Row]:
    return lambda row: row | fields


def _with_creator_name(name: object) -> Callable[[Row], Row]:
    return lambda row: row | {"creatorProfile": row["creatorProfile"] | {"fullName": name}}


def _with_unknown_fields(row: Row) -> Row:
    profile = row["creatorProfile"] | {"followers": 2**53 + 1}
    return row | {"reach": 12, "audience": {"ages": [18, None, 24.5], "größte": "Zoë"}, "creatorProfile": profile}


def _without_profile(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "creatorProfile"}


def _without_nulls(row: Row) -> Row:
    profile = {name: value for name, value in row["creatorProfile"].items() if value is not None}
    return {name: value for name, value in row.items() if value is not None} | {"creatorProfile": profile}


def _with_date(change: Callable[[str], str]) -> Callable[[Row], Row]:
    return lambda row: row | {"postDate": change(row["postDate"])}


def _with_post_id(change: Callable[[int], int | Raw]) -> Callable[[Row], Row]:
    return lambda row: row | {"postId": change(row["postId"])}


def _with_zero_ids(row: Row) -> Row:
    # A separate campaign keeps the keys of two posts with the id 0 different.
    return row | {"creatorId": 0, "postId": 0, "campaignId": row["postId"] * 100_000 + row["campaignId"]}


_MALFORMATIONS = (
    Malformation("unknown-fields", "undocumented fields in the post and in its creatorProfile", _with_unknown_fields),
    Malformation(
        "unknown-content-type",
        "an undocumented contentType of a known platform",
        _with_fields(contentType="instagram_hologram"),
    ),
    Malformation(
        "unknown-platform", "a contentType of an undocumented platform", _with_fields(contentType="threads_post")
    ),
    Malformation("profile-missing", "no creatorProfile", _without_profile),
    Malformation("profile-null", "creatorProfile is null", _with_fields(creatorProfile=None)),
    Malformation("absent-for-null", "fields with a null value are omitted", _without_nulls),
    Malformation("whole-float", "impressions is 8500.0", _with_fields(impressions=Raw(b"8500.0"))),
    Malformation("fractional-count", "impressions is 8500.5", _with_fields(impressions=Raw(b"8500.5"))),
    Malformation("infinite-number", "cpe is 1e400, beyond the range of a float", _with_fields(cpe=Raw(b"1e400"))),
    Malformation("nan", "cpe is NaN, which is invalid JSON", _with_fields(cpe=Raw(b"NaN"))),
    Malformation("negative-count", "impressions is -1", _with_fields(impressions=-1)),
    Malformation(
        "count-beyond-floats", "impressions is 2^53+1, not exact as a float", _with_fields(impressions=2**53 + 1)
    ),
    Malformation("count-beyond-int64", "impressions is 2^64", _with_fields(impressions=Raw(b"18446744073709551616"))),
    Malformation("text-for-number", "engagements is a string", _with_fields(engagements="1240")),
    Malformation("date-without-milliseconds", "postDate has whole seconds", _with_date(lambda date: f"{date[:19]}Z")),
    Malformation(
        "date-with-offset",
        "postDate is the same instant with the offset +14:00, mostly on the next local day",
        _with_date(lambda date: datetime.fromisoformat(date).astimezone(_UTC_PLUS_14).isoformat()),
    ),
    Malformation("date-without-zone", "postDate has no time zone", _with_date(lambda date: date.rstrip("Z"))),
    Malformation(
        "date-last-microsecond",
        "postDate is the last microsecond of its day",
        _with_date(lambda date: f"{date[:10]}T23:59:59.999999Z"),
    ),
    Malformation(
        "date-impossible",
        "postDate is February 29 of a non-leap year",
        _with_date(lambda date: f"2023-02-29{date[10:]}"),
    ),
    Malformation("ids-zero", "postId and creatorId are 0", _with_zero_ids),
    Malformation("id-negative", "postId is negative", _with_post_id(lambda post_id: -post_id)),
    Malformation("id-huge", "postId is near 2^63", _with_post_id(lambda post_id: 2**63 - 1 - post_id)),
    Malformation(
        "id-beyond-int64",
        "postId is greater than 2^64",
        _with_post_id(lambda post_id: Raw(str(2**64 + post_id).encode())),
    ),
    Malformation(
        "right-to-left", "a name with right-to-left overrides", _with_creator_name("\u202eadA\u202c \u2067عادة\u2069")
    ),
    Malformation(
        "newlines", "a name with every kind of line break, and NUL", _with_creator_name("A\r\nd\n\x00a\x85\u2028b")
    ),
    Malformation("lone-surrogate", "a name with an escaped lone surrogate", _with_creator_name(Raw(rb'"A\ud83dd"'))),
    Malformation("megabyte-text", "a name of 1 MB", _with_creator_name("Ada " * 2**18)),
)

MALFORMATIONS: Mapping[str, Malformation] = {malformation.name: malformation for malformation in _MALFORMATIONS}
"""All malformations, by name."""
