"""Environment variables: what they default to, and an error that names the one that is wrong."""

from datetime import date

import dagster as dg
import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS
from later_reporting_dagster.defs.settings import LoadSettings, from_environment


def test_nothing_set_is_the_documented_default() -> None:
    assert LoadSettings.from_environment({}) == LoadSettings(
        start_date=date(2024, 1, 1), restate_days=28, due_hour_utc=12, metrics=DOCUMENT_METRICS
    )


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    empty = dict.fromkeys(["LATER_START_DATE", "LATER_RESTATE_DAYS", "LATER_DUE_HOUR_UTC", "LATER_METRICS"], "")
    assert LoadSettings.from_environment(empty) == LoadSettings()


def test_each_setting_is_read() -> None:
    assert LoadSettings.from_environment(
        {"LATER_START_DATE": "2023-02-28", "LATER_RESTATE_DAYS": "1", "LATER_DUE_HOUR_UTC": "0", "LATER_METRICS": "all"}
    ) == LoadSettings(start_date=date(2023, 2, 28), restate_days=1, due_hour_utc=0, metrics=METRICS)


def test_a_metric_that_is_none_is_named_with_the_setting() -> None:
    with pytest.raises(ValueError, match="^LATER_METRICS: 'like' is no metric that is known; the nearest is likes$"):
        LoadSettings.from_environment({"LATER_METRICS": "shares,like"})


def test_a_variable_that_is_set_is_shown_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_environment("LATER_LAKE_ROOT", "here") == "here"
    monkeypatch.setenv("LATER_LAKE_ROOT", "s3://lake")
    assert from_environment("LATER_LAKE_ROOT", "here") == dg.EnvVar("LATER_LAKE_ROOT")
    monkeypatch.setenv("LATER_LAKE_ROOT", "")
    assert from_environment("LATER_LAKE_ROOT", "here") == "here"
