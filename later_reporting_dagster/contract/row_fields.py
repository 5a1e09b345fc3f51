"""Parse the fields of a row of a list response losslessly, one by one; a row with an invalid value is a `BadRow`.

Floats without a fraction become integers, and unknown fields are kept as JSON.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from later_reporting_dagster.contract.metrics import Kind, Metric
from later_reporting_dagster.contract.redaction import redact

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_FLOAT_LIMIT = 2**53  # below this, a float holds every integer exactly

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

# API name -> (attribute, parser, is_required)
Fields = Mapping[str, tuple[str, Callable[[object], Any], bool]]


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


class FieldError(ValueError):
    """A field has an invalid value."""


class ParsedRow:
    """The fields of one row.

    Attributes:
        values: the valid values by attribute; null and absent fields are left out.
        unknown: the fields that the API reference does not name, by API name.
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
        """Parse a row.

        Args:
            row: the row.
            fields: its fields.
            metric_fields: its metrics.
            nested: whether metrics are nested under `metrics`, as in the cursor version. Unknown metrics are kept as if
                they were not nested, so that both API versions yield the same row.
            parsed_elsewhere: a known field that the caller parses itself.
        """
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
    """Return the fields of some metrics."""
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
    """Return a finite number."""
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
    """Return what a value is in JSON, for messages."""
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value), type(value).__name__)


def _excerpt(value: object) -> str:
    return redact(to_json(value), limit=80)


def to_json(value: object) -> str:
    """Return a value as compact JSON."""
    return json.dumps(value, separators=(",", ":"))
