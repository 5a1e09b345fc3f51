"""Faults as they arrive on the wire: real connections, read by a client that neither repairs nor hides anything."""

import gzip
import http.client
import json
import math
import re
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pyarrow as pa
import pytest

from later_reporting_dagster.sandbox import (
    FAULTS,
    FAULTS_HEADER,
    HOSTILE,
    HOSTILE_INSTANCE_IDS,
    FaultSettings,
    FaultySandbox,
    SandboxOptions,
    World,
    read_chances,
)
from tests.sandbox.conftest import CREDENTIALS, UNHURRIED, Row, key, keys
from tests.servers import Stage, running

DAY = "/v2/posts/performance?startDate=2024-06-03&endDate=2024-06-03&instanceIds=instance_abc"
MONTH = (
    "/v2/posts/performance?startDate=2024-06-01&endDate=2024-06-30&pageSize=100&sortProperty=postDate&sortDirection=ASC"
)
OFF = {FAULTS_HEADER: "off"}


@dataclass
class Reply:
    """An answer as it came, with how much of it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    is_whole: bool = True

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    """Asks a sandbox, each time on a connection of its own."""

    base_url: str
    app: FaultySandbox
    headers: dict[str, str] = field(default_factory=dict)

    def asks(self, path: str, **headers: str) -> Reply:
        return self._exchange("GET", path, None, headers)

    def asks_for_a_token(self, **headers: str) -> Reply:
        return self._exchange("POST", "/oauth/token", json.dumps(CREDENTIALS).encode(), headers)

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        where = urlsplit(self.base_url)
        with closing(http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)) as connection:
            connection.request(method, path, body, {**self.headers, **headers})
            response = connection.getresponse()
            try:
                return Reply(response.status, response.headers, response.read())
            except http.client.IncompleteRead as cut:
                return Reply(response.status, response.headers, cut.partial, is_whole=False)

    def signs_in(self) -> None:
        self.headers["Authorization"] = f"Bearer {self.asks_for_a_token(**OFF).document['jwt']}"

    def walks(self, query: str, **headers: str) -> list[Row]:
        """All rows of a query, page by page, as a client takes them that trusts everything."""
        rows: list[Row] = []
        number = pages = 1
        while number <= pages:
            document = self.asks(f"{query}&pageNumber={number}", **headers).document
            rows += document["data"]
            number, pages = number + 1, document["pagination"]["totalPages"]
        return rows


STAGE = Stage()


@pytest.fixture(scope="module", autouse=True)
def _open_stage() -> Iterator[None]:
    with running(STAGE) as STAGE.base_url:
        yield


def faulty(world: World, faults: Mapping[str, float] | None = None, **arguments: Any) -> Caller:
    """A sandbox with faults in place of the one before, and somebody who has signed in."""
    STAGE.app = app = FaultySandbox(world, faults=faults, **{"options": UNHURRIED, **arguments})
    caller = Caller(STAGE.base_url, app)
    caller.signs_in()
    return caller


# What there is


def test_faults_and_hostile_rows_are_named_in_kebab_case_and_described_in_a_line() -> None:
    for name, entry in {**FAULTS, **HOSTILE}.items():
        assert name == entry.name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert entry.description
        assert "\n" not in entry.description


def test_chances_are_read_as_a_person_writes_them_in_an_order_of_their_own() -> None:
    read = read_chances(["http-503:0.25", "http-429:1e-1", "slow:0"], known=FAULTS, what="fault")
    assert list(read.items()) == [("http-429", 0.1), ("http-503", 0.25), ("slow", 0.0)]
    tenths = [f"{name}:0.1" for name in list(FAULTS)[:10]]
    assert len(read_chances(tenths, known=FAULTS, what="fault")) == 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["http-500"], "'http-500' is not a fault and its probability, as http-429-seconds:0.05"),
        (["http-500:"], "is not a fault and its probability"),
        (["http-500:often"], "is not a fault and its probability"),
        (["http-500:1.5"], "from 0 to 1, not 1.5"),
        (["http-500:-0.1"], "from 0 to 1, not -0.1"),
        (["http-500:nan"], "from 0 to 1, not nan"),
        (["http-500:0.1", "http-500:0.1"], "http-500 is given twice"),
        (["http-500:0.6", "http-503:0.6"], "add up to 1.2, more than 1"),
        (["http-599:0.1"], r"there is no fault 'http-599'; there are http-429-seconds, .*, page-short"),
        (["nan:0.1"], "no fault 'nan'"),
    ],
)
def test_a_wrong_chance_is_one_line_that_names_it(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_chances(given, known=FAULTS, what="fault")
    assert "\n" not in str(raised.value)


# Who is hit


def test_a_seed_decides_which_requests_are_hit_whatever_their_order(world: World) -> None:
    paths = [f"{DAY}&pageSize={size}" for size in range(1, 61)]

    def fates(seed: int, order: list[str]) -> dict[tuple[str, int], int]:
        caller = faulty(world, {"http-500": 0.2, "http-503": 0.2}, seed=seed)
        asked = {(path, time): caller.asks(path).status for time in range(2) for path in order}
        assert caller.app.injected == {name: [*asked.values()].count(int(name[5:])) for name in caller.app.injected}
        return asked

    fate = fates(1, paths)
    assert fates(1, paths[::-1]) == fate
    assert fates(2, paths) != fate
    hit = sum(status != 200 for status in fate.values())
    assert 25 < hit < 75  # 48 of 120 are to be expected
    # To be hit once is not to be hit each time.
    assert {fate[path, 1] for path in paths if fate[path, 0] == 500} >= {200, 500}


def test_without_a_fault_it_answers_byte_for_byte_as_the_plain_sandbox(world: World, base_url: str) -> None:
    caller = faulty(world, {"http-500": 0.0})
    for path in (DAY, f"{MONTH}&pageNumber=3", "/v2/instances", "/v2/posts/performance?nonsense=1", "/nowhere"):
        answer, due = caller.asks(path), Caller(base_url, caller.app, caller.headers).asks(path)
        assert (answer.status, answer.body) == (due.status, due.body)
    assert caller.asks_for_a_token().status == 200


def test_a_request_may_ask_to_be_spared(world: World) -> None:
    caller = faulty(world, {"http-500": 1.0})
    assert caller.asks(DAY).status == 500
    assert caller.asks(DAY, **OFF).status == 200
    assert caller.app.injected == {"http-500": 1}


def test_a_fault_befalls_only_an_answer_that_would_be_good(world: World) -> None:
    caller = faulty(world, {"http-200-html": 1.0})
    assert caller.asks("/v2/posts/performance?nonsense=1").status == 400
    assert caller.asks(DAY, Authorization="Bearer wrong").status == 401
    assert caller.app.injected == {"http-200-html": 0}


# What servers answer instead


def test_429_tells_when_to_come_back_in_seconds_as_a_date_or_not_at_all(world: World) -> None:
    now, settings = 1_700_000_000.25, FaultSettings(retry_after_seconds=7)
    for name in ("http-429-seconds", "http-429-date", "http-429"):
        caller = faulty(world, {name: 1.0}, settings=settings, clock=lambda: now)
        answer = caller.asks(DAY)
        assert (answer.status, answer.body) == (429, b"Too Many Requests")
        assert answer.headers["x-ratelimit-limit"] == "1000000"
        assert answer.headers["x-ratelimit-window"] == "60"
        told = answer.headers["retry-after"]
        if name == "http-429-seconds":
            assert told == "7"
        elif name == "http-429-date":
            assert parsedate_to_datetime(told) == datetime.fromtimestamp(math.ceil(now) + 7, UTC)
        else:
            assert told is None


def test_only_a_429_does_not_count_on_the_rate_limit(world: World) -> None:
    options = SandboxOptions(requests_per_window=3)
    for name, statuses in (("http-429", {429}), ("http-500", {500, 429})):
        caller = faulty(world, {name: 1.0}, options=options)  # signing in was the first
        assert {caller.asks(DAY).status for _ in range(4)} == statuses
        assert caller.asks(DAY, **OFF).status == (200 if name == "http-429" else 429)
        assert caller.app.injected == {name: 4 if name == "http-429" else 2}


@pytest.mark.parametrize(
    ("name", "status", "content_type"),
    [
        ("http-500", 500, "application/problem+json"),
        ("http-503", 503, "text/plain"),
        ("http-502-html", 502, "text/html; charset=utf-8"),
        ("http-200-html", 200, "text/html; charset=utf-8"),
    ],
)
def test_errors_come_as_servers_and_proxies_send_them(world: World, name: str, status: int, content_type: str) -> None:
    caller = faulty(world, {name: 1.0})
    for answer in (caller.asks(DAY), caller.asks("/v2/instances"), caller.asks_for_a_token()):
        assert (answer.status, answer.headers["content-type"]) == (status, content_type)
        assert {"x-ratelimit-limit", "x-ratelimit-window"} <= {name.lower() for name in answer.headers}
        if content_type == "application/problem+json":
            assert list(answer.document) == ["type", "title", "detail"]
            assert answer.document["type"] == "ANL_00500"
        elif "html" in content_type:
            assert answer.body.startswith(b"<!DOCTYPE html>")
    assert caller.app.injected == {name: 3}


def test_a_redirect_leads_to_another_host(world: World) -> None:
    settings = FaultSettings(redirect_to="http://localhost:1/elsewhere")
    caller = faulty(world, {"redirect": 1.0}, settings=settings)
    answer = caller.asks(DAY)
    assert (answer.status, answer.headers["location"], answer.body) == (302, "http://localhost:1/elsewhere", b"")


def test_a_revoked_token_stays_refused_and_a_new_one_is_good(world: World) -> None:
    caller = faulty(world, {"token-revoked": 1.0}, clock=lambda: 1_700_000_000)
    answer = caller.asks(DAY)
    assert (answer.status, answer.document["type"]) == (401, "ANL_00401")
    assert caller.asks("/v2/instances", **OFF).status == 401
    assert caller.asks(DAY, **OFF).status == 401
    assert caller.app.injected == {"token-revoked": 1}
    caller.signs_in()  # in the same second, and so with an equal token
    assert caller.asks(DAY, **OFF).status == 200


def test_the_token_route_can_be_down_alone(world: World) -> None:
    caller = faulty(world, {"token-route-down": 1.0})
    assert caller.asks_for_a_token().status == 503
    assert caller.asks(DAY).status == 200
    assert caller.app.injected == {"token-route-down": 1}


# What becomes of a body


def test_json_is_cut_off_in_an_answer_that_is_whole(world: World) -> None:
    caller = faulty(world, {"json-truncated": 1.0})
    answer, due = caller.asks(DAY), caller.asks(DAY, **OFF)
    assert answer.is_whole
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert due.body.startswith(answer.body)
    with pytest.raises(ValueError, match="Expecting|Unterminated"):
        json.loads(answer.body)


def test_the_right_body_can_be_called_html(world: World) -> None:
    caller = faulty(world, {"wrong-content-type": 1.0})
    answer, due = caller.asks(DAY), caller.asks(DAY, **OFF)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/html", due.body)


def test_bodies_come_compressed_and_cut_off(world: World) -> None:
    caller = faulty(world, {"gzip": 1.0})
    answer, due = caller.asks(DAY), caller.asks(DAY, **OFF)
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == due.body
    caller = faulty(world, {"brotli": 1.0})
    answer = caller.asks(DAY)
    assert answer.headers["content-encoding"] == "br"
    assert pa.decompress(answer.body, len(due.body), codec="brotli", asbytes=True) == due.body
    caller = faulty(world, {"gzip-cut": 1.0})
    answer = caller.asks(DAY)
    assert answer.is_whole
    assert answer.headers["content-encoding"] == "gzip"
    decoder = zlib.decompressobj(wbits=31)
    assert due.body.startswith(decoder.decompress(answer.body))
    assert not decoder.eof


def test_a_huge_body_is_the_right_one_without_a_length(world: World) -> None:
    size = 5 * 2**20 + 11
    caller = faulty(world, {"huge-body": 1.0}, settings=FaultSettings(huge_bytes=size))
    answer, due = caller.asks(DAY), caller.asks(DAY, **OFF)
    assert answer.headers["content-length"] is None
    assert len(answer.body) == size
    assert answer.document == due.document
    assert FaultSettings().huge_bytes == 200 * 2**20


# What becomes of a connection


def raw_bytes(caller: Caller, path: str) -> bytes:
    """All that comes over one connection until the other side closes it."""
    where = urlsplit(caller.base_url)
    with socket.create_connection((str(where.hostname), where.port), timeout=10) as connection:
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: sandbox",
            *(f"{name}: {value}" for name, value in caller.headers.items()),
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return b"".join(iter(partial(connection.recv, 65536), b""))


def test_a_connection_is_closed_before_any_byte(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caller = faulty(world, {"connection-closed": 1.0})
    assert raw_bytes(caller, DAY) == b""
    with pytest.raises(http.client.RemoteDisconnected):
        caller.asks_for_a_token()
    assert caller.app.injected == {"connection-closed": 2}
    assert not caplog.records  # it is no error of the sandbox


def test_a_connection_is_closed_amid_the_body(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caller = faulty(world, {"body-cut": 1.0})
    due = caller.asks(DAY, **OFF)
    head, _, body = raw_bytes(caller, DAY).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"content-length: {len(due.body)}\r\n".encode() in head + b"\r\n"
    assert len(body) < len(due.body)
    assert due.body.startswith(body)
    assert not caller.asks(DAY).is_whole
    assert not caplog.records


def test_a_slow_answer_is_the_right_one_after_longer_than_clients_wait(world: World) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    caller = faulty(world, {"slow": 1.0}, sleep=sleep)
    answer, due = caller.asks(DAY), caller.asks(DAY, **OFF)
    assert (answer.status, answer.body) == (200, due.body)
    assert slept == [45.0]


# Pages that are wrong


@dataclass
class Pages:
    """The same page with a fault and as it is due; nothing but data and pagination is ever in it."""

    caller: Caller
    query: str

    def page(self, number: int) -> tuple[Any, Any]:
        path = f"{self.query}&pageNumber={number}"
        return self.caller.asks(path).document, self.caller.asks(path, **OFF).document


@pytest.fixture
def with_fault(world: World) -> Callable[[str], Pages]:
    """Makes the pages of a month, of which there are several, in a sandbox that always has one fault."""
    return lambda name: Pages(faulty(world, {name: 1.0}), MONTH)


def test_pagination_can_be_missing(with_fault: Callable[[str], Pages]) -> None:
    answer, due = with_fault("pagination-missing").page(1)
    assert answer == {"data": due["data"]}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("total-too-high", lambda total: total + 1),
        ("total-too-low", lambda total: total - 1),
        ("total-without-last-page", lambda total: (total - 1) // 100 * 100),
    ],
)
def test_totals_lie_in_the_same_way_in_every_answer(
    with_fault: Callable[[str], Pages], name: str, told: Callable[[int], int]
) -> None:
    pages = with_fault(name)
    for number in (1, 2):
        answer, due = pages.page(number)
        total = told(due["pagination"]["totalItems"])
        assert answer["data"] == due["data"]
        assert answer["pagination"] == {
            **due["pagination"], "totalItems": total, "totalPages": math.ceil(total / 100)
        }  # fmt: skip


def test_totals_change_from_answer_to_answer(with_fault: Callable[[str], Pages]) -> None:
    pages = with_fault("total-changing")
    totals = {pages.page(number)[0]["pagination"]["totalItems"] for number in (1, 2, 3) for _ in range(3)}
    assert len(totals) > 3
    assert min(totals) > pages.page(1)[1]["pagination"]["totalItems"]


def test_a_total_that_cannot_lie_so_is_left_alone(world: World) -> None:
    caller = faulty(world, {"total-without-last-page": 1.0})
    assert caller.asks(DAY).body == caller.asks(DAY, **OFF).body
    assert caller.app.injected == {"total-without-last-page": 0}
    nothing = DAY.replace("2024-06-03", "2023-01-01")
    caller = faulty(world, {"total-too-low": 1.0})
    assert caller.asks(nothing).document["pagination"]["totalItems"] == 0


def test_a_page_is_repeated_under_the_next_number(with_fault: Callable[[str], Pages]) -> None:
    pages = with_fault("page-repeated")
    first, due_first = pages.page(1)
    second, due_second = pages.page(2)
    assert first == due_first
    assert second == due_second | {"data": due_first["data"]}
    assert pages.caller.app.injected == {"page-repeated": 1}


def test_posts_of_a_day_come_in_another_order_in_every_answer(with_fault: Callable[[str], Pages]) -> None:
    pages = with_fault("ties-shuffled")
    answers = [pages.page(2) for _ in range(3)]
    for answer, due in answers:
        assert answer["pagination"] == due["pagination"]
        assert [row["postDate"][:10] for row in answer["data"]] == [row["postDate"][:10] for row in due["data"]]
    assert len({json.dumps(answer) for answer, _ in answers}) == 3
    # Posts cross the edges of pages, so that a walk loses some and has others twice.
    assert any({*map(key, answer["data"])} != {*map(key, due["data"])} for answer, due in answers)


def test_a_post_is_of_the_day_after_the_range(with_fault: Callable[[str], Pages]) -> None:
    answer, due = with_fault("post-outside-range").page(2)
    *others, last = answer["data"]
    assert (others, answer["pagination"]) == (due["data"][:-1], due["pagination"])
    assert last == due["data"][-1] | {"postDate": "2024-07-01T00:00:00.000Z"}


def test_a_post_is_of_an_instance_that_was_not_asked_for(with_fault: Callable[[str], Pages]) -> None:
    answer, due = with_fault("post-of-other-instance").page(2)
    assert answer["data"] == [*due["data"][:-1], due["data"][-1] | {"instanceId": "instance_of_somebody_else"}]


def test_a_short_page_is_not_the_last(with_fault: Callable[[str], Pages]) -> None:
    pages = with_fault("page-short")
    answer, due = pages.page(2)
    assert len(answer["data"]) < 100
    assert answer == due | {"data": due["data"][: len(answer["data"])]}
    last, due_last = pages.page(due["pagination"]["totalPages"])
    assert last == due_last


# A world that changes


@pytest.mark.parametrize(
    ("name", "gone", "arrived"), [("post-removed", 3, 0), ("post-inserted", 0, 3), ("post-exchanged", 3, 3)]
)
def test_posts_come_and_go_up_to_a_number_and_stay_so_in_every_answer(
    world: World, base_url: str, name: str, gone: int, arrived: int
) -> None:
    caller = faulty(world, {name: 1.0}, settings=FaultSettings(changes=3))
    ever = Caller(base_url, caller.app, caller.headers).walks(MONTH)
    before = caller.walks(MONTH, **OFF)
    for _ in range(5):
        caller.asks(f"{MONTH}&pageNumber=1")
    after = caller.walks(MONTH, **OFF)
    lost, found = keys(before) - keys(after), keys(after) - keys(before)
    assert len(after) == len(before) - gone + arrived
    # A post that has arrived may be the next to go.
    assert (len(lost), len(found)) == (gone, arrived) or (name == "post-exchanged" and 0 < len(lost) == len(found) < 3)
    assert [row for row in ever if row in after] == after == caller.walks(MONTH)
    assert caller.app.injected == {name: 3}
    assert not lost & {*map(key, caller.walks(f"{MONTH}&dateBasis=performance_date"))}


# Rows that are hostile

JSON_OF: dict[str, Callable[[Row], bool]] = {
    "unknown-fields": lambda row: row["reach"] == 12 and row["creatorProfile"]["followers"] == 2**53 + 1,
    "unknown-content-type": lambda row: row["contentType"] == "instagram_hologram",
    "unknown-platform": lambda row: row["contentType"] == "threads_post",
    "profile-missing": lambda row: "creatorProfile" not in row,
    "profile-null": lambda row: row["creatorProfile"] is None,
    "absent-for-null": lambda row: None not in [*row.values(), *row["creatorProfile"].values()],
    "whole-float": lambda row: isinstance(row["impressions"], float) and row["impressions"] == 8500,
    "fractional-count": lambda row: row["impressions"] == 8500.5,
    "infinite-number": lambda row: row["cpe"] == math.inf,
    "nan": lambda row: math.isnan(row["cpe"]),
    "negative-count": lambda row: row["impressions"] == -1,
    "count-beyond-floats": lambda row: row["impressions"] == 2**53 + 1,
    "count-beyond-int64": lambda row: row["impressions"] == 2**64,
    "text-for-number": lambda row: row["engagements"] == "1240",
    "date-without-milliseconds": lambda row: bool(re.fullmatch(r"2024-06-..T..:..:..Z", row["postDate"])),
    "date-with-offset": lambda row: row["postDate"].endswith("+14:00"),
    "date-without-zone": lambda row: bool(re.fullmatch(r"2024-06-..T..:..:..\.\d{3}", row["postDate"])),
    "date-last-microsecond": lambda row: row["postDate"].endswith("T23:59:59.999999Z"),
    "date-impossible": lambda row: row["postDate"].startswith("2023-02-29T"),
    "ids-zero": lambda row: (row["postId"], row["creatorId"]) == (0, 0),
    "id-negative": lambda row: row["postId"] < 0,
    "id-huge": lambda row: 2**62 < row["postId"] < 2**63,
    "id-beyond-int64": lambda row: row["postId"] > 2**64,
    "right-to-left": lambda row: "\u202e" in row["creatorProfile"]["fullName"],
    "newlines": lambda row: {"\r", "\n", "\x00", "\u2028"} <= {*row["creatorProfile"]["fullName"]},
    "lone-surrogate": lambda row: row["creatorProfile"]["fullName"] == "A\ud83dd",
    "megabyte-text": lambda row: len(row["creatorProfile"]["fullName"]) == 2**20,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_rows_arrive_as_they_are_meant(world: World, base_url: str, name: str) -> None:
    days = f"{MONTH.replace('06-30', '06-02')}&dateBasis=performance_date" if "date" not in name else MONTH
    caller = faulty(world, hostile={name: 0.1}, seed=5)
    rows, due = caller.walks(days), Caller(base_url, caller.app, caller.headers).walks(days)
    altered = caller.app.altered[name]
    changed = [(row, was) for row, was in zip(rows, due, strict=True) if row != was]
    assert changed
    assert altered == {key(was) for _, was in changed}
    assert all(JSON_OF[name](row) for row, _ in changed)
    keys(rows)  # no two have become one
    if name == "date-with-offset":
        assert all(
            datetime.fromisoformat(row["postDate"]) == datetime.fromisoformat(was["postDate"]) for row, was in changed
        )


def test_a_hostile_row_is_the_same_in_every_answer_and_with_faults_off(world: World) -> None:
    shares = {"newlines": 0.3, "negative-count": 0.3}
    caller = faulty(world, {"http-500": 0.5}, hostile=shares, seed=3)
    by_month = {key(row): row for row in caller.walks(MONTH, **OFF)}
    for row in caller.asks(f"{DAY}&pageSize=100", **OFF).document["data"]:
        assert by_month[key(row)] == row
    counts = {name: len(altered) for name, altered in caller.app.altered.items()}
    assert all(0.2 < count / len(by_month) < 0.4 for count in counts.values())
    caller = faulty(world, hostile=shares, seed=4)
    assert {key(row): row for row in caller.walks(MONTH)} != by_month


def test_some_bytes_are_no_json_that_an_encoder_would_write(world: World) -> None:
    for name, text in (
        ("nan", b'"cpe":NaN,'),
        ("infinite-number", b'"cpe":1e400,'),
        ("lone-surrogate", rb'"A\ud83dd"'),
    ):
        caller = faulty(world, hostile={name: 1.0})
        assert text in caller.asks(DAY).body


def test_hostile_instances_are_listed_and_each_but_the_empty_one_can_be_asked_for() -> None:
    day = date(2024, 3, 1)
    crowd = World(first_day=day - timedelta(days=2), last_day=day, instances=0, further_instances=HOSTILE_INSTANCE_IDS)
    caller = faulty(crowd)
    assert caller.asks("/v2/instances").document["data"]["instanceIds"] == [*HOSTILE_INSTANCE_IDS]
    for name in HOSTILE_INSTANCE_IDS:
        twice = urlencode([("instanceIds", name)] * 2, quote_via=quote)  # one value with a comma would be two
        answer = caller.asks(f"/v2/posts/performance?startDate={day - timedelta(days=2)}&endDate={day}&{twice}")
        if name:
            assert {row["instanceId"] for row in answer.document["data"]} == {name}
        else:
            assert answer.status == 400
