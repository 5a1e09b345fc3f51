"""Post types, and a lossless parser of posts.

A strict msgspec decoder parses posts that match the API reference. Any other row is parsed field by field: unknown
fields are kept, floats without a fraction become integers, and a row with an invalid value becomes a `BadRow`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Kind, Metric
from later_reporting_dagster.contract.row_fields import (
    INT64_MAX,
    INT64_MIN,
    BadRow,
    FieldError,
    Fields,
    Instant,
    ParsedRow,
    json_type,
    metric_fields,
    parse_instant,
    parse_integer,
    parse_text,
    to_json,
)

Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]


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


def _metric_type(kind: Kind) -> Any:
    if kind.is_integer:
        return Annotated[int, msgspec.Meta(ge=0, le=kind.maximum)]
    return Annotated[float, msgspec.Meta(ge=-kind.maximum, le=kind.maximum)]


def _metric_struct_fields(metrics: Metrics) -> list[tuple[str, Any, Any]]:
    return [
        (metric.column, _metric_type(metric.kind) | None, msgspec.field(default=None, name=metric.api_name))
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
        return BadRow(reason=f"a post must be an object, not {json_type(row)}", raw=to_json(row))
    parsed = ParsedRow(
        row, fields=_FIELDS, metric_fields=metric_fields(metrics), nested=nested, parsed_elsewhere="creatorProfile"
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
_FIELDS: Fields = {
    field.encode_name: (field.name, _PARSERS[field.name], field.required)
    for field in msgspec.structs.fields(PostWithoutMetrics)
    if field.name in _PARSERS
}
_PROFILE_FIELDS: dict[str, str] = {field.encode_name: field.name for field in msgspec.structs.fields(CreatorProfile)}
