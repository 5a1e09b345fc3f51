"""Fetches all pages again when they do not add up, or when a second look at them shows other rows."""

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TypeVar

from later_reporting_dagster.client.client_events import ClientEvent, WalkRepeated
from later_reporting_dagster.client.errors import WalkInconsistent

logger = logging.getLogger(__name__)

WALKS = 2
ADVICE_ON_POSTS = "Posts may be arriving just now: try later, or ask for fewer days or instances at once."

_Result = TypeVar("_Result")


class Misfit(Exception):  # noqa: N818 - named for what it is
    """The pages are not one whole answer, and why."""


async def until_it_adds_up(
    what: Callable[[], str],
    attempt: Callable[[], Awaitable[_Result]],
    *,
    tell: Callable[[ClientEvent], None],
    advice: str = "Try later.",
) -> _Result:
    """Return the result of an attempt, or of a second one when the first raises `Misfit`.

    Args:
        what: returns the query, for messages: a walk may have cut it meanwhile.
        attempt: fetches all pages.
        tell: called before the second attempt.
        advice: what to do when both fail.

    Raises:
        WalkInconsistent: both failed.
    """
    problem: str | None = None
    for _ in range(WALKS):
        if problem is not None:
            logger.info("%s: %s; all pages again", what(), problem)
            tell(WalkRepeated(problem))
        try:
            return await attempt()
        except Misfit as misfit:
            problem = str(misfit)
    raise WalkInconsistent(
        f"{what()}: walked {WALKS} times, and the pages do not add up: {problem}. Nothing of it was used. {advice}"
    )


def check_second_look(first: Iterable[Hashable], second: Iterable[Hashable]) -> None:
    """Compare the keys of two looks at one answer.

    Raises:
        Misfit: they differ.
    """
    if differ := {*first} ^ {*second}:
        raise Misfit(f"at a second look {len(differ)} rows were others")
