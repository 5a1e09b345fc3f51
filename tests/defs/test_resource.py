"""The resource: settings from the environment or from code, and secrets that are never shown."""

import asyncio
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials
from later_reporting_dagster.client.rate_limiter import Ledger
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from tests.conftest import Service


def test_environment_variables_set_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "base_url": "https://example.com",
        "client_id": "some-client",
        "client_secret": "some-secret",
        "access_token": "some-token",
        "instance_ids": "a,b",
        "instance_labels": "a=Acme",
        "lake_root": "memory://lake",
        "requests_per_minute": 60,
        "api_version": "cursor",
        "verify_percent": 7,
        "max_row_loss_percent": 5,
        "max_bad_rows_percent": 0,
        "padding_days": 1,
        "store_creator_profiles": False,
        "memory_gb": 0.5,
        "demo_mode": False,
    }
    read_early = {"store_creator_profiles": False, "memory_gb": 0.5, "demo_mode": False}
    for name, value in expected.items():
        monkeypatch.setenv(f"LATER_{name.upper()}", str(value))
    monkeypatch.setenv("LATER_STORAGE_OPTIONS", '{"key": "some-key"}')
    resource = LaterReportingResource.from_environment()
    # Before initialization it has names of variables, not their values, so the UI and logs cannot show these.
    # Dagster has no environment variable type for fractions and booleans, so these are read early.
    assert dict(resource) == {name: dg.EnvVar(f"LATER_{name.upper()}") for name in expected.keys() - read_early} | {
        **read_early,
        "storage_options": {"env": "LATER_STORAGE_OPTIONS"},
    }
    assert {name: getattr(resource.resolved(), name) for name in expected} == expected


def test_verify_percent_defaults_by_api_version() -> None:
    def rates(**fields: int) -> dict[str, float]:
        client = LaterReportingResource(access_token="some-token", **fields).resolved().client()
        return {str(version): rate for version, rate in client._verification_rates.items()}

    assert rates() == {"paged": 0.0, "cursor": 0.01}
    for percent in (0, 100):
        assert rates(verify_percent=percent) == {"paged": percent / 100, "cursor": percent / 100}


def test_value_of_a_variable_is_checked_when_a_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = LaterReportingResource(verify_percent=dg.EnvVar("LATER_VERIFY_PERCENT"))
    monkeypatch.setenv("LATER_VERIFY_PERCENT", "101")
    message = r"^LATER_VERIFY_PERCENT \(verify_percent\): Input should be less than or equal to 100$"
    with pytest.raises(InvalidSetting, match=message):
        unset.resolved()
    with pytest.raises(InvalidSetting, match=message):
        LaterReportingResource(verify_percent="101")


def test_access_token_overrides_client_credentials() -> None:
    credentials = {"client_id": "some-client", "client_secret": "some-secret"}
    assert LaterReportingResource(**credentials).resolved().credentials() == ClientCredentials(**credentials)
    assert LaterReportingResource(**credentials, access_token="token").resolved().credentials() == AccessToken("token")


def test_clients_share_the_rate_limit(
    settings: None, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    later = LaterReportingResource.from_environment().resolved()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        asyncio.run(later.listed_instances())
    (file,) = (tmp_path / "later-reporting").glob("rate-*")
    ledger = msgspec.msgpack.decode(file.read_bytes()[4:], type=Ledger)
    assert len(ledger.reserved) == len(service.requests) > 2


def test_storage_options_are_read_from_variables_when_a_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "s3cr3t")
    monkeypatch.setenv("LATER_STORAGE_OPTIONS", '{"key": "s3cr3t", "client_kwargs": {"verify": false}}')
    references = {"key": dg.EnvVar("A_KEY"), "nested": {"key": {"env": "A_KEY"}, "keys": [dg.EnvVar("A_KEY")]}, "n": 1}
    for storage_options, expected in (
        ({"env": "LATER_STORAGE_OPTIONS"}, {"key": "s3cr3t", "client_kwargs": {"verify": False}}),
        (references, {"key": "s3cr3t", "nested": {"key": "s3cr3t", "keys": ["s3cr3t"]}, "n": 1}),
        ({"endpoint_url": "a:{{ env.A_KEY }}@b{{env('A_KEY')}}"}, {"endpoint_url": "a:s3cr3t@bs3cr3t"}),
    ):
        resource = LaterReportingResource(lake_root="memory://lake", storage_options=storage_options)
        assert resource.resolved().storage_options == expected
        assert "s3cr3t" not in f"{resource!r} {resource.resolved()!r} {resource.resolved().lake()!r}"


@pytest.mark.parametrize("text", ["{'key': 's3cr3t'}", '"s3cr3t"', "s3cr3t"])
def test_storage_options_that_are_no_json_object_fail_without_their_value(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_STORAGE_OPTIONS", text)
    with pytest.raises(
        InvalidSetting, match=r"^LATER_STORAGE_OPTIONS \(storage_options\): .* must be a JSON"
    ) as caught:
        LaterReportingResource.from_environment().resolved().lake()
    assert "s3cr3t" not in str(caught.value)
