"""How a row of the API loses the personal data of creators: names, handles, pictures, links, and URLs of posts."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from later_reporting_dagster.contract.metrics import Metric
from later_reporting_dagster.contract.parameters import METRICS_MEMBER
from later_reporting_dagster.contract.rows import (
    Field,
    FieldError,
    fields_of,
    from_json,
    metric_fields,
    parse_instant,
    parse_text,
    structs_of,
    to_json,
)

HIDDEN_TEXT = "…"
# By API name; of an object, those of its members.
KnownFields = Mapping[str, Any]


def personal_fields(struct: type[msgspec.Struct]) -> list[str]:
    """Return the attributes with personal data."""
    return [field.attribute for field in fields_of(struct).values() if field.is_personal]


@lru_cache
def known_fields(structs: tuple[type[msgspec.Struct], ...], metrics: tuple[Metric, ...], /) -> KnownFields:
    """Return the fields of rows that have those of some structs, and some metrics, nested or not."""
    known: dict[str, Any] = {}
    for struct in structs:
        known |= fields_of(struct)
        known |= {name: fields_of(member) for name, (_, member) in structs_of(struct).items()}
    if metrics:
        known |= metric_fields(metrics)
        known[METRICS_MEMBER] = metric_fields(metrics)
    return known


def without_personal_data(row: object, known: KnownFields) -> Any:
    """Return a row, as decoded JSON, without personal data.

    Fields with personal data are left out, and those that the API reference does not name: their names and values may
    be anything. So may a value that its field does not accept: it becomes an empty one of its own type, or a text
    without meaning, which cannot be read either. Numbers stay in fields of numbers.
    """
    return _value(row, known)


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


def _members(values: Mapping[str, object], known: KnownFields) -> dict[str, Any]:
    kept = {name: known[name] for name in values if name in known}
    members = {
        name: _value(values[name], each)
        for name, each in kept.items()
        if not (isinstance(each, Field) and each.is_personal)
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


def json_without_personal_data(text: str, known: KnownFields) -> str:
    """Return the JSON of a row, or of its fields without a column, without personal data.

    An empty text if it is no JSON, or too deep.
    """
    try:
        return to_json(without_personal_data(from_json(text), known))
    except ValueError:
        return to_json("")


def reason_without_values(reason: str) -> str:
    """Return the reason of a bad row up to the first value that it quotes, whose end is unknown if it is shortened."""
    before, *values = re.split(r': |, not |"', reason, maxsplit=1)
    return f"{before}…" if values else reason
