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

from msgspec import UNSET, Raw

from later_reporting_dagster.server.responses import JsonObject

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
    return next((name for name, bound in zip(rates, accumulate(rates.values()), strict=True) if number < bound), None)


class MalformedRows:
    """Alters a share of the rows, each in at most one way.

    Attributes:
        altered: By malformation, the original keys of the altered rows that were served.
    """

    def __init__(self, rates: Mapping[str, float], *, seed: int) -> None:
        self._rates = validate_rates(rates, known=MALFORMATIONS, kind="malformed row")
        self._seed = seed
        self.altered: dict[str, set[RowKey]] = {name: set() for name in self._rates}

    def __call__(self, row: JsonObject) -> JsonObject:
        key: RowKey = (row["instanceId"], row["campaignId"], row["postId"])
        name = draw(self._rates, Random(f"{self._seed} {key}")) if self._rates else None
        if name is None:
            return row
        changed = row | MALFORMATIONS[name].changes(row)
        altered = {name: value for name, value in changed.items() if value is not UNSET}
        if altered != row:
            self.altered[name].add(key)
        return altered


@dataclass(frozen=True, slots=True)
class Malformation:
    """One way to alter a row: `changes` returns the fields to replace, `UNSET` for those to omit.

    Rows with different keys must get different keys.
    """

    name: str
    description: str
    changes: Callable[[JsonObject], JsonObject]


def _unknown_fields(row: JsonObject) -> JsonObject:
    profile = row["creatorProfile"] | {"followers": 2**53 + 1}
    return {"boosts": 12, "audience": {"ages": [18, None, 24.5], "größte": "Zoë"}, "creatorProfile": profile}


def _without_nulls(row: JsonObject) -> JsonObject:
    profile = {name: value for name, value in row["creatorProfile"].items() if value is not None}
    return {name: UNSET for name, value in row.items() if value is None} | {"creatorProfile": profile}


def _creator_name(name: object) -> Callable[[JsonObject], JsonObject]:
    return lambda row: {"creatorProfile": row["creatorProfile"] | {"fullName": name}}


def _zero_ids(row: JsonObject) -> JsonObject:
    # A separate campaign keeps the keys of two posts with the id 0 different.
    return {"creatorId": 0, "postId": 0, "campaignId": row["postId"] * 100_000 + row["campaignId"]}


def _with_offset(row: JsonObject) -> JsonObject:
    return {"postDate": datetime.fromisoformat(row["postDate"]).astimezone(_UTC_PLUS_14).isoformat()}


_MALFORMATIONS = (
    Malformation("unknown-fields", "undocumented fields in the post and in its creatorProfile", _unknown_fields),
    Malformation("unknown-content-type", "an undocumented contentType of a known platform",
                 lambda _: {"contentType": "instagram_hologram"}),
    Malformation("unknown-platform", "a contentType of an undocumented platform",
                 lambda _: {"contentType": "threads_post"}),
    Malformation("profile-missing", "no creatorProfile", lambda _: {"creatorProfile": UNSET}),
    Malformation("profile-null", "creatorProfile is null", lambda _: {"creatorProfile": None}),
    Malformation("absent-for-null", "fields with a null value are omitted", _without_nulls),
    Malformation("whole-float", "impressions is 8500.0", lambda _: {"impressions": Raw(b"8500.0")}),
    Malformation("fractional-count", "impressions is 8500.5", lambda _: {"impressions": Raw(b"8500.5")}),
    Malformation("infinite-number", "cpe is 1e400, beyond the range of a float", lambda _: {"cpe": Raw(b"1e400")}),
    Malformation("nan", "cpe is NaN, which is invalid JSON", lambda _: {"cpe": Raw(b"NaN")}),
    Malformation("negative-count", "impressions is -10^12", lambda _: {"impressions": -(10**12)}),
    Malformation("count-beyond-floats", "impressions is 2^53+1, not exact as a float",
                 lambda _: {"impressions": 2**53 + 1}),
    Malformation("count-beyond-int64", "impressions is 2^64", lambda _: {"impressions": Raw(b"18446744073709551616")}),
    Malformation("text-for-number", "engagements is a string", lambda _: {"engagements": "1240"}),
    Malformation("date-without-milliseconds", "postDate has whole seconds",
                 lambda row: {"postDate": f"{row['postDate'][:19]}Z"}),
    Malformation("date-with-offset", "postDate is the same instant at +14:00, mostly on the next local day",
                 _with_offset),
    Malformation("date-without-zone", "postDate has no time zone",
                 lambda row: {"postDate": row["postDate"].rstrip("Z")}),
    Malformation("date-last-microsecond", "postDate is the last microsecond of its day",
                 lambda row: {"postDate": f"{row['postDate'][:10]}T23:59:59.999999Z"}),
    Malformation("date-impossible", "postDate is February 29 of a non-leap year",
                 lambda row: {"postDate": f"2023-02-29{row['postDate'][10:]}"}),
    Malformation("ids-zero", "postId and creatorId are 0", _zero_ids),
    Malformation("id-negative", "postId is negative", lambda row: {"postId": -row["postId"]}),
    Malformation("id-huge", "postId is near 2^63", lambda row: {"postId": 2**63 - 1 - row["postId"]}),
    Malformation("id-beyond-int64", "postId is greater than 2^64",
                 lambda row: {"postId": Raw(str(2**64 + row["postId"]).encode())}),
    Malformation("right-to-left", "a name with right-to-left overrides",
                 _creator_name("\u202eadA\u202c \u2067عادة\u2069")),
    Malformation("newlines", "a name with every kind of line break, and NUL",
                 _creator_name("A\r\nd\n\x00a\x85\u2028b")),
    Malformation("lone-surrogate", "a name with an escaped lone surrogate", _creator_name(Raw(rb'"A\ud83dd"'))),
    Malformation("megabyte-text", "a name of 1 MB", _creator_name("Ada " * 2**18)),
)  # fmt: skip

MALFORMATIONS: Mapping[str, Malformation] = {malformation.name: malformation for malformation in _MALFORMATIONS}
