"""The sandbox in the cursor form: the same posts as by number, and nothing of the other form is let pass."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract.api_version import CURSOR, PAGED
from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS
from later_reporting_dagster.sandbox import FaultSettings, FaultySandbox, World, create_app, running_sandbox
from tests.sandbox.conftest import UNHURRIED, Row, keys, sign_in

BY_CURSOR = replace(UNHURRIED, revision=CURSOR)
DAYS = "startDate=2024-06-01&endDate=2024-06-20"
METRIC_NAMES = {metric.api_name for metric in DOCUMENT_METRICS}
NAMED = f"{DAYS}&metrics=impressions,cpe"
POSTS = "/v2/posts/performance"


@pytest.fixture(scope="module")
def by_cursor(world: World) -> Iterator[httpx.Client]:
    with running_sandbox(create_app(world, options=BY_CURSOR)) as url, httpx.Client(base_url=url) as client:
        sign_in(client)
        yield client


def walked(client: httpx.Client, query: str) -> list[Row]:
    rows: list[Row] = []
    cursor: str | None = ""
    while cursor is not None:
        more = {"nextCursor": cursor} if cursor else {}
        answer = client.get(f"{POSTS}?{query}&{httpx.QueryParams(more)}").raise_for_status().json()
        assert answer.keys() == {"data", "nextCursor"}
        rows += answer["data"]
        cursor = answer["nextCursor"]
    return rows


def flat(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "metrics"} | row["metrics"]


@pytest.mark.parametrize("more", ["", "&sortProperty=cpm", "&sortProperty=postDate&sortDirection=ASC&platform=tiktok"])
@pytest.mark.parametrize("basis", ["post_date", "performance_date"])
@pytest.mark.parametrize("limit", [7, 100])
def test_the_same_posts_come_in_the_same_order_as_by_number(
    by_cursor: httpx.Client, all_posts: Any, basis: str, more: str, limit: int
) -> None:
    query = f"{DAYS}&dateBasis={basis}{more}"
    rows = walked(by_cursor, f"{query}&limit={limit}&metrics={','.join(METRIC_NAMES)}")
    assert [flat(row) for row in rows] == all_posts(query)
    assert len(keys(rows)) == len(rows) > 50


def test_only_the_metrics_that_were_asked_for_come(by_cursor: httpx.Client) -> None:
    for row in walked(by_cursor, f"{NAMED}&limit=100"):
        assert list(row["metrics"]) == ["impressions", "cpe"]
        assert not METRIC_NAMES & row.keys()


def test_what_a_content_type_of_a_filter_lacks_cannot_be_asked_for(by_cursor: httpx.Client) -> None:
    names = "metrics=replies,likes,navigationTapBack"
    for filters, bad in (
        ("", "replies, navigationTapBack"),
        ("&platform=instagram", "replies, navigationTapBack"),
        ("&platform=twitter", "navigationTapBack"),
        ("&contentType=instagram_story,instagram_reel", "replies, navigationTapBack"),
    ):
        detail = refused(by_cursor, f"{POSTS}?{DAYS}&{names}{filters}")
        assert detail == f"metrics not supported for these filters: {bad}"


def refused(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (400, "ANL_00400"), answer.text
    detail: str = answer.json()["detail"]
    return detail


@pytest.mark.parametrize("parameter", ["pageSize=10", "pageNumber=1", "limit=0", "limit=101", "limit=ten", "page=1"])
def test_what_is_not_of_this_form_is_refused(by_cursor: httpx.Client, parameter: str) -> None:
    name = parameter.partition("=")[0]
    assert name in refused(by_cursor, f"{POSTS}?{NAMED}&{parameter}")
    assert name in refused(by_cursor, f"/v2/instances?{parameter}")


@pytest.mark.parametrize("parameter", ["limit=10", "nextCursor=x", "metrics=impressions"])
def test_what_is_of_this_form_alone_is_refused_by_number(api: httpx.Client, parameter: str) -> None:
    name = parameter.partition("=")[0]
    assert f"unknown parameter: {name}" in refused(api, f"{POSTS}?{DAYS}&{parameter}")
    assert f"unknown parameter: {name}" in refused(api, f"/v2/instances?{parameter}")


def test_metrics_are_required_and_known(by_cursor: httpx.Client) -> None:
    assert refused(by_cursor, f"{POSTS}?{DAYS}").startswith("metrics is required, of engagements, impressions")
    detail = refused(by_cursor, f"{POSTS}?{DAYS}&metrics=impressions,smiles")
    assert detail == "metrics not supported for these filters: smiles"


@pytest.mark.parametrize(
    "other",
    [
        "startDate=2024-06-02&endDate=2024-06-20&metrics=impressions,cpe&limit=10",
        f"{NAMED}&limit=11",
        f"{DAYS}&metrics=impressions&limit=10",
        f"{NAMED}&limit=10&platform=tiktok",
        f"{NAMED}&limit=10&sortDirection=ASC",
        f"{NAMED}&limit=10&instanceIds=instance_000",
    ],
)
def test_a_cursor_belongs_to_its_query(by_cursor: httpx.Client, other: str) -> None:
    query = f"{NAMED}&limit=10"
    cursor = by_cursor.get(f"{POSTS}?{query}").json()["nextCursor"]
    assert by_cursor.get(f"{POSTS}?{query}&nextCursor={cursor}").status_code == 200
    assert "nextCursor is invalid" in refused(by_cursor, f"{POSTS}?{other}&nextCursor={cursor}")


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "A" * 24, "!!!!"])
def test_a_cursor_that_was_never_issued_is_refused(by_cursor: httpx.Client, cursor: str) -> None:
    parameters = httpx.QueryParams({"nextCursor": cursor})
    assert "nextCursor is invalid" in refused(by_cursor, f"{POSTS}?{NAMED}&{parameters}")
    assert "nextCursor is invalid" in refused(by_cursor, f"/v2/instances?{parameters}")


def test_instances_come_by_cursor(by_cursor: httpx.Client, world: World) -> None:
    first = by_cursor.get("/v2/instances?limit=3").json()
    second = by_cursor.get(f"/v2/instances?limit=3&nextCursor={first['nextCursor']}").json()
    assert (*first["data"]["instanceIds"], *second["data"]["instanceIds"]) == world.instance_ids
    assert second["nextCursor"] is None


# Faults of this form


def faulty(world: World, name: str, *, revision: Any = CURSOR, chance: float = 1.0, **settings: Any) -> FaultySandbox:
    options = replace(UNHURRIED, revision=revision)
    return FaultySandbox(world, faults={name: chance}, options=options, settings=FaultSettings(**settings))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("cursor-missing", {"data"}, {"data"}),
        ("cursor-null-early", {"data", "nextCursor"}, {"data", "nextCursor"}),
        ("cursor-repeated", {"data", "nextCursor"}, {"data", "nextCursor"}),
        ("cursor-expired", {"data", "nextCursor"}, {"type", "title", "detail"}),
    ],
)
def test_what_may_become_of_a_cursor(world: World, name: str, first: set[str], second: set[str]) -> None:
    app = faulty(world, name)
    query = f"{POSTS}?{NAMED}&limit=10"
    with running_sandbox(app) as url, httpx.Client(base_url=url) as client:
        sign_in(client)
        good = client.get(query, headers={"X-Sandbox-Faults": "off"}).json()
        one = client.get(query).json()
        other = client.get(f"{query}&nextCursor={good['nextCursor']}").json()
    assert (one.keys(), other.keys()) == (first, second)
    assert one["data"] == good["data"]
    assert (one == good) is (name == "cursor-expired")
    if name == "cursor-null-early":
        assert one["nextCursor"] is None
    if name == "cursor-repeated":
        assert one["nextCursor"] not in (None, good["nextCursor"])
    assert app.injected[name] == (1 if name == "cursor-expired" else 2)


def test_posts_that_come_and_go_move_no_place_that_a_cursor_leads_to(world: World) -> None:
    app = faulty(world, "post-exchanged", changes=10)
    with running_sandbox(app) as url, httpx.Client(base_url=url) as client:
        sign_in(client)
        rows = walked(client, f"{NAMED}&limit=10")
        client.headers["X-Sandbox-Faults"] = "off"
        after = walked(client, f"{NAMED}&limit=10")
    assert app.injected["post-exchanged"] > 5
    # Each came once; what is missing has vanished meanwhile or has come to a place that was past already.
    assert len(keys(rows) ^ keys(after)) <= 20


@pytest.mark.parametrize("revision", [PAGED, CURSOR], ids=str)
def test_a_service_may_change_its_revision_once(world: World, revision: Any) -> None:
    app = faulty(world, "switch-revision", revision=revision)
    with running_sandbox(app) as url, httpx.Client(base_url=url) as client:
        sign_in(client)
        envelopes = [
            client.get("/v2/instances", headers={"X-Sandbox-Faults": state}).json().keys() - {"data"}
            for state in ("off", "on", "on")
        ]
    before, after = ("pagination", "nextCursor") if revision is PAGED else ("nextCursor", "pagination")
    assert envelopes == [{before}, {after}, {after}]
    assert app.injected == {"switch-revision": 1}


def test_a_fault_of_the_other_form_leaves_a_page_alone(world: World) -> None:
    app = faulty(world, "total-too-high")
    with running_sandbox(app) as url, httpx.Client(base_url=url) as client:
        sign_in(client)
        assert client.get(f"{POSTS}?{NAMED}").json().keys() == {"data", "nextCursor"}
    assert app.injected == {"total-too-high": 0}
