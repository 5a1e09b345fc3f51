"""`later-reporting doctor`: each line well, or with what to do."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from later_reporting_dagster.cli.doctor import Finding, examine
from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.contract import CURSOR
from later_reporting_dagster.defs.resource import LaterReportingResource
from tests.cli.conftest import User
from tests.conftest import Service, both_revisions, problem
from tests.defs.conftest import listed


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_after", lambda *_arguments, **_options: None)


def findings(user: User, *, exit_code: int) -> dict[str, tuple[str, str]]:
    """What the doctor says, by subject: the mark, and the text."""
    result = user.types("doctor")
    assert result.exit_code == exit_code
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    found = {}
    for mark, rest in lines:
        subject, text = rest[:12].strip(), rest[13:]
        found[subject] = (mark, text)
    assert len(found) == len(lines)
    return found


def failing(user: User) -> dict[str, str]:
    """The texts of what is not well, by subject."""
    return {subject: text for subject, (mark, text) in findings(user, exit_code=1).items() if mark == "FAIL"}


def test_all_is_well(user: User, service: Service) -> None:
    found = findings(user, exit_code=0)
    assert {subject: mark for subject, (mark, _) in found.items()} == dict.fromkeys(
        ("settings", "token", "revision", "scope", "rate limit", "clock", "lake"), "ok"
    )
    assert found["revision"][1] == "paged: numbered pages with totals"
    assert found["scope"][1] == "4 instances within reach"
    assert found["rate limit"][1].startswith("100000 requests in 60 s")
    assert found["lake"][1] == f"{user.lake} is writable"
    assert [path for path in user.lake.rglob("*") if path.is_file()] == []


def test_without_a_dagster_home_it_says_what_to_set(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    assert failing(user).keys() == {"settings"}


def test_a_wrong_setting_is_named(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_RESTATE_DAYS", "a month")
    assert failing(user) == {"settings": "LATER_RESTATE_DAYS is a whole number from 1 to 730, not 'a month'"}


def test_without_credentials_it_says_what_to_set(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_CLIENT_ID", "")
    told = failing(user)
    assert told.keys() == {"credentials"}
    assert "LATER_CLIENT_ID and LATER_CLIENT_SECRET" in told["credentials"]


def test_wrong_credentials_are_told_without_them(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", "no-such-secret")
    told = failing(user)
    assert told.keys() == {"token"}
    assert "LATER_CLIENT_SECRET" in told["token"]
    assert "no-such-secret" not in told["token"]


def test_a_server_that_is_not_there_is_told(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_BASE_URL", "http://127.0.0.1:9")
    told = failing(user)
    assert told.keys() == {"token"}
    assert "ConnectError" in told["token"]


def test_a_base_url_in_the_clear_is_told(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_BASE_URL", "http://example.com")
    assert "use https" in failing(user)["credentials"]


def test_credentials_that_reach_nothing_are_told(user: User, service: Service) -> None:
    service.instead = listed()
    assert failing(user) == {"scope": "the credentials reach no instance: have instances added to their scope"}


def test_an_instance_beyond_reach_is_named(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007,nobody")
    assert failing(user) == {"scope": "LATER_INSTANCE_IDS names nobody, which the credentials do not reach"}


def test_an_id_that_cannot_be_a_partition_is_told(user: User, service: Service) -> None:
    service.instead = listed("x" * 300)
    assert "cannot be a partition" in failing(user)["scope"]


def test_a_listing_that_fails_is_told(user: User, service: Service) -> None:
    # The probe asks for one instance, the listing for a hundred.
    service.instead = lambda request: problem(500) if "pageSize=100" in request.url.query else None
    told = failing(user)
    assert told.keys() == {"scope"}
    assert "HTTP 500" in told["scope"]


@both_revisions
def test_a_revision_that_is_set_otherwise_is_told(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(user, exit_code=0)["revision"][1].startswith(f"{service.revision}: ")
    other = "paged" if service.revision is CURSOR else "cursor"
    monkeypatch.setenv("LATER_API_REVISION", other)
    told = f"the service speaks {service.revision}, and LATER_API_REVISION is {other}: set it to auto"
    assert failing(user)["revision"] == told


def test_a_lake_that_cannot_be_written_is_told(user: User) -> None:
    user.lake.write_bytes(b"a file where a directory is due")
    told = failing(user)
    assert told.keys() == {"lake"}
    assert str(user.lake) in told["lake"]


def test_a_lake_of_an_unknown_scheme_is_told(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_LAKE_ROOT", "nowhere://lake")
    assert "nowhere" in failing(user)["lake"]


@pytest.mark.parametrize(("seconds", "well"), [(0, True), (25, True), (-25, True), (45, False), (-45, False)])
def test_a_clock_that_is_off_is_told(seconds: int, well: bool, user: User) -> None:
    later: LaterReportingResource = LaterReportingResource.from_environment().process_config_and_initialize()
    told = asyncio.run(examine(later, now=lambda: datetime.now(UTC) + timedelta(seconds=seconds)))
    (clock,) = [finding for finding in told if finding.subject == "clock"]
    assert clock.well is well
    assert isinstance(clock, Finding)
    assert ("set this machine's clock" in clock.text) is not well


def test_a_password_in_the_lake_s_url_is_not_shown(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_LAKE_ROOT", "memory://someone:t0psecret@somewhere/lake")
    mark, text = findings(user, exit_code=0)["lake"]
    assert mark == "ok"
    assert "t0psecret" not in text
    assert "t0psecret" not in repr(LaterReportingResource.from_environment().process_config_and_initialize())
