"""Faults of servers, proxies and networks at random, as changes of the responses of the independent server.

Like that server, they share no code with the package.
"""

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from email.utils import formatdate
from random import Random
from typing import Any

import pyarrow as pa

from tests.deviations import (
    CURSOR,
    INSTANCES,
    PAGED,
    POSTS,
    TOKEN,
    Change,
    body,
    dropped,
    of,
    pagination,
    refused,
    silent,
    when,
    without_pagination,
)
from tests.independent_server import Asked, Reply, Row

BOTH = (*PAGED, *CURSOR)
HUGE = 5 * 2**20
"""Bytes, more than a client reads of a response."""


def any_route(change: Callable[[Reply], Reply]) -> Change:
    return lambda asked, reply: change(reply)


def plain(status: int, text: str, **headers: str) -> Change:
    """Respond as a proxy does, without JSON."""
    media_type = "text/html" if text.startswith("<") else "text/plain"
    return any_route(
        lambda reply: replace(refused(status, Content_Type=media_type, **headers)(reply), content=text.encode())
    )


def too_many_until_a_date(asked: Asked, reply: Reply) -> Reply:
    return plain(429, "Too Many Requests", Retry_After=formatdate(time.time(), usegmt=True))(asked, reply)


def cut(asked: Asked, reply: Reply) -> Reply:
    """Close the connection within the body."""
    content = json.dumps(reply.document).encode()
    headers = {"Content-Length": str(len(content)), "Connection": "close"}
    return replace(reply, content=content[: place(asked, len(content))], headers=headers)


def cut_json(asked: Asked, reply: Reply) -> Reply:
    return body(lambda content: content[: 1 + place(asked, len(content) - 1)])(reply)


def cut_gzip(asked: Asked, reply: Reply) -> Reply:
    def cut(content: bytes) -> bytes:
        whole = gzip.compress(content)
        return whole[: 1 + place(asked, len(whole) - 9)]  # before the checksum and the size

    return body(cut, Content_Encoding="gzip")(reply)


def place(asked: Asked, length: int) -> int:
    """Draw a number below the length, by the request and how often it was sent."""
    return Random(f"{asked}").randrange(length)


brotli = body(lambda content: bytes(pa.compress(content, "brotli", asbytes=True)), Content_Encoding="br")
huge = body(lambda content: content[:-1] + b" " * HUGE + content[-1:])


# Faults of the pages of posts, as changes of a document in place


def page(change: Callable[[Asked, Row], object]) -> Change:
    def changed(asked: Asked, reply: Reply) -> Reply:
        if asked.path != POSTS:
            return reply
        document = json.loads(json.dumps(reply.document))
        change(asked, document)
        return reply if document == reply.document else replace(reply, document=document)

    return changed


def has_next(document: Row) -> bool:
    pages = document.get("pagination")
    return pages["page"] < pages["totalPages"] if pages else document["nextCursor"] is not None


def repeat_cursor(asked: Asked, document: Row) -> None:
    if has_next(document):
        document["nextCursor"] = asked.values.get("nextCursor", [document["nextCursor"]])[0]


def leave_rows_out(asked: Asked, document: Row) -> None:
    """Leave the last rows of a page out, unless it is the last page."""
    if has_next(document):
        del document["data"][place(asked, len(document["data"])) :]


def date_after_the_range(asked: Asked, document: Row) -> None:
    """Give a post a date that no time zone explains; by performance date, posts may have any date."""
    if asked.values["dateBasis"] == ["post_date"]:
        later = date.fromisoformat(asked.values["endDate"][0]) + timedelta(days=2)
        change_last_row(document, postDate=f"{later}T00:00:00.000Z")


def change_last_row(document: Row, **changed: Any) -> None:
    for row in document["data"][-1:]:
        row |= changed


@dataclass
class RepeatedPage:
    """Sends the rows of the page of the same query that was sent before."""

    sent: dict[str, Any] = field(default_factory=dict)

    def __call__(self, asked: Asked, document: Row) -> None:
        query = str({name: value for name, value in asked.values.items() if name not in ("pageNumber", "nextCursor")})
        document["data"] = self.sent.setdefault(query, document["data"])


FAULTS: Mapping[str, tuple[Change, tuple[str, ...]]] = {
    "429 for seconds": (plain(429, "Too Many Requests", Retry_After="0"), PAGED),
    "429 until a date": (too_many_until_a_date, PAGED),
    "429": (plain(429, "Too Many Requests"), BOTH),
    "500": (any_route(refused(500)), PAGED),
    "503": (plain(503, "upstream connect error"), BOTH),
    "502 in HTML": (plain(502, "<html><h1>502 Bad Gateway</h1></html>"), PAGED),
    "200 in HTML": (plain(200, "<html><h1>Back soon</h1></html>"), PAGED),
    "dropped connection": (any_route(dropped), PAGED),
    "cut body": (cut, BOTH),
    "cut JSON": (cut_json, BOTH),
    "cut gzip": (cut_gzip, PAGED),
    "brotli, although no request accepts it": (any_route(brotli), PAGED),
    "time-out": (any_route(silent), PAGED),
    "huge body": (any_route(huge), PAGED),
    "401": (lambda asked, reply: refused(401)(reply) if asked.path in (POSTS, INSTANCES) else reply, BOTH),
    "no tokens": (of(TOKEN, refused(503)), PAGED),
    "no pagination": (page(lambda _, document: without_pagination(document)), BOTH),
    "higher total": (pagination(totalItems=lambda total: total + 1), PAGED),
    "lower total": (pagination(totalItems=lambda total: max(0, total - 1)), PAGED),
    "total without the last page": (pagination(totalItems=lambda total: (total - 1) // 100 * 100 or total), PAGED),
    "repeated cursor": (page(repeat_cursor), CURSOR),
    "early end": (page(lambda _, document: document.update(nextCursor=None)), CURSOR),
    "expired cursor": (when(lambda asked: "nextCursor" in asked.values, refused(400)), CURSOR),
    "short page": (page(leave_rows_out), BOTH),
    "repeated page": (page(RepeatedPage()), BOTH),
    "post outside of the range": (page(date_after_the_range), BOTH),
    "post of another instance": (page(lambda _, document: change_last_row(document, instanceId="999")), BOTH),
}
"""Changes of a response, and the API versions to try them in: one suffices if they do not depend on it."""


@dataclass
class RandomFaults:
    """Changes a share of the successful responses, by the seed, the request and how often it was sent.

    Attributes:
        shares: probabilities by name in `FAULTS`; tests empty it to end all faults.
        injected: number of changed responses, by fault.
    """

    shares: Mapping[str, float]
    seed: int = 0
    injected: Counter[str] = field(default_factory=Counter)

    def __call__(self, asked: Asked, reply: Reply) -> Reply:
        weights = [*self.shares.values(), 1 - sum(self.shares.values())]
        (name,) = Random(f"{self.seed} {asked}").choices([*self.shares, None], weights)
        if name is None or reply.status != 200:
            return reply
        changed = FAULTS[name][0](asked, reply)
        self.injected[name] += changed is not reply
        return changed
