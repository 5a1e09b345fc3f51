"""Retired instances are not served, and are again once that is undone."""

import shutil
from pathlib import Path

from later_reporting_dagster.lake import Lake
from later_reporting_dagster.server import Client
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
from tests.server.lake_store.conftest import FIRST_DAY, INSTANCE_IDS, LAST_DAY

RETIRED, OTHER = "a/b c", "north"
SOME = Client("some", "s3cret of some", (RETIRED, OTHER))


def test_retired_instance_is_not_served_until_it_is_undone(landed: Path, tmp_path: Path) -> None:
    root = shutil.copytree(landed, tmp_path / "lake")
    lake = Lake(str(root))
    with (
        serving(root, clients=(EVERYTHING, SOME)) as url,
        authenticated(url) as everything,
        authenticated(url, SOME) as some,
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

        both, all_of_them = {RETIRED, OTHER}, {*INSTANCE_IDS}
        before = [all_of_them, both, all_of_them, all_of_them, both, both, all_of_them, both]
        assert served() == before
        lake.retired.add(RETIRED)
        assert served() == [each - {RETIRED} for each in before]
        named = days_query(FIRST_DAY, LAST_DAY, ("instanceIds", RETIRED))
        assert_problem(get(everything, named), 403, "ANL_00403")
        assert "X-Later-Missing-Instances" not in get(some, days_query(FIRST_DAY, LAST_DAY), POSTS).headers
        lake.retired.remove(RETIRED)
        assert served() == before
