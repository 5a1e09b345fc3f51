"""Rows of the list responses: posts, campaigns and their performance, and lossless parsers of each.

A row is parsed field by field. Floats without a fraction become integers, fields without a column are kept as JSON in
`extra`, and a row with an invalid value becomes a `BadRow` (docs/api.md, "Posts performance" and "Campaigns").
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Kind, Metric
from later_reporting_dagster.contract.parameters import METRICS_MEMBER
from later_reporting_dagster.contract.safe_line import safe_line

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_FLOAT_LIMIT = 2**53  # below this, a float holds every integer exactly

_Struct = TypeVar("_Struct")
Instant = Annotated[datetime, msgspec.Meta(tz=True)]

# API name -> (attribute, parser, is_required)
Fields = Mapping[str, tuple[str, Callable[[object], Any], bool]]
Metrics = tuple[Metric, ...]


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with invalid values, for the quarantine, with what could be parsed of its partition.

    `received_hash`: of the row as it was received. Two rows may differ only in personal data, which `raw` may lack.
    `row_key`: if other rows of the response have the same key, with other values; the stored row stays.
    """

    reason: str
    raw: str
    instance_id: str | None = None
    post_date: datetime | None = None
    received_hash: int = 0
    row_key: tuple[str | int, ...] | None = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.raw, self.received_hash)


class FieldError(ValueError):
    """A field has an invalid value."""


class RowParser:
    """Takes the known fields out of a row.

    Attributes:
        values: the valid values by attribute; null and absent fields are left out.
        unknown: the fields that were not taken, by API name.
        problems: a description of each invalid field.
    """

    def __init__(self, row: Mapping[str, Any], fields: Fields) -> None:
        self._row, self._fields = row, fields
        self.unknown = {**row}
        self.problems: list[str] = []
        self.values = self.take(fields, self.unknown)

    def take(self, fields: Fields, holder: dict[str, Any], *, path: str = "") -> dict[str, Any]:
        """Remove fields from `holder`; return their values."""
        values: dict[str, Any] = {}
        for name, (attribute, parse, is_required) in fields.items():
            value = holder.pop(name, None)
            if value is None:
                if is_required:
                    self.problems.append(f"{path}{name} is missing")
                continue
            try:
                values[attribute] = parse(value)
            except FieldError as error:
                self.problems.append(f"{path}{name} {error}")
        return values

    def take_object(self, name: str) -> dict[str, Any] | None:
        """Remove a field that is an object, and return its fields; None if it is null or absent."""
        value = self.unknown.pop(name, None)
        if value is None or isinstance(value, Mapping):
            return None if value is None else {**value}
        self.problems.append(f"{name} must be an object, not {json_type(value)}")
        return None

    def take_metrics(self, metrics: Fields, *, nested: bool) -> None:
        """Take the requested metrics of a row.

        Others are kept as if they were not nested, so that both API versions yield the same row. They stay nested if
        one has the name of a field of the row.
        """
        holder = (self.take_object(METRICS_MEMBER) or {}) if nested else self.unknown
        self.values |= self.take(metrics, holder)
        if nested and holder.keys() & (self._row.keys() | self._fields.keys()):
            self.unknown[METRICS_MEMBER] = holder
        elif nested:
            self.unknown |= holder

    def finish(self, struct: Callable[..., _Struct]) -> _Struct | BadRow:
        """Return the row with its other fields as JSON; a bad row if there are problems."""
        extra = None
        try:
            if self.unknown:
                extra = json.dumps(self.unknown, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except ValueError:
            self.problems.append("a field without a column holds a number that is not finite")
        if not self.problems:
            return struct(**self.values, extra=extra)
        instance_id, post_date = self.values.get("instance_id"), self.values.get("post_date")
        reason = "; ".join(self.problems)
        return BadRow(reason=reason, raw=to_json(self._row), instance_id=instance_id, post_date=post_date)


def metric_fields(metrics: Metrics, *, of_days: bool = False) -> Fields:
    return {metric.api_name: (metric.column, metric_parser(metric.kind, of_days=of_days), False) for metric in metrics}


def metric_parser(kind: Kind, *, of_days: bool = False) -> Callable[[object], int | float]:
    """Return a parser of whole numbers or finite decimals, of a magnitude of at most `kind.maximum`.

    Whole numbers are not negative, except for counts `of_days`, from which unlikes are subtracted (docs/api.md, "Date
    basis").
    """
    parse: Callable[[object], int | float] = parse_integer if kind.is_integer else parse_decimal
    is_signed, maximum = not kind.is_integer or (of_days and kind is Kind.COUNT), kind.maximum
    minimum = -maximum if is_signed else 0

    def parse_metric(value: object) -> int | float:
        number = parse(value)
        if not minimum <= number <= maximum:
            limit = f"is below {minimum:,}" if is_signed else "must not be negative"
            raise FieldError(f"{limit if number < 0 else f'is above {maximum:,}'}: {_excerpt(value)}")
        return number

    return parse_metric


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
    return safe_line(to_json(value), limit=80)


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
    # JSON of the fields without an attribute; set by this package.
    extra: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.instance_id, self.campaign_id, self.post_id)


@lru_cache(64)
def post_type(metrics: Metrics, /) -> Any:
    """Return a `PostWithoutMetrics` with an attribute for each metric, named as its column."""
    fields = [(metric.column, (int if metric.kind.is_integer else float) | None, None) for metric in metrics]
    return msgspec.defstruct("Post", fields, bases=(PostWithoutMetrics,), module=__name__, kw_only=True)


# A post of any metrics, in annotations: the type checker sees only the fields without metrics.
Post = PostWithoutMetrics


_PARSERS: dict[Any, Callable[[object], Any]] = {
    **dict.fromkeys((str, str | None, PersonalText), parse_text),
    **dict.fromkeys((int, int | None), parse_integer),
    **dict.fromkeys((datetime, datetime | None), parse_instant),
}


def fields_of(struct: type[msgspec.Struct]) -> Fields:
    """Return the texts, whole numbers and times among the fields of a struct."""
    return {
        field.encode_name: (field.name, _PARSERS[field.type], field.required)
        for field in msgspec.structs.fields(struct)
        if field.type in _PARSERS and field.name != "extra"
    }


POST_FIELDS = fields_of(PostWithoutMetrics)
PROFILE_FIELDS = fields_of(CreatorProfile)

# The parsers take rows as decoded by the standard library's JSON. In the cursor version, metrics are nested.


def post_parser(
    metrics: Metrics = DEFAULT_METRICS, *, nested: bool = False, of_days: bool = False
) -> Callable[[Mapping[str, Any]], Post | BadRow]:
    """Return a parser of posts with these metrics, those of a day or to date."""
    post, wanted = post_type(metrics), metric_fields(metrics, of_days=of_days)

    def parse(row: Mapping[str, Any]) -> Post | BadRow:
        parser = RowParser(row, POST_FIELDS)
        profile = parser.take_object("creatorProfile")  # before the metrics, one of which may have the same name
        parser.take_metrics(wanted, nested=nested)
        if profile is not None:
            values = parser.take(PROFILE_FIELDS, profile, path="creatorProfile.")
            parser.values["creator_profile"] = CreatorProfile(**values)
            if profile:
                parser.unknown["creatorProfile"] = profile
        parsed: Post | BadRow = parser.finish(post)
        return parsed

    return parse


class Campaign(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """An item of `GET /v2/campaigns`; `extra` is the JSON of its other fields."""

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


CAMPAIGN_FIELDS = fields_of(Campaign)


def campaign_from_json(row: Mapping[str, Any]) -> Campaign | BadRow:
    return RowParser(row, CAMPAIGN_FIELDS).finish(Campaign)


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


_PERFORMANCE_FIELDS: Fields = {"campaignId": ("campaign_id", parse_integer, True)}


def campaign_performance_parser(
    metrics: Metrics, *, nested: bool = False, of_days: bool = False
) -> Callable[[Mapping[str, Any]], CampaignPerformance | BadRow]:
    """Return a parser of the performance of campaigns with these metrics, those of a day or to date."""
    wanted = metric_fields(metrics, of_days=of_days)

    def performance(*, campaign_id: int, extra: str | None, **values: int | float) -> CampaignPerformance:
        return CampaignPerformance(campaign_id=campaign_id, metrics=values, extra=extra)

    def parse(row: Mapping[str, Any]) -> CampaignPerformance | BadRow:
        parser = RowParser(row, _PERFORMANCE_FIELDS)
        parser.take_metrics(wanted, nested=nested)
        return parser.finish(performance)

    return parse
