"""No response replaces stored campaigns by less than it shows: the same rules for days and for periods."""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.contract.rows import Campaign
from later_reporting_dagster.ingest.campaigns import write_campaigns
from later_reporting_dagster.ingest.decide import WriteLimits
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, Lake
from later_reporting_dagster.server.sandbox import World
from tests.conftest import DAYS, INSTANCE_IDS, Row, Service, parameters
from tests.ingest import test_periods as of_periods
from tests.ingest import test_totals as of_days
from tests.ingest.conftest import PERFORMANCE_PATH, restrict_scope

FIRST, SECOND = INSTANCE_IDS[:2]
CAMPAIGNS = {FIRST: [1, 2], SECOND: [3, 4, 5]}
ALL = {number: 5 for numbers in CAMPAIGNS.values() for number in numbers}
NO_TOTAL: Row = {"data": None, "pagination": None}


class Days:
    """Fetches two days."""

    table_name = CAMPAIGN_PERFORMANCE_TABLE

    @staticmethod
    def fetch(service: Service, root: Path, **options: Any) -> tuple[set[str], list[str]]:
        """Return the reasons of failures, and the warnings."""
        fetched = of_days.fetch(service, root, days=DAYS[:2], **options)
        return {failed.reason for failed in fetched.failed.values()}, fetched.progress.warnings

    @staticmethod
    def stored(root: Path) -> list[dict[int, Any]]:
        """Return the impressions of each campaign, by day."""
        return [{row["campaign_id"]: row["impressions"] for row in of_days.stored(root, day)} for day in DAYS[:2]]


class Periods:
    """Fetches all windows and the newest months."""

    table_name = CAMPAIGN_PERIODS_TABLE

    @staticmethod
    def fetch(service: Service, root: Path, **options: Any) -> tuple[set[str], list[str]]:
        result, progress = of_periods.fetch(service, root, **options)
        return {*result.failed.values()}, progress.warnings

    @staticmethod
    def stored(root: Path) -> list[dict[int, Any]]:
        found = of_periods.by_period(root)
        return [
            {number: row["impressions"] for number, row in rows.items()}
            for (_, name, first_day, _), rows in found.items()
            if "month" not in name or first_day >= date(2024, 1, 1)
        ]


both_units = pytest.mark.parametrize("of", [Days, Periods])
Rows = Callable[[int], Iterable[Row]]


def row(number: int, impressions: Any = 7) -> Row:
    return {"campaignId": number, "impressions": impressions}


def respond(rows_of: Rows, *, silent: str | None = None, alone: Row | None = None) -> Callable[[Request], Any]:
    """Return a response override: some rows for each campaign of the instances that are asked for.

    Args:
        silent: An instance without rows.
        alone: The response if nothing but this instance is asked for.
    """

    def override(request: Request) -> Response | None:
        if request.url.path != PERFORMANCE_PATH:
            return None
        names = parameters(request).get("instanceIds", [*CAMPAIGNS])
        if names == [silent] and alone is not None:
            return JSONResponse(alone)
        numbers = [number for name in names if name != silent for number in CAMPAIGNS[name]]
        rows = [row for number in numbers for row in rows_of(number)]
        pagination = {"page": 1, "pageSize": 100, "totalItems": len(rows), "totalPages": 1}
        return JSONResponse({"data": rows, "pagination": pagination})

    return override


@pytest.fixture
def lake(service: Service, tmp_path: Path) -> Path:
    """A lake with five campaigns of two instances."""
    listed = [
        Campaign(instance_id=name, campaign_id=number, campaign_name="", status="live", start_date=None)
        for name, numbers in CAMPAIGNS.items()
        for number in numbers
    ]
    write_campaigns(Lake(str(tmp_path)), listed, (), instance_ids=(), today=date(2024, 3, 10))
    service.override = respond(lambda number: [row(number, 5)])
    for of in (Days, Periods):
        assert of.fetch(service, tmp_path) == (set(), [])
        assert {tuple(each.items()) for each in of.stored(tmp_path)} == {tuple(ALL.items())}
    return tmp_path


ONLY_FIRST = {"instance_ids": (FIRST,)}


@both_units
@pytest.mark.parametrize("wanted", [{}, ONLY_FIRST], ids=["all", "one instance"])
@pytest.mark.parametrize(
    ("rows_of", "reason"),
    [
        (lambda number: (), "no day or period of this run has campaigns of it"),
        (lambda number: [row(number) | {"campaignId": None}], "rows cannot be used, because campaignId is missing"),
        (lambda number: [row(number, "7 k")], 'values of impressions cannot be read, such as "7 k"'),
        (lambda number: [row(number), row(number, 8)], "rows have the same key, and not the same values"),
    ],
    ids=["no rows", "no keys", "units", "contradictions"],
)
def test_a_response_that_cannot_be_used_replaces_nothing(
    of: Any, wanted: dict[str, Any], rows_of: Rows, reason: str, service: Service, lake: Path
) -> None:
    service.override = respond(rows_of)
    reasons, _ = of.fetch(service, lake, **wanted)
    assert reasons
    assert all(reason in each for each in reasons), reasons
    assert all(each == ALL for each in of.stored(lake))


@both_units
def test_a_stored_campaign_stays_in_place_of_several_values(of: Any, service: Service, lake: Path) -> None:
    service.override = respond(lambda number: [row(number)] + [row(number, 8)] * (number == 2))
    assert of.fetch(service, lake) == (set(), [])
    assert all(each == dict.fromkeys(ALL, 7) | {2: 5} for each in of.stored(lake))
    quarantined = Lake(str(lake)).quarantine.rows(of.table_name)
    assert len(quarantined) == 2 * len(of.stored(lake))
    assert all('"campaignId":2' in each.raw for each in quarantined)


@both_units
@pytest.mark.parametrize("wanted", [{}, {"instance_ids": (FIRST, SECOND)}], ids=["all", "two instances"])
@pytest.mark.parametrize(
    ("alone", "limits", "stays"),
    [
        (None, WriteLimits(), False),
        (NO_TOTAL, WriteLimits(), True),
        ({"data": [row(2)], "pagination": {"totalItems": 1}}, WriteLimits(), True),
        (NO_TOTAL, WriteLimits(max_row_loss_percent=100), False),
    ],
    ids=["surely nothing", "maybe nothing", "something", "shrinking is accepted"],
)
def test_campaigns_of_an_instance_without_any_go_if_a_second_response_agrees(
    of: Any, wanted: dict[str, Any], alone: Row | None, limits: WriteLimits, stays: bool, service: Service, lake: Path
) -> None:
    asked: list[str] = []

    def override(request: Request) -> Response | None:
        if request.url.path != PERFORMANCE_PATH:
            return None
        asked.append(parameters(request)["startDate"][0])
        is_silent = asked[-1] == asked[0]  # another day or period has some
        return respond(lambda number: [row(number)], silent=FIRST if is_silent else None, alone=alone)(request)

    service.override = override
    reasons, warnings = of.fetch(service, lake, limits=limits, **wanted)
    left = {number: 7 for number in CAMPAIGNS[SECOND]} | ({1: 5, 2: 5} if stays else {})
    assert (len(reasons), warnings) == (int(stays), [])
    assert [each for each in of.stored(lake) if each != dict.fromkeys(ALL, 7)] == [left]


@both_units
def test_campaigns_of_an_instance_stay_if_no_day_or_period_has_any(of: Any, service: Service, lake: Path) -> None:
    service.override = respond(lambda number: [row(number)], silent=FIRST)
    (reason,), _ = of.fetch(service, lake)
    assert reason.startswith(f"campaigns of {FIRST} are stored, and the response has none")
    assert all(each == dict.fromkeys(ALL, 7) | {1: 5, 2: 5} for each in of.stored(lake))
    service.override = respond(lambda number: [row(number)], silent=FIRST)
    assert of.fetch(service, lake, limits=WriteLimits(max_row_loss_percent=100)) == (set(), [])
    assert all(each.keys() == {*CAMPAIGNS[SECOND]} for each in of.stored(lake))


@both_units
@pytest.mark.parametrize("wanted", [ONLY_FIRST, {}], ids=["fewer are wanted", "fewer are listed"])
def test_campaigns_of_instances_that_are_not_asked_for_stay(
    of: Any, wanted: dict[str, Any], service: Service, small_world: World, lake: Path
) -> None:
    restrict_scope(service, small_world, (FIRST,))
    service.override = respond(lambda number: [row(number)], silent=SECOND)
    assert of.fetch(service, lake, **wanted) == (set(), [])
    assert all(each == {1: 7, 2: 7, 3: 5, 4: 5, 5: 5} for each in of.stored(lake))
    assert service.request_count("/v2/instances") == (0 if wanted else 1)


@both_units
def test_a_kept_campaign_has_the_value_that_another_run_has_written_meanwhile(
    of: Any, service: Service, small_world: World, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {str(path.relative_to(lake)): path.read_bytes() for path in (lake / of.table_name).rglob("*.parquet")}
    service.override = respond(lambda number: [row(number, 22)])
    assert of.fetch(service, lake) == (set(), [])
    of_other_run = {path: (lake / path).read_bytes() for path in before}
    for path, data in before.items():
        (lake / path).write_bytes(data)
    storage = type(Lake(str(lake)).storage)
    put_all = storage.put_all

    def write_after_other_run(self: Any, files: Mapping[str, bytes], **options: Any) -> Any:
        for path in files.keys() & of_other_run.keys():
            (lake / path).write_bytes(of_other_run.pop(path))
        return put_all(self, files, **options)

    monkeypatch.setattr(storage, "put_all", write_after_other_run)
    restrict_scope(service, small_world, (FIRST,))
    service.override = respond(lambda number: [row(number)], silent=SECOND)
    assert of.fetch(service, lake) == (set(), [])
    assert not of_other_run
    assert all(each == {1: 7, 2: 7, 3: 22, 4: 22, 5: 22} for each in of.stored(lake))


@both_units
def test_all_campaigns_of_a_day_or_period_go_if_a_second_response_has_none(
    of: Any, service: Service, lake: Path
) -> None:
    asked: list[str] = []

    def override(request: Request) -> Response | None:
        if request.url.path != PERFORMANCE_PATH:
            return None
        asked.append(parameters(request)["startDate"][0])
        return respond(lambda number: [row(number)] if asked[-1] != asked[0] else [])(request)

    before, service.override = of.stored(lake), override
    assert of.fetch(service, lake) == (set(), [])
    assert sum(map(len, of.stored(lake))) == sum(map(len, before)) - len(ALL)
    assert asked.count(asked[0]) == 2
