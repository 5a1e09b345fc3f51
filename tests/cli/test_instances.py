"""`later-reporting instances`: what the credentials reach, and its registration as partitions."""

import dagster as dg
import pytest

from later_reporting_dagster.client import RetryPolicy
from tests.cli.conftest import User, said
from tests.conftest import INSTANCE_IDS, Service, problem
from tests.defs.conftest import KEYS
from tests.defs.test_sensors import listing


def registered() -> list[str]:
    with dg.DagsterInstance.get() as instance:
        return list(instance.get_dynamic_partitions("later_instance"))


def test_it_lists_what_the_credentials_reach_and_changes_nothing(user: User) -> None:
    result = user.types("instances")
    assert (result.exit_code, result.stdout.splitlines()) == (0, list(INSTANCE_IDS))
    assert registered() == []


def test_listing_needs_no_dagster(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    assert user.types("instances").exit_code == 0


def test_sync_registers_what_is_new_and_says_how_much(user: User, service: Service) -> None:
    first = user.types("instances", "--sync")
    assert (first.exit_code, first.stdout.splitlines()) == (0, list(INSTANCE_IDS))
    assert first.stderr == "4 instances, 4 of them newly registered\n"
    assert registered() == KEYS

    service.instead = lambda request: listing("new") if request.url.path == "/v2/instances" else None
    second = user.types("instances", "--sync")
    assert second.stderr == "1 instances, 1 of them newly registered\n"
    assert registered() == [*KEYS, "new"]


def test_named_instances_are_those_of_the_settings(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, a b")
    user.types("instances", "--sync")
    assert registered() == ["007", "a%20b"]


def test_an_id_that_cannot_be_a_partition_is_told_and_the_others_registered(user: User, service: Service) -> None:
    service.instead = lambda request: listing("good", "x" * 300) if request.url.path == "/v2/instances" else None
    result = user.types("instances", "--sync")
    assert result.exit_code == 1
    assert "'xxx" in result.stderr
    assert "cannot be a partition" in result.stderr
    assert registered() == ["good"]


def test_without_credentials_it_says_what_to_set(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATER_CLIENT_SECRET")
    result = user.types("instances")
    assert result.exit_code == 1
    assert said(result) == (
        "no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN"
        " (LATER_CLIENT_SECRET is empty)"
    )


def test_wrong_credentials_are_one_line_without_secrets(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", "no-such-secret")
    result = user.types("instances")
    assert result.exit_code == 1
    assert "LATER_CLIENT_SECRET" in said(result)
    assert "no-such-secret" not in result.output


def test_a_base_url_in_the_clear_is_refused(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_BASE_URL", "http://example.com")
    assert "in the clear: use https" in said(user.types("instances"))


def test_a_rate_that_is_none_is_one_line(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_REQUESTS_PER_MINUTE", "many")
    assert said(user.types("instances")).startswith("LATER_REQUESTS_PER_MINUTE is a whole number")


def test_a_service_that_fails_is_one_line(user: User, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_after", lambda *_arguments, **_options: None)
    service.instead = lambda request: problem(500) if request.url.path == "/v2/instances" else None
    assert "HTTP 500" in said(user.types("instances"))


def test_sync_without_a_dagster_home_says_what_it_is(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    assert said(user.types("instances", "--sync")).startswith("DAGSTER_HOME is not set: it is the folder")


@pytest.mark.parametrize("home", ["relative/path", "/no/such/folder"])
def test_a_dagster_home_that_does_not_open_is_named(home: str, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    assert f"DAGSTER_HOME={home}" in said(user.types("instances", "--sync"))
