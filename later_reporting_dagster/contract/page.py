"""What pages and lists are, in both API versions, and how an envelope is read (docs/api.md, "What is accepted").

In the paged version, a page states the total of the list, in the cursor version only the cursor of the next page.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from later_reporting_dagster.contract.parameters import CURSOR, MAX_PAGE_SIZE, ApiVersion, version_of_envelope
from later_reporting_dagster.contract.rows import (
    BadRow,
    FieldError,
    Notes,
    from_json,
    json_type,
    number_respelled,
    parse_integer,
    parse_text,
)

MAX_ROWS = 10 * MAX_PAGE_SIZE  # a longer list is not a page, and parsing it row by row would take minutes
MAX_INTEGER_DIGITS = 4000  # Python cannot parse 4,301 digits, so a longer number is parsed as an infinite float
MAX_CURSOR_LENGTH = 8192  # it has to fit into the request line of the next page
# After every request.
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ListResult:
    """Rows of a list in the order of the API: those of one page, or of all.

    Attributes:
        requested_at: when the first page was requested.
        oddities: harmless deviations of the responses from the documentation, with how often each occurred, such as
            `total count as text` or `equal row twice`.
        unreadable: by the key of a row, the columns whose value could not be read, with an excerpt of what was sent.
        is_unsure: whether there are no rows, and the response does not say that the list has none.
        stated_total: the number of rows of the list, if the response states it.
        number: of a page, from 1, if the response states it.
        next_cursor: of a page in the cursor version, unless it is the last one.
    """

    items: list[Any] = field(repr=False)
    bad_rows: list[BadRow] = field(repr=False, default_factory=list)
    pages: int = 1
    requested_at: datetime = NEVER
    oddities: Counter[str] = field(default_factory=Counter)
    unreadable: Mapping[Hashable, Mapping[str, str]] = field(default_factory=dict, repr=False)
    is_unsure: bool = False
    stated_total: int | None = None
    number: int | None = None
    next_cursor: str | None = None

    @classmethod
    def merged(cls, parts: Sequence["ListResult"]) -> "ListResult":
        """Return the rows of pages, or of lists, as one list."""
        return cls(
            [item for part in parts for item in part.items],
            [row for part in parts for row in part.bad_rows],
            pages=sum(part.pages for part in parts),
            requested_at=min((part.requested_at for part in parts), default=NEVER),
            oddities=sum((part.oddities for part in parts), Counter()),
            unreadable={key: columns for part in parts for key, columns in part.unreadable.items()},
            is_unsure=not all(part.is_surely_empty for part in parts),
        )

    @property
    def total_items(self) -> int:
        """Number of rows, good and bad."""
        return len(self.items) + len(self.bad_rows)

    @property
    def is_surely_empty(self) -> bool:
        """Whether there are no rows, and the response says so: by a total of 0, or by cursor with the end of a list."""
        return not (self.total_items or self.is_unsure or self.stated_total or self.next_cursor)


class UnreadableBody(ValueError):  # noqa: N818 - named for the response, not for the error
    """The body is not the expected page or token: truncated, HTML, or another envelope.

    Attributes:
        api_version: the version of the body, if it is a page of the other API version.
        is_envelope: whether it is JSON of another form, which it will have again.
    """

    def __init__(self, message: str, *, api_version: ApiVersion | None = None, is_envelope: bool = False) -> None:
        super().__init__(message)
        self.api_version = api_version
        self.is_envelope = is_envelope


def read_envelope(body: bytes, api_version: ApiVersion | None, *, rows: str) -> dict[str, Any]:
    try:
        members = from_json(body, parse_int=_parse_integer)
    except ValueError as error:
        raise UnreadableBody(f"not a page of {rows}: {error}") from None
    if not isinstance(members, dict) or "data" not in members:
        raise other_envelope(f"not a page of {rows}:", members)
    found = version_of_envelope(members)
    if api_version is not None and found not in (None, api_version):
        raise UnreadableBody(f"not a page of {rows} in API version {api_version}, but in {found}", api_version=found)
    return members


def other_envelope(message: str, value: object) -> UnreadableBody:
    """Return the error of JSON of another form; it is a page of something else if it has a list or an object."""
    if isinstance(value, dict):
        is_envelope = any(isinstance(member, list | dict) for member in value.values())
        return UnreadableBody(f"{message} an object with {', '.join(value) or 'nothing'}", is_envelope=is_envelope)
    return UnreadableBody(f"{message} {json_type(value)}", is_envelope=isinstance(value, list))


def read_number(pagination: object, name: str, notes: Notes) -> int | None:
    """Return a number of a pagination in any spelling; None if it states none."""
    value = pagination.get(name) if isinstance(pagination, dict) else None
    if not isinstance(value, int | None):
        notes.oddities[f"{name} spelled otherwise"] += 1
    try:
        number = parse_integer(number_respelled(value))
    except FieldError:
        return None
    return number if number >= 0 else None


def read_next_cursor(envelope: dict[str, Any], notes: Notes, *, rows: str) -> str | None:
    """Return the cursor of the next page; None after the last page."""
    name = CURSOR.pagination_member
    cursor = envelope.get(name)
    if cursor is None and name in envelope:
        return None
    if cursor in (None, ""):
        notes.oddities[f"no {name}" if cursor is None else f"{name} is empty"] += 1
        return None
    try:
        cursor = parse_text(cursor)
    except FieldError as error:
        raise UnreadableBody(f"not a page of {rows}: no valid {name}: {error}") from None
    if len(cursor) > MAX_CURSOR_LENGTH:
        raise UnreadableBody(f"not a page of {rows}: no valid {name}: {len(cursor)} characters")
    return cursor


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)
