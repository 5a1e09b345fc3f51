"""How a row of the API loses the personal data of creators: names, handles, pictures, links, and URLs of posts."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, CAMPAIGN_METRICS, METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.parameters import METRICS_MEMBER
from later_reporting_dagster.contract.rows import (
    PROFILE_FIELDS,
    AccountBucket,
    Campaign,
    CreatorProfile,
    Field,
    FieldError,
    PersonalText,
    Post,
    fields_of,
    metric_fields,
    parse_instant,
    parse_text,
    to_json,
)

HIDDEN_TEXT = "…"


def personal_fields(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the attribute of each field with personal data, by API name."""
    fields = msgspec.structs.fields(struct)
    return {field.encode_name: field.name for field in fields if field.type == PersonalText}


_PERSONAL = {*personal_fields(Post), *personal_fields(CreatorProfile)}
_POST_METRICS, _CAMPAIGN_METRICS = metric_fields(METRICS), metric_fields(CAMPAIGN_METRICS)
_TOTALS = metric_fields((*ACCOUNT_METRICS, *OVER_TIME_METRICS))
# The known fields, by what the rows are; of an object, those of its members.
_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "posts": {**fields_of(Post), **_POST_METRICS, METRICS_MEMBER: _POST_METRICS, "creatorProfile": PROFILE_FIELDS},
    "campaigns": {**fields_of(Campaign), **_CAMPAIGN_METRICS, METRICS_MEMBER: _CAMPAIGN_METRICS},
    "totals": {**fields_of(AccountBucket), **_TOTALS, METRICS_MEMBER: _TOTALS},
}


def without_personal_data(row: object, *, rows: str) -> Any:
    """Return a row, as decoded JSON, without personal data. `rows` says what it is one of: posts, campaigns or totals.

    Fields with personal data are left out, and those that the API reference does not name: their names and values may
    be anything. So may a value that its field does not accept: it becomes an empty one of its own type, or a text
    without meaning, which cannot be read either. Numbers stay in fields of numbers.
    """
    return _value(row, _KNOWN[rows])


def _value(value: object, known: Any) -> Any:
    """`known`: the field, or, of an object, the known fields of its members."""
    if isinstance(known, Mapping):
        return _members(value, known) if isinstance(value, Mapping) else _hidden(value)
    match value:
        case str():
            is_kept = known.parse is parse_text or _is_readable(value, known)
        case int() | float():
            is_kept = known.parse not in (parse_text, parse_instant) or _is_readable(value, known)
        case _:
            is_kept = False
    return value if is_kept else _hidden(value)


def _members(values: Mapping[str, object], known: Mapping[str, Any]) -> dict[str, Any]:
    members = {
        name: _value(value, known[name]) for name, value in values.items() if name in known and name not in _PERSONAL
    }
    # An object that has lost all of its fields is left out, too.
    return {name: value for name, value in members.items() if value != {} or not isinstance(known[name], Mapping)}


def _hidden(value: object) -> Any:
    return None if value is None else HIDDEN_TEXT if isinstance(value, str) else type(value)()


def _is_readable(value: object, field: Field) -> bool:
    documented = field.respell(value)
    try:
        _ = documented is None or field.parse(documented)
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
