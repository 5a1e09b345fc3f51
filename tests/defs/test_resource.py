"""The resource: settings from the environment or from code, secrets that are never shown."""

import asyncio
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials
from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource, SettingIsWrong
from later_reporting_dagster.ingest.write_guard import Guard
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Service
from tests.defs.conftest import Project


def in_use(resource: LaterReportingResource) -> LaterReportingResource:
    """The resource as an asset has it."""
    used: LaterReportingResource = resource.process_config_and_initialize()
    return used


def test_nothing_set_is_the_documented_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    later = in_use(LaterReportingResource.from_environment())
    assert later.base_url == "https://reporting.api.later.com"
    assert later.requests_per_minute == 120
    assert later.lake_root == str(tmp_path / "later-lake")
    assert (later.client_id, later.client_secret, later.access_token, later.instance_ids) == ("", "", "", "")


def test_each_variable_reaches_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "base_url": "https://example.com",
        "client_id": "some-client",
        "client_secret": "some-secret",
        "access_token": "some-token",
        "instance_ids": "a,b",
        "lake_root": "memory://lake",
        "metrics": "likes, reach",
        "requests_per_minute": 60,
        "api_revision": "cursor",
        "second_look_percent": 7,
        "shrink_limit_percent": 5,
        "bad_rows_limit_percent": 0,
        "memory_gb": 0.5,
    }
    for name, value in wanted.items():
        monkeypatch.setenv(f"LATER_{name.upper()}", str(value))
    resource = LaterReportingResource.from_environment()
    # Until it is used, it knows names of variables and no values: so they reach neither the UI nor a log.
    # A fraction is known already, for which Dagster has no variable.
    assert dict(resource) == {
        name: (dg.EnvVar.int if isinstance(value, int) else dg.EnvVar)(f"LATER_{name.upper()}")
        for name, value in wanted.items()
        if name != "memory_gb"
    } | {"memory_gb": 0.5}
    assert {name: getattr(in_use(resource), name) for name in wanted} == wanted


def test_the_metrics_to_ask_for_are_the_documents_unless_others_are_named() -> None:
    assert in_use(LaterReportingResource()).selected_metrics() == DOCUMENT_METRICS
    assert in_use(LaterReportingResource(metrics="all")).selected_metrics() == METRICS
    named = in_use(LaterReportingResource(metrics="paidReach,likes")).selected_metrics()
    assert [metric.column for metric in named] == ["likes", "paid_reach"]
    wrong = r"LATER_METRICS \(metrics\): 'like' is no metric that is known; the nearest is likes"
    with pytest.raises(SettingIsWrong, match=wrong):
        in_use(LaterReportingResource(metrics="like")).selected_metrics()


def test_answers_without_totals_are_looked_at_twice_now_and_then_unless_a_share_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looks() -> dict[str, float]:
        later = in_use(LaterReportingResource.from_environment())
        return {str(revision): share for revision, share in later._second_looks().items()}

    monkeypatch.setenv("LATER_ACCESS_TOKEN", "some-token")
    assert looks() == {"paged": 0.0, "cursor": 0.01}
    for percent in (0, 100):
        monkeypatch.setenv("LATER_SECOND_LOOK_PERCENT", str(percent))
        assert looks() == {"paged": percent / 100, "cursor": percent / 100}
    monkeypatch.setenv("LATER_SECOND_LOOK_PERCENT", "101")
    with pytest.raises(ValueError, match="LATER_SECOND_LOOK_PERCENT is a whole number from 0 to 100, not '101'"):
        looks()
    with pytest.raises(SettingIsWrong, match=r"LATER_SECOND_LOOK_PERCENT .* a whole number from 0 to 100, not 101"):
        in_use(LaterReportingResource(access_token="t", second_look_percent=101)).client()


def test_what_an_answer_may_take_away_is_a_setting() -> None:
    assert in_use(LaterReportingResource()).guard() == Guard(shrink_limit_percent=50, bad_rows_limit_percent=100)
    limited = LaterReportingResource(shrink_limit_percent=5, bad_rows_limit_percent=0)
    assert in_use(limited).guard() == Guard(shrink_limit_percent=5, bad_rows_limit_percent=0)
    # What one run accepts is said by its run config, and is no setting.
    assert in_use(limited).guard(accept_shrinking=True) == Guard(shrink_limit_percent=100, bad_rows_limit_percent=0)
    assert "accept_shrinking" not in LaterReportingResource.model_fields


@pytest.mark.parametrize("memory_gb", [0.25, -1, float("inf"), float("nan")])
def test_memory_that_is_too_little_or_no_number_is_named(memory_gb: float) -> None:
    assert in_use(LaterReportingResource()).memory_limit_gb() == 2
    assert in_use(LaterReportingResource(memory_gb=0.26)).memory_limit_gb() == 0.26
    wrong = rf"^LATER_MEMORY_GB \(memory_gb\): a number of GB above 0.25, such as 2 or 1.5, not {memory_gb:g}$"
    with pytest.raises(SettingIsWrong, match=wrong):
        LaterReportingResource(memory_gb=memory_gb).memory_limit_gb()


def test_the_launchpad_goes_before_the_environment(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_BASE_URL", "https://nowhere.invalid")
    tags = range_tags(FIRST_DAY, FIRST_DAY)
    result = project.run("posts_published", tags=tags, resource={"base_url": service.base_url})
    assert result.success
    assert service.data_requests == 1


def test_a_ready_token_goes_before_client_credentials() -> None:
    credentials = {"client_id": "some-client", "client_secret": "some-secret"}
    assert in_use(LaterReportingResource(**credentials)).credentials() == ClientCredentials(**credentials)
    assert in_use(LaterReportingResource(**credentials, access_token="token")).credentials() == AccessToken("token")


@pytest.mark.parametrize("given", [{}, {"client_id": "some-client"}, {"client_secret": "some-secret"}])
def test_without_credentials_it_says_which_variables_to_set(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN"):
        in_use(LaterReportingResource(**given)).credentials()


def test_its_clients_share_the_rate_limit_of_the_machine(
    later: LaterReportingResource, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        asyncio.run(later.listed_instances())
    (state,) = [path for path in (tmp_path / "later-reporting").glob("rate-*") if path.suffix != ".lock"]
    reserved = len(state.read_bytes()) // 8 - 2  # after a mark and the instant before which nobody starts
    assert reserved == len(service.requests) > 2


def test_its_clients_remember_which_revision_the_service_speaks(
    later: LaterReportingResource, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asyncio.run(later.listed_instances())
    (kept,) = (tmp_path / "later-reporting").glob("revision-*")
    assert kept.read_text() == "paged"


def test_a_revision_that_there_is_not_is_named(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_API_REVISION", "v3")
    message = r"^LATER_API_REVISION \(api_revision\): auto or one of paged, cursor, not 'v3'$"
    with pytest.raises(SettingIsWrong, match=message):
        in_use(LaterReportingResource.from_environment()).client()


def test_listed_instances_are_all_that_the_credentials_reach(later: LaterReportingResource) -> None:
    assert asyncio.run(later.listed_instances()) == INSTANCE_IDS


def test_named_instances_are_those_of_the_settings_each_once() -> None:
    assert in_use(LaterReportingResource(instance_ids=" b, a ,, Zoë,b")).named_instances() == ("b", "a", "Zoë")
    assert in_use(LaterReportingResource()).named_instances() == ()
