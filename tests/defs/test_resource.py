"""The resource: settings from the environment or from code, and secrets that are never shown."""

import asyncio
import re
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials
from later_reporting_dagster.client.rate_limiter import Ledger
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from tests.conftest import Service


def initialized(resource: LaterReportingResource) -> LaterReportingResource:
    """Return the resource as an asset receives it."""
    used: LaterReportingResource = resource.resolved()
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
        "requests_per_minute": 60,
        "rate_limit_store": "postgresql://user:some-password@host/db",
        "api_version": "cursor",
        "verify_percent": 7,
        "shrink_limit_percent": 5,
        "bad_rows_limit_percent": 0,
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
    assert {name: getattr(initialized(resource), name) for name in expected} == expected


def test_verify_percent_defaults_by_api_version() -> None:
    def rates(**fields: int) -> dict[str, float]:
        client = initialized(LaterReportingResource(access_token="some-token", **fields)).client()
        return {str(version): rate for version, rate in client._verification_rates.items()}

    assert rates() == {"paged": 0.0, "cursor": 0.01}
    for percent in (0, 100):
        assert rates(verify_percent=percent) == {"paged": percent / 100, "cursor": percent / 100}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("verify_percent", "101", "less than or equal to 100"),
        ("verify_percent", "-1", "greater than or equal to 0"),
        ("requests_per_minute", "0", "greater than or equal to 1"),
        ("requests_per_minute", "many", "a valid integer, unable to parse string as an integer"),
        ("memory_gb", "0.25", "greater than 0.25"),
        ("memory_gb", "nan", "a finite number"),
        ("demo_mode", "maybe", "a valid boolean, unable to interpret input"),
        ("api_version", "v3", "match pattern '^(auto|paged|cursor)$'"),
    ],
)
def test_value_out_of_bounds_fails_where_it_is_read(
    field: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"LATER_{field.upper()}"
    message = rf"^{variable} \({field}\): (Input|String) should (be )?{re.escape(reason)}$"
    with pytest.raises(InvalidSetting, match=message):
        LaterReportingResource(**{field: value})
    # The variable need not be set when the definitions load.
    unset = LaterReportingResource.from_environment()
    if field not in ("memory_gb", "demo_mode"):
        unset = LaterReportingResource(**{field: dg.EnvVar(variable)})
        with pytest.raises(InvalidSetting, match=f"the environment variable {variable} is not set"):
            unset.resolved()
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting, match=message):
        LaterReportingResource.from_environment()
    if field not in ("memory_gb", "demo_mode"):
        with pytest.raises(InvalidSetting, match=message):
            unset.resolved()


def test_access_token_overrides_client_credentials() -> None:
    credentials = {"client_id": "some-client", "client_secret": "some-secret"}
    assert initialized(LaterReportingResource(**credentials)).credentials() == ClientCredentials(**credentials)
    assert initialized(LaterReportingResource(**credentials, access_token="token")).credentials() == AccessToken(
        "token"
    )


def test_clients_share_the_rate_limit(
    later: LaterReportingResource, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        asyncio.run(later.listed_instances())
    (state,) = [path for path in (tmp_path / "later-reporting").glob("rate-*") if path.suffix != ".lock"]
    assert len(Ledger.from_bytes(state.read_bytes()).reserved) == len(service.requests) > 2


def test_configured_instances_are_unique() -> None:
    assert initialized(LaterReportingResource(instance_ids=" b, a ,, Zoë,b")).configured_instances() == (
        "b",
        "a",
        "Zoë",
    )
    assert initialized(LaterReportingResource()).configured_instances() == ()


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
        assert initialized(resource).storage_options == expected
        assert "s3cr3t" not in f"{resource!r} {initialized(resource)!r} {initialized(resource).lake()!r}"


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
