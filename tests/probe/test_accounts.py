"""Accounts that cannot show everything, requests and the rate limit, and what the JSON leaves out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import ASGIApp

from later_reporting_dagster.client import ClientCredentials
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.probe.assumptions import Result, to_json
from later_reporting_dagster.probe.sample import MAX_REQUESTS
from later_reporting_dagster.server.sandbox import World, create_app
from tests.conftest import NO_RATE_LIMIT, Service, problem
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, IndependentServer, Posts
from tests.probe.account import CAMPAIGNS, LAST_DAY, POSTS, Account, Asked, broken, run_probe

Row = dict[str, Any]
OF_THE_SERVICE = {"rate_limit_is_as_documented", "tokens_last_as_documented"}
OF_CAMPAIGNS = {
    "days_of_campaigns_add_up",
    "campaign_costs_of_months_add_up",
    "content_cost_of_a_range_is_whole",
    "cpe_and_cpm_state_the_content_cost",
    "campaign_is_the_sum_of_its_posts",
    "campaign_unit_costs_are_organic",
    "affiliate_rate_is_a_fraction",
    "account_cost_heeds_the_date_basis",
}


def world(days: int, **changes: Any) -> World:
    return World(first_day=LAST_DAY - timedelta(days=days - 1), last_day=LAST_DAY, **changes)


def serve(stage: Service, world: World, version: ApiVersion, **options: Any) -> Account:
    stage.app = account = Account(create_app(world, options=replace(NO_RATE_LIMIT, api_version=version, **options)))
    return account


def not_testable(results: Mapping[str, Result]) -> set[str]:
    """Return the names of what is not testable, after asserting that each says why."""
    found = {name for name, result in results.items() if result.verdict == "not testable"}
    assert all(results[name].text and not results[name].numbers for name in found)
    return found


@pytest.mark.parametrize("nothing", [{"posts_per_day": 0}, {"instances": 0, "posts_per_day": 3}])
def test_account_without_data_is_not_testable(nothing: Any, stage: Service, version: ApiVersion) -> None:
    account = serve(stage, world(60, **nothing), version)
    _, results = run_probe(stage.base_url)
    assert not_testable(results) == results.keys() - OF_THE_SERVICE
    assert broken(results) == set()
    assert len(account.requests) <= MAX_REQUESTS


def test_account_with_one_instance_shows_everything_else(stage: Service, version: ApiVersion) -> None:
    serve(stage, world(700, instances=1, posts_per_day=2), version)
    _, results = run_probe(stage.base_url)
    assert not_testable(results) == {
        "instances_add_up",
        "affiliate_rate_is_a_fraction",
        "creator_ids_are_of_one_person",
    }
    assert broken(results) == set()


@pytest.mark.parametrize("days_ago", [0, 1, 2, 20, 200])
def test_account_with_one_post_is_judged_by_it(days_ago: int, stage: Service, version: ApiVersion) -> None:
    day = LAST_DAY - timedelta(days=days_ago)
    worlds = (World(first_day=day, last_day=day, instances=1, posts_per_day=1, seed=seed) for seed in count())
    account = serve(stage, next(world for world in worlds if len(world.posts) == 1), version)
    sample, results = run_probe(stage.base_url)
    assert {"campaigns_of_a_post_have_the_same_counts", "pages_have_all_rows"} <= not_testable(results)
    assert results["fields_are_known"].verdict == "holds"
    assert broken(results) <= {"data_reach_yesterday"}
    assert sample.requests == len(account.requests) <= MAX_REQUESTS


def test_account_with_5000_campaigns_needs_no_more_requests(stage: Service, version: ApiVersion) -> None:
    account = serve(stage, world(200, instances=417, posts_per_day=1), version)
    sample, results = run_probe(stage.base_url)
    assert broken(results) == set()
    assert results["campaign_is_the_sum_of_its_posts"].verdict == "holds"
    assert sample.requests == len(account.requests) <= MAX_REQUESTS


def test_busy_campaign_is_not_testable_where_a_page_is_too_small(stage: Service, version: ApiVersion) -> None:
    serve(stage, world(30, instances=1, posts_per_day=3000), version)
    _, results = run_probe(stage.base_url)
    assert broken(results) == set()
    assert results["days_of_posts_add_up"].text == "a query has more than 100 rows"
    assert results["rates_are_percentages"].verdict == "holds"


@pytest.mark.parametrize("status", [403, 404])
def test_refused_route_of_campaigns_leaves_out_what_needs_it(
    status: int, account: Account, stage: Service, version: ApiVersion
) -> None:
    account.override = lambda request: problem(status) if request.url.path == CAMPAIGNS else None
    sample, results = run_probe(stage.base_url)
    assert not_testable(results) == OF_CAMPAIGNS
    assert broken(results) == set()
    assert any(f"HTTP {status}" in text for text in sample.problems)


def test_failing_server_gets_at_most_35_requests(account: Account, stage: Service, version: ApiVersion) -> None:
    account.override = lambda request: problem(500) if request.url.path == POSTS else None
    sample, results = run_probe(stage.base_url, attempts=4)
    assert sample.requests == len(account.requests) == MAX_REQUESTS
    assert {"rates_are_percentages", "days_of_posts_add_up"} <= not_testable(results)
    assert broken(results) == set()


@pytest.mark.parametrize("by_cursor", [False, True])
def test_server_with_random_metrics_is_judged(by_cursor: bool) -> None:
    posts = Posts(first_day=LAST_DAY - timedelta(days=99), days=98, instance_ids=("a", "b"), seed=1, most=2)
    server = IndependentServer(posts, by_cursor=by_cursor)
    with server.running() as base_url:
        sample, results = run_probe(base_url, credentials=ClientCredentials(CLIENT_ID, CLIENT_SECRET))
    assert {"campaign_is_the_sum_of_its_posts", "campaigns_of_a_post_have_the_same_counts"} <= broken(results)
    assert results["post_days_are_utc"].verdict == "holds"
    assert sample.requests <= MAX_REQUESTS
    json.dumps(to_json(sample, [*results.values()]), allow_nan=False)


def absurd(asked: Asked, rows: list[Row]) -> list[Row]:
    """Return rows that cannot be true, beside others."""
    if asked.path == CAMPAIGNS:
        return [row | {"estimatedContentCost": -1e9, "postsCount": row["postsCount"] % 200} for row in rows]
    for number, row in enumerate(rows):
        row |= [
            {"postDate": "0001-01-01T00:00:00Z"},
            {"postDate": "9999-12-31T23:59:59Z"},
            {"impressions": -(10**300), "engagements": "many", "metrics": [1]},
            {"cpe": 1e9, "cpm": 0, "engagements": 10**11, "impressions": 0, "paidImpressions": 10**11},
            {"engagementRate": -1e9},
            {},
        ][number % 6]
    return rows[::-1]


def test_absurd_values_are_judged(account: Account, stage: Service, version: ApiVersion) -> None:
    account.change = absurd
    account.headers = {"x-ratelimit-limit": "9" * 400, "x-ratelimit-window": "1"}
    sample, results = run_probe(stage.base_url)
    assert {"cpe_and_cpm_agree", "rates_are_percentages"} <= broken(results)
    assert json.dumps(to_json(sample, [*results.values()]), allow_nan=False)


MARK = "Zq7"  # in each hostile text
hostile_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(lambda text: f"{MARK}{text}")


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=hostile_texts, fails=st.sampled_from([None, POSTS, CAMPAIGNS]))
@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
def test_json_has_no_id_name_link_or_secret(
    text: str, fails: str | None, stage: Service, apps: Mapping[ApiVersion, ASGIApp], version: ApiVersion
) -> None:
    ids: set[str] = set()

    def hostile(asked: Asked, rows: list[Row]) -> list[Row]:
        changed = []
        for row in rows:
            ids.update(str(row[name]) for name in ("postId", "campaignId", "creatorId") if name in row)
            texts = {name: f"{text}{value}" for name, value in row.items() if isinstance(value, str)}
            profile = {"creatorProfile": {"fullName": text, "handleName": text, text: text}}
            changed.append(row | texts | profile | {text: text} | {"postDate": row.get("postDate")})
        return changed

    def refuse(request: Request) -> Any:
        return problem(400, text) if request.url.path == fails and "dateBasis=performance" in str(request.url) else None

    stage.app = account = Account(apps[version], change=hostile, override=refuse)
    sample, results = run_probe(stage.base_url)
    written = json.dumps(to_json(sample, [*results.values()]), ensure_ascii=False)
    tokens = {request.headers.get("authorization", "").removeprefix("Bearer ") for request in account.requests} - {""}
    secrets = {NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret, stage.base_url, *tokens}
    assert len(ids) > 100
    assert len(tokens) == 1
    assert "holds" in {result.verdict for result in results.values()}
    assert [each for each in (MARK, "http", "@", "instance_0", *ids, *secrets) if each in written] == []
