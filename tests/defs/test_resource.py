"""The resource: settings from the environment or from code, and secrets that are never shown."""

import asyncio
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials
from later_reporting_dagster.client.rate_limiter import Ledger
from later_reporting_dagster.contract import DEFAULT_CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from later_reporting_dagster.defs.settings import resolve_storage_options
from later_reporting_dagster.ingest.write_guard import WriteGuard
from tests.conftest import INSTANCE_IDS, Service


def initialized(resource: LaterReportingResource) -> LaterReportingResource:
    """Return the resource as an asset receives it."""
    used: LaterReportingResource = resource.process_config_and_initialize()
    return used


def test_defaults_are_the_documented_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    later = initialized(LaterReportingResource.from_environment())
    assert later.base_url == "https://reporting.api.later.com"
    assert later.requests_per_minute == 120
    assert later.lake_root == str(tmp_path / "later-lake")
    assert (later.client_id, later.client_secret, later.access_token, later.instance_ids) == ("", "", "", "")


def test_environment_variables_set_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "base_url": "https://example.com",
        "client_id": "some-client",
        "client_secret": "some-secret",
        "access_token": "some-token",
        "instance_ids": "a,b",
        "lake_root": "memory://lake",
        "metrics": "likes, reach",
        "campaign_metrics": "paidAdSpend, clicks",
        "requests_per_minute": 60,
        "rate_limit_store": "postgresql://user:some-password@host/db",
        "api_version": "cursor",
        "verify_percent": 7,
        "shrink_limit_percent": 5,
        "bad_rows_limit_percent": 0,
        "memory_gb": 0.5,
        "demo_mode": True,
    }
    for name, value in expected.items():
        monkeypatch.setenv(f"LATER_{name.upper()}", str(value))
    monkeypatch.setenv("LATER_STORAGE_OPTIONS", '{"key": "some-key"}')
    resource = LaterReportingResource.from_environment()
    # Before initialization it has names of variables, not their values, so the UI and logs cannot show these.
    # Dagster has no environment variable type for fractions and booleans, so these are read early.
    assert dict(resource) == {
        name: (dg.EnvVar.int if isinstance(value, int) else dg.EnvVar)(f"LATER_{name.upper()}")
        for name, value in expected.items()
        if name not in ("memory_gb", "demo_mode")
    } | {"memory_gb": 0.5, "demo_mode": True, "storage_options": {"env": "LATER_STORAGE_OPTIONS"}}
    assert {name: getattr(initialized(resource), name) for name in expected} == expected


def test_selected_metrics_default_to_the_api_reference() -> None:
    assert initialized(LaterReportingResource()).selected_metrics() == DEFAULT_METRICS
    assert initialized(LaterReportingResource(metrics="all")).selected_metrics() == METRICS
    named = initialized(LaterReportingResource(metrics="paidReach,likes")).selected_metrics()
    assert [metric.column for metric in named] == ["likes", "paid_reach"]
    message = r"LATER_METRICS \(metrics\): unknown metric 'like'; the nearest is likes"
    with pytest.raises(InvalidSetting, match=message):
        initialized(LaterReportingResource(metrics="like")).selected_metrics()


def test_selected_campaign_metrics_default_to_spend_and_return() -> None:
    assert initialized(LaterReportingResource()).selected_campaign_metrics() == DEFAULT_CAMPAIGN_METRICS
    named = initialized(LaterReportingResource(campaign_metrics="clicks,paid_ad_spend")).selected_campaign_metrics()
    assert [metric.column for metric in named] == ["paid_ad_spend", "clicks"]
    message = r"LATER_CAMPAIGN_METRICS \(campaign_metrics\): unknown metric 'paidSpend'; the nearest is paidAdSpend"
    with pytest.raises(InvalidSetting, match=message):
        initialized(LaterReportingResource(campaign_metrics="paidSpend")).selected_campaign_metrics()


def test_verify_percent_defaults_by_api_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def rates() -> dict[str, float]:
        later = initialized(LaterReportingResource.from_environment())
        return {str(version): rate for version, rate in later._verification_rates().items()}

    monkeypatch.setenv("LATER_ACCESS_TOKEN", "some-token")
    assert rates() == {"paged": 0.0, "cursor": 0.01}
    for percent in (0, 100):
        monkeypatch.setenv("LATER_VERIFY_PERCENT", str(percent))
        assert rates() == {"paged": percent / 100, "cursor": percent / 100}
    monkeypatch.setenv("LATER_VERIFY_PERCENT", "101")
    with pytest.raises(
        ValueError, match=r"LATER_VERIFY_PERCENT \(verify_percent\): must be a whole number from 0 to 100, not '101'"
    ):
        rates()
    with pytest.raises(InvalidSetting, match=r"LATER_VERIFY_PERCENT .* must be a whole number from 0 to 100, not 101"):
        initialized(LaterReportingResource(access_token="t", verify_percent=101)).client()


def test_write_guard_limits() -> None:
    assert initialized(LaterReportingResource()).write_guard() == WriteGuard(
        shrink_limit_percent=50, bad_rows_limit_percent=100
    )
    limited = LaterReportingResource(shrink_limit_percent=5, bad_rows_limit_percent=0)
    assert initialized(limited).write_guard() == WriteGuard(shrink_limit_percent=5, bad_rows_limit_percent=0)
    # Accepting a shrinking response is run config, not a setting.
    assert initialized(limited).write_guard(accept_shrinking=True) == WriteGuard(
        shrink_limit_percent=100, bad_rows_limit_percent=0
    )
    assert "accept_shrinking" not in LaterReportingResource.model_fields


@pytest.mark.parametrize("memory_gb", [0.25, -1, float("inf"), float("nan")])
def test_memory_limit_out_of_bounds_fails(memory_gb: float) -> None:
    assert initialized(LaterReportingResource()).memory_limit_gb() == 2
    assert initialized(LaterReportingResource(memory_gb=0.26)).memory_limit_gb() == 0.26
    message = (
        rf"^LATER_MEMORY_GB \(memory_gb\): must be a number of GB above 0.25, such as 2 or 1.5, not {memory_gb:g}$"
    )
    with pytest.raises(InvalidSetting, match=message):
        LaterReportingResource(memory_gb=memory_gb).memory_limit_gb()


def test_access_token_overrides_client_credentials() -> None:
    credentials = {"client_id": "some-client", "client_secret": "some-secret"}
    assert initialized(LaterReportingResource(**credentials)).credentials() == ClientCredentials(**credentials)
    assert initialized(LaterReportingResource(**credentials, access_token="token")).credentials() == AccessToken(
        "token"
    )


@pytest.mark.parametrize("fields", [{}, {"client_id": "some-client"}, {"client_secret": "some-secret"}])
def test_missing_credentials_name_the_variables(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN"):
        initialized(LaterReportingResource(**fields)).credentials()


def test_clients_share_the_rate_limit(
    later: LaterReportingResource, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        asyncio.run(later.listed_instances())
    (state,) = [path for path in (tmp_path / "later-reporting").glob("rate-*") if path.suffix != ".lock"]
    assert len(Ledger.from_bytes(state.read_bytes()).reserved) == len(service.requests) > 2


def test_unknown_api_version_fails(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_API_VERSION", "v3")
    message = r"^LATER_API_VERSION \(api_version\): must be auto, paged or cursor, not 'v3'$"
    with pytest.raises(InvalidSetting, match=message):
        initialized(LaterReportingResource.from_environment()).client()


def test_listed_instances_are_fetched(later: LaterReportingResource) -> None:
    assert asyncio.run(later.listed_instances()) == INSTANCE_IDS


def test_configured_instances_are_unique() -> None:
    assert initialized(LaterReportingResource(instance_ids=" b, a ,, Zoë,b")).configured_instances() == (
        "b",
        "a",
        "Zoë",
    )
    assert initialized(LaterReportingResource()).configured_instances() == ()


def test_storage_options_are_read_from_variables_when_the_lake_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "s3cr3t")
    monkeypatch.setenv("LATER_STORAGE_OPTIONS", '{"key": "s3cr3t", "client_kwargs": {"verify": false}}')
    references = {"key": dg.EnvVar("A_KEY"), "nested": {"key": {"env": "A_KEY"}, "keys": [dg.EnvVar("A_KEY")]}, "n": 1}
    for storage_options, expected in (
        ({"env": "LATER_STORAGE_OPTIONS"}, {"key": "s3cr3t", "client_kwargs": {"verify": False}}),
        (references, {"key": "s3cr3t", "nested": {"key": "s3cr3t", "keys": ["s3cr3t"]}, "n": 1}),
    ):
        resource = LaterReportingResource(lake_root="memory://lake", storage_options=storage_options)
        for each in (resource, initialized(resource)):
            assert resolve_storage_options(each.storage_options) == expected
        assert "s3cr3t" not in f"{resource!r} {initialized(resource)!r} {resource.lake()!r}"


@pytest.mark.parametrize("text", ["{'key': 's3cr3t'}", '"s3cr3t"', "s3cr3t"])
def test_storage_options_that_are_no_json_object_fail_without_their_value(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_STORAGE_OPTIONS", text)
    with pytest.raises(
        InvalidSetting, match=r"^LATER_STORAGE_OPTIONS \(storage_options\): .* must be a JSON"
    ) as caught:
        initialized(LaterReportingResource.from_environment()).lake()
    assert "s3cr3t" not in str(caught.value)


def test_storage_options_name_a_missing_variable() -> None:
    later = LaterReportingResource(lake_root="memory://lake", storage_options={"key": dg.EnvVar("NO_SUCH_KEY")})
    with pytest.raises(InvalidSetting, match="the environment variable NO_SUCH_KEY is not set"):
        initialized(later).lake()
