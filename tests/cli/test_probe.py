"""`later-reporting probe`: what it prints and writes, and when it exits with 1."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from later_reporting_dagster.probe.sample import MAX_REQUESTS
from tests.cli.conftest import User, error_line
from tests.conftest import Service, both_api_versions, metrics_of, parameters, problem


@pytest.fixture(autouse=True)
def _day_after_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("later_reporting_dagster.cli.probe.utc_now", lambda: datetime(2024, 3, 11, 12, tzinfo=UTC))


@both_api_versions
def test_probe_prints_and_writes_the_same_verdicts(user: User, service: Service, tmp_path: Path) -> None:
    output = tmp_path / "probe.json"
    result = user.run("probe", "--output", str(output))
    assert result.exit_code == 0, result.output
    written = json.loads(output.read_text())
    assert written["api_version"] == str(service.api_version)
    assert written["requests"] == len(service.requests) <= MAX_REQUESTS
    for each in written["assumptions"]:
        assert f"{each['verdict']:<13}  {each['question']}" in result.stdout.splitlines()
        assert each["affected_tables"] == []
    assert {each["verdict"] for each in written["assumptions"]} == {"holds", "not testable"}
    assert not user.lake.exists()


def triple_two_days(request: Request, body: Any) -> Any:
    asked = parameters(request)
    days = int(asked["endDate"][0][-2:]) - int(asked["startDate"][0][-2:])
    if asked["dateBasis"] == ["performance_date"] and days == 1:
        for row in body["data"]:
            metrics_of(row)["engagements"] = 3 * (metrics_of(row)["engagements"] or 0)
    return body


def test_probe_exits_with_1_and_names_the_tables_with_wrong_numbers(
    user: User, service: Service, tmp_path: Path
) -> None:
    service.transform = triple_two_days
    output = tmp_path / "probe.json"
    result = user.run("probe", "--output", str(output))
    assert result.exit_code == 1
    assert "does not hold  Do the metrics of posts on two days add up to those of both days?" in result.stdout
    message = error_line(result)
    assert message.startswith("these tables have wrong numbers: campaign_results, campaigns_monthly, organic_by_")
    assert message.endswith("See docs/questions.md")
    written = json.loads(output.read_text())["assumptions"]
    affected = {each["name"]: {*each["affected_tables"]} for each in written if each["affected_tables"]}
    assert affected.keys() == {"days_of_posts_add_up", "campaign_is_the_sum_of_its_posts"}
    organic_paid = {"organic_paid_daily", "organic_paid_by_platform", "organic_paid_overall"}
    assert affected["days_of_posts_add_up"] >= organic_paid | {"posts", "organic_by_age"}
    assert all(name in message for names in affected.values() for name in names)


def test_probe_shows_why_requests_failed(user: User, service: Service) -> None:
    service.override = lambda request: problem(400, "ANL_0x") if "campaigns" in request.url.path else None
    result = user.run("probe")
    assert result.exit_code == 0
    assert "A request failed: campaigns of 2024-03-07 to 2024-03-08 by performance_date" in result.stdout
    assert "HTTP 400 ANL_0x" in result.stdout


def test_probe_without_access_fails_with_one_line(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", "wr0ng")
    result = user.run("probe")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Check the client id and secret" in error_line(result)


def test_probe_requests_configured_instances_only(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007")
    assert user.run("probe").exit_code == 0
    asked = [parameters(request) for request in service.requests if "performance" in request.url.path]
    assert {*map(str, (each["instanceIds"] for each in asked))} == {"['007']"}


def without_ids(_request: Request, body: Any) -> Any:
    for row in body["data"][:3]:
        del row["postId"]
    return body


def test_probe_cuts_long_texts_of_the_server(user: User, service: Service) -> None:
    def with_long_name(_request: Request, body: Any) -> Any:
        for row in body["data"][:1]:
            row["x" * 100_000] = 1
        return body

    service.transform = with_long_name
    result = user.run("probe")
    assert "xxxx…; unknown: 1" in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 400
