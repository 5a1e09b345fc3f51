"""A post with its metrics, and how one is read from JSON without inventing or losing anything.

A post that arrives as documented is decoded by a typed decoder in one pass. Anything else takes the slow path,
field by field: unknown fields are kept, whole floats become counts, and what cannot be true is a `BadRow`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS, Metric
from later_reporting_dagster.contract.redaction import excerpt

INT64_MINIMUM, INT64_MAXIMUM = -(2**63), 2**63 - 1
EXACT_IN_A_FLOAT = 2**53

Int64 = Annotated[int, msgspec.Meta(ge=INT64_MINIMUM, le=INT64_MAXIMUM)]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAXIMUM)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class CreatorProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Who posted, as the network shows them [S]."""

    content_type: str | None = None
    full_name: str | None = None
    handle_name: str | None = None
    profile_image: str | None = None
    profile_link: str | None = None


class PostIdentity(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What a post is, without its metrics [S]. The key is (`instance_id`, `campaign_id`, `post_id`)."""

    instance_id: str
    campaign_id: Int64
    post_id: Int64
    post_date: Instant
    creator_id: Int64 | None = None
    content_type: str | None = None
    content_url: str | None = None
    content_image_url: str | None = None
    creator_profile: CreatorProfile | None = None
    # Not of the API: JSON of the fields that the contract does not know. A private-use name, so that none can meet it.
    extra: str | None = msgspec.field(default=None, name="\ue000extra")

    @property
    def key(self) -> tuple[str, int, int]:
        """The row key."""
        return (self.instance_id, self.campaign_id, self.post_id)


Metrics = tuple[Metric, ...]
_A_FEW_SELECTIONS = 64


def _fields_of(metrics: Metrics) -> list[tuple[str, Any, Any]]:
    return [
        (
            metric.column,
            (Count if metric.kind.is_whole else float) | None,
            msgspec.field(default=None, name=metric.api_name),
        )
        for metric in metrics
    ]


def _struct(name: str, fields: Sequence[Any]) -> Any:
    return msgspec.defstruct(
        name, fields, bases=(PostIdentity,), module=__name__, kw_only=True, forbid_unknown_fields=True
    )


@lru_cache(_A_FEW_SELECTIONS)
def post_type(metrics: Metrics, /) -> Any:
    """What a post is of which `metrics` were asked for: a `PostIdentity` and, by its column's name, each of them.

    Its decoder knows no other field, so that what comes without having been asked for is not lost unseen.
    """
    return _struct("Post", _fields_of(metrics))


if TYPE_CHECKING:
    Post = PostIdentity
else:
    Post = post_type(DOCUMENT_METRICS)
    Post.__doc__ = "A `PostIdentity` and, by its column's name, each metric of the document."


@lru_cache(_A_FEW_SELECTIONS)
def nested_post_type(metrics: Metrics, /) -> Any:
    """A post as the cursor revision nests it: a `PostIdentity`, and its metrics under `metrics` [C]."""
    of_metrics = msgspec.defstruct(
        "MetricsOfPost", _fields_of(metrics), module=__name__, frozen=True, forbid_unknown_fields=True
    )
    return _struct("NestedPost", [("metrics", of_metrics)])


def flattener(metrics: Metrics, /) -> "Callable[[Any], Post]":
    """Makes of a `nested_post_type` the `post_type` of the same metrics: above this, both revisions are the same."""
    flat = post_type(metrics)
    names = [*PostIdentity.__struct_fields__, *(metric.column for metric in metrics)]
    parts = msgspec.structs.astuple
    place = nested_post_type(metrics).__struct_fields__.index("metrics")

    def flattened(post: Any) -> Post:
        values = parts(post)
        together = (*values[:place], *values[place + 1 :], *parts(values[place]))
        of_both: Post = flat(**dict(zip(names, together, strict=True)))
        return of_both

    return flattened


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot be true, kept whole: `raw` is its JSON, `reason` says which field and why.

    `instance_id` and `post_date` are there when they could be read; they tell which partition it belongs to.
    """

    reason: str
    raw: str
    instance_id: str | None = None
    post_date: datetime | None = None


class _FieldError(ValueError):
    """A field's value cannot be what the contract says."""


def post_from_json(row: object, *, metrics: Metrics = DOCUMENT_METRICS, nested: bool = False) -> Post | BadRow:
    """Reads one element of `data` as parsed by the standard library's JSON: the slow, lenient and exact path.

    Args:
        row: the element.
        metrics: what was asked for. A value of another metric is kept as an unknown field is.
        nested: whether the metrics lie under `metrics`, as in the cursor revision, and not beside the other fields.
            What is unknown among them is kept by its name alone, so that both revisions read the same post.
    """
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a post is an object, not {_kind_of(row)}", raw=_dumps(row))
    of_metrics = _metric_fields(metrics)
    values: dict[str, Any] = {}
    problems: list[str] = []
    within: Mapping[str, Any] = row
    if nested:
        given = row.get("metrics")
        within = given if isinstance(given, Mapping) else {}
        if within is not given and given is not None:
            problems.append(f"metrics is an object, not {_kind_of(given)}")
    for fields, holder in ((_FIELDS, row), (of_metrics, within)):
        for name, (attribute, read, required) in fields.items():
            value = holder.get(name)
            if value is None:
                if required:
                    problems.append(f"{name} is missing")
                continue
            try:
                values[attribute] = read(value)
            except _FieldError as error:
                problems.append(f"{name} {error}")
    unknown = _unknown(row, within, of_metrics=of_metrics)
    try:
        profile, unknown_of_profile = _creator_profile(row.get("creatorProfile"))
        if unknown_of_profile:
            unknown["creatorProfile"] = unknown_of_profile
        values["creator_profile"] = profile
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


def _unknown(row: Mapping[str, Any], within: Mapping[str, Any], *, of_metrics: "_Fields") -> dict[str, Any]:
    """What a row has beside its fields and, where metrics lie `within` an object of it, beside them in there."""
    if within is row:
        return {name: value for name, value in row.items() if name not in _READ_BESIDE and name not in of_metrics}
    unknown = {name: value for name, value in row.items() if name not in _READ_BESIDE and name != "metrics"}
    inside = {name: value for name, value in within.items() if name not in of_metrics}
    # A name that stands for something beside the metrics too is told apart by its place.
    ambiguous = {name: value for name, value in inside.items() if name in row or name in _READ_BESIDE}
    unknown |= {name: value for name, value in inside.items() if name not in ambiguous}
    return unknown | ({"metrics": ambiguous} if ambiguous else {})


def _count(value: object) -> int:
    number = _whole(value)
    if number < 0:
        raise _FieldError(f"counts something and is not negative: {_shown(value)}")
    return number


def _whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_IN_A_FLOAT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _FieldError(f"is a whole number, not {_shown(value)}")
    if not INT64_MINIMUM <= value <= INT64_MAXIMUM:
        raise _FieldError(f"does not fit 64 bits: {_shown(value)}")
    return value


def _decimal(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _FieldError(f"is a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _FieldError(f"is not finite: {_shown(value)}")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _FieldError(f"is a string, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _FieldError(f"is not valid Unicode: {_shown(value)}") from None
    return value


def _instant(value: object) -> datetime:
    try:
        return msgspec.convert(_text(value), Instant).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise _FieldError(f"is an ISO 8601 instant with its zone, not {_shown(value)}") from None


def _creator_profile(value: object) -> tuple[CreatorProfile | None, dict[str, Any]]:
    if value is None:
        return None, {}
    if not isinstance(value, Mapping):
        raise _FieldError(f"is an object, not {_kind_of(value)}")
    known = {name: _text(value[name]) for name in _PROFILE_FIELDS if value.get(name) is not None}
    unknown = {name: part for name, part in value.items() if name not in _PROFILE_FIELDS}
    return CreatorProfile(**{_PROFILE_FIELDS[name]: part for name, part in known.items()}), unknown


def _kind_of(value: object) -> str:
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    return excerpt(_dumps(value), limit=80)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


_READERS: dict[str, Callable[[object], Any]] = {
    "instance_id": _text,
    "campaign_id": _whole,
    "post_id": _whole,
    "post_date": _instant,
    "creator_id": _whole,
    "content_type": _text,
    "content_url": _text,
    "content_image_url": _text,
}

# API name -> (attribute, reader, required); `creatorProfile` is read apart.
_Fields = Mapping[str, tuple[str, Callable[[object], Any], bool]]
_FIELDS: _Fields = {
    field.encode_name: (field.name, _READERS[field.name], field.required)
    for field in msgspec.structs.fields(PostIdentity)
    if field.name in _READERS
}
_READ_BESIDE = frozenset({*_FIELDS, "creatorProfile"})
_PROFILE_FIELDS: dict[str, str] = {field.encode_name: field.name for field in msgspec.structs.fields(CreatorProfile)}


@lru_cache(_A_FEW_SELECTIONS)
def _metric_fields(metrics: Metrics, /) -> _Fields:
    return {metric.api_name: (metric.column, _count if metric.kind.is_whole else _decimal, False) for metric in metrics}
