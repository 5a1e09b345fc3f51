"""`later-reporting doctor`: each check passes, or its message names the fix."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from later_reporting_dagster.cli.doctor import CheckResult, check_setup
from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, load_project
from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.contract import CURSOR
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RAW_NAMES
from tests.cli.conftest import User
from tests.cli.test_probe import without_ids
from tests.conftest import Service, both_api_versions, problem
from tests.defs.conftest import list_instances

Override = Callable[[Request], Response | None]
DAY = ("--start", "2024-03-01", "--end", "2024-03-01")
# The tables that are made from lists of the API, or from all files, and are one file.
ONE_FILE = ("instances", "campaigns", "campaign_performance_periods", "coverage")


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at the first failed request."""
    monkeypatch.setattr(RetryPolicy, "wait_after", lambda *_arguments, **_options: None)


def check_results(user: User, *, exit_code: int) -> dict[str, tuple[str, str]]:
    """Return the mark and the message of each check, by subject."""
    result = user.run("doctor", "--format", "json")
    assert result.exit_code == exit_code
    results = json.loads(result.stdout)
    by_subject = {each["subject"]: (each["mark"], each["message"]) for each in results}
    assert len(results) == len(by_subject)
    return by_subject


def test_doctor_passes_with_a_working_setup(user: User, service: Service) -> None:
    results = check_results(user, exit_code=0)
    assert {subject: mark for subject, (mark, _) in results.items()} == dict.fromkeys(
        ("settings", "token", "scope", "posts", "lake", "tables"), "ok"
    )
    assert results["scope"][1] == "4 instances accessible"
    assert results["lake"][1] == f"{user.lake} is writable"
    assert [path for path in user.lake.rglob("*") if path.is_file()] == []
    lines = user.run("doctor").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(results)
    assert "ok    scope    4 instances accessible" in lines


def respond_to(words: str, status: int) -> Override:
    """Return a response override that rejects requests whose path and query contain some words."""
    return lambda request: problem(status) if words in f"{request.url.path}?{request.url.query}" else None


@pytest.mark.parametrize(
    ("settings", "override", "mark", "subject", "message"),
    [
        ({"LATER_CLIENT_SECRET": "s3cret"}, None, "FAIL", "token", "LATER_CLIENT_SECRET"),
        ({"LATER_BASE_URL": "https://a.invalid"}, None, "FAIL", "token", "LATER_BASE_URL, which is https://a.invalid."),
        (
            {},
            lambda _: HTMLResponse("<h1>It works!</h1>"),
            "FAIL",
            "token",
            "Check LATER_BASE_URL, which is http://127",
        ),
        ({}, list_instances(), "FAIL", "scope", "the credentials have access to no instance: ask Later to add"),
        # The probe asks for one instance, the listing for a hundred.
        ({}, respond_to("instances?pageSize=100", 500), "FAIL", "scope", "HTTP 500"),
        (
            {"LATER_CLIENTID": "1", "LATER_UNRELATED_THING": "1", "LATER_SERVE_PORT": "1"},
            *(None, "WARN", "variables"),
            "nothing reads LATER_CLIENTID, LATER_UNRELATED_THING",
        ),
        (
            {"LATER_LAKE_ROOT": "memory://someone:s3cret@there/lake"},
            None,
            "ok",
            "lake",
            "there/lake is writable. It does not compare versions",
        ),
    ],
)
def test_doctor_names_only_what_is_wrong_and_the_fix(
    settings: dict[str, str],
    override: Override | None,
    mark: str,
    subject: str,
    message: str,
    user: User,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    service.override = override or service.override
    results = check_results(user, exit_code=int(mark == "FAIL"))
    assert {each for each, (found, _) in results.items() if found != "ok"} == ({subject} if mark != "ok" else set())
    assert results[subject][0] == mark
    assert message in results[subject][1]
    assert "s3cret" not in str(results)


@both_api_versions
def test_doctor_fails_if_another_api_version_is_configured(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = check_results(user, exit_code=0)["token"]
    assert token == ("ok", f"accepted by {service.base_url}, which responds in version {service.api_version}")
    other = "paged" if service.api_version is CURSOR else "cursor"
    monkeypatch.setenv("LATER_API_VERSION", other)
    message = f"the API responds in version {service.api_version}, but LATER_API_VERSION is {other}: set it to auto"
    assert check_results(user, exit_code=1)["token"] == ("FAIL", message)


@pytest.mark.parametrize(("seconds", "passed"), [(25, True), (-25, True), (45, False), (-45, False)])
def test_doctor_fails_if_the_clock_is_wrong(seconds: int, passed: bool, user: User) -> None:
    results = asyncio.run(
        check_setup(
            load_project(ENVIRONMENT_MODULE, name=None), now=lambda: datetime.now(UTC) + timedelta(seconds=seconds)
        )
    )
    (token,) = [result for result in results if result.subject == "token"]
    assert (token.mark == "ok") is passed
    assert ("set this machine's clock" in token.message) is not passed


def test_doctor_says_of_each_table_what_it_lacks_for_whom(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    monkeypatch.setenv("LATER_DUE_HOUR_UTC", "0")
    monkeypatch.setenv("LATER_START_DATE", str(yesterday - timedelta(days=1)))
    monkeypatch.setenv("LATER_TABLES", ",".join((*RAW_NAMES, *ONE_FILE)))
    assert user.run("backfill").exit_code == 0
    before = check_results(user, exit_code=0)
    complete = "ok", f"complete from {yesterday - timedelta(days=1)} on"
    assert {before[f"later/{name}"] for name in RAW_NAMES} == {complete}
    assert [before[f"later/{name}"][0] for name in ONE_FILE] == ["ok"] * 4

    lake, run = Lake(str(user.lake)), "run `later-reporting backfill"
    days = f"--only-missing --start {yesterday} --end {yesterday}`"
    Path(lake.url("posts_published", Partition(yesterday, "007"))).unlink()
    Path(lake.url("campaign_performance_daily", Partition(yesterday))).unlink()
    shutil.rmtree(user.lake / "campaign_performance_periods")
    after = check_results(user, exit_code=0)
    assert user.run("doctor", "--strict").exit_code == 1
    assert {subject for subject in after if after[subject] != before[subject]} == {
        "later/posts_published",
        "later/campaign_performance_daily",
        "later/campaign_performance_periods",
    }
    missing = f"1 file is missing: {yesterday} (1 day)"
    sensor = ", or turn on the sensor later_missing_files, which fetches them"
    assert after["later/posts_published"] == ("WARN", f"{missing}: 007: {run} {days}{sensor}")
    assert after["later/campaign_performance_daily"] == ("WARN", f"{missing}: {run} {days}")
    assert after["later/campaign_performance_periods"] == ("WARN", f"missing: {run}`")


def test_doctor_wants_a_start_date_of_the_user(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user.run("doctor", "--strict").exit_code == 0
    monkeypatch.delenv("LATER_START_DATE")
    warning = "set LATER_START_DATE: without it, the lake begins on 2024-01-01"
    assert check_results(user, exit_code=0)["start date"] == ("WARN", warning)


def test_doctor_names_the_package_for_postgres(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = "storage: {postgres: {postgres_db: {hostname: h, username: u, password: p, db_name: d}}}\n"
    (user.home / "dagster.yaml").write_text(storage)
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)  # importing it fails
    mark, message = check_results(user, exit_code=1)["settings"]
    assert mark == "FAIL"
    assert message.endswith(". Install it: pip install dagster-postgres")


POSTGRES = Path(__file__).parents[2] / "deploy" / "dagster.yaml"


def test_doctor_names_variables_of_postgres_that_are_not_set(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(POSTGRES, user.home / "dagster.yaml")
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"DAGSTER_PG_{name}", "1")
    mark, message = check_results(user, exit_code=1)["settings"]
    assert mark == "FAIL"
    assert message.endswith(": set DAGSTER_PG_DB, which its dagster.yaml reads")


@pytest.mark.parametrize(
    ("reason", "variables"),
    [
        ('FATAL: password authentication failed for user "u"', "DAGSTER_PG_USERNAME and DAGSTER_PG_PASSWORD"),
        ('FATAL: role "u" does not exist', "DAGSTER_PG_USERNAME"),
        ('FATAL: database "d" does not exist', "DAGSTER_PG_DB"),
        ("connection to server at h failed: Connection refused", "DAGSTER_PG_HOST and DAGSTER_PG_PORT"),
    ],
)
def test_doctor_names_the_variable_that_postgres_refuses(
    reason: str, variables: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("too many retries for DB connection") from OperationalError(None, None, Exception(reason))

    shutil.copy(POSTGRES, user.home / "dagster.yaml")
    monkeypatch.setattr(dg.DagsterInstance, "get", refuse)
    mark, message = check_results(user, exit_code=1)["settings"]
    assert mark == "FAIL"
    assert message.endswith(f": {reason}. Check {variables}")


def test_doctor_names_an_instance_that_is_no_longer_listed(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_TABLES", "posts_published,instances")
    assert user.run("backfill", "--asset", "posts_published", *DAY).exit_code == 0
    assert "instances" not in check_results(user, exit_code=0)
    service.override = list_instances("a/b|c,d [e]", "instance_000", "Zoë 😀 %2F")
    mark, message = check_results(user, exit_code=0)["instances"]
    assert mark == "WARN"
    assert message.startswith("No longer listed: 007. ")
    assert "`later-reporting retire ID`. Otherwise wait" in message
    assert user.run("doctor", "--strict").exit_code == 1
    Lake(str(user.lake)).retired.add("007")
    assert "instances" not in check_results(user, exit_code=0)


def test_doctor_names_instances_of_which_nothing_was_fetched(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_TABLES", "posts_published")
    days = ("--start", "2024-03-01", "--end", "2024-03-01", "--instances", "007")
    assert user.run("backfill", *days).exit_code == 0
    mark, message = check_results(user, exit_code=0)["later/posts_published"]
    assert mark == "WARN"
    assert " days): Zoë 😀 %2F, a/b|c,d [e], instance_000; " in message


def test_doctor_needs_no_access_to_a_retired_instance(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007,gone")
    assert "names gone, which the credentials cannot access" in check_results(user, exit_code=1)["scope"][1]
    Lake(str(user.lake)).retired.add("gone")
    assert check_results(user, exit_code=0)["scope"][0] == "ok"


@both_api_versions
def test_rows_that_cannot_be_read_are_counted(user: User, service: Service) -> None:
    day = datetime(2024, 3, 11, 12, tzinfo=UTC)

    def result_of_posts() -> CheckResult:
        results = asyncio.run(check_setup(load_project(ENVIRONMENT_MODULE, name=None), now=lambda: day))
        return next(result for result in results if result.subject == "posts")

    assert result_of_posts() == CheckResult("posts", "100 rows of the last 30 days can be read")
    service.transform = without_ids
    assert result_of_posts() == CheckResult("posts", "3 of 100 rows cannot be read: postId is missing", "FAIL")
