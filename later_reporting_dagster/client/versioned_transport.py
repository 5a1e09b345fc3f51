"""Fetches pages in the API version of the service, which is detected at the first request and whenever it changes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from later_reporting_dagster.client.client_events import ApiVersionChanged, ClientEvent
from later_reporting_dagster.client.errors import QueryRejected, TooManyPosts, UnexpectedResponse
from later_reporting_dagster.client.responses import RequestContext, Response
from later_reporting_dagster.client.transport import Transport
from later_reporting_dagster.client.version_cache import VersionCache
from later_reporting_dagster.contract import (
    CURSOR,
    INSTANCES_PATH,
    MAX_PAGE_NUMBER,
    PAGED,
    ApiVersion,
    OtherApiVersion,
    UnreadableBody,
    instances_page_from_body,
)

MAX_VERSIONS_PER_QUERY = 4  # a service that changes its version more often than this during one query is faulty

MAX_PAGES = 2 * MAX_PAGE_NUMBER  # all numbered pages, from the start and from the end
# Limit on the bodies of one pagination, to bound memory: about 70,000 posts of 700 bytes. In memory they may take four
# times as much, because a string that contains an emoji takes four bytes per character.
MAX_BYTES = 48 * 2**20
FEWER_POSTS_ADVICE = "Query fewer days or instances."

_Result = TypeVar("_Result")


@dataclass(slots=True)
class PaginationSize:
    """Number of pages and bytes of one pagination so far.

    Both are limited: a faulty service could state a next cursor on every page, and pages are kept in memory.

    Attributes:
        advice: the next step if the limit is exceeded, for the error message.
        pages: number of pages.
        body_bytes: total size of their bodies.
    """

    advice: str
    pages: int = 0
    body_bytes: int = 0

    def add(self, body: bytes) -> None:
        """Count one more page."""
        self.pages, self.body_bytes = self.pages + 1, self.body_bytes + len(body)

    @property
    def is_exceeded(self) -> bool:
        """Whether the pagination is longer or larger than allowed."""
        return self.pages > MAX_PAGES or self.body_bytes > MAX_BYTES


class VersionedTransport:
    """Fetches pages in the API version of the service; detects that version and its changes.

    Args:
        transport: sends the requests.
        api_version: the API version; None to detect it and its changes.
        cache: stores the detected version.
        on_event: called when the version changes.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        api_version: ApiVersion | None,
        cache: VersionCache,
        on_event: Callable[[ClientEvent], None],
    ) -> None:
        self._transport = transport
        self._cache = cache
        self._follows_changes = api_version is None
        self._version = cache.load() if api_version is None else api_version
        self._detection_lock = asyncio.Lock()
        self._on_event = on_event

    async def api_version(self) -> ApiVersion:
        """Return the API version; detect it with one request if it is unknown.

        Raises:
            LaterError: as `get_page`.
        """
        async with self._detection_lock:
            return self._version or await self._detect()

    async def call_for_version(
        self,
        description: str,
        *,
        paged: Callable[[], Awaitable[_Result]],
        cursor: Callable[[], Awaitable[_Result]],
        guess: ApiVersion | None = None,
    ) -> _Result:
        """Call the function for the API version; if the version changes meanwhile, call the other function.

        Args:
            description: what is fetched, for messages.
            paged: the function for the paged version.
            cursor: the function for the cursor version.
            guess: the version to try first while the version is unknown; a correct guess saves the detection request.

        Raises:
            UnexpectedResponse: the version changed in each call.
            LaterError: raised by the called function.
        """
        for _ in range(MAX_VERSIONS_PER_QUERY):
            version = self._version or guess or await self.api_version()
            try:
                return await (cursor if version.uses_cursors else paged)()
            except VersionMismatch:
                continue
        raise UnexpectedResponse(
            f"{description}: the service responds in alternating API versions. Try again later, or set the version"
            " (LATER_API_VERSION)."
        )

    async def get_page(
        self,
        path: str,
        parameters: Sequence[tuple[str, str]],
        *,
        api_version: ApiVersion,
        context: RequestContext,
        size: PaginationSize,
        parse: Callable[[bytes], _Result],
    ) -> _Result:
        """Fetch a page in an API version, and count it in the size of its pagination.

        Raises:
            TooManyPosts: the pagination is longer or larger than allowed.
            VersionMismatch: the service uses the other version.
            LaterError: the request failed permanently, or temporarily in every attempt.
        """

        def parse_page(response: Response) -> _Result:
            try:
                page = parse(response.body)
            except OtherApiVersion as other:
                if self._follows_changes:
                    raise
                # The user has set the version, so a response in the other version is a fault of the service: retry.
                raise UnreadableBody(str(other)) from None
            size.add(response.body)
            if size.is_exceeded:
                raise TooManyPosts(
                    f"{context.description}: the list has more than {MAX_PAGES} pages or {MAX_BYTES} bytes."
                    f" {size.advice}"
                )
            return page

        try:
            page = await self._transport.get(f"{path}?{urlencode(parameters)}", context=context, parse=parse_page)
        except OtherApiVersion as other:
            self.observe(other.api_version)
            raise VersionMismatch from None
        except QueryRejected as error:
            # The parameters of one version are invalid in the other.
            if self._follows_changes and error.status == 400 and await self._has_changed_from(api_version):
                raise VersionMismatch from None
            raise
        if self._version is None:
            self.observe(api_version)
        return page

    async def _detect(self) -> ApiVersion:
        context = RequestContext("instances")
        version = await self._transport.get(INSTANCES_PATH, context=context, parse=version_of_response)
        self.observe(version)
        return version

    async def _has_changed_from(self, version: ApiVersion) -> bool:
        async with self._detection_lock:
            if self._version in (None, version):
                await self._detect()
            return self._version is not version

    def observe(self, version: ApiVersion) -> None:
        """Adopt the API version of a response, unless the user has set one."""
        before = self._version
        if before is version or not self._follows_changes:
            return
        self._version = version
        self._cache.store(version)
        if before is not None:
            self._on_event(ApiVersionChanged(before.name, version.name))


class VersionMismatch(Exception):  # noqa: N818 - named for what happened
    """The service does not use the API version of the request."""


def version_of_response(response: Response) -> ApiVersion:
    """Return the API version of a response to `GET /v2/instances` without parameters (docs/api.md, "Instances").

    Raises:
        UnreadableBody: the response is a page of neither version.
    """
    try:
        instances_page_from_body(response.body, PAGED)
    except OtherApiVersion:
        instances_page_from_body(response.body, CURSOR)
        return CURSOR
    return PAGED
