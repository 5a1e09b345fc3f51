"""A client never gets posts, campaigns or names of instances that are not its own; and tokens of a client end.

Retired instances are served to nobody, until that is undone.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.server import Client
from later_reporting_dagster.server.lake_store.rows import inspect, post_rows
from later_reporting_dagster.server.routes import PostsQuery
from tests.server.conftest import FIRST_DAY, INSTANCE_IDS, LAST_DAY
from tests.server.lake_store.clients import (
    EVERYTHING,
    POSTS,
    assert_problem,
    authenticated,
    days_query,
    fetch_pages,
    fetch_rows,
    get,
    page_of,
    rows_of,
    serving,
)

OWN = ("north", "a,b")
SOME = Client("some", "s3cret of some", OWN)
OTHER = Client("other", "s3cret of other", ("Zoë 😀", "x%2Fy"))
RETIRED = "a/b c"
UNKNOWN = Client("unknown", "s3cret of unknown", ("nowhere",))
CLIENTS = (SOME, OTHER, UNKNOWN, EVERYTHING)
RANGE = days_query(FIRST_DAY, LAST_DAY)
CURSOR_PAGE = [("limit", 10), ("metrics", "engagements")]


@pytest.fixture(scope="module")
def shared_url(landed: Path) -> Iterator[str]:
    with serving(landed, clients=CLIENTS) as base_url:
        yield base_url


@pytest.fixture
def some(shared_url: str) -> Iterator[httpx.Client]:
    with authenticated(shared_url, SOME) as api:
        yield api


@pytest.fixture
def everything(shared_url: str) -> Iterator[httpx.Client]:
    with authenticated(shared_url) as api:
        yield api


@pytest.mark.parametrize("date_basis", ["post_date", "performance_date"])
@pytest.mark.parametrize("page", [[("pageSize", 20)], CURSOR_PAGE], ids=["paged", "cursor"])
@pytest.mark.parametrize("last_day", [FIRST_DAY, LAST_DAY], ids=["day", "range"])
def test_query_without_instances_has_those_of_the_client(
    date_basis: str, page: Any, last_day: Any, some: httpx.Client, everything: httpx.Client
) -> None:
    pairs = days_query(FIRST_DAY, last_day, ("dateBasis", date_basis))
    expected = [row for row in fetch_rows(everything, [*pairs, *page]) if row["instanceId"] in OWN]
    found = fetch_rows(some, [*pairs, *page])
    assert {row["instanceId"] for row in found} == {*OWN}
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, expected))


@pytest.mark.parametrize("name", ["instanceIds", "instanceIds[]"])
def test_query_with_instances_of_others_is_refused(name: str, some: httpx.Client) -> None:
    for instance_id in ("Zoë 😀", "x%2Fy", "nowhere", "*"):
        for route, pairs in ((POSTS, RANGE), ("/v2/campaigns", [])):
            for also in ([], [(name, "north")]):
                assert_problem(get(some, [*pairs, *also, (name, instance_id)], route), 403, "ANL_00403")


def test_instances_and_campaigns_are_those_of_the_client(some: httpx.Client, everything: httpx.Client) -> None:
    for page in ([("limit", 1)], [("pageSize", 1)]):
        assert {row["instanceId"] for row in rows_of(fetch_pages(some, page, "/v2/campaigns"))} == {*OWN}
        pages = fetch_pages(some, page, "/v2/instances")
        assert sorted(name for each in pages for name in each["data"]["instanceIds"]) == sorted(OWN)
        if "pagination" in pages[0]:
            assert pages[0]["pagination"]["totalItems"] == 2
    assert sorted(page_of(get(everything, [], "/v2/instances"))["data"]["instanceIds"]) == sorted(INSTANCE_IDS)


def test_client_of_an_instance_that_does_not_exist_gets_nothing(shared_url: str) -> None:
    with authenticated(shared_url, UNKNOWN) as api:
        assert page_of(get(api, RANGE))["data"] == page_of(get(api, [], "/v2/campaigns"))["data"] == []
        assert page_of(get(api, [], "/v2/instances"))["data"]["instanceIds"] == ["nowhere"]
        assert_problem(get(api, [*RANGE, ("instanceIds", "north")]), 403, "ANL_00403")


@pytest.mark.parametrize(
    ("instance_ids", "status_of_some", "status_of_other"), [([], 400, 400), ([("instanceIds", "north")], 200, 403)]
)
def test_cursor_of_another_client_has_no_rows_of_its_instances(
    instance_ids: Any, status_of_some: int, status_of_other: int, shared_url: str, everything: httpx.Client
) -> None:
    query = [*RANGE, *CURSOR_PAGE, *instance_ids]
    query.append(("nextCursor", page_of(get(everything, query))["nextCursor"]))
    for client, status in ((SOME, status_of_some), (OTHER, status_of_other)):
        with authenticated(shared_url, client) as api:
            response = get(api, query)
        assert response.status_code == status
        assert {row["instanceId"] for row in response.json().get("data", ())} <= {"north"}


def test_page_number_after_the_first_page_of_another_client_has_own_rows(
    everything: httpx.Client, some: httpx.Client
) -> None:
    page = [*RANGE, ("pageSize", 5)]
    page_of(get(everything, page))
    found = page_of(get(some, [*page, ("pageNumber", 2)]))
    assert {row["instanceId"] for row in found["data"]} <= {*OWN}
    assert found["data"]
    assert {row["instanceId"] for row in page_of(get(everything, [*page, ("pageNumber", 2)]))["data"]} - {*OWN}


def test_header_of_missing_instances_names_own_instances_only(shared_url: str, some: httpx.Client) -> None:
    pairs = days_query(FIRST_DAY.replace(day=1), LAST_DAY)
    assert get(some, pairs).headers["X-Later-Missing-Instances"] == "a%2Cb, north"
    with authenticated(shared_url, OTHER) as other:
        found = get(other, pairs).headers["X-Later-Missing-Instances"].split(", ")
        assert sorted(found) == ["Zo%C3%AB%20%F0%9F%98%80", "x%252Fy"]


# Tokens


def test_token_follows_its_client_after_a_restart(some: httpx.Client, landed: Path) -> None:
    headers = {"Authorization": some.headers["Authorization"]}
    for changed in ((), (Client("some", "another secret", OWN),), (Client("Some", "s3cret of some", OWN),)):
        with serving(landed, clients=(EVERYTHING, *changed)) as base_url:
            for route in (f"{POSTS}?startDate={FIRST_DAY}&endDate={FIRST_DAY}", "/v2/instances", "/v2/campaigns"):
                assert_problem(httpx.get(f"{base_url}{route}", headers=headers), 401, "ANL_00401")
    with serving(landed, clients=(Client("some", "s3cret of some", ("north",)),)) as base_url:
        page = page_of(httpx.get(f"{base_url}/v2/instances", headers=headers))
        assert page["data"]["instanceIds"] == ["north"]


# Retired instances


@pytest.mark.parametrize("folder", ["Acme Co", "instance_id=Acme Co", "%zz"])
def test_folder_that_names_no_retired_instance_is_named_in_the_log(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "_retired" / folder / "retired.json"
    path.parent.mkdir(parents=True)
    path.touch()
    with serving(tmp_path) as url, authenticated(url) as api:
        for response in (get(api, RANGE), get(api, [], "/v2/instances")):
            assert folder not in assert_problem(response, 503, "ANL_00503")
    # What other tests have set the level of requests to does not matter.
    errors = [record for record in caplog.records if record.levelname != "INFO"]
    assert [record.levelname for record in errors] == ["ERROR", "ERROR"]
    assert str(path.parent) in caplog.text


def test_retired_instance_is_not_served_until_it_is_undone(landed: Path, tmp_path: Path) -> None:
    root = shutil.copytree(landed, tmp_path / "lake")
    lake, two = Lake(str(root)), Client("two", "s3cret of two", (RETIRED, "north"))
    with (
        serving(root, clients=(EVERYTHING, two)) as url,
        authenticated(url) as everything,
        authenticated(url, two) as some,
    ):

        def served() -> list[set[str]]:
            """Return the instances of what is served by each route, to a client of all and to one of two."""
            posts = [
                {row["instanceId"] for row in fetch_rows(api, days_query(FIRST_DAY, LAST_DAY, ("dateBasis", basis)))}
                for api in (everything, some)
                for basis in ("post_date", "performance_date")
            ]
            campaigns = [
                {row["instanceId"] for row in rows_of(fetch_pages(api, [], "/v2/campaigns"))}
                for api in (everything, some)
            ]
            listed = [{*page_of(get(api, [], "/v2/instances"))["data"]["instanceIds"]} for api in (everything, some)]
            return [*listed, *posts, *campaigns]

        both, all_of_them = {RETIRED, "north"}, {*INSTANCE_IDS}
        before = [all_of_them, both, all_of_them, all_of_them, both, both, all_of_them, both]
        assert served() == before
        lake.retired.add(RETIRED)
        assert served() == [each - {RETIRED} for each in before]
        named = days_query(FIRST_DAY, LAST_DAY, ("instanceIds", RETIRED))
        assert_problem(get(everything, named), 403, "ANL_00403")
        assert_problem(get(some, named), 403, "ANL_00403")
        assert "X-Later-Missing-Instances" not in get(some, days_query(FIRST_DAY, LAST_DAY), POSTS).headers
        lake.retired.remove(RETIRED)
        assert served() == before


def test_retiring_another_instance_changes_no_version_of_posts(landed: Path, tmp_path: Path) -> None:
    lake = Lake(str(shutil.copytree(landed, tmp_path / "lake")))
    rows = post_rows(PostsQuery(start=FIRST_DAY, end=LAST_DAY, instance_ids=("north",)))
    before = inspect(rows, lake, utc_now()).version
    lake.retired.add(RETIRED)
    assert inspect(rows, lake, utc_now()).version == before
