"""Pages of the API in the version that the service speaks, which is detected once and noticed when it changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from later_reporting_dagster.client.client_events import ClientEvent, RevisionChanged
from later_reporting_dagster.client.errors import ContractBroken, QueryRefused, TooManyPosts
from later_reporting_dagster.client.responses import Answer, Question
from later_reporting_dagster.client.transport import Exchange
from later_reporting_dagster.client.version_cache import RevisionMemory
from later_reporting_dagster.contract import (
    CURSOR,
    INSTANCES_PATH,
    MAXIMUM_PAGE_NUMBER,
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

MAXIMUM_PAGES = 2 * MAXIMUM_PAGE_NUMBER  # what numbered pages reach from both ends
MAXIMUM_BYTES = 48 * 2**20  # a post has about 700; text with an emoji takes four times its size in memory

_Result = TypeVar("_Result")


@dataclass(slots=True)
class Volume:
    """What the pages of one walk hold so far: it ends even if each of them leads to another."""

    pages: int = 0
    size: int = 0


class Lists:
    """Fetches pages in the version that the service speaks.

    Args:
        exchange: the connections.
        revision: the version that the service speaks; None to detect it, and to notice when it changes.
        memory: caches the detected version.
        tell: called when it changes.
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
        """Return the version that the service speaks, asked for with one request where it is not known yet.

        Raises:
            LaterError: as `get`.
        """
        async with self._asking:
            return self._revision or await self._detect()

    async def in_revision(
        self,
        what: str,
        *,
        paged: Callable[[], Awaitable[_Result]],
        by_cursor: Callable[[], Awaitable[_Result]],
        guess: Revision | None = None,
    ) -> _Result:
        """Call the function of the version that the service speaks, and again when that changes meanwhile.

        Args:
            what: names the list in errors.
            paged: fetches it by numbered pages.
            by_cursor: fetches it by cursor.
            guess: tried while the version is not known, which saves the request that detects it when it is right.

        Raises:
            ContractBroken: it changes each time.
            LaterError: as what is called.
        """
        for _ in range(REVISIONS_OF_A_WALK):
            revision = self._revision or guess or await self.revision()
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
        volume: Volume,
        read: Callable[[bytes], _Result],
    ) -> _Result:
        """Fetch a page in a version, and count it in the volume of its walk.

        Raises:
            TooManyPosts: the walk is longer or larger than any may be.
            RevisionLeft: the service speaks the other one.
            LaterError: no retry changes it, or it lasted for longer than the retry policy covers.
        """

        def read_body(answer: Answer) -> _Result:
            try:
                page = read(answer.body)
            except OtherRevision as other:
                if self._tells_itself:
                    raise
                raise UnreadablePage(str(other)) from None  # it was said to speak this one: perhaps the next time
            volume.pages, volume.size = volume.pages + 1, volume.size + len(answer.body)
            if volume.pages > MAXIMUM_PAGES or volume.size > MAXIMUM_BYTES:
                raise TooManyPosts(
                    f"{question.text}: with it, the walk has more than {MAXIMUM_PAGES} pages or {MAXIMUM_BYTES} bytes."
                    " Ask for fewer days or instances.",
                    total_items=MAXIMUM_PAGES * MAXIMUM_PAGE_SIZE,
                )
            return page

        try:
            page = await self._exchange.get(f"{path}?{urlencode(parameters)}", question=question, read=read_body)
        except OtherRevision as other:
            self.note(other.revision)
            raise RevisionLeft from None
        except QueryRefused as error:
            if self._tells_itself and error.status == 400 and await self._has_left(revision):
                raise RevisionLeft from None
            raise
        if self._revision is None:
            self.note(revision)
        return page

    async def _detect(self) -> Revision:
        revision = await self._exchange.get(INSTANCES_PATH, question=Question("instances"), read=revision_in)
        self.note(revision)
        return revision

    async def _has_left(self, revision: Revision) -> bool:
        async with self._asking:
            if self._revision in (None, revision):
                await self._detect()
            return self._revision is not revision

    def note(self, revision: Revision) -> None:
        """Take over the version of a response, unless it is set."""
        before = self._revision
        if before is revision or not self._tells_itself:
            return
        self._revision = revision
        self._memory.keep(revision)
        if before is not None:
            changed = RevisionChanged(before.name, revision.name)
            logger.info("%s", changed)
            self._tell(changed)


class RevisionLeft(Exception):  # noqa: N818 - named for what it is
    """The service no longer speaks the version in which it was asked."""


def revision_in(answer: Answer) -> Revision:
    """Return the API version that a response of the instances route without page parameters is of.

    Raises:
        UnreadablePage: it is of neither.
    """
    try:
        instances_page_from_body(answer.body)
    except OtherRevision:
        instances_cursor_page_from_body(answer.body)
        return CURSOR
    return PAGED


def page_parameters(revision: Revision, place: int | str | None) -> list[tuple[str, str]]:
    """The parameters of the largest page at a place; None for the first one by cursor."""
    size = (revision.size_parameter, str(MAXIMUM_PAGE_SIZE))
    return [size] if place is None else [size, (revision.place_parameter, str(place))]
