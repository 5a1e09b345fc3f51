"""The cursor form against a real server: whole answers without totals, and which of the two forms a service speaks."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from starlette.responses import JSONResponse

from later_reporting_dagster.client import (
    ContractBroken,
    MetricsRefused,
    PageFetched,
    QueryRefused,
    Retriable,
    RetryPolicy,
    RevisionChanged,
    RevisionMemory,
    WalkInconsistent,
    WalkRepeated,
)
from later_reporting_dagster.contract import CURSOR, DOCUMENT_METRICS, PAGED
from tests.client.service import THREE_PAGES, instances, kinds, page_body, post, problem, use, walk

JULY = datetime(2024, 7, 1, tzinfo=UTC)
# A post an hour and a half, so that a page is six days and a quarter.
DAYS = [post(number, post_date=JULY + timedelta(minutes=90 * number)) for number in range(450)]


@pytest.fixture
def by_cursor(service, new_client):
    """Makes clients of a service that speaks the cursor form, which they know."""
    service.by_cursor = True
    return lambda **changes: new_client(**{"revision": CURSOR} | changes)


# Walks


def test_every_parameter_but_the_cursor_stays_the_same(service, by_cursor, july, events):
    service.posts = THREE_PAGES
    walk(by_cursor(), july)
    first, *others = service.asked()
    assert first.parameters == [
        ("startDate", "2024-07-01"),
        ("endDate", "2024-07-31"),
        ("instanceIds", "a"),
        ("instanceIds", "b"),
        ("dateBasis", "post_date"),
        ("metrics", ",".join(metric.api_name for metric in DOCUMENT_METRICS)),
        ("limit", "100"),
        ("sortProperty", "postDate"),
        ("sortDirection", "ASC"),
    ]
    assert [seen.cursor for seen in others] == ["c100", "c200"]
    for seen in others:
        assert [pair for pair in seen.parameters if pair[0] != "nextCursor"] == first.parameters
    assert kinds(events, PageFetched) == [
        PageFetched(page=number, rows=rows) for number, rows in enumerate((100, 100, 50), 1)
    ]


@pytest.mark.parametrize("revision", [PAGED, CURSOR], ids=str)
def test_the_metrics_of_a_query_come_with_its_posts(service, new_client, july, revision):
    service.posts, service.by_cursor = [post(1) | {"likes": 5}], revision is CURSOR
    (only,) = walk(new_client(revision=revision), replace(july, metrics=("impressions", "likes"))).posts
    assert (only.impressions, only.likes) == (10, 5)
    if revision is CURSOR:
        assert dict(service.asked()[0].parameters)["metrics"] == "impressions,likes"
    (without,) = walk(new_client(revision=revision), july).posts
    assert not hasattr(without, "likes")


def test_a_failure_names_its_page(service, by_cursor, july):
    service.posts = THREE_PAGES
    service.faults.extend([None, *[problem(500, "ANL_00500")] * 2])
    with pytest.raises(Retriable, match="page 2.*Given up after 2 attempts"):
        walk(by_cursor(retry=RetryPolicy(attempts=2)), july)


def test_cursors_lead_on_where_numbers_end(service, by_cursor, july):
    service.posts = [post(number, post_date=JULY + timedelta(seconds=number)) for number in range(50_050)]
    walked = walk(by_cursor(), july)
    assert (len(walked.posts), walked.pages) == (50_050, 501)


def test_a_full_last_page_costs_a_look_from_the_other_end(service, by_cursor, july):
    service.posts = THREE_PAGES[:200]
    walked = walk(by_cursor(), july)
    assert (len(walked.posts), len(service.asked())) == (200, 3)
    assert dict(service.asked()[-1].parameters)["sortDirection"] == "DESC"


def test_an_empty_last_page_ends_a_walk(service, by_cursor, july):
    service.posts = THREE_PAGES[:200]
    service.lie = lambda number, body: body | {"nextCursor": f"c{number * 100}" if number < 3 else None}
    walked = walk(by_cursor(), july)
    assert (len(walked.posts), len(service.asked())) == (200, 3)


# Walks that are not good


@pytest.mark.parametrize(
    ("lie", "problem_text"),
    [
        (lambda number, body: body | {"data": [post(1), *body["data"][1:]]} if number > 1 else body, "came twice"),
        (lambda number, body: body | {"nextCursor": "c100"}, "page 2 leads to one that was there already"),
        (lambda number, body: body | {"nextCursor": None}, "50 rows at the end did not come|150 rows|100 rows"),
        (lambda number, body: body | {"data": [*body["data"], post(9999)]}, "page 1 has 101 rows"),
        (
            lambda number, body: {"data": [], "nextCursor": f"c{number}00"},
            "10 pages without a row, and yet there should be more",
        ),
    ],
)
def test_a_walk_that_does_not_add_up_twice_gives_no_row(service, by_cursor, july, events, lie, problem_text):
    service.posts, service.lie = THREE_PAGES, lie
    with pytest.raises(WalkInconsistent, match=problem_text):
        walk(by_cursor(), july)
    assert len(kinds(events, WalkRepeated)) == 1


def test_a_page_that_lost_rows_once_is_asked_for_again_and_all_is_walked_again(service, by_cursor, july, events):
    service.posts = THREE_PAGES
    service.lie = lambda number, body: body | {"data": body["data"][:40]} if len(service.asked()) == 2 else body
    walked = walk(by_cursor(), july)
    assert [each.post_id for each in walked.posts] == list(range(250))
    assert [event.reason for event in kinds(events, WalkRepeated)] == ["page 2 has other rows each time"]


def test_a_page_that_is_short_each_time_is_what_it_is(service, by_cursor, july):
    service.posts = THREE_PAGES
    service.lie = lambda number, body: body | {"data": body["data"][:40]} if number == 2 else body
    walked = walk(by_cursor(), july)
    assert (len(walked.posts), len(service.asked())) == (190, 4)


EXPIRED = problem(400, "ANL_00400", detail="the cursor has expired")


def test_an_expired_cursor_restarts_the_walk(service, by_cursor, july, events):
    service.posts = THREE_PAGES
    service.faults.extend([None, None, EXPIRED])
    walked = walk(by_cursor(), july)
    assert [each.post_id for each in walked.posts] == list(range(250))
    assert [seen.cursor for seen in service.asked()] == [None, "c100", "c200", None, "c100", "c200"]
    (repeated,) = kinds(events, WalkRepeated)
    assert repeated.reason.startswith("the cursor to page 3 was refused: posts of 2024-07-01")


def test_metrics_that_are_refused_are_told_from_other_refusals(service, by_cursor, july):
    service.faults.append(problem(400, "ANL_00400", detail="metrics not supported for these filters: replies"))
    with pytest.raises(MetricsRefused, match="replies") as refused:
        walk(by_cursor(), july)
    assert refused.value.status == 400
    assert refused.value.detail.endswith("metrics not supported for these filters: replies")
    service.faults.append(problem(400, "ANL_00400", detail="endDate is wrong"))
    with pytest.raises(QueryRefused) as raised:
        walk(by_cursor(), replace(july, instance_ids=("metrics",)))
    assert not isinstance(raised.value, MetricsRefused)


# Walks that are cut short


def until(day):
    return lambda rows, latest: day


def test_a_walk_that_is_cut_answers_the_days_until_there(service, by_cursor, july):
    service.posts = DAYS
    walked = walk(by_cursor(), july, reach=until(date(2024, 7, 10)))
    assert walked.query == replace(july, end_date=date(2024, 7, 10))
    assert [each.post_id for each in walked.posts] == list(range(160))
    assert (walked.total_items, walked.pages) == (160, 2)


def test_a_walk_goes_on_while_the_last_day_may_have_more(service, by_cursor, july):
    service.posts = DAYS
    walked = walk(by_cursor(), july, reach=until(date(2024, 7, 7)))  # of which page 1 has a part
    assert [each.post_id for each in walked.posts] == list(range(112))


def test_a_walk_that_was_cut_and_fails_names_the_days_until_there(service, by_cursor, july):
    service.posts = DAYS
    service.faults.extend([None, EXPIRED] * 2)
    with pytest.raises(WalkInconsistent, match="^posts of 2024-07-01 to 2024-07-10 .*the cursor to page 2 was refused"):
        walk(by_cursor(), july, reach=until(date(2024, 7, 10)))


def test_a_walk_that_starts_again_is_cut_too(service, by_cursor, july):
    service.posts = DAYS
    service.faults.extend([None, EXPIRED])
    days = iter([july.end_date, *[date(2024, 7, 10)] * 9])
    walked = walk(by_cursor(), july, reach=lambda rows, latest: next(days))
    assert [each.post_id for each in walked.posts] == list(range(160))
    assert len(service.asked()) == 4


def test_where_a_walk_may_be_cut_is_asked_after_each_page(service, by_cursor, july):
    service.posts = DAYS
    asked = []

    def reach(rows, latest):
        asked.append((rows, latest))
        return july.end_date

    assert walk(by_cursor(), july, reach=reach).query == july
    assert asked == [(rows, JULY + timedelta(minutes=90 * (rows - 1))) for rows in (100, 200, 300, 400)]


def test_an_answer_in_no_order_is_walked_to_its_end(service, by_cursor, july, events):
    service.posts = [DAYS[number * 7 % 450] for number in range(450)]

    async def keep_to_the_days_asked_for(request):
        assert request.query_params["endDate"] == "2024-07-10"
        service.posts = [DAYS[number * 7 % 160] for number in range(160)]

    service.faults.extend([None, keep_to_the_days_asked_for])
    walked = walk(by_cursor(), july, reach=until(date(2024, 7, 10)))
    assert walked.query == replace(july, end_date=date(2024, 7, 10))
    assert sorted(each.post_id for each in walked.posts) == list(range(160))
    assert [event.reason for event in kinds(events, WalkRepeated)] == ["the posts are not in the order of their days"]


def test_a_bad_row_of_no_day_stays_with_a_walk_that_is_cut(service, by_cursor, july):
    service.posts = [*DAYS[:150], post(9000) | {"postDate": "some day"}, *DAYS[150:]]
    walked = walk(by_cursor(), july, reach=until(date(2024, 7, 10)))
    assert [row.reason.split(" is ")[0] for row in walked.bad_rows] == ["postDate"]


# A second look


def test_a_second_look_finds_what_was_left_out(service, by_cursor, july, events):
    service.posts = THREE_PAGES
    service.lie = lambda number, body: body | {"data": body["data"][:-1]} if len(service.asked()) == 3 else body
    walked = walk(by_cursor(second_looks={CURSOR: 1.0}), july)
    assert len(walked.posts) == 250
    assert [event.reason for event in kinds(events, WalkRepeated)] == ["at a second look 1 rows were others"]


# Instances


def test_a_cursor_that_leads_in_a_circle_is_an_error_of_instances(service, by_cursor):
    service.lie = lambda number, body: {"data": {"instanceIds": [f"i{number}"]}, "nextCursor": "c100"}
    with pytest.raises(WalkInconsistent, match="page 2 leads to one that was there already"):
        instances(by_cursor())


def test_an_expired_cursor_restarts_the_list_of_instances(service, by_cursor, events):
    service.instance_ids = [f"i{number}" for number in range(150)]
    service.faults.extend([None, EXPIRED])
    assert instances(by_cursor()) == tuple(service.instance_ids)
    (repeated,) = kinds(events, WalkRepeated)
    assert repeated.reason.startswith("its cursor was refused: instances: HTTP 400 ")
    service.faults.append(problem(400, "ANL_00400"))
    with pytest.raises(QueryRefused, match="^instances: HTTP 400 "):
        instances(by_cursor())


# Which form it is


@pytest.fixture
def of_either_form(new_client):
    """Makes clients that have to find out; what it is, and that it changed, is in the log and in their memory."""
    return lambda **changes: new_client(**{"revision": None, "on_event": None} | changes)


@pytest.mark.parametrize("by_cursor", [False, True])
def test_the_form_is_told_by_one_request_and_remembered(service, of_either_form, july, tmp_path, by_cursor, caplog):
    service.by_cursor, service.posts = by_cursor, THREE_PAGES
    memory = tmp_path / "there is none yet" / "revision"
    for requests in (1, 0):
        del service.seen[:]
        walked = walk(of_either_form(memory=RevisionMemory(memory)), july)
        assert len(walked.posts) == 250
        assert len(service.asked("/v2/instances")) == requests
        assert len(service.asked()) == 3
    assert memory.read_text() == ("cursor" if by_cursor else "paged")
    assert caplog.records == []


@pytest.mark.parametrize(("by_cursor", "requests"), [(False, 1), (True, 3)])
def test_a_first_listing_guesses_numbered_pages(service, of_either_form, by_cursor, requests):
    service.by_cursor = by_cursor
    memory = RevisionMemory()
    assert instances(of_either_form(memory=memory)) == ("a", "b")
    assert len(service.asked("/v2/instances")) == requests
    assert memory.recall() is (CURSOR if by_cursor else PAGED)
    assert instances(of_either_form(memory=memory)) == ("a", "b")
    assert len(service.asked("/v2/instances")) == requests + 1


def test_what_keeps_a_service_from_telling_is_an_error_of_its_instances(service, of_either_form, july):
    service.faults.extend([problem(500, "ANL_00500")] * 2)
    with pytest.raises(Retriable, match="^instances: HTTP 500 "):
        walk(of_either_form(retry=RetryPolicy(attempts=2)), july)


def test_a_probe_tells_it_too(service, of_either_form, july):
    service.by_cursor = True

    async def probe_and_walk(client):
        probed = await client.probe()
        await client.walk(july)
        return probed.revision, await client.revision()

    assert use(of_either_form(), probe_and_walk) == (CURSOR, CURSOR)
    assert len(service.asked("/v2/instances")) == 1


@pytest.mark.parametrize("was_by_cursor", [False, True])
@pytest.mark.parametrize("pages_before", [0, 1, 2])
def test_a_change_is_noticed_and_costs_no_row(
    service, of_either_form, july, tmp_path, caplog, was_by_cursor, pages_before
):
    service.posts, service.by_cursor = THREE_PAGES, was_by_cursor
    memory = tmp_path / "revision"
    memory.write_text("cursor" if was_by_cursor else "paged")

    async def change(request):
        service.by_cursor = not was_by_cursor

    service.faults.extend([None] * pages_before + [change])
    client = of_either_form(memory=RevisionMemory(memory), concurrency=1)
    with caplog.at_level(logging.WARNING):
        walked = walk(client, july)
    assert [each.post_id for each in walked.posts] == list(range(250))
    before, now = ("cursor", "paged") if was_by_cursor else ("paged", "cursor")
    assert [record.getMessage() for record in caplog.records] == [str(RevisionChanged(before, now))]
    assert memory.read_text() == now
    # What was there before, what was refused, the walk, and the look that told. A numbered page may be on its way.
    assert pages_before + 1 + 3 <= len(service.asked()) <= pages_before + 2 + 3
    assert len(service.asked("/v2/instances")) == 1


def test_many_walks_at_once_notice_a_change_once(service, of_either_form, july, caplog):
    service.posts = THREE_PAGES

    async def change(request):
        service.by_cursor = True

    service.faults.extend([None] * 6 + [change])

    async def walk_often(client):
        return await asyncio.gather(*(client.walk(july) for _ in range(8)))

    with caplog.at_level(logging.WARNING):
        walks = use(of_either_form(), walk_often)
    assert [len(walked.posts) for walked in walks] == [250] * 8
    assert len(caplog.records) == 1


def test_who_listens_is_told_instead_of_the_log(service, of_either_form, july, caplog, events):
    service.by_cursor = True
    memory = RevisionMemory()
    memory.keep(PAGED)
    with caplog.at_level(logging.WARNING):
        walk(of_either_form(on_event=events.append, memory=memory), july)
    assert kinds(events, RevisionChanged) == [RevisionChanged("paged", "cursor")]
    assert caplog.records == []


@pytest.mark.parametrize("by_cursor", [False, True])
def test_an_envelope_of_the_other_form_tells_the_change_by_itself(service, of_either_form, july, by_cursor):
    # As from a service that takes any parameter.
    service.by_cursor = by_cursor
    numbered = page_body([], page=1, page_size=100, total_items=0)
    service.faults.append(JSONResponse({"data": [], "nextCursor": None} if by_cursor else numbered))
    memory = RevisionMemory()
    memory.keep(PAGED if by_cursor else CURSOR)
    walked = walk(of_either_form(memory=memory), july)
    assert (walked.posts, len(service.asked())) == ([], 2)
    assert service.asked("/v2/instances") == []


def test_a_refusal_in_the_same_form_stays_one(service, of_either_form, july):
    async def refuse(request):
        return problem(400, "ANL_00400", detail="endDate is wrong") if "performance" in request.url.path else None

    service.faults.extend([None, refuse])
    with pytest.raises(QueryRefused, match="endDate is wrong"):
        walk(of_either_form(), july)
    assert len(service.asked("/v2/instances")) == 2


def test_a_service_that_changes_with_each_answer_is_an_error(service, of_either_form, july):
    async def change(request):
        service.by_cursor = not service.by_cursor

    service.faults.extend([None] + [change, None] * 20)
    with pytest.raises(ContractBroken, match="^posts of 2024-07-01 .*now in one revision of the API, now in another"):
        walk(of_either_form(), july)


def test_a_form_that_is_set_is_not_asked_for(service, new_client, july):
    service.by_cursor = True
    with pytest.raises(QueryRefused, match="HTTP 400 ANL_00400"):
        walk(new_client(revision=PAGED), july)
    assert service.asked("/v2/instances") == []
    service.faults.extend([JSONResponse({"data": [], "nextCursor": None})] * 2)
    with pytest.raises(Retriable, match="not a page of posts of the revision paged, but one of cursor"):
        walk(new_client(revision=PAGED, retry=RetryPolicy(attempts=2)), july)


def test_a_memory_that_cannot_be_used_costs_a_question(service, of_either_form, july, tmp_path):
    for path in (tmp_path, tmp_path / "nonsense"):
        (tmp_path / "nonsense").write_bytes(b"\xff")
        memory = RevisionMemory(path)
        assert memory.recall() is None
        walk(of_either_form(memory=memory), july)
        assert memory.recall() is PAGED
    assert len(service.asked("/v2/instances")) == 2
