"""How a row of the API loses the personal data of creators: names, handles, pictures, links, and URLs of posts."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS, METRICS
from later_reporting_dagster.contract.parameters import METRICS_MEMBER
from later_reporting_dagster.contract.rows import (
    CAMPAIGN_FIELDS,
    POST_FIELDS,
    PROFILE_FIELDS,
    CreatorProfile,
    FieldError,
    Fields,
    PersonalText,
    PostWithoutMetrics,
    metric_fields,
    parse_instant,
    parse_text,
    to_json,
)


def personal_fields(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the attribute of each field with personal data, by API name."""
    fields = msgspec.structs.fields(struct)
    return {field.encode_name: field.name for field in fields if field.type == PersonalText}


def _parsers(fields: Fields) -> dict[str, Any]:
    return {name: parse for name, (_, parse, _) in fields.items()}


_PERSONAL = {*personal_fields(PostWithoutMetrics), *personal_fields(CreatorProfile)}
_POST_METRICS, _CAMPAIGN_METRICS = (_parsers(metric_fields(metrics)) for metrics in (METRICS, CAMPAIGN_METRICS))
# The parsers of the known fields, by what the rows are; of an object, those of its members.
_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "posts": {
        **_parsers(POST_FIELDS),
        **_POST_METRICS,
        METRICS_MEMBER: _POST_METRICS,
        "creatorProfile": _parsers(PROFILE_FIELDS),
    },
    "campaigns": {**_parsers(CAMPAIGN_FIELDS), **_CAMPAIGN_METRICS, METRICS_MEMBER: _CAMPAIGN_METRICS},
}


def without_personal_data(row: object, *, rows: str) -> Any:
    """Return a row, as decoded JSON, without personal data. `rows` says what it is one of: posts or campaigns.

    Fields with personal data are null. Fields that the API reference does not name are left out: their names and values
    may be anything. So may a value that is not of its field's type: it becomes an empty one of its own type, which
    keeps the row a bad row. Numbers stay in fields of numbers.
    """
    return _value(row, _KNOWN[rows])


def _value(value: object, known: Any) -> Any:
    """`known`: the parser of the value, or, of an object, the known fields."""
    if isinstance(known, Mapping):
        return _members(value, known) if isinstance(value, Mapping) else _empty(value)
    match value:
        case str():
            is_kept = known is parse_text or _is_valid(value, known)
        case int() | float():
            is_kept = known not in (parse_text, parse_instant)
        case _:
            is_kept = False
    return value if is_kept else _empty(value)


def _members(values: Mapping[str, object], known: Mapping[str, Any]) -> dict[str, Any]:
    members = {
        name: None if name in _PERSONAL else _value(value, known[name])
        for name, value in values.items()
        if name in known
    }
    # An object that has lost all of its fields is left out, too.
    return {name: value for name, value in members.items() if value != {} or not isinstance(known[name], Mapping)}


def _empty(value: object) -> Any:
    return None if value is None else type(value)()


def _is_valid(value: object, parse: Any) -> bool:
    try:
        parse(value)
    except FieldError:
        return False
    return True


def json_without_personal_data(text: str, *, rows: str) -> str:
    """Return the JSON of a row, or of its fields without a column, without personal data; of no JSON, an empty text."""
    try:
        return to_json(without_personal_data(json.loads(text), rows=rows))
    except ValueError:
        return to_json("")


def reason_without_values(reason: str) -> str:
    """Return the reason of a bad row up to the first value that it quotes, whose end is unknown if it is shortened."""
    before, *values = re.split(r': |, not |"', reason, maxsplit=1)
    return f"{before}…" if values else reason
