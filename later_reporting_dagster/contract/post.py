"""Post types, and a lossless parser of posts.

Unknown fields are kept, floats without a fraction become integers, and a row with an invalid value becomes a `BadRow`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.row_fields import (
    BadRow,
    FieldError,
    Fields,
    ParsedRow,
    json_type,
    metric_fields,
    parse_instant,
    parse_integer,
    parse_text,
    to_json,
)


class CreatorProfile(msgspec.Struct, frozen=True, rename="camel"):
    """Profile of a post's creator, as shown on the social network (docs/api.md, "Posts performance")."""

    content_type: str | None = None
    full_name: str | None = None
    handle_name: str | None = None
    profile_image: str | None = None
    profile_link: str | None = None


class PostWithoutMetrics(msgspec.Struct, kw_only=True, rename="camel"):
    """The fields of a post apart from its metrics (docs/api.md, "Posts performance")."""

    instance_id: str
    campaign_id: int
    post_id: int
    post_date: datetime
    creator_id: int | None = None
    content_type: str | None = None
    content_url: str | None = None
    content_image_url: str | None = None
    creator_profile: CreatorProfile | None = None
    # JSON of the unknown fields; set by this package.
    extra: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """The row key: (`instance_id`, `campaign_id`, `post_id`)."""
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


class PostParser:
    """Parses elements of `data`, as decoded by the standard library's JSON, field by field.

    Args:
        metrics: the requested metrics; any other metric is kept as an unknown field.
        nested: whether metrics are nested under `metrics`, as in the cursor version. Unknown metrics are kept as if
            they were not nested, so that both API versions yield the same post.
    """

    def __init__(self, metrics: Metrics = DEFAULT_METRICS, *, nested: bool = False) -> None:
        self._metric_fields = metric_fields(metrics)
        self._post_type = post_type(metrics)
        self._nested = nested

    def __call__(self, row: object) -> Post | BadRow:
        """Return the post, or a bad row if any field is invalid."""
        if not isinstance(row, Mapping):
            return BadRow(reason=f"a post must be an object, not {json_type(row)}", raw=to_json(row))
        parsed = ParsedRow(
            row,
            fields=_FIELDS,
            metric_fields=self._metric_fields,
            nested=self._nested,
            parsed_elsewhere="creatorProfile",
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
        post: Post = self._post_type(**values, extra=extra)
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
