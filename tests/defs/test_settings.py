"""Settings that are read at load: defaults, values from the environment, and errors."""

from datetime import date

import pytest

from later_reporting_dagster import LaterReportingComponent

VARIABLES = ("LATER_START_DATE", "LATER_RESTATE_DAYS", "LATER_DUE_HOUR_UTC", "LATER_METRICS")


def test_defaults_are_the_documented_ones() -> None:
    settings = LaterReportingComponent()
    assert (settings.name, settings.asset_key("x").path) == ("later", ["later", "x"])
    assert (settings.start_date, settings.restate_days, settings.due_hour_utc) == (date(2024, 1, 1), 28, 12)


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    assert LaterReportingComponent.from_environment() == LaterReportingComponent()


def test_attributes_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_NAME", "later_eu")
    monkeypatch.setenv("LATER_KEY_PREFIX", "marketing, later")
    monkeypatch.setenv("LATER_TABLES", "instances,posts_published")
    monkeypatch.setenv("LATER_AUTOMATION_SENSOR", "false")
    monkeypatch.setenv("LATER_ROLLUP_PARTITIONS_PER_RUN", "31")
    component = LaterReportingComponent.from_environment()
    assert component == LaterReportingComponent(
        name="later_eu",
        automation_sensor=False,
        key_prefix=("marketing", "later"),
        tables=("posts_published", "instances"),
        rollup_partitions_per_run=31,
    )
    assert [sensor.name for sensor in component.build_definitions().sensors or []] == ["later_eu_instances"]


def test_names_are_a_list_or_a_text() -> None:
    as_lists = LaterReportingComponent(
        key_prefix=["marketing", "later"], tables=["instances"], metrics=["likes", "reach"]
    )
    as_texts = LaterReportingComponent(key_prefix="marketing,later", tables="instances", metrics="likes,reach")
    assert as_lists == as_texts
