"""The sandbox's own reading of a query string, strict in either revision: a parameter of the other one is refused.

It shares the contract's constants but none of its parsers: a misreading shared by both sides would pass every test.
"""

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qsl

from later_reporting_dagster.contract.api_version import CURSOR, METRICS_MEMBER, PAGED, Revision
from later_reporting_dagster.contract.enums import (
    ContentType,
    DateBasis,
    Platform,
    ProblemType,
    SortDirection,
    SortProperty,
)
from later_reporting_dagster.contract.limits import (
    DEFAULT_PAGE_SIZE,
    MAXIMUM_CAMPAIGN_IDS,
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    MAXIMUM_RANGE_YEARS,
)
from later_reporting_dagster.contract.metrics import METRICS
from later_reporting_dagster.sandbox.metric_support import not_supported
from later_reporting_dagster.sandbox.problem_responses import Refusal, invalid
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]+")

_PLACE_BYTES, _MARK_BYTES = 6, 12

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of an answer is wanted.

    Attributes:
        start: How many rows of the whole answer stand before it.
        size: How many rows it may have.
        revision: How it is asked for, and is to be answered.
        belongs_to: The query that its cursors are good for.
    """

    start: int
    size: int
    revision: Revision = PAGED
    belongs_to: str = ""

    @property
    def number(self) -> int:
        """Its place among numbered pages, counted from 1."""
        return self.start // self.size + 1

    @property
    def rows(self) -> slice:
        """Where the page lies in the whole answer."""
        return slice(self.start, self.start + self.size)

    def cursor_to(self, start: int) -> str:
        """An opaque cursor to the page of the same query that begins there; with any other query it is refused."""
        place = start.to_bytes(_PLACE_BYTES, "big")
        return base64.urlsafe_b64encode(place + _mark(place, self.belongs_to)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the posts, whatever the page. Hashable: one order of rows serves all its pages.

    Both days are inclusive; None means that the parameter was not given, hence *all*. `metrics` are those that are
    asked for by name, None where the revision has no such parameter.
    """

    start: date
    end: date
    instance_ids: tuple[str, ...] | None
    campaign_ids: tuple[int, ...] | None
    platforms: tuple[Platform, ...] | None
    content_types: tuple[ContentType, ...] | None
    basis: DateBasis
    sort_property: SortProperty
    sort_direction: SortDirection
    metrics: tuple[str, ...] | None = None


def read_posts_query(query_string: str, revision: Revision = PAGED) -> tuple[Question, PageRequest]:
    """Read the query string of `GET /v2/posts/performance` as an API version takes it.

    Raises:
        Refusal: 400 `ANL_00400`, or `ANL_00422` for a `sortProperty` that is not in the list.
    """
    given = _Given(query_string)
    question = Question(
        start=given.required("startDate", _day),
        end=given.required("endDate", _day),
        instance_ids=given.many("instanceIds", str),
        campaign_ids=given.many("campaignIds", _integer),
        platforms=given.many("platform", Platform),
        content_types=given.many("contentType", ContentType),
        basis=given.one("dateBasis", DateBasis) or DateBasis.POST_DATE,
        sort_property=_sort_property(given.one("sortProperty", str)),
        sort_direction=given.one("sortDirection", SortDirection) or SortDirection.DESC,
        metrics=_metrics(given.many(METRICS_MEMBER, str)) if revision.nests_metrics else None,
    )
    page = _page(given, revision, question)
    given.refuse_the_rest()
    if question.end < question.start:
        raise invalid("endDate must not be before startDate")
    start, end = question.start, question.end
    if (end.year - MAXIMUM_RANGE_YEARS, end.month, end.day) > (start.year, start.month, start.day):
        raise invalid(f"startDate and endDate must be at most {MAXIMUM_RANGE_YEARS} years apart")
    if len(question.campaign_ids or ()) > MAXIMUM_CAMPAIGN_IDS:
        raise invalid(f"campaignIds must hold at most {MAXIMUM_CAMPAIGN_IDS} ids")
    if question.platforms is not None and question.content_types is not None:
        raise invalid("platform and contentType cannot be combined: provide only one of the two")
    if refused := not_supported(question.metrics or (), _let_in(question)):
        raise invalid(f"{METRICS_MEMBER} not supported for these filters: {', '.join(refused)}")
    return question, page


def read_page_query(query_string: str, revision: Revision = PAGED) -> PageRequest:
    """Read the query string of `GET /v2/instances`, which takes only the parameters of a page.

    Raises:
        Refusal: 400 `ANL_00400`.
    """
    given = _Given(query_string)
    page = _page(given, revision, "instances")
    given.refuse_the_rest()
    return page


class _Given:
    """The parameters of a query string. Reading one removes it, so that the unknown ones remain."""

    def __init__(self, query_string: str) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)
        for name, value in parse_qsl(query_string, keep_blank_values=True):
            self._values[name].append(value)

    def one(self, name: str, read: Callable[[str], _Value]) -> _Value | None:
        values = self._values.pop(name, [])
        if len(values) > 1:
            raise invalid(f"{name} must be given once")
        return _read(name, read, values[0]) if values else None

    def required(self, name: str, read: Callable[[str], _Value]) -> _Value:
        value = self.one(name, read)
        if value is None:
            raise invalid(f"{name} is required")
        return value

    def many(self, name: str, read: Callable[[str], _Value]) -> tuple[_Value, ...] | None:
        """An array in any of its three forms [S]: `p=a,b`, `p=a&p=b`, `p[]=a&p[]=b`; only the first has commas."""
        plain, bracketed = self._values.pop(name, []), self._values.pop(f"{name}[]", [])
        if len(plain) == 1:
            plain = plain[0].split(",")
        values = (*plain, *bracketed)
        if "" in values:
            raise invalid(f"{name} must not hold an empty value")
        return tuple(_read(name, read, value) for value in values) or None

    def refuse_the_rest(self) -> None:
        """Refuse unknown names: an ignored parameter would hide a client's bug."""
        if self._values:
            raise invalid(f"unknown parameter: {', '.join(sorted(self._values))}")


def _read(name: str, read: Callable[[str], _Value], text: str) -> _Value:
    try:
        return read(text)
    except ValueError as error:
        raise invalid(f"{name}: {error}") from None


def _day(text: str) -> date:
    if not _DAY.fullmatch(text):  # `fromisoformat` takes other forms too
        raise ValueError("not a day as YYYY-MM-DD")
    return date.fromisoformat(text)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):  # `int` takes spaces, signs, underscores and the digits of any script
        raise ValueError("not a whole number")
    return int(text)


def _up_to(maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = _integer(text)
        if not 1 <= number <= maximum:
            raise ValueError(f"not a whole number from 1 to {maximum}")
        return number

    return read


def _page(given: _Given, revision: Revision, question: object) -> PageRequest:
    size = given.one(revision.size_parameter, _up_to(MAXIMUM_PAGE_SIZE)) or DEFAULT_PAGE_SIZE
    if revision is CURSOR:
        belongs_to = f"{question} by {size}"
        cursor = given.one(revision.place_parameter, str)
        start = 0 if cursor is None else _start_of(cursor, belongs_to)
        return PageRequest(start, size, revision, belongs_to)
    number = given.one(revision.place_parameter, _up_to(MAXIMUM_PAGE_NUMBER)) or 1
    return PageRequest((number - 1) * size, size, revision)


def _start_of(cursor: str, belongs_to: str) -> int:
    """Return how many rows stand before the page that a cursor of this query leads to."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        data = b""
    place, mark = data[:_PLACE_BYTES], data[_PLACE_BYTES:]
    if mark != _mark(place, belongs_to):
        raise invalid("nextCursor is invalid, has expired, or belongs to a query with other parameters")
    return int.from_bytes(place, "big")


def _mark(place: bytes, belongs_to: str) -> bytes:
    return hashlib.blake2b(place + belongs_to.encode("utf-8", "surrogatepass"), digest_size=_MARK_BYTES).digest()


def _metrics(names: tuple[str, ...] | None) -> tuple[str, ...]:
    if names is None:
        raise invalid(f"{METRICS_MEMBER} is required, of {', '.join(metric.api_name for metric in METRICS)}")
    return tuple(dict.fromkeys(names))


def _let_in(question: Question) -> list[str]:
    """The content types that a question's filters let in."""
    return [
        content_type
        for content_type, platform, _ in CONTENT_TYPES
        if (question.platforms is None or platform in question.platforms)
        and (question.content_types is None or content_type in question.content_types)
    ]


def _sort_property(value: str | None) -> SortProperty:
    """The API reference names no default order; newest first is what its default direction suggests."""
    if value is None:
        return SortProperty.POST_DATE
    if value not in set(SortProperty):
        detail = f"sortProperty must be one of {', '.join(SortProperty)}"
        raise Refusal(HTTPStatus.BAD_REQUEST, ProblemType.INVALID_SORT, detail)
    return SortProperty(value)
