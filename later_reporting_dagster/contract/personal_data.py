"""How a row of the API loses the personal data of creators: names, handles, pictures, links, and URLs of posts."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from later_reporting_dagster.contract.rows import (
    CAMPAIGN_FIELDS,
    POST_FIELDS,
    CreatorProfile,
    Fields,
    PersonalText,
    PostWithoutMetrics,
    to_json,
)


def personal_fields(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the attribute of each field with personal data, by API name."""
    fields = msgspec.structs.fields(struct)
    return {field.encode_name: field.name for field in fields if field.type == PersonalText}


_PERSONAL = {*personal_fields(PostWithoutMetrics), *personal_fields(CreatorProfile)}
# The fields whose texts stay, by what the rows are.
_TEXTS: Mapping[str, Fields] = {"posts": POST_FIELDS, "campaigns": CAMPAIGN_FIELDS}
_OBJECTS = ("creatorProfile", "metrics")


def without_personal_data(row: object, *, rows: str) -> Any:
    """Return a row, as decoded JSON, without personal data. `rows` says what it is one of: posts or campaigns.

    Fields with personal data are null. Any other text becomes empty unless the API reference names its field, because
    it may be anything; so does a list or an object. Numbers stay.
    """
    if not isinstance(row, Mapping):
        return _without_text(row)
    return {name: _value(name, value, rows=rows) for name, value in row.items()}


def _value(name: str, value: object, *, rows: str) -> Any:
    if name in _PERSONAL:
        return None
    if isinstance(value, str) and name in _TEXTS[rows]:
        return value
    if isinstance(value, Mapping) and name in _OBJECTS:
        return without_personal_data(value, rows=rows)
    return _without_text(value)


def _without_text(value: object) -> Any:
    return value if value is None or isinstance(value, int | float) else type(value)()


def json_without_personal_data(text: str, *, rows: str) -> str:
    """Return the JSON of a row, or of its unknown fields, without personal data; an empty text if it is not JSON."""
    try:
        return to_json(without_personal_data(json.loads(text), rows=rows))
    except ValueError:
        return to_json("")


def reason_without_texts(reason: str) -> str:
    """Return the reason of a bad row up to the first text that it quotes, whose end is unknown if it is shortened."""
    before, quote, _ = reason.partition('"')
    return f"{before}…" if quote else reason
