"""The lists of the API in the revision that the service speaks, which is asked once and noticed when it changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from later_reporting_dagster.client.answers import Answer, Question
from later_reporting_dagster.client.errors import ContractBroken, QueryRefused
from later_reporting_dagster.client.events import ClientEvent, RevisionChanged
from later_reporting_dagster.client.exchange import Exchange, Tally
from later_reporting_dagster.client.memory import RevisionMemory
from later_reporting_dagster.client.walk import problem_of_instances
from later_reporting_dagster.contract import (
    CURSOR,
    INSTANCES_PATH,
    MAXIMUM_PAGE_SIZE,
    PAGED,
    OtherRevision,
    Revision,
    UnreadablePage,
    instances_cursor_page_from_body,
    instances_page_from_body,
)

logger = logging.getLogger(__name__)

# A service that changes its revision more often within one walk has none.
REVISIONS_OF_A_WALK = 4

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class FirstInstances:
    """What the instances route answers when nothing is said of pages: it tells the revision."""

    revision: Revision
    instance_ids: tuple[str, ...]
    are_all: bool


class Lists:
    """Asks for pages, and knows in which revision.

    Args:
        exchange: the connections.
        revision: the one that the service speaks; None to ask it, and to notice when that changes.
        memory: what is known of it.
        tell: told of a change.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        revision: Revision | None,
        memory: RevisionMemory,
        tell: Callable[[ClientEvent], None],
    ) -> None:
        self._exchange = exchange
        self._memory = memory
        self._tells_itself = revision is None
        self._revision = memory.recall() if revision is None else revision
        self._asking = asyncio.Lock()
        self._tell = tell

    async def revision(self) -> Revision:
        """The revision that the service speaks, asked for with one request where that is not known yet.

        Raises:
            LaterError: as `get`.
        """
        async with self._asking:
            return self._revision or (await self._asked()).revision

    async def all_of_first_instances(self) -> tuple[str, ...] | None:
        """All instances, if the revision is not known and the answer that tells it happens to have all of them.

        Raises:
            LaterError: as `get`.
        """
        if self._revision is not None:
            return None
        first = await self._asked()
        return first.instance_ids if first.are_all else None

    def note(self, revision: Revision) -> None:
        """Takes over what an answer tells of the revision, unless it is set."""
        if self._tells_itself:
            self._note(revision)

    async def in_revision(
        self,
        what: str,
        *,
        paged: Callable[[], Awaitable[_Result]],
        by_cursor: Callable[[], Awaitable[_Result]],
    ) -> _Result:
        """Asks in the revision that the service speaks, and once more where it has changed under the asking.

        Raises:
            ContractBroken: it changes each time.
            LaterError: as what is asked.
        """
        for _ in range(REVISIONS_OF_A_WALK):
            revision = await self.revision()
            try:
                return await (paged if revision.has_totals else by_cursor)()
            except RevisionLeft:
                continue
        raise ContractBroken(
            f"{what}: the service answers now in one revision of the API, now in another. Try again later, or set the"
            " one that it should speak (LATER_API_REVISION)."
        )

    async def get(
        self,
        path: str,
        parameters: Sequence[tuple[str, str]],
        *,
        revision: Revision,
        question: Question,
        read: Callable[[bytes], _Result],
        tally: Tally,
    ) -> _Result:
        """A page of a list, asked for in a revision.

        Raises:
            RevisionLeft: the service speaks the other one.
            LaterError: what no repetition changes, or what lasted for longer than the retry policy covers.
        """

        def read_body(answer: Answer) -> _Result:
            try:
                return read(answer.body)
            except OtherRevision as other:
                if self._tells_itself:
                    raise
                raise UnreadablePage(str(other)) from None  # it was said to speak this one: perhaps the next time

        try:
            return await self._exchange.get(
                f"{path}?{urlencode(parameters)}", question=question, read=read_body, tally=tally
            )
        except OtherRevision as other:
            self._note(other.revision)
            raise RevisionLeft from None
        except QueryRefused as error:
            if self._tells_itself and error.status == 400 and await self._has_left(revision):
                raise RevisionLeft from None
            raise

    async def _asked(self) -> FirstInstances:
        first = await self._exchange.get(
            INSTANCES_PATH, question=Question("instances"), read=first_instances_in, tally=Tally()
        )
        self._note(first.revision)
        return first

    async def _has_left(self, revision: Revision) -> bool:
        """Whether the service speaks another revision by now, as its instances tell."""
        async with self._asking:
            if self._revision is revision:
                await self._asked()
            return self._revision is not revision

    def _note(self, revision: Revision) -> None:
        before, self._revision = self._revision, revision
        if before is revision:
            return
        self._memory.keep(revision)
        if before is not None:
            changed = RevisionChanged(before.name, revision.name)
            logger.info("%s", changed)
            self._tell(changed)


class RevisionLeft(Exception):  # noqa: N818 - named for what it is
    """The service does not speak the revision any more in which it was asked."""


def first_instances_in(answer: Answer) -> FirstInstances:
    """Reads the answer in either revision.

    Raises:
        UnreadablePage: it is of neither.
    """
    try:
        page = instances_page_from_body(answer.body)
    except OtherRevision:
        by_cursor = instances_cursor_page_from_body(answer.body)
        return FirstInstances(CURSOR, tuple(by_cursor.data.instance_ids), are_all=by_cursor.next_cursor is None)
    ids = tuple(page.data.instance_ids)
    return FirstInstances(PAGED, ids, are_all=problem_of_instances([page]) is None)


def page_parameters(revision: Revision, place: int | str | None) -> list[tuple[str, str]]:
    """The largest page at a place; None for the first one by cursor."""
    size = (revision.size_parameter, str(MAXIMUM_PAGE_SIZE))
    return [size] if place is None else [size, (revision.place_parameter, str(place))]
