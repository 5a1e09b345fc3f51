"""Rows of the list responses, and their lossless parser.

A row is stored if its key can be read. Any other value that cannot be read is null in its column, and kept in `extra`
as it was sent, beside the fields without a column. A row without a key, or with a value that cannot be true, becomes a
`BadRow` (docs/api.md, "What is accepted").
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import msgspec

from later_reporting_dagster.contract.metrics import Kind, Metric
from later_reporting_dagster.contract.parameters import METRICS_MEMBER
from later_reporting_dagster.contract.safe_line import safe_line

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
NEGATIVE = "must not be negative"
MAX_DEPTH = 100
_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
# The types that JSON decodes to and that have members.
_CONTAINERS = frozenset({dict, list})
EXACT_FLOAT_LIMIT = 2**53  # below this, a float holds every integer exactly

_Struct = TypeVar("_Struct")
Metrics = tuple[Metric, ...]


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row without a key, or that cannot be true, for the quarantine, with what could be parsed of its partition.

    Of a bucket, this is its first and its last day.

    `row_key`: if other rows of the response have the same key, with other values; the stored row stays.
    """

    reason: str
    raw: str
    instance_id: str | None = None
    post_date: datetime | None = None
    first_day: date | None = None
    last_day: date | None = None
    row_key: Hashable = None

    @property
    def key(self) -> str:
        return self.raw


class FieldError(ValueError):
    """The value of a field cannot be read."""


class ImpossibleValueError(FieldError):
    """The value of a field can be read, but cannot be true."""


class Field(NamedTuple):
    """How a field is read.

    Attributes:
        parse: returns the value from its documented spelling.
        respell: returns the documented spelling of another one, None for an empty text; the value itself if it is
            spelled as documented, or cannot be read.
        is_personal: whether it names or shows a creator.
    """

    attribute: str
    parse: Callable[[object], Any]
    respell: Callable[[object], object]
    is_required: bool = False
    is_personal: bool = False


Fields = Mapping[str, Field]  # by API name


@dataclass
class Notes:
    """What is odd about the rows of a page (see `ListResult`)."""

    oddities: Counter[str] = field(default_factory=Counter)
    unreadable: dict[Hashable, dict[str, str]] = field(default_factory=dict)


class RowParser:
    """Takes the known fields out of a row.

    Attributes:
        values: the values by attribute; null, absent and unreadable fields are left out.
        unknown: the fields that were not taken, by API name.
        unreadable: an excerpt of each value that cannot be read, by attribute.
        problems: why the row is a bad one.
    """

    def __init__(self, row: Mapping[str, Any], fields: Fields, notes: Notes) -> None:
        self._row, self._fields, self._notes = row, fields, notes
        self.unknown = {**row}
        self.unreadable: dict[str, str] = {}
        self.problems: list[str] = []
        self.values = self.take(fields, self.unknown)

    def take(self, fields: Fields, holder: dict[str, Any], *, path: str = "") -> dict[str, Any]:
        """Remove fields from `holder`, but for values that cannot be read; return the others."""
        values: dict[str, Any] = {}
        for name, known in fields.items():
            sent = holder.pop(name, None)
            documented = known.respell(sent)
            try:
                value = None if documented is None else known.parse(documented)
            except FieldError as error:
                if known.is_required or isinstance(error, ImpossibleValueError):
                    self.problems.append(f"{path}{name} {error}")
                else:
                    self._cannot_read(known.attribute, path + name, sent)
                    holder[name] = sent
                continue
            if documented is not sent:
                self._notes.oddities[f"{path}{name} spelled otherwise"] += 1
            if value is not None:
                values[known.attribute] = value
            elif known.is_required:
                self.problems.append(f"{path}{name} is missing")
        return values

    def _cannot_read(self, attribute: str, name: str, value: object) -> None:
        self.unreadable[attribute] = _excerpt(value)
        self._notes.oddities[f"{name} cannot be read"] += 1

    def take_object(self, name: str, *attributes: str) -> dict[str, Any]:
        """Remove a field that is an object, and return its fields; if it is none, these attributes cannot be read."""
        value = self.unknown.pop(name, None)
        if isinstance(value, Mapping):
            return {**value}
        if value is not None:
            self.unknown[name] = value
            for attribute in attributes:
                self._cannot_read(attribute, name, value)
        return {}

    def take_struct(self, name: str, attribute: str, struct: Callable[..., object], fields: Fields) -> None:
        """Take a field that is an object with fields of its own. Those that are unknown stay in it."""
        if members := self.take_object(name, attribute):
            self.values[attribute] = struct(**self.take(fields, members, path=f"{name}."))
            if members:
                self.unknown[name] = members

    def take_metrics(self, metrics: Fields, *, nested: bool) -> None:
        """Take the requested metrics of a row: from the place that is documented, or else from the other one.

        In the cursor version, others are kept as if they were not nested, so that both versions yield the same row.
        They stay nested if one has the name of a field of the row.
        """
        expected = [field.attribute for field in metrics.values()] if nested else []
        inner = self.take_object(METRICS_MEMBER, *expected)
        documented, other = (inner, self.unknown) if nested else (self.unknown, inner)
        if misplaced := (metrics.keys() & other.keys()) - documented.keys():
            documented |= {name: other.pop(name) for name in misplaced}
            self._notes.oddities["metrics at the other place"] += 1
        self.values |= self.take(metrics, documented)
        if inner and (not nested or inner.keys() & (self._row.keys() | self._fields.keys())):
            self.unknown[METRICS_MEMBER] = inner
        else:
            self.unknown |= inner

    def finish(self, struct: Callable[..., _Struct]) -> _Struct | BadRow:
        """Return the row with its other fields as JSON; a bad row if there are problems."""
        extra = None
        try:
            if self.unknown:
                extra = json.dumps(self.unknown, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except ValueError:
            self.problems.append("a field without a column holds a number that is not finite")
        if not self.problems:
            row = struct(**self.values, extra=extra)
            if self.unreadable:
                self._notes.unreadable[row.key] = self.unreadable  # type: ignore[attr-defined]
            return row
        known = {name: self.values.get(name) for name in ("instance_id", "post_date", "first_day", "last_day")}
        return BadRow(reason="; ".join(self.problems), raw=to_json(self._row), **known)


def metric_fields(metrics: Metrics, *, of_days: bool = False) -> Fields:
    return {metric.api_name: _metric_field(metric, of_days=of_days) for metric in metrics}


def _metric_field(metric: Metric, *, of_days: bool) -> Field:
    """Return the field of a whole number or a decimal, of a magnitude of at most `kind.maximum`.

    Whole numbers are not negative, except for counts `of_days`, from which unlikes are subtracted (docs/api.md, "Date
    basis").
    """
    kind = metric.kind
    parse: Callable[[object], int | float] = parse_integer if kind.is_integer else parse_decimal
    is_signed, maximum = not kind.is_integer or (of_days and kind is Kind.COUNT), kind.maximum
    minimum = -maximum if is_signed else 0

    def parse_metric(value: object) -> int | float:
        if isinstance(value, int | float) and not minimum <= value <= maximum:  # nor is NaN
            limit = f"is below {minimum:,}" if is_signed else NEGATIVE
            raise ImpossibleValueError(f"{limit if value < 0 else f'is not at most {maximum:,}'}: {_excerpt(value)}")
        return parse(value)

    respell = percentage_respelled if metric.unit == "percent" else number_respelled
    return Field(metric.column, parse_metric, respell)


def parse_integer(value: object) -> int:
    """Return a whole number; a float without a fraction is one, too."""
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
    return float(value)


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_NUMBER = r"(-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]+)?)"


def number_respelled(value: object, *, pattern: str = _NUMBER) -> object:
    """Return a number that was sent as text."""
    if value == "":
        return None
    if not isinstance(value, str) or not (number := re.fullmatch(pattern, value)):
        return value
    return float(number[1]) if "." in number[1] else int(number[1])


percentage_respelled = partial(number_respelled, pattern=f"{_NUMBER} ?%?")


def parse_text(value: object) -> str:
    """Return a string that can be encoded."""
    if not isinstance(value, str):
        raise FieldError(f"must be a string, not {_excerpt(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError(f"is not valid Unicode: {_excerpt(value)}") from None
    return value


def instance_id_respelled(value: object) -> object:
    """Return the digits of a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value == "" else value


def parse_instant(value: object) -> datetime:
    """Return an ISO 8601 time with its zone, in UTC."""
    text = parse_text(value)
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)  # RFC 3339 allows t and z
    except (ValueError, OverflowError):
        raise FieldError(f"must be an ISO 8601 time with its zone, not {_excerpt(value)}") from None


def instant_respelled(value: object) -> object:
    """Return a time of any ISO 8601 format as RFC 3339 has it: in UTC without a zone, and midnight for a day."""
    if not isinstance(value, str) or _RFC_3339.fullmatch(value):
        return value
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None if value == "" else value
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).isoformat()


def parse_day(value: object) -> date:
    """Return the UTC day of a day or a time of any ISO 8601 format, in UTC if it has no zone."""
    return parse_instant(instant_respelled(value)).date()


def json_type(value: object) -> str:
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value), type(value).__name__)


def _excerpt(value: object) -> str:
    return safe_line(to_json(value), limit=80)


def to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def from_json(text: str | bytes, *, parse_int: Callable[[str], int | float] = int) -> Any:
    """Return the value of JSON. `ValueError`: it is none, or nested more than `MAX_DEPTH` deep."""
    try:
        value = json.loads(text, parse_int=parse_int)
    except RecursionError:  # at another depth in each version of Python
        raise ValueError(_TOO_DEEP) from None
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        # Each value of a page is looked at: `isinstance` would take five times as long.
        members = (each.values() if type(each) is dict else each for each in level)
        level = [member for of_each in members for member in of_each if type(member) in _CONTAINERS]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


# The type of a field that may be sent as a number.
InstanceId = Annotated[str, "instance id"]
# The type of a field that names or shows a creator. What is personal data follows from it, here and in the lake.
PersonalText = Annotated[str | None, "personal"]


class CreatorProfile(msgspec.Struct, frozen=True, rename="camel"):
    """Profile of a post's creator, as shown on the social network (docs/api.md, "Posts performance")."""

    content_type: str | None = None
    full_name: PersonalText = None
    handle_name: PersonalText = None
    profile_image: PersonalText = None
    profile_link: PersonalText = None


class Post(msgspec.Struct, kw_only=True, rename="camel"):
    """The fields of a post apart from its metrics (docs/api.md, "Posts performance")."""

    instance_id: InstanceId
    campaign_id: int
    post_id: int
    post_date: datetime | None = None  # by post date, always known
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


class Campaign(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """An item of `GET /v2/campaigns`; `extra` is the JSON of its other fields."""

    instance_id: InstanceId
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


class ListedInstance(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """An item of `GET /v2/instances`."""

    instance_id: InstanceId
    extra: str | None = None

    @property
    def key(self) -> str:
        return self.instance_id


class CampaignPerformance(msgspec.Struct, kw_only=True, rename="camel"):
    """An item of `GET /v2/campaigns/performance`, apart from its metrics.

    The API reference does not name the fields that describe the campaign; they are in `extra`, as JSON.
    """

    campaign_id: int
    extra: str | None = None

    @property
    def key(self) -> int:
        return self.campaign_id


class AccountTotals(msgspec.Struct, kw_only=True, rename="camel"):
    """Totals of an instance, or of several together, apart from their metrics; `instance_id` is then empty."""

    instance_id: InstanceId = ""
    extra: str | None = None

    @property
    def scope(self) -> str:
        return "instance" if self.instance_id else "all"

    @property
    def key(self) -> Hashable:
        return (self.scope, self.instance_id)


class AccountBucket(AccountTotals, kw_only=True):
    """Totals of some days, apart from their metrics (docs/api.md, "Account totals")."""

    first_day: date = msgspec.field(name="startDate")
    last_day: date = msgspec.field(name="endDate")

    @property
    def key(self) -> Hashable:
        return (self.instance_id, self.first_day)

    @property
    def day(self) -> date:
        return self.first_day


@lru_cache(64)
def with_metrics(struct: type[msgspec.Struct], metrics: Metrics, /) -> Any:
    """Return the type of rows with an attribute for each metric, named as its column."""
    fields = [(metric.column, (int if metric.kind.is_integer else float) | None, None) for metric in metrics]
    return msgspec.defstruct(f"{struct.__name__}WithMetrics", fields, bases=(struct,), module=__name__, kw_only=True)


def _unchanged(value: object) -> object:
    return value


_READERS: dict[Any, tuple[Callable[[object], Any], Callable[[object], object]]] = {
    **dict.fromkeys((str, str | None, PersonalText), (parse_text, _unchanged)),
    **dict.fromkeys((int, int | None), (parse_integer, number_respelled)),
    datetime | None: (parse_instant, instant_respelled),
    date: (parse_day, _unchanged),
    InstanceId: (parse_text, instance_id_respelled),
}


@lru_cache
def fields_of(struct: type[msgspec.Struct]) -> Fields:
    """Return the texts, whole numbers and times among the fields of a struct."""
    return {
        field.encode_name: Field(
            field.name, *_READERS[field.type], is_required=field.required, is_personal=field.type == PersonalText
        )
        for field in msgspec.structs.fields(struct)
        if field.type in _READERS and field.name != "extra"
    }


@lru_cache
def structs_of(struct: type[msgspec.Struct]) -> Mapping[str, tuple[str, type[msgspec.Struct]]]:
    """Return the attribute and the type of each field of a struct that is an object, by API name."""
    return {
        field.encode_name: (field.name, type_)
        for field in msgspec.structs.fields(struct)
        for type_ in get_args(field.type)
        if isinstance(type_, type) and issubclass(type_, msgspec.Struct)
    }


def row_parser(
    struct: type[msgspec.Struct],
    metrics: Metrics | None = None,
    *,
    nested: bool = False,
    of_days: bool = False,
    required: Collection[str] = (),
    instance_id: str | None = None,
) -> Callable[[Any, Notes], Any]:
    """Return a parser of rows, as decoded by the standard library's JSON; it returns rows of `struct`, or a `BadRow`.

    Args:
        metrics: None for rows without metrics.
        nested: whether metrics are documented to be nested, as in the cursor version.
        of_days: whether the metrics are those of days, or else to date.
        required: fields without which a row is a bad one, beside those without a default.
        instance_id: the instance of rows that do not state theirs.
    """
    row_type, wanted = with_metrics(struct, metrics or ()), metric_fields(metrics or (), of_days=of_days)
    fields = {**fields_of(struct)}
    fields |= {name: fields[name]._replace(is_required=True) for name in required}
    structs = [(name, attribute, type_, fields_of(type_)) for name, (attribute, type_) in structs_of(struct).items()]

    def parse(row: Any, notes: Notes) -> Any:
        if not isinstance(row, dict):
            return BadRow(reason=f"a row must be an object, not {json_type(row)}", raw=to_json(row))
        if instance_id is not None and "instanceId" in fields and row.get("instanceId") in (None, ""):
            row = row | {"instanceId": instance_id}
            if fields["instanceId"].is_required:
                notes.oddities["instanceId missing"] += 1
        parser = RowParser(row, fields, notes)
        for each in structs:  # before the metrics, one of which may have the same name
            parser.take_struct(*each)
        if metrics is not None:
            parser.take_metrics(wanted, nested=nested)
        return parser.finish(row_type)

    return parse
