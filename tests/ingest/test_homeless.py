"""Bad rows that tell no partition: where they may belong, and what a later answer says of them."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, BadRow, Metric, post_type
from later_reporting_dagster.ingest.homeless import identity_of, possible_of, possible_partitions, still_homeless
from later_reporting_dagster.lake import Partition, QuarantinedRow
from tests.lake.conftest import post

DAYS = [date(2024, 3, number) for number in (1, 2, 3)]
BOX = frozenset(Partition(day, name) for day in DAYS for name in ("a", "b"))
QUERY = "startDate=2024-03-01&endDate=2024-03-03&instanceIds=a&instanceIds=b&dateBasis=post_date"


def set_aside(raw: Any = None, *, possible: frozenset[Partition] = BOX, query: str = "q") -> QuarantinedRow:
    return QuarantinedRow(None, "postDate is missing", json.dumps(raw), query, possible)


def bad(**told: Any) -> BadRow:
    return BadRow(reason="r", raw="{}", **told)


@pytest.mark.parametrize(
    ("rows", "possible"),
    [
        ([bad()], BOX),
        ([bad(instance_id="a")], {each for each in BOX if each.instance_id == "a"}),
        ([bad(post_date=datetime(2024, 3, 2, 23, tzinfo=UTC))], {each for each in BOX if each.day == DAYS[1]}),
        ([bad(instance_id="a"), bad()], BOX),
        ([bad(instance_id="a"), bad(instance_id="b")], BOX),
    ],
)
def test_they_may_belong_wherever_what_they_tell_allows(rows: list[BadRow], possible: set[Partition]) -> None:
    assert possible_partitions(rows, BOX) == possible


def test_a_file_of_old_tells_it_by_its_query() -> None:
    assert possible_of(set_aside(possible=frozenset(), query=QUERY)) == BOX
    assert possible_of(set_aside(possible=frozenset(), query="who knows")) == frozenset()
    assert possible_of(set_aside(possible=frozenset(), query="startDate=x&endDate=y")) == frozenset()
    of_no_instance = QUERY.replace("&instanceIds=a&instanceIds=b", "")
    assert possible_of(set_aside(possible=frozenset(), query=of_no_instance)) == frozenset()


def test_a_row_is_the_same_post_whatever_else_it_says() -> None:
    key = {"instanceId": "a", "campaignId": 7, "postId": 5}
    of_post = identity_of(post(5, campaign_id=7, instance_id="a"))
    assert identity_of(set_aside({**key, "impressions": "many"})) == of_post
    assert identity_of(BadRow(reason="r", raw='{"postId":5,"campaignId":7,"instanceId":"a"}')) == of_post
    for name, other in (("instanceId", "b"), ("campaignId", 8), ("postId", 6)):
        assert identity_of(set_aside({**key, name: other})) != of_post


@pytest.mark.parametrize(
    "raw", ["null", "no JSON", "[1]", '{"postId": 5}', '{"instanceId":"a","campaignId":[],"postId":5}']
)
def test_a_row_that_tells_no_key_is_all_that_it_is(raw: str) -> None:
    assert identity_of(BadRow(reason="r", raw=raw)) == raw


def test_an_answer_for_all_that_they_may_belong_to_clears_them() -> None:
    assert still_homeless([set_aside()], landed=BOX, answered=()) == ([], frozenset())


def test_what_was_not_asked_again_is_where_they_may_yet_belong() -> None:
    rows = [set_aside(1), set_aside(2)]
    newest = [each for each in BOX if each.day != DAYS[0]]
    left, possible = still_homeless(rows, landed=newest, answered=())
    assert (left, possible) == (rows, {each for each in BOX if each.day == DAYS[0]})


def test_a_row_that_came_again_is_known_by_the_newer_answer_alone() -> None:
    rows = [set_aside({"instanceId": "a", "campaignId": 7, "postId": 5}), set_aside({"surprise": True})]
    left, _ = still_homeless(rows, landed=(), answered={("a", 7, 5)})
    assert left == rows[1:]


def test_rows_of_which_nothing_is_known_are_not_cleared_by_chance() -> None:
    rows = [set_aside(possible=frozenset())]
    assert still_homeless(rows, landed=BOX, answered=()) == (rows, frozenset())


@pytest.mark.parametrize("metrics", [DOCUMENT_METRICS, METRICS, METRICS[:1]], ids=["document's", "all", "one"])
def test_a_post_is_told_by_its_key_whichever_metrics_it_has(metrics: tuple[Metric, ...]) -> None:
    landed = post_type(metrics)(instance_id="a", campaign_id=1, post_id=2, post_date=datetime(2024, 3, 1, tzinfo=UTC))
    left = set_aside({"instanceId": "a", "campaignId": 1, "postId": 2})
    assert identity_of(landed) == identity_of(left) == ("a", 1, 2)
