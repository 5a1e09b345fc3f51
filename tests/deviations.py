"""Plausible deviations of the real API from its reference, and what a fetch must store in spite of each.

Like the independent server, whose responses they change, they share no code with the package.
"""

import gzip
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.independent_server import AMOUNTS, METRICS, RATES, REPORTED_DAYS, WHOLE_METRICS, Asked, Posts, Reply, Row

DAYS = [date(2024, 2, 26) + timedelta(days=offset) for offset in range(6)]
INSTANCE_IDS = ("101", "202", "303")
BAD_DAY, BAD_INSTANCE = DAYS[3], "202"
THIN_DAY = DAYS[1]  # with rows in the lake before the API deviates
POSTS, INSTANCES, TOKEN = "/v2/posts/performance", "/v2/instances", "/oauth/token"  # noqa: S105 - a route

Change = Callable[[Asked, Reply], Reply]
Pairs = list[tuple[str, str]]
RowsChange = Callable[[list[Row]], list[Row]]


class PlainPosts(Posts):
    """Posts that all have engagements and impressions; the last instance has none before the third day.

    `rows`: how many rows an instance has on a day; None for four posts or more, up to `most`.
    """

    def __init__(
        self, *, hours_from_utc: int = 0, restated: bool = False, rows: int | None = None, most: int = 8
    ) -> None:
        first = DAYS[0] - timedelta(days=REPORTED_DAYS)
        least, most = (4, most) if rows is None else (rows, rows)
        super().__init__(first_day=first, days=len(DAYS) + 5, instance_ids=INSTANCE_IDS, seed=3, least=least, most=most)
        self.hours_from_utc = hours_from_utc
        self._rows = rows
        early = (first + timedelta(days=offset) for offset in range(REPORTED_DAYS + 2))
        self.hidden |= {number for day in early for number in self.ids(day, INSTANCE_IDS[-1])}
        for row in self.published(first, DAYS[-1]) if restated else ():
            self.restate(row["postId"])

    @classmethod
    @cache
    def at(cls, hours_from_utc: int) -> "PlainPosts":
        """Return the posts of an account with days of another time zone."""
        return cls(hours_from_utc=hours_from_utc)

    @cache  # noqa: B019 - few objects, which live as long as the tests
    def published(self, first: date, last: date) -> list[Row]:
        return self._some(super().published(first, last))

    @cache  # noqa: B019
    def reported(self, first: date, last: date) -> list[Row]:
        return self._some(super().reported(first, last))

    def _some(self, rows: list[Row]) -> list[Row]:
        of_instances = ([row for row in rows if row["instanceId"] == name][: self._rows] for name in INSTANCE_IDS)
        return [_with_counts(row) for of_instance in of_instances for row in of_instance]


def _with_counts(row: Row) -> Row:
    return row | {name: row[name] or row["postId"] % 997 + 1 for name in ("engagements", "impressions")}


# Which days, instances and rows


def nothing(*_: object) -> bool:
    return False


def everything(*_: object) -> bool:
    return True


def is_odd(row: Row) -> bool:
    """Return whether a deviation of few rows concerns this one: with both of a pair, at most half of a file's rows."""
    return int(row["postId"]) % 12 == 4


def has_rows(day: date, instance_id: str) -> bool:
    return instance_id != INSTANCE_IDS[-1] or day >= DAYS[2]


def is_mostly_of_thin_day(row: Row) -> bool:
    """Return whether a row is of the day that keeps few rows."""
    return row["postDate"].startswith(str(THIN_DAY)) and row["postId"] % 5 > 0


def is_thin_day(day: date, instance_id: str) -> bool:
    return day == THIN_DAY and has_rows(day, instance_id)


def is_bad_day(day: date, _instance_id: str) -> bool:
    return day == BAD_DAY


def is_bad_instance(_day: date, instance_id: str) -> bool:
    return instance_id == BAD_INSTANCE


def is_early(day: date, _instance_id: str) -> bool:
    return day < DAYS[2]


def is_edge(day: date, _instance_id: str) -> bool:
    return day in (DAYS[0], DAYS[-1])


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How the API deviates, and what must be stored in spite of it: all, unless the attributes say otherwise.

    Attributes:
        change: changes a response.
        read: changes the parameters of a request before they are read.
        rows: changes the posts of a query, whose metrics are members of the row.
        hours_from_utc: of the days of the account.
        versions: the API versions that can deviate so.
        tables: the tables whose requests can meet it.
        fails: whether the file of a day and an instance stays as it was. If one fails, those without rows may fail too.
        empties: whether its response has no rows: a stored file stays, and others may be without rows or fail.
        quarantined: whether a row is not stored.
        keeps: whether the stored row stays in place of a row that is not stored.
        means: the documented form of a row, if that is not the row of the server.
        nulls: the columns that are null in some rows, by the field whose value is in `extra` instead.
        is_null: in which rows.
        why: a part of the reason of each failure.
        instance_ids: the instances that the user lists; none for all that the API lists.
        padding_days: by how many days the user has ranges asked wider.
        is_version_set: whether the user has set the API version.
    """

    change: Change = lambda asked, reply: reply
    read: Callable[[Pairs], Pairs] = lambda pairs: pairs
    rows: RowsChange = lambda rows: rows
    hours_from_utc: int = 0
    versions: Sequence[str] = ("paged", "cursor")
    tables: Sequence[str] = ("posts_published", "post_metrics_daily")
    fails: Callable[[date, str], bool] = nothing
    empties: Callable[[date, str], bool] = nothing
    quarantined: Callable[[Row], bool] = nothing
    keeps: bool = False
    means: Callable[[Row], Row] = lambda row: row
    nulls: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_null: Callable[[Row], bool] = is_odd
    why: str = ""
    instance_ids: tuple[str, ...] = ()
    padding_days: int = 0
    is_version_set: bool = False

    def read_target(self, target: str) -> str:
        """Return the target of a request as the server reads it."""
        url = urlsplit(target)
        return f"{url.path}?{urlencode(self.read(parse_qsl(url.query)))}" if url.query else target


# Which responses


def of(path: str, change: Callable[[Reply], Reply]) -> Change:
    """Change the successful responses of a route."""
    return lambda asked, reply: change(reply) if asked.path == path and reply.status == 200 else reply


def once(change: Callable[[Reply], Reply], *, later_page: bool = False) -> Change:
    """Change the first response to each request for posts; `later_page`: only if it is not for the first page."""

    def concerns(asked: Asked) -> bool:
        page = (*asked.values.get("pageNumber", ()), *asked.values.get("nextCursor", ()))
        return asked.times == 1 and (page not in ((), ("1",)) or not later_page)

    return when(concerns, change)


def when(concerns: Callable[[Asked], bool], change: Callable[[Reply], Reply]) -> Change:
    """Change the responses to some requests for posts."""
    return lambda asked, reply: change(reply) if asked.path == POSTS and concerns(asked) else reply


def day_range(asked: Asked) -> tuple[date, date]:
    first, last = (date.fromisoformat(asked.values[name][0]) for name in ("startDate", "endDate"))
    return first, last


def asks_for_day(asked: Asked) -> bool:
    first, last = day_range(asked)
    return first <= BAD_DAY <= last


def asks_for_instance(asked: Asked) -> bool:
    return BAD_INSTANCE in asked.values.get("instanceIds", INSTANCE_IDS)


def asks_for_early_day(asked: Asked) -> bool:
    return is_early(day_range(asked)[0], "")


def asks_for_days(number: int) -> Callable[[Asked], bool]:
    """Return whether a request is for more than so many days."""
    return lambda asked: (day_range(asked)[1] - day_range(asked)[0]).days >= number


def asks_for_three_instances(asked: Asked) -> bool:
    return len(asked.values.get("instanceIds", INSTANCE_IDS)) == len(INSTANCE_IDS)


def asks_for_metric(asked: Asked) -> bool:
    return "paidCpm" in ",".join(asked.values.get("metrics", ())).split(",")


# Changes of a response


def refused(status: int, title: str = "refused", **headers: str) -> Callable[[Reply], Reply]:
    document = {"type": f"ANL_00{status}", "title": title, "detail": "not possible"}
    return lambda reply: Reply(status, document, _headers(headers))


def with_status(number: int) -> Callable[[Reply], Reply]:
    return lambda reply: replace(reply, status=number)


def with_headers(**headers: str) -> Change:
    return lambda asked, reply: replace(reply, headers={**reply.headers, **_headers(headers)})


def _headers(names: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in names.items()}


def no_content(_reply: Reply) -> Reply:
    return Reply(204, None, content=b"")


def dropped(_reply: Reply) -> Reply:
    return Reply(None, None)


def silent(_reply: Reply) -> Reply:
    return Reply(None, "nothing until the server ends")


def body(change: Callable[[bytes], bytes], **headers: str) -> Callable[[Reply], Reply]:
    """Change the bytes of a response."""
    return lambda reply: replace(reply, content=change(json.dumps(reply.document).encode()), headers=_headers(headers))


def problem_as_success(reply: Reply) -> Reply:
    return replace(refused(500)(reply), status=200)


def forbidden_as_success(reply: Reply) -> Reply:
    return replace(refused(403, "Forbidden")(reply), status=200)


def envelope(change: Callable[[Row], object]) -> Callable[[Reply], Reply]:
    """Change the document of a response in place, unless the change returns another one."""

    def changed(reply: Reply) -> Reply:
        document = json.loads(json.dumps(reply.document))
        found = change(document)
        return replace(reply, document=found if isinstance(found, dict) else document)

    return changed


def page(change: Callable[[Row], object]) -> Change:
    return of(POSTS, envelope(change))


def pagination(**members: Callable[[Any], Any] | None) -> Change:
    """Change members of the pagination of posts, or leave them out."""

    def change(document: Row) -> None:
        for name, value_of in members.items():
            stated = document["pagination"].pop(name)
            if value_of is not None:
                document["pagination"][name] = value_of(stated)

    return page(change)


def without_pagination(document: Row) -> None:
    document.pop("pagination", None)
    document.pop("nextCursor", None)


def on_last_page(change: Callable[[Row], object]) -> Change:
    return page(lambda document: None if document["nextCursor"] else change(document))


def end_on_page_of(rows: int) -> Change:
    """Send another cursor on the last page, and so many rows of the first page again on the page after it."""

    def change(asked: Asked, reply: Reply) -> Reply:
        if asked.values.get("nextCursor") == ["end"]:
            return Reply(200, {"data": reply.document["data"][:rows], "nextCursor": None})
        return on_last_page(lambda document: document.update(nextCursor="end"))(asked, reply)

    return change


def without_cursor_of_the_end(pairs: Pairs) -> Pairs:
    return [pair for pair in pairs if pair != ("nextCursor", "end")]


def error_without_rows(asked: Asked, reply: Reply) -> Reply:
    """Refuse the pages after the last one."""
    is_after = asked.path == POSTS and asked.values["pageNumber"] != ["1"] and not reply.document["data"]
    return refused(400)(reply) if is_after else reply


def swap_metrics(document: Row) -> None:
    """Nest metrics by pages, and do not by cursor."""
    for row in document["data"]:
        nested = row.pop("metrics", None)
        row |= nested or {"metrics": {name: row.pop(name) for name in METRICS if name in row}}


def instances(change: Callable[[list[str]], Any]) -> Change:
    def changed(document: Row) -> None:
        document["data"]["instanceIds"] = change(document["data"]["instanceIds"])

    return of(INSTANCES, envelope(changed))


def parameter(value: str, *names: str) -> Callable[[Pairs], Pairs]:
    """Read a value in place of that of some parameters."""
    return lambda pairs: [(name, value if name in names else given) for name, given in pairs]


# Changes of rows


def each(change: Callable[[Row], Row], only: Callable[[Row], bool] = everything) -> RowsChange:
    return lambda rows: [change(row) if only(row) else row for row in rows]


def fields(changes: Mapping[str, Callable[[Any], Any]], only: Callable[[Row], bool] = everything) -> RowsChange:
    """Change fields by name; those that are null stay so."""
    return each(lambda row: row | {name: of(row[name]) for name, of in changes.items() if row[name] is not None}, only)


def without(name: str, only: Callable[[Row], bool] = everything) -> RowsChange:
    return each(lambda row: {key: value for key, value in row.items() if key != name}, only)


def followed(change: Callable[[Row], Row]) -> RowsChange:
    """Add a changed row after each odd one."""
    return lambda rows: [found for row in rows for found in ([row, change(row)] if is_odd(row) else [row])]


def same(row: Row) -> Row:
    return row


def text(value: Any) -> str:
    """Return a number without an exponent."""
    return format(Decimal(repr(value)), "f")


def percent(value: Any) -> str:
    return f"{text(value)}%"


def not_available(_value: Any) -> str:
    return "n/a"


def in_the_east(time: str) -> str:
    """Return the same instant at +14:00, mostly on the next local day."""
    return datetime.fromisoformat(time).astimezone(timezone(timedelta(hours=14))).isoformat()


D = Deviation
PAGED, CURSOR = ("paged",), ("cursor",)
PUBLISHED, DAILY = ("posts_published",), ("post_metrics_daily",)
_PROFILE_FIELDS = ("content_type", "full_name", "handle_name", "profile_image", "profile_link")
PROFILE = tuple(f"creator_{name}" for name in _PROFILE_FIELDS)

# Changes of a response that cost nothing.
RESPONSES: dict[str, Change] = {
    "success is 201": of(POSTS, with_status(201)),
    "success is 203": of(POSTS, with_status(203)),
    "a token is created with 201": of(TOKEN, with_status(201)),
    "instances are listed with 206": of(INSTANCES, with_status(206)),
    **{f"one {status}": once(refused(status)) for status in (401, 408, 409, 423, 425, 429, 520)},
    "one 409 on a later page": once(refused(409), later_page=True),
    "one 400 with Retry-After": once(refused(400, Retry_After="0")),
    "one 403 with Retry-After": once(refused(403, Retry_After="0")),
    "one 599 without a body": once(lambda reply: Reply(599, None, content=b"")),
    "one 204": once(no_content),
    "one page of HTML": once(body(lambda _: b"<html>Just a moment</html>", Content_Type="text/html")),
    "one problem in a 200": once(problem_as_success),
    "one empty body": once(body(lambda _: b"")),
    "one dropped connection": once(dropped),
    "a byte order mark": of(POSTS, body(lambda content: b"\xef\xbb\xbf" + content)),
    "indented JSON": of(POSTS, body(lambda content: json.dumps(json.loads(content), indent=4).encode())),
    "gzip": of(POSTS, body(gzip.compress, Content_Encoding="gzip")),
    "a content type of text": with_headers(Content_Type="text/plain; charset=utf-8"),
    "a content type of a vendor": with_headers(Content_Type="application/vnd.later.v2+json"),
    "a rate limit of 0": with_headers(X_Ratelimit_Limit="0", X_Ratelimit_Window="60"),
    "a rate limit in words": with_headers(X_Ratelimit_Limit="unlimited", X_Ratelimit_Window="60s"),
    "a rate limit without a window": with_headers(X_Ratelimit_Limit="120"),
    "Retry-After beside success": with_headers(Retry_After="3600"),
    "further members": page(lambda document: document.update(success=True, meta={"took": 3}, links=None)),
    "data is null without rows": page(lambda document: document.update(data=document["data"] or None)),
    "204 without rows": of(POSTS, lambda reply: reply if reply.document["data"] else no_content(reply)),
    "few rows twice, counted once": page(lambda document: document.update(data=followed(same)(document["data"]))),
    "metrics at the other place": page(swap_metrics),
    "instances are numbers": instances(lambda ids: [*map(int, ids)]),
    "instances are objects": instances(lambda ids: [{"instanceId": name, "name": "a"} for name in ids]),
    "instances are objects with an id": instances(lambda ids: [{"id": name} for name in ids]),
    "an instance is listed twice": instances(lambda ids: [*ids, ids[0]]),
    "instances without a pagination": of(INSTANCES, envelope(without_pagination)),
    "a token with further members": of(TOKEN, envelope(lambda document: document.update(expiresIn=43200))),
}
PAGES: dict[str, Change] = {
    "the total is text": pagination(totalItems=str),
    "the total is a decimal": pagination(totalItems=float),
    "the pagination is text": pagination(page=str, pageSize=str, totalItems=str, totalPages=str),
    "no number of pages": pagination(totalPages=None),
    "the number of pages is null": pagination(totalPages=lambda _: None),
    "the number of pages is 1": pagination(totalPages=lambda _: 1),
    "the page is not echoed": pagination(page=None),
    "the page size is not echoed": pagination(pageSize=None),
    "only the total": pagination(page=None, pageSize=None, totalPages=None),
    "the page size is the number of rows": page(lambda d: d["pagination"].update(pageSize=len(d["data"]))),
    "the total is one more": pagination(totalItems=lambda total: total + 1),
    "the total is one less": pagination(totalItems=lambda total: total - 1),
    "a next cursor beside totals": page(lambda document: document.update(nextCursor=None)),
}
CURSORS: dict[str, Change] = {
    "a pagination beside cursors": page(lambda document: document.update(pagination={"limit": 100})),
    "the rows of a page are counted beside cursors": page(
        lambda document: document.update(pagination={"totalItems": len(document["data"])})
    ),
    "no cursor on the last page": on_last_page(lambda document: document.pop("nextCursor")),
    "an empty cursor on the last page": on_last_page(lambda document: document.update(nextCursor="")),
}
# Changes of rows that cost nothing.
ROWS: dict[str, RowsChange] = {
    "counts are text": fields(dict.fromkeys(WHOLE_METRICS, str)),
    "counts are decimals": fields(dict.fromkeys(WHOLE_METRICS, float)),
    "money and rates are text": fields(dict.fromkeys((*AMOUNTS, *RATES), text)),
    "rates have a percent sign": fields({"engagementRate": percent, "paidEngagementRate": percent}),
    "null is an empty text": each(lambda row: row | {name: "" for name in METRICS if row[name] is None}),
    "null metrics are left out": each(
        lambda row: {name: value for name, value in row.items() if name not in METRICS or value is not None}
    ),
    "ids are text": fields(dict.fromkeys(("campaignId", "creatorId", "postId"), str)),
    "the instance is a number": fields({"instanceId": int}),
    "times without a zone": fields({"postDate": lambda time: time.removesuffix("Z")}),
    "times with an offset": fields({"postDate": lambda time: time.replace("Z", "+00:00")}),
    "times of the east": fields({"postDate": in_the_east}),
    "times with a space": fields({"postDate": lambda time: time.replace("T", " ")}),
    "few rows twice": followed(same),
    "unknown fields": each(lambda row: row | {"audience": [{"a": 1}], "collab": None}),
}

DEVIATIONS: dict[str, Deviation] = {
    **{name: D(change=change, tables=PUBLISHED) for name, change in RESPONSES.items()},
    **{name: D(change=change, versions=PAGED) for name, change in PAGES.items()},
    **{name: D(change=change, versions=CURSOR) for name, change in CURSORS.items()},
    **{name: D(rows=change) for name, change in ROWS.items()},
    # Parameters that are read otherwise
    "pages of 50": D(read=parameter("50", "pageSize", "limit")),
    "pages of 50, stated as 100": D(
        read=parameter("50", "pageSize"), change=pagination(pageSize=lambda _: 100), versions=PAGED
    ),
    "pages of 50, not stated": D(
        read=parameter("50", "pageSize"), change=pagination(pageSize=None, totalPages=None), versions=PAGED
    ),
    "an error after the last page, which is full": D(
        read=parameter("1", "pageSize"), change=error_without_rows, versions=PAGED, instance_ids=INSTANCE_IDS[-1:]
    ),
    "always the first page": D(read=parameter("1", "pageNumber"), versions=PAGED),
    "always the first page, without an echo": D(
        read=parameter("1", "pageNumber"), change=pagination(page=None), versions=PAGED
    ),
    "an empty page after the last": D(read=without_cursor_of_the_end, change=end_on_page_of(0), versions=CURSOR),
    "a row again after the last page": D(read=without_cursor_of_the_end, change=end_on_page_of(1), versions=CURSOR),
    "another order": D(read=parameter("cpm", "sortProperty")),
    "days of UTC-5": D(hours_from_utc=-5, tables=DAILY),
    "days of UTC+9": D(hours_from_utc=9, tables=DAILY),
    "days of UTC-5, by post date": D(hours_from_utc=-5, tables=PUBLISHED, fails=is_edge, why="LATER_PADDING_DAYS"),
    "days of UTC-5, asked wider": D(hours_from_utc=-5, tables=PUBLISHED, padding_days=1),
    "days of UTC+9, by post date": D(hours_from_utc=9, tables=PUBLISHED, fails=is_edge, why="LATER_PADDING_DAYS"),
    "days of UTC+9, asked wider": D(hours_from_utc=9, tables=PUBLISHED, padding_days=1),
    # Queries that are refused
    "more than three days are a 400": D(change=when(asks_for_days(3), refused(400))),
    "more than three days are a 422": D(change=when(asks_for_days(3), refused(422))),
    "more than one day is a 413": D(change=when(asks_for_days(1), refused(413))),
    "more than two instances are a 400": D(change=when(asks_for_three_instances, refused(400))),
    "days before the contract are a 403": D(change=when(asks_for_early_day, refused(403)), fails=is_early),
    "days before the contract are a 400": D(change=when(asks_for_early_day, refused(400)), fails=is_early),
    "a day is a 418": D(change=when(asks_for_day, refused(418)), fails=is_bad_day),
    "a day is a 500 titled Forbidden": D(change=when(asks_for_day, refused(500, "Forbidden")), fails=is_bad_day),
    "an instance is a 500 titled Forbidden": D(
        change=when(asks_for_instance, refused(500, "Forbidden")), fails=is_bad_instance
    ),
    "a metric is a 400": D(
        change=when(asks_for_metric, refused(400)), versions=CURSOR, nulls={"": ("paid_cpm",)}, is_null=everything
    ),
    "a metric is a 422": D(
        change=when(asks_for_metric, refused(422)), versions=CURSOR, nulls={"": ("paid_cpm",)}, is_null=everything
    ),
    "instances cannot be listed, but are set": D(change=of(INSTANCES, refused(403)), instance_ids=INSTANCE_IDS),
    "instances cannot be listed, but are set, with the version": D(
        change=of(INSTANCES, refused(403)), is_version_set=True, instance_ids=INSTANCE_IDS
    ),
    **{
        f"the list of instances is a {status}, but they are set": D(
            change=of(INSTANCES, refused(status)), instance_ids=INSTANCE_IDS
        )
        for status in (302, 500)
    },
    "the list of instances is HTML, but they are set": D(
        change=of(INSTANCES, body(lambda _: b"<html>")), instance_ids=INSTANCE_IDS
    ),
    # What stays refused
    "401 for ever": D(change=of(POSTS, refused(401)), fails=everything),
    "404 for ever": D(change=of(POSTS, refused(404)), fails=everything),
    "redirects": D(change=of(POSTS, refused(302, Location="https://example.com/")), fails=everything),
    "a token is a 200 titled Forbidden": D(
        change=of(TOKEN, forbidden_as_success), fails=everything, why="Check the client id and secret"
    ),
    "a token named otherwise": D(change=of(TOKEN, envelope(lambda d: {"access_token": d["jwt"]})), fails=everything),
    "data is an object": D(change=page(lambda document: {"data": {"posts": document["data"]}}), fails=everything),
    "items in place of data": D(change=page(lambda document: {"items": document["data"]}), fails=everything),
    "rows of another instance": D(
        rows=lambda rows: [*rows, *(row | {"instanceId": "999"} for row in rows[:1])], fails=has_rows
    ),
    "the instance is spelled otherwise": D(rows=fields({"instanceId": lambda name: f"{name} "}), fails=has_rows),
    # Nothing
    "204 for all": D(change=of(POSTS, no_content), empties=everything),
    "data is null for all": D(change=page(lambda _: {"data": None}), empties=everything),
    "no rows for all": D(rows=lambda _: [], empties=everything),
    "no rows of an instance": D(
        rows=lambda rows: [row for row in rows if row["instanceId"] != BAD_INSTANCE], empties=is_bad_instance
    ),
    # Rows that cannot be read, or not in full
    "rows lack the instance": D(rows=without("instanceId"), instance_ids=INSTANCE_IDS[:1]),
    "rows lack their id": D(rows=without("postId"), fails=has_rows),
    "times cannot be read": D(rows=fields({"postDate": not_available}), tables=PUBLISHED, fails=has_rows),
    "counts have units": D(
        rows=fields({"engagements": lambda count: f"{count} k"}), fails=has_rows, why="values of engagements cannot"
    ),
    "counts are objects": D(rows=fields({"impressions": lambda count: {"value": count}}), fails=has_rows),
    "few rows lack their id": D(rows=without("postId", is_odd), quarantined=is_odd),
    "few rows are null": D(
        change=page(lambda d: d.update(data=[None if is_odd(row) else row for row in d["data"]])), quarantined=is_odd
    ),
    "few times cannot be read": D(
        rows=fields({"postDate": not_available}, is_odd), tables=PUBLISHED, quarantined=is_odd
    ),
    "most times of a day cannot be read": D(
        rows=fields({"postDate": not_available}, is_mostly_of_thin_day),
        tables=PUBLISHED,
        fails=is_thin_day,
        why="rows cannot be used",
    ),
    "most times of a day cannot be read, asked wider": D(
        rows=fields({"postDate": not_available}, is_mostly_of_thin_day),
        tables=PUBLISHED,
        padding_days=1,
        fails=is_thin_day,
        why="without a day",
    ),
    "few counts to date are negative": D(
        rows=fields({"engagements": lambda _: -5}, is_odd), tables=PUBLISHED, quarantined=is_odd
    ),
    "few counts are NaN": D(rows=fields({"engagements": lambda _: math.nan}, is_odd), quarantined=is_odd),
    "few counts are beyond 64 bits": D(rows=fields({"impressions": lambda _: 2**64}, is_odd), quarantined=is_odd),
    "few ids are beyond 64 bits": D(rows=fields({"postId": lambda number: 2**64 + number}, is_odd), quarantined=is_odd),
    "few amounts are infinite": D(
        rows=each(lambda row: row | {"cpe": math.inf}, is_odd),
        change=of(POSTS, body(lambda content: content.replace(b"Infinity", b"1e400"))),
        quarantined=is_odd,
    ),
    "few rows twice with other values": D(
        rows=followed(lambda row: row | {"engagements": row["engagements"] - 1}), quarantined=is_odd, keeps=True
    ),
    **{
        name: D(rows=change, means=lambda row, change=change: change([row])[0])
        for name, change in {
            "another network": fields({"contentType": lambda _: "linkedin_post"}),
            "times without milliseconds": fields({"postDate": lambda time: f"{time[:19]}Z"}),
            "times with microseconds": fields({"postDate": lambda time: time.replace("Z", "999Z")}),
        }.items()
    },
    "no times": D(rows=without("postDate"), tables=DAILY, nulls={"": ("post_date",)}, is_null=everything),
    "creators have ids in letters": D(
        rows=fields({"creatorId": lambda number: f"usr_{number}"}),
        nulls={"creatorId": ("creator_id",)},
        is_null=everything,
    ),
    "profiles are text": D(
        rows=each(lambda row: row | {"creatorProfile": "jane"}), nulls={"creatorProfile": PROFILE}, is_null=everything
    ),
    "few profiles are lists": D(
        rows=each(lambda row: row | {"creatorProfile": [7]}, is_odd), nulls={"creatorProfile": PROFILE}
    ),
    **{
        f"few values of {name} are {value!a}": D(
            rows=fields({name: lambda _, value=value: value}, is_odd), nulls={name: columns}
        )
        for name, value, columns in (
            ("creatorId", "usr_1", ("creator_id",)),
            ("contentUrl", 7, ("content_url",)),
            ("contentUrl", "\ud800", ("content_url",)),
            ("contentType", 7, ("content_type", "platform")),
            ("engagements", "n/a", ("engagements",)),
            ("engagements", 8500.5, ("engagements",)),
            ("impressions", True, ("impressions",)),
        )
    },
}
