"""Settings that are read at load: defaults, values from the environment, and errors."""

from datetime import date

import dagster as dg
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS
from later_reporting_dagster.defs.settings import DefinitionSettings, env_var_or_default


def test_defaults_are_the_documented_ones() -> None:
    assert DefinitionSettings.from_environment({}) == DefinitionSettings(
        start_date=date(2024, 1, 1), restate_days=28, due_hour_utc=12, metrics=DEFAULT_METRICS
    )


def test_empty_variable_counts_as_unset() -> None:
    empty = dict.fromkeys(["LATER_START_DATE", "LATER_RESTATE_DAYS", "LATER_DUE_HOUR_UTC", "LATER_METRICS"], "")
    assert DefinitionSettings.from_environment(empty) == DefinitionSettings()


def test_load_settings_are_read_from_the_environment() -> None:
    assert DefinitionSettings.from_environment(
        {"LATER_START_DATE": "2023-02-28", "LATER_RESTATE_DAYS": "1", "LATER_DUE_HOUR_UTC": "0", "LATER_METRICS": "all"}
    ) == DefinitionSettings(start_date=date(2023, 2, 28), restate_days=1, due_hour_utc=0, metrics=METRICS)


def test_unknown_metric_names_the_setting() -> None:
    with pytest.raises(ValueError, match="^LATER_METRICS: unknown metric 'like'; the nearest is likes$"):
        DefinitionSettings.from_environment({"LATER_METRICS": "shares,like"})


def test_set_variable_becomes_an_env_var(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env_var_or_default("LATER_LAKE_ROOT", "here") == "here"
    monkeypatch.setenv("LATER_LAKE_ROOT", "s3://lake")
    assert env_var_or_default("LATER_LAKE_ROOT", "here") == dg.EnvVar("LATER_LAKE_ROOT")
    monkeypatch.setenv("LATER_LAKE_ROOT", "")
    assert env_var_or_default("LATER_LAKE_ROOT", "here") == "here"
