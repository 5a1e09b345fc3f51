"""The sandbox's own reading of a query string, strict in either revision: a parameter of the other one is refused.

It shares the contract's constants but none of its parsers: a misreading shared by both sides would pass every test.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qsl

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
from later_reporting_dagster.contract.revision import CURSOR, METRICS_MEMBER, PAGED, Revision
from later_reporting_dagster.sandbox import cursors
from later_reporting_dagster.sandbox.availability import not_supported
from later_reporting_dagster.sandbox.problems import Refusal, invalid
from later_reporting_dagster.sandbox.world import CONTENT_TYPES

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NATURAL = re.compile(r"[0-9]+")
_INTEGER = re.compile(r"-?[0-9]+")

_Choice = TypeVar("_Choice", bound=StrEnum)


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
        """A cursor to the page of the same query that begins there."""
        return cursors.issue(start, belongs_to=self.belongs_to)


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
    """Reads the query string of `GET /v2/posts/performance`, as a revision takes it.

    Raises:
        Refusal: 400 `ANL_00400`, or `ANL_00422` for a `sortProperty` that is not in the list.
    """
    given = _Given(query_string)
    question = Question(
        start=_day("startDate", given.one("startDate")),
        end=_day("endDate", given.one("endDate")),
        instance_ids=given.many("instanceIds"),
        campaign_ids=_campaign_ids(given.many("campaignIds")),
        platforms=_choices(Platform, "platform", given.many("platform")),
        content_types=_choices(ContentType, "contentType", given.many("contentType")),
        basis=_choice(DateBasis, "dateBasis", given.one("dateBasis"), default=DateBasis.POST_DATE),
        sort_property=_sort_property(given.one("sortProperty")),
        sort_direction=_choice(SortDirection, "sortDirection", given.one("sortDirection"), default=SortDirection.DESC),
        metrics=_metrics(given.many(METRICS_MEMBER)) if revision.nests_metrics else None,
    )
    page = _page(given, revision, question)
    given.refuse_the_rest()
    if question.end < question.start:
        raise invalid("endDate must not be before startDate")
    start, end = question.start, question.end
    if (end.year - MAXIMUM_RANGE_YEARS, end.month, end.day) > (start.year, start.month, start.day):
        raise invalid(f"startDate and endDate must be at most {MAXIMUM_RANGE_YEARS} years apart")
    if question.platforms is not None and question.content_types is not None:
        raise invalid("platform and contentType cannot be combined: provide only one of the two")
    if refused := not_supported(question.metrics or (), _let_in(question)):
        raise invalid(f"{METRICS_MEMBER} not supported for these filters: {', '.join(refused)}")
    return question, page


def read_page_query(query_string: str, revision: Revision = PAGED) -> PageRequest:
    """Reads the query string of `GET /v2/instances`, which takes only the parameters of a page.

    Raises:
        Refusal: 400 `ANL_00400`.
    """
    given = _Given(query_string)
    page = _page(given, revision, "instances")
    given.refuse_the_rest()
    return page


class _Given:
    """The parameters as they came; reading one takes it out, so that what remains is known to nobody."""

    def __init__(self, query_string: str) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)
        for name, value in parse_qsl(query_string, keep_blank_values=True):
            self._values[name].append(value)

    def one(self, name: str) -> str | None:
        values = self._values.pop(name, None)
        if values is None:
            return None
        if len(values) > 1:
            raise invalid(f"{name} must be given once")
        return values[0]

    def many(self, name: str) -> tuple[str, ...] | None:
        """An array in any of its three forms [S]: `p=a,b`, `p=a&p=b`, `p[]=a&p[]=b`; only the first has commas."""
        plain, bracketed = self._values.pop(name, []), self._values.pop(f"{name}[]", [])
        if len(plain) == 1:
            plain = plain[0].split(",")
        values = (*plain, *bracketed)
        if "" in values:
            raise invalid(f"{name} must not hold an empty value")
        return values or None

    def refuse_the_rest(self) -> None:
        """An unknown name is a client's bug, which an answer would hide."""
        if self._values:
            raise invalid(f"unknown parameter: {', '.join(sorted(self._values))}")


def _day(name: str, value: str | None) -> date:
    if value is None:
        raise invalid(f"{name} is required")
    if _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise invalid(f"{name} must be a day as YYYY-MM-DD")


def _page(given: _Given, revision: Revision, question: object) -> PageRequest:
    place = given.one(revision.place_parameter)
    size = _bounded(
        revision.size_parameter,
        given.one(revision.size_parameter),
        default=DEFAULT_PAGE_SIZE,
        maximum=MAXIMUM_PAGE_SIZE,
    )
    if revision is CURSOR:
        belongs_to = f"{question} by {size}"
        start = 0 if place is None else cursors.read(place, belongs_to=belongs_to)
        return PageRequest(start, size, revision, belongs_to)
    number = _bounded(revision.place_parameter, place, default=1, maximum=MAXIMUM_PAGE_NUMBER)
    return PageRequest((number - 1) * size, size, revision)


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


def _bounded(name: str, value: str | None, *, default: int, maximum: int) -> int:
    if value is None:
        return default
    number = _number(value) if _NATURAL.fullmatch(value) else None
    if number is None or not 1 <= number <= maximum:
        raise invalid(f"{name} must be a whole number from 1 to {maximum}")
    return number


def _campaign_ids(values: tuple[str, ...] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    if len(values) > MAXIMUM_CAMPAIGN_IDS:
        raise invalid(f"campaignIds must hold at most {MAXIMUM_CAMPAIGN_IDS} ids")
    numbers = [_number(value) if _INTEGER.fullmatch(value) else None for value in values]
    known = tuple(number for number in numbers if number is not None)
    if len(known) < len(numbers):
        raise invalid("campaignIds must hold whole numbers")
    return known


def _number(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return None


def _choice(choices: type[_Choice], name: str, value: str | None, *, default: _Choice) -> _Choice:
    if value is None:
        return default
    if value not in set(choices):
        raise invalid(f"{name} must be one of {', '.join(choices)}")
    return choices(value)


def _choices(choices: type[_Choice], name: str, values: tuple[str, ...] | None) -> tuple[_Choice, ...] | None:
    if values is None:
        return None
    if not set(values) <= set(choices):
        raise invalid(f"{name} must hold only {', '.join(choices)}")
    return tuple(choices(value) for value in values)


def _sort_property(value: str | None) -> SortProperty:
    """The document names no default order; newest first is what its default direction suggests."""
    if value is None:
        return SortProperty.POST_DATE
    if value not in set(SortProperty):
        detail = f"sortProperty must be one of {', '.join(SortProperty)}"
        raise Refusal(HTTPStatus.BAD_REQUEST, ProblemType.INVALID_SORT, detail)
    return SortProperty(value)
