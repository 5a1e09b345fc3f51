"""Post types, and a lossless parser of posts.

A strict msgspec decoder parses posts that match the API reference. Any other row is parsed field by field: unknown
fields are kept, floats without a fraction become integers, and a row with an invalid value becomes a `BadRow`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.redaction import redact

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_FLOAT_LIMIT = 2**53  # below this, a float holds every integer exactly

Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class CreatorProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Profile of a post's creator, as shown on the social network (docs/api.md, "Posts performance")."""

    content_type: str | None = None
    full_name: str | None = None
    handle_name: str | None = None
    profile_image: str | None = None
    profile_link: str | None = None


class PostWithoutMetrics(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The fields of a post apart from its metrics (docs/api.md, "Posts performance")."""

    instance_id: str
    campaign_id: Int64
    post_id: Int64
    post_date: Instant
    creator_id: Int64 | None = None
    content_type: str | None = None
    content_url: str | None = None
    content_image_url: str | None = None
    creator_profile: CreatorProfile | None = None
    # Set by this package: JSON of the unknown fields. The API has no field with this private-use name; a row that has
    # one anyway is parsed field by field, which keeps it as an unknown field.
    extra: str | None = msgspec.field(default=None, name="\ue000extra")

    @property
    def key(self) -> tuple[str, int, int]:
        """The row key: (`instance_id`, `campaign_id`, `post_id`)."""
        return (self.instance_id, self.campaign_id, self.post_id)


Metrics = tuple[Metric, ...]
_CACHED_SELECTIONS = 64


def _metric_struct_fields(metrics: Metrics) -> list[tuple[str, Any, Any]]:
    return [
        (
            metric.column,
            (Count if metric.kind.is_integer else float) | None,
            msgspec.field(default=None, name=metric.api_name),
        )
        for metric in metrics
    ]


def _post_struct(name: str, fields: Sequence[Any]) -> Any:
    return msgspec.defstruct(
        name, fields, bases=(PostWithoutMetrics,), module=__name__, kw_only=True, forbid_unknown_fields=True
    )


@lru_cache(_CACHED_SELECTIONS)
def post_type(metrics: Metrics, /) -> Any:
    """Return the post type for some metrics: a `PostWithoutMetrics` with an attribute per metric, named as its column.

    Its decoder rejects any other field, so that an unknown field cannot be dropped unnoticed.
    """
    return _post_struct("Post", _metric_struct_fields(metrics))


# As an annotation, `Post` is the `post_type` of any metrics; the type checker sees only the fields without metrics. At
# run time it is the type for the default metrics.
if TYPE_CHECKING:
    Post = PostWithoutMetrics
else:
    Post = post_type(DEFAULT_METRICS)
    Post.__doc__ = "The `post_type` for the default metrics; as an annotation, for any metrics."


@lru_cache(_CACHED_SELECTIONS)
def nested_post_type(metrics: Metrics, /) -> Any:
    """Return the post type of the cursor version, which nests metrics (docs/api.md, "Cursor version")."""
    nested_metrics = msgspec.defstruct(
        "MetricsOfPost", _metric_struct_fields(metrics), module=__name__, frozen=True, forbid_unknown_fields=True
    )
    return _post_struct("NestedPost", [("metrics", nested_metrics)])


def flattener(metrics: Metrics, /) -> "Callable[[Any], Post]":
    """Return a function that converts a `nested_post_type` to the `post_type` of the same metrics."""
    flat_type = post_type(metrics)
    names = [*PostWithoutMetrics.__struct_fields__, *(metric.column for metric in metrics)]
    astuple = msgspec.structs.astuple
    index = nested_post_type(metrics).__struct_fields__.index("metrics")

    def flatten(post: Any) -> Post:
        values = astuple(post)
        flat_values = (*values[:index], *values[index + 1 :], *astuple(values[index]))
        flat: Post = flat_type(**dict(zip(names, flat_values, strict=True)))
        return flat

    return flatten


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with invalid values, for the quarantine.

    Attributes:
        reason: the invalid fields and what is wrong with them.
        raw: the row's JSON.
        instance_id: the row's instance, if it could be parsed; with `post_date` it determines the partition.
        post_date: the row's time of publication, if it could be parsed.
    """

    reason: str
    raw: str
    instance_id: str | None = None
    post_date: datetime | None = None


class _FieldError(ValueError):
    """A field has an invalid value."""


def post_from_json(row: object, *, metrics: Metrics = DEFAULT_METRICS, nested: bool = False) -> Post | BadRow:
    """Parse one element of `data`, as decoded by the standard library's JSON, field by field.

    Args:
        row: the element.
        metrics: the requested metrics; any other metric is kept as an unknown field.
        nested: whether metrics are nested under `metrics`, as in the cursor version. Unknown metrics are kept
            as if they were not nested, so that both API versions yield the same post.

    Returns:
        The post, or a bad row if any field is invalid.
    """
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a post must be an object, not {_json_type(row)}", raw=_dumps(row))
    problems: list[str] = []
    metrics_holder: Mapping[str, Any] = row
    if nested:
        member = row.get("metrics")
        metrics_holder = member if isinstance(member, Mapping) else {}
        if metrics_holder is not member and member is not None:
            problems.append(f"metrics must be an object, not {_json_type(member)}")
    metric_fields = _metric_fields(metrics)
    values = _parse_fields(row, _FIELDS, problems=problems)
    values |= _parse_fields(metrics_holder, metric_fields, problems=problems)
    unknown = _unknown_fields(row, metrics_holder, metric_fields=metric_fields)
    try:
        values["creator_profile"], unknown_in_profile = _creator_profile(row.get("creatorProfile"))
        if unknown_in_profile:
            unknown["creatorProfile"] = unknown_in_profile
    except _FieldError as error:
        problems.append(f"creatorProfile {error}")
    try:
        extra = json.dumps(unknown, sort_keys=True, allow_nan=False, separators=(",", ":")) if unknown else None
    except ValueError:
        problems.append("an unknown field holds a number that is not finite")
    if problems:
        return BadRow(
            reason="; ".join(problems),
            raw=_dumps(row),
            instance_id=values.get("instance_id"),
            post_date=values.get("post_date"),
        )
    post: Post = post_type(metrics)(**values, extra=extra)
    return post


def _parse_fields(holder: Mapping[str, Any], fields: "_Fields", *, problems: list[str]) -> dict[str, Any]:
    """Return the valid values of `fields` by attribute; append a description of each invalid one to `problems`."""
    values: dict[str, Any] = {}
    for name, (attribute, parse, is_required) in fields.items():
        value = holder.get(name)
        if value is None:
            if is_required:
                problems.append(f"{name} is missing")
            continue
        try:
            values[attribute] = parse(value)
        except _FieldError as error:
            problems.append(f"{name} {error}")
    return values


def _unknown_fields(
    row: Mapping[str, Any], metrics_holder: Mapping[str, Any], *, metric_fields: "_Fields"
) -> dict[str, Any]:
    """Return the unknown fields of a row and, if `metrics_holder` is nested in it, the unknown metrics."""
    if metrics_holder is row:
        return {name: value for name, value in row.items() if name not in _KNOWN_FIELDS and name not in metric_fields}
    unknown = {name: value for name, value in row.items() if name not in _KNOWN_FIELDS and name != "metrics"}
    nested = {name: value for name, value in metrics_holder.items() if name not in metric_fields}
    # An unknown metric with the same name as a field of the post stays nested, to avoid a collision.
    ambiguous = {name: value for name, value in nested.items() if name in row or name in _KNOWN_FIELDS}
    unknown |= {name: value for name, value in nested.items() if name not in ambiguous}
    return unknown | ({"metrics": ambiguous} if ambiguous else {})


def _count(value: object) -> int:
    number = _integer(value)
    if number < 0:
        raise _FieldError(f"must not be negative: {_excerpt(value)}")
    return number


def _integer(value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOAT_LIMIT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _FieldError(f"must be a whole number, not {_excerpt(value)}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise _FieldError(f"does not fit 64 bits: {_excerpt(value)}")
    return value


def _decimal(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _FieldError(f"must be a number, not {_excerpt(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _FieldError(f"is not finite: {_excerpt(value)}")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _FieldError(f"must be a string, not {_excerpt(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _FieldError(f"is not valid Unicode: {_excerpt(value)}") from None
    return value


def _instant(value: object) -> datetime:
    try:
        return msgspec.convert(_text(value), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise _FieldError(f"must be an ISO 8601 time with its zone, not {_excerpt(value)}") from None


def _creator_profile(value: object) -> tuple[CreatorProfile | None, dict[str, Any]]:
    if value is None:
        return None, {}
    if not isinstance(value, Mapping):
        raise _FieldError(f"must be an object, not {_json_type(value)}")
    known = {name: _text(value[name]) for name in _PROFILE_FIELDS if value.get(name) is not None}
    unknown = {name: part for name, part in value.items() if name not in _PROFILE_FIELDS}
    return CreatorProfile(**{_PROFILE_FIELDS[name]: part for name, part in known.items()}), unknown


def _json_type(value: object) -> str:
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value), type(value).__name__)


def _excerpt(value: object) -> str:
    return redact(_dumps(value), limit=80)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


_PARSERS: dict[str, Callable[[object], Any]] = {
    "instance_id": _text,
    "campaign_id": _integer,
    "post_id": _integer,
    "post_date": _instant,
    "creator_id": _integer,
    "content_type": _text,
    "content_url": _text,
    "content_image_url": _text,
}

# API name -> (attribute, parser, is_required); `creatorProfile` is parsed separately.
_Fields = Mapping[str, tuple[str, Callable[[object], Any], bool]]
_FIELDS: _Fields = {
    field.encode_name: (field.name, _PARSERS[field.name], field.required)
    for field in msgspec.structs.fields(PostWithoutMetrics)
    if field.name in _PARSERS
}
_KNOWN_FIELDS = frozenset({*_FIELDS, "creatorProfile"})
_PROFILE_FIELDS: dict[str, str] = {field.encode_name: field.name for field in msgspec.structs.fields(CreatorProfile)}


@lru_cache(_CACHED_SELECTIONS)
def _metric_fields(metrics: Metrics, /) -> _Fields:
    return {
        metric.api_name: (metric.column, _count if metric.kind.is_integer else _decimal, False) for metric in metrics
    }
