"""Settings, read from environment variables and checked. An error names the setting and the accepted values."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from later_reporting_dagster.contract import (
    CURSOR,
    DEFAULT_CAMPAIGN_METRICS,
    DEFAULT_METRICS,
    PAGED,
    ApiVersion,
    Metric,
    parse_campaign_metrics,
    parse_metrics,
)
from later_reporting_dagster.ingest.coverage import COVERAGE_TABLE
from later_reporting_dagster.ingest.instance_dimension import INSTANCES_TABLE
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.raw_tables import RAW_TABLES
from later_reporting_dagster.rollups.rollup_tables import TABLES

DEFAULT_NAME = "later"
DEFAULT_BASE_URL = "https://reporting.api.later.com"
DEFAULT_START_DATE = date(2024, 1, 1)
DEFAULT_REQUESTS_PER_MINUTE = 120  # docs/api.md, "Rate limit"
DEFAULT_RESTATE_DAYS = 28
DEFAULT_DUE_HOUR_UTC = 12
DEFAULT_MEMORY_GB = 2.0
# A verification fetch repeats all requests of a query. The totals of the paged API version reveal every change but one:
# a post that replaces another between two pages (docs/reliability.md).
DEFAULT_VERIFY_PERCENT: Mapping[ApiVersion, int] = {PAGED: 0, CURSOR: 1}
# The value of LATER_API_VERSION that detects the API version from its responses.
AUTO = "auto"


# An earlier start is a typo, and would make more partitions than a browser can show.
EARLIEST_START_DATE = date(2000, 1, 1)
MAX_REQUESTS_PER_MINUTE = 1_000_000
# Longer values are cut off in messages.
MAX_SHOWN_CHARACTERS = 40

# The smallest and largest value of each whole number among the settings.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "requests_per_minute": (1, MAX_REQUESTS_PER_MINUTE),
    "shrink_limit_percent": (0, 100),
    "bad_rows_limit_percent": (0, 100),
    "verify_percent": (0, 100),
    "restate_days": (1, 730),
    "due_hour_utc": (0, 23),
    "rollup_partitions_per_run": (1, 1_000_000),
}

# The interpreter and its libraries alone use this much.
MIN_MEMORY_GB = 0.25

# The classes of `dg.EnvVar("X")` and `dg.EnvVar.int("X")`.
_ENVIRONMENT_VARIABLES = (dg.EnvVar, type(dg.EnvVar.int("X")))

REPORT = "organic_paid_report"
# The key of the metadata of `Definitions` with the settings of a component; its name follows.
METADATA_PREFIX = "later_reporting/"
# All assets of this project, in the order of their lineage.
ASSET_NAMES = (
    *(table.name for table in RAW_TABLES),
    INSTANCES_TABLE,
    CAMPAIGNS_TABLE,
    CAMPAIGN_PERFORMANCE_TABLE,
    COVERAGE_TABLE,
    *(table.name for table in TABLES),
    REPORT,
)


@dataclass(frozen=True)
class DefinitionSettings:
    """The settings that the definitions of one component depend on, and the names derived from them.

    Attributes:
        name: prefix of the names of jobs, schedules, sensors, resources and the pool.
        key_prefix: prefix of all asset keys.
        tables: the names of the assets to define.
        start_date: the first partition.
        restate_days: how many days the daily schedule fetches again.
        due_hour_utc: the hour of the day (UTC) at which the previous day is due (docs/api.md, "Freshness").
        metrics: the metrics that the tables have columns for, and that rollups sum.
        campaign_metrics: the metrics that the performance of campaigns has columns for.
        rollup_partitions_per_run: maximum number of partitions in one run of a rollup backfill; None for no limit.
    """

    name: str = DEFAULT_NAME
    key_prefix: tuple[str, ...] = (DEFAULT_NAME,)
    tables: tuple[str, ...] = ASSET_NAMES
    start_date: date = DEFAULT_START_DATE
    restate_days: int = DEFAULT_RESTATE_DAYS
    due_hour_utc: int = DEFAULT_DUE_HOUR_UTC
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    campaign_metrics: tuple[Metric, ...] = DEFAULT_CAMPAIGN_METRICS
    rollup_partitions_per_run: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        names = {
            field: ",".join(metric.api_name for metric in getattr(self, field))
            for field in ("metrics", "campaign_metrics")
        }
        return asdict(self) | {"start_date": self.start_date.isoformat(), **names}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DefinitionSettings":
        """Return the settings that `to_json` returned as `values`."""
        lists = {name: tuple(values[name]) for name in ("key_prefix", "tables")}
        parsed = {
            "start_date": date.fromisoformat(values["start_date"]),
            "metrics": parse_metrics(values["metrics"]),
            "campaign_metrics": parse_campaign_metrics(values["campaign_metrics"]),
        }
        return cls(**{**values, **lists, **parsed})

    @property
    def resource_key(self) -> str:
        """The key of the `LaterReportingResource`."""
        return f"{self.name}_reporting"

    @property
    def io_manager_key(self) -> str:
        """The key of the `LaterLake`."""
        return f"{self.name}_lake"

    @property
    def pool(self) -> str:
        """The pool of the steps that send requests to the API."""
        return f"{self.name}_api"

    # Cached, because Dagster computes a thousand ticks of the schedule to check a policy.
    @cached_property
    def freshness(self) -> dg.FreshnessPolicy:
        """For the UI's health badge, which knows only when an asset was last materialized.

        The asset checks look at the newest day of each instance.
        """
        return dg.FreshnessPolicy.cron(f"0 {self.due_hour_utc} * * *", lower_bound_delta=timedelta(hours=23))

    @property
    def fetched_tables(self) -> tuple[str, ...]:
        """The tables that the daily run fetches from the API."""
        fetched = {*(table.name for table in RAW_TABLES), CAMPAIGNS_TABLE, CAMPAIGN_PERFORMANCE_TABLE}
        return tuple(name for name in self.tables if name in fetched)

    def asset_key(self, table_name: str) -> dg.AssetKey:
        """Return the key of the asset of a table, or of the report."""
        return dg.AssetKey([*self.key_prefix, table_name])

    def op_name(self, table_name: str) -> str:
        """Return the name of the step that materializes an asset: its key, joined by two underscores."""
        return "__".join([*self.key_prefix, table_name])

    def group_name(self, group: str | None) -> str | None:
        """Return the name of a group of assets. It begins with the component's name, unless that is the default."""
        return group if group is None or self.name == DEFAULT_NAME else f"{self.name}_{group}"

    def dependencies(self, *table_names: str) -> list[dg.AssetKey]:
        """Return the keys of the tables that are defined; of all if none is: another code location may define them."""
        names = dict.fromkeys(table_names)
        return [self.asset_key(name) for name in [name for name in names if name in self.tables] or names]


def setting_name(field: str) -> str:
    """Return how messages name a setting: by its environment variable and its field or attribute."""
    return f"LATER_{field.upper()} ({field})"


def environment_values(fields: Iterable[str]) -> dict[str, Any]:
    """Return the values of those settings whose environment variable is set and not empty.

    Returns:
        An `EnvVar` by field, so that the UI shows the name of the variable and not its value. Dagster has environment
        variables for text and whole numbers only, so fractions and booleans are read here. So are the texts that only
        the definitions depend on.

    Raises:
        ValueError: a variable has an invalid number or boolean.
    """
    values: dict[str, Any] = {}
    for field in fields:
        variable = f"LATER_{field.upper()}"
        if text := os.environ.get(variable):
            if field in BOUNDS:
                parse_integer(field, text)
                values[field] = dg.EnvVar.int(variable)
            elif field in PARSERS:
                values[field] = PARSERS[field](field, text)
            elif field in _TEXTS_READ_AT_LOAD:
                values[field] = text
            elif field == "storage_options":
                values[field] = {"env": variable}  # read when the lake is opened
            else:
                values[field] = dg.EnvVar(variable)
    return values


def variable_name(value: object) -> str | None:
    """Return the name of the environment variable that a value stands for; None if it is a plain value."""
    if isinstance(value, Mapping):
        return _referenced_variable(value)
    return value.env_var_name if isinstance(value, _ENVIRONMENT_VARIABLES) else None


def value_now(value: Any) -> Any:
    """Return the value of an environment variable, if `value` stands for one, else `value`."""
    return value.get_value() if isinstance(value, _ENVIRONMENT_VARIABLES) else value


def default_lake_root(name: str = DEFAULT_NAME) -> str:
    """Return the lake's root if none is set: `<name>-lake` in the working directory."""
    return str(Path.cwd() / f"{name}-lake")


def parse_integer(field: str, value: object) -> int:
    """Return a whole number within the bounds of a setting.

    Raises:
        ValueError: the value is not a whole number, or out of bounds.
    """
    text, (minimum, maximum) = str(value), BOUNDS[field]
    # int() rejects numbers of thousands of digits with a message that names no setting.
    is_integer = text.isascii() and text.isdigit() and len(text) <= MAX_SHOWN_CHARACTERS
    if isinstance(value, bool) or not (is_integer and minimum <= int(text) <= maximum):
        raise ValueError(
            f"{setting_name(field)}: must be a whole number from {minimum} to {maximum}, not {_shown(text)}"
        )
    return int(text)


def parse_memory_gb(field: str, value: object) -> float:
    """Return a memory limit in GB.

    Raises:
        ValueError: the value is not a number, or too small.
    """
    try:
        memory_gb = float(str(value))
        check_memory_gb(memory_gb)
    except ValueError:
        raise ValueError(
            f"{setting_name(field)}: must be a number of GB above {MIN_MEMORY_GB}, such as 2 or 1.5, not"
            f" {_shown(str(value))}"
        ) from None
    return memory_gb


def parse_boolean(field: str, value: object) -> bool:
    """Return a boolean.

    Raises:
        ValueError: the value is neither a boolean nor `true`, `false`, `1` or `0`.
    """
    booleans = {"true": True, "1": True, "false": False, "0": False}
    text = str(value).lower()
    if text not in booleans:
        raise ValueError(f"{setting_name(field)}: must be true or false, not {_shown(str(value))}")
    return booleans[text]


def parse_start_date(value: object) -> date:
    """Return the first partition.

    Raises:
        ValueError: the value is not a day, or before `EARLIEST_START_DATE`.
    """
    try:
        start_date = value if isinstance(value, date) else date.fromisoformat(str(value))
    except ValueError:
        raise ValueError(
            f"{setting_name('start_date')}: must be a date as YYYY-MM-DD, not {_shown(str(value))}"
        ) from None
    if start_date < EARLIEST_START_DATE:
        text = _shown(str(value))
        raise ValueError(f"{setting_name('start_date')}: must be {EARLIEST_START_DATE} or later, not {text}")
    return start_date


def resolve_storage_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return storage options with environment variables in place of references to them.

    A reference is an `EnvVar`, or `{"env": "NAME"}`, which is how Dagster stores an `EnvVar` in config. If the options
    as a whole are a reference, the variable has to be a JSON object.

    Raises:
        ValueError: a variable is not set, or is not a JSON object. The message does not contain its value.
    """
    if (name := _referenced_variable(options)) is not None:
        try:
            options = msgspec.json.decode(_value_of(name), type=dict[str, Any])
        except msgspec.DecodeError:
            raise ValueError(
                f'{name} must be a JSON object, such as {{"endpoint_url": "https://example.com"}}'
            ) from None
    return {option: _resolved(value) for option, value in options.items()}


def _resolved(value: Any) -> Any:
    if (name := _referenced_variable(value)) is not None:
        return _value_of(name)
    if isinstance(value, Mapping):
        return {key: _resolved(each) for key, each in value.items()}
    return [_resolved(each) for each in value] if isinstance(value, list) else value


def _referenced_variable(value: Any) -> str | None:
    """Return the name of the environment variable that a value refers to; None if it is not a reference."""
    if isinstance(value, dg.EnvVar):
        return value.env_var_name
    if isinstance(value, Mapping) and value.keys() == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


def _value_of(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"the environment variable {name} is not set")
    return value


def check_memory_gb(memory_gb: float) -> None:
    """Check that a memory limit is large enough to work with.

    Raises:
        ValueError: it is not above `MIN_MEMORY_GB`, or not finite.
    """
    if not MIN_MEMORY_GB < memory_gb < inf:
        raise ValueError(f"must be a number of GB above {MIN_MEMORY_GB}, such as 2 or 1.5, not {memory_gb:g}")


def _shown(text: str) -> str:
    return repr(text) if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]!r}…"


# Settings that the definitions depend on and the resource does not need.
_TEXTS_READ_AT_LOAD = {"name", "key_prefix", "tables", "start_date"}
# How the values of settings that are neither text nor whole numbers are parsed.
PARSERS: Mapping[str, Callable[[str, object], object]] = {
    "memory_gb": parse_memory_gb,
    "demo_mode": parse_boolean,
    "automation_sensor": parse_boolean,
}
