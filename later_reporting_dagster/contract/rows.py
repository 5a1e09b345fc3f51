"""Rows of the list responses: posts, campaigns and their performance, and lossless parsers of each.

A row is parsed field by field. Floats without a fraction become integers, unknown fields are kept as JSON in `extra`,
and a row with an invalid value becomes a `BadRow` (docs/api.md, "Posts performance" and "Campaigns").
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS, DEFAULT_METRICS, Kind, Metric
from later_reporting_dagster.contract.redaction import redact

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_FLOAT_LIMIT = 2**53  # below this, a float holds every integer exactly

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

# API name -> (attribute, parser, is_required)
Fields = Mapping[str, tuple[str, Callable[[object], Any], bool]]


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with invalid values, for the quarantine, with what could be parsed of its partition.

    `received_hash`: of the row as it was received, if `raw` has less of it. Two rows may differ only in the rest.
    """

    reason: str
    raw: str
    instance_id: str | None = None
    post_date: datetime | None = None
    received_hash: int = 0

    @property
    def key(self) -> tuple[str, int]:
        return (self.raw, self.received_hash)


class FieldError(ValueError):
    """A field has an invalid value."""


class ParsedRow:
    """The fields of one row.

    Attributes:
        values: the valid values by attribute; null and absent fields are left out.
        unknown: the fields that the API reference does not name, by API name. Unknown metrics are kept as if they were
            not nested, so that both API versions yield the same row.
        problems: a description of each invalid field.
    """

    def __init__(
        self,
        row: Mapping[str, Any],
        *,
        fields: Fields,
        metric_fields: Fields = MappingProxyType({}),
        nested: bool = False,
        parsed_elsewhere: str = "",
    ) -> None:
        self.problems: list[str] = []
        metrics_holder = row
        if nested:
            member = row.get("metrics")
            metrics_holder = member if isinstance(member, Mapping) else {}
            if metrics_holder is not member and member is not None:
                self.problems.append(f"metrics must be an object, not {json_type(member)}")
        self.values = self._parse(row, fields) | self._parse(metrics_holder, metric_fields)
        names = row.keys() - fields.keys() - {parsed_elsewhere}
        if metrics_holder is row:
            self.unknown = {name: row[name] for name in names - metric_fields.keys()}
            return
        self.unknown = {name: row[name] for name in names - {"metrics"}}
        nested_unknown = {name: metrics_holder[name] for name in metrics_holder.keys() - metric_fields.keys()}
        # An unknown metric with the same name as a field of the row stays nested, to avoid a collision.
        ambiguous = {
            name: value
            for name, value in nested_unknown.items()
            if name in row or name in fields or name == parsed_elsewhere
        }
        self.unknown |= {name: value for name, value in nested_unknown.items() if name not in ambiguous}
        if ambiguous:
            self.unknown["metrics"] = ambiguous

    def extra(self) -> str | None:
        """Return the unknown fields as JSON; None if there are none, or if they cannot be JSON, which is a problem."""
        if not self.unknown:
            return None
        try:
            return json.dumps(self.unknown, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except ValueError:
            self.problems.append("an unknown field holds a number that is not finite")
            return None

    def _parse(self, holder: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, (attribute, parse, is_required) in fields.items():
            value = holder.get(name)
            if value is None:
                if is_required:
                    self.problems.append(f"{name} is missing")
                continue
            try:
                values[attribute] = parse(value)
            except FieldError as error:
                self.problems.append(f"{name} {error}")
        return values


@lru_cache(64)
def metric_fields(metrics: tuple[Metric, ...], /) -> Fields:
    return {metric.api_name: (metric.column, partial(parse_metric, kind=metric.kind), False) for metric in metrics}


def parse_metric(value: object, *, kind: Kind) -> int | float:
    """Return a whole number that is not negative, or a finite decimal; at most `kind.maximum`."""
    number: int | float = parse_integer(value) if kind.is_integer else parse_decimal(value)
    if kind.is_integer and number < 0:
        raise FieldError(f"must not be negative: {_excerpt(value)}")
    if abs(number) > kind.maximum:
        raise FieldError(f"is above {kind.maximum:,}: {_excerpt(value)}")
    return number


def parse_integer(value: object) -> int:
    """Return a whole number of 64 bits; a float without a fraction is one, too."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOAT_LIMIT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError(f"must be a whole number, not {_excerpt(value)}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise FieldError(f"does not fit 64 bits: {_excerpt(value)}")
    return value


def parse_decimal(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(f"must be a number, not {_excerpt(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FieldError(f"is not finite: {_excerpt(value)}")
    return number


def parse_text(value: object) -> str:
    """Return a string that can be encoded."""
    if not isinstance(value, str):
        raise FieldError(f"must be a string, not {_excerpt(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError(f"is not valid Unicode: {_excerpt(value)}") from None
    return value


def parse_instant(value: object) -> datetime:
    """Return an ISO 8601 time with its zone, in UTC."""
    try:
        return msgspec.convert(parse_text(value), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise FieldError(f"must be an ISO 8601 time with its zone, not {_excerpt(value)}") from None


def json_type(value: object) -> str:
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value), type(value).__name__)


def _excerpt(value: object) -> str:
    return redact(to_json(value), limit=80)


def to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# The type of a field that names or shows a creator. `personal_data` and the lake's PERSONAL_COLUMNS follow from it.
PersonalText = Annotated[str | None, "personal"]


class CreatorProfile(msgspec.Struct, frozen=True, rename="camel"):
    """Profile of a post's creator, as shown on the social network (docs/api.md, "Posts performance")."""

    content_type: str | None = None
    full_name: PersonalText = None
    handle_name: PersonalText = None
    profile_image: PersonalText = None
    profile_link: PersonalText = None


class PostWithoutMetrics(msgspec.Struct, kw_only=True, rename="camel"):
    """The fields of a post apart from its metrics (docs/api.md, "Posts performance")."""

    instance_id: str
    campaign_id: int
    post_id: int
    post_date: datetime
    creator_id: int | None = None
    content_type: str | None = None
    content_url: PersonalText = None
    content_image_url: PersonalText = None
    creator_profile: CreatorProfile | None = None
    # JSON of the unknown fields; set by this package.
    extra: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.instance_id, self.campaign_id, self.post_id)


Metrics = tuple[Metric, ...]


@lru_cache(64)
def post_type(metrics: Metrics, /) -> Any:
    """Return a `PostWithoutMetrics` with an attribute for each metric, named as its column."""
    fields = [(metric.column, (int if metric.kind.is_integer else float) | None, None) for metric in metrics]
    return msgspec.defstruct("Post", fields, bases=(PostWithoutMetrics,), module=__name__, kw_only=True)


# As an annotation, `Post` is the `post_type` of any metrics; the type checker sees only the fields without metrics. At
# run time it is the type for the default metrics.
if TYPE_CHECKING:
    Post = PostWithoutMetrics
else:
    Post = post_type(DEFAULT_METRICS)
    Post.__doc__ = "The `post_type` for the default metrics; as an annotation, for any metrics."


# The parsers take rows as decoded by the standard library's JSON. In the cursor version, metrics are nested.


def post_from_json(row: object, *, metrics: Metrics = DEFAULT_METRICS, nested: bool = False) -> Post | BadRow:
    """Parse a post. Metrics other than these are kept as unknown fields."""
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a post must be an object, not {json_type(row)}", raw=to_json(row))
    parsed = ParsedRow(
        row, fields=POST_FIELDS, metric_fields=metric_fields(metrics), nested=nested, parsed_elsewhere="creatorProfile"
    )
    values = parsed.values
    try:
        values["creator_profile"], unknown_in_profile = _creator_profile(row.get("creatorProfile"))
        if unknown_in_profile:
            parsed.unknown["creatorProfile"] = unknown_in_profile
    except FieldError as error:
        parsed.problems.append(f"creatorProfile {error}")
    extra = parsed.extra()
    if parsed.problems:
        return BadRow(
            reason="; ".join(parsed.problems),
            raw=to_json(row),
            instance_id=values.get("instance_id"),
            post_date=values.get("post_date"),
        )
    post: Post = post_type(metrics)(**values, extra=extra)
    return post


def _creator_profile(value: object) -> tuple[CreatorProfile | None, dict[str, Any]]:
    if value is None:
        return None, {}
    if not isinstance(value, Mapping):
        raise FieldError(f"must be an object, not {json_type(value)}")
    known = {name: parse_text(value[name]) for name in _PROFILE_FIELDS if value.get(name) is not None}
    unknown = {name: part for name, part in value.items() if name not in _PROFILE_FIELDS}
    return CreatorProfile(**{_PROFILE_FIELDS[name]: part for name, part in known.items()}), unknown


_PARSERS: dict[str, Callable[[object], Any]] = {
    "instance_id": parse_text,
    "campaign_id": parse_integer,
    "post_id": parse_integer,
    "post_date": parse_instant,
    "creator_id": parse_integer,
    "content_type": parse_text,
    "content_url": parse_text,
    "content_image_url": parse_text,
}

# `creatorProfile` is parsed separately.
POST_FIELDS: Fields = {
    field.encode_name: (field.name, _PARSERS[field.name], field.required)
    for field in msgspec.structs.fields(PostWithoutMetrics)
    if field.name in _PARSERS
}
_PROFILE_FIELDS: dict[str, str] = {field.encode_name: field.name for field in msgspec.structs.fields(CreatorProfile)}


class Campaign(msgspec.Struct, kw_only=True, frozen=True):
    """An item of `GET /v2/campaigns`; `extra` is the JSON of its unknown fields."""

    instance_id: str
    campaign_id: int
    campaign_name: str | None = None
    description: str | None = None
    status: str | None = None
    start_date: datetime | None = None
    first_post_date: datetime | None = None
    last_post_date: datetime | None = None
    extra: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.instance_id, self.campaign_id)


class CampaignPerformance(msgspec.Struct, kw_only=True, frozen=True):
    """An item of `GET /v2/campaigns/performance`.

    `metrics` has the available values by column. The API reference does not name the fields that describe the campaign;
    they are in `extra`, as JSON.
    """

    campaign_id: int
    metrics: Mapping[str, int | float]
    extra: str | None = None

    @property
    def key(self) -> int:
        return self.campaign_id


def campaign_from_json(row: object) -> Campaign | BadRow:
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a campaign must be an object, not {json_type(row)}", raw=to_json(row))
    parsed = ParsedRow(row, fields=CAMPAIGN_FIELDS)
    extra = parsed.extra()
    if parsed.problems:
        return BadRow(reason="; ".join(parsed.problems), raw=to_json(row), instance_id=parsed.values.get("instance_id"))
    return Campaign(**parsed.values, extra=extra)


def campaign_performance_from_json(
    row: object, *, metrics: tuple[Metric, ...], nested: bool = False
) -> CampaignPerformance | BadRow:
    """Parse the performance of a campaign.

    Other known metrics than these, which the paged version returns unasked, are left out, so that both versions yield
    the same row.
    """
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a campaign must be an object, not {json_type(row)}", raw=to_json(row))
    parsed = ParsedRow(row, fields=_PERFORMANCE_FIELDS, metric_fields=metric_fields(metrics), nested=nested)
    parsed.unknown = {name: value for name, value in parsed.unknown.items() if name not in _METRIC_NAMES}
    extra = parsed.extra()
    if parsed.problems:
        return BadRow(reason="; ".join(parsed.problems), raw=to_json(row))
    return CampaignPerformance(campaign_id=parsed.values.pop("campaign_id"), metrics=parsed.values, extra=extra)


CAMPAIGN_FIELDS: Fields = {
    "instanceId": ("instance_id", parse_text, True),
    "campaignId": ("campaign_id", parse_integer, True),
    "campaignName": ("campaign_name", parse_text, False),
    "description": ("description", parse_text, False),
    "status": ("status", parse_text, False),
    "startDate": ("start_date", parse_instant, False),
    "firstPostDate": ("first_post_date", parse_instant, False),
    "lastPostDate": ("last_post_date", parse_instant, False),
}
_METRIC_NAMES = frozenset(metric.api_name for metric in CAMPAIGN_METRICS)
_PERFORMANCE_FIELDS: Fields = {"campaignId": ("campaign_id", parse_integer, True)}
