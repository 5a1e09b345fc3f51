"""Fetches all pages of a list again when they are inconsistent."""

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TypeVar

from later_reporting_dagster.client.client_events import ClientEvent, PagesRefetched
from later_reporting_dagster.client.errors import InconsistentPages

logger = logging.getLogger(__name__)

MAX_FETCHES = 2
ADVICE_ON_POSTS = "Posts may be changing: try later, or query fewer days or instances at once."

_Result = TypeVar("_Result")


class Inconsistency(Exception):  # noqa: N818 - named for what happened
    """The pages are inconsistent, for the reason in the message."""


async def fetch_until_consistent(
    describe: Callable[[], str],
    fetch: Callable[[], Awaitable[_Result]],
    *,
    on_event: Callable[[ClientEvent], None],
    advice: str = "Try later.",
) -> _Result:
    """Return the result of `fetch`, or of a second call if the first one raises `Inconsistency`.

    Args:
        describe: returns the query for messages; a function, because the end date may change during a fetch.
        fetch: fetches and checks all pages.
        on_event: called before the second fetch.
        advice: the next step for the error message.

    Raises:
        InconsistentPages: both calls raised `Inconsistency`.
    """
    problem: str | None = None
    for _ in range(MAX_FETCHES):
        if problem is not None:
            logger.info("%s: %s; fetching all pages again", describe(), problem)
            on_event(PagesRefetched(problem))
        try:
            return await fetch()
        except Inconsistency as error:
            problem = str(error)
    raise InconsistentPages(
        f"{describe()}: inconsistent pages in {MAX_FETCHES} fetches: {problem}. None of them was used. {advice}"
    )


def check_verification(first: Iterable[Hashable], second: Iterable[Hashable]) -> None:
    """Compare the row keys of a fetch and of its verification fetch.

    Raises:
        Inconsistency: they differ.
    """
    if differences := {*first} ^ {*second}:
        raise Inconsistency(f"{len(differences)} rows differ in a verification fetch")
