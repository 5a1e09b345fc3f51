"""Environment variables: what they default to, and an error that names the one that is wrong."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS
from later_reporting_dagster.defs.settings import LoadSettings, default_lake_root, from_environment


def test_nothing_set_is_the_documented_default() -> None:
    assert LoadSettings.from_environment({}) == LoadSettings(
        start_date=date(2024, 1, 1), restate_days=28, due_hour_utc=12, metrics=DOCUMENT_METRICS
    )


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    empty = dict.fromkeys(["LATER_START_DATE", "LATER_RESTATE_DAYS", "LATER_DUE_HOUR_UTC", "LATER_METRICS"], "")
    assert LoadSettings.from_environment(empty) == LoadSettings()


def test_each_setting_is_read() -> None:
    assert LoadSettings.from_environment(
        {
            "LATER_START_DATE": "2023-02-28",
            "LATER_RESTATE_DAYS": "1",
            "LATER_DUE_HOUR_UTC": "0",
            "LATER_METRICS": "all",
        }
    ) == LoadSettings(start_date=date(2023, 2, 28), restate_days=1, due_hour_utc=0, metrics=METRICS)


def test_a_metric_that_is_none_is_named_with_the_setting() -> None:
    with pytest.raises(ValueError, match="^LATER_METRICS: 'like' is no metric that is known; the nearest is likes$"):
        LoadSettings.from_environment({"LATER_METRICS": "shares,like"})


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("LATER_START_DATE", "2024-02-30", "a day as YYYY-MM-DD"),
        ("LATER_START_DATE", "yesterday", "a day as YYYY-MM-DD"),
        ("LATER_START_DATE", "01/02/2024", "a day as YYYY-MM-DD"),
        ("LATER_RESTATE_DAYS", "0", "a whole number from 1 to 730"),
        ("LATER_RESTATE_DAYS", "731", "a whole number from 1 to 730"),
        ("LATER_RESTATE_DAYS", "7.5", "a whole number from 1 to 730"),
        ("LATER_RESTATE_DAYS", "-7", "a whole number from 1 to 730"),
        ("LATER_RESTATE_DAYS", "²", "a whole number from 1 to 730"),
        ("LATER_DUE_HOUR_UTC", "24", "a whole number from 0 to 23"),
        ("LATER_DUE_HOUR_UTC", "noon", "a whole number from 0 to 23"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_what_it_takes(name: str, value: str, takes: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        LoadSettings.from_environment({name: value})
    assert str(caught.value) == f"{name} is {takes}, not {value!r}"


def test_a_variable_that_is_set_is_shown_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_environment("LATER_LAKE_ROOT", "here") == "here"
    monkeypatch.setenv("LATER_LAKE_ROOT", "s3://lake")
    assert from_environment("LATER_LAKE_ROOT", "here") == dg.EnvVar("LATER_LAKE_ROOT")
    monkeypatch.setenv("LATER_LAKE_ROOT", "")
    assert from_environment("LATER_LAKE_ROOT", "here") == "here"


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5", "1000001"])
def test_a_number_that_is_none_is_named_at_once(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_REQUESTS_PER_MINUTE", value)
    with pytest.raises(ValueError, match="LATER_REQUESTS_PER_MINUTE is a whole number from 1 to 1000000, not"):
        from_environment("LATER_REQUESTS_PER_MINUTE", 120)


def test_the_lake_lies_in_the_working_directory_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_lake_root() == str(tmp_path / "later-lake")
