"""The settings of a component that its definitions depend on, and how settings are read from variables and YAML.

Those of the API and the lake, which a run needs, are in `resource`. A reference to an environment variable is an
`EnvVar`; a text with `{{ env.NAME }}` or `{{ env('NAME') }}` in it; or `{"env": "NAME"}`, which is how Dagster stores
an `EnvVar`. References become values when a run starts.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import dagster as dg
import msgspec
from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, ValidationError, create_model, field_validator

from later_reporting_dagster.contract import DEFAULT_CAMPAIGN_METRICS, DEFAULT_METRICS, Metric, parse_metrics
from later_reporting_dagster.contract.days import expected_days, refetch_ages
from later_reporting_dagster.contract.metrics import parse_campaign_metrics
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, FETCHED_NAMES, INSTANCES_TABLE, RAW_NAMES
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import TABLES, RollupTable

DEFAULT_NAME = "later"
# The key of the metadata of `Definitions` with the settings of a component; its name follows.
METADATA_PREFIX = "later_reporting/"
# All assets of this project, in the order of their lineage.
ASSET_NAMES = (
    *RAW_NAMES,
    INSTANCES_TABLE,
    CAMPAIGNS_TABLE,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS_TABLE,
    COVERAGE_TABLE,
    *(table.name for table in TABLES),
    REPORT,
)


# The classes of `dg.EnvVar("X")` and `dg.EnvVar.int("X")`.
ENVIRONMENT_VARIABLES = (dg.EnvVar, type(dg.EnvVar.int("X")))

_REFERENCE = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*["'](\w+)["']\s*\))\s*\}\}""")
_TEMPLATE = re.compile(r"\{\{|\{%")


def split_names(names: str | Iterable[object]) -> tuple[str, ...]:
    """Return comma-separated names, or those of a list in YAML, without spaces around them."""
    items = names.split(",") if isinstance(names, str) else map(str, names)
    return tuple(name for item in items if (name := item.strip()))


def _selected_assets(names: str | Iterable[object]) -> tuple[str, ...]:
    """Return the assets that are named, or all; without those that are named with a minus sign before them."""
    left_out = [name.removeprefix("-") for name in split_names(names) if name.startswith("-")]
    named = [name for name in split_names(names) if not name.startswith("-")]
    if unknown := [name for name in (*named, *left_out) if name not in ASSET_NAMES]:
        raise ValueError(f"there is no asset {', '.join(unknown)}; there are {', '.join(ASSET_NAMES)}")
    return tuple(name for name in ASSET_NAMES if name in (named or ASSET_NAMES) and name not in left_out)


def _parsed_by(parse: Callable[[str], tuple[Metric, ...]]) -> BeforeValidator:
    return BeforeValidator(lambda names: parse(",".join(split_names(names))))


# Not `Resolver.default`, whose type Dagster ignores.
NAMES_IN_YAML = dg.Resolver(
    lambda context, names: context.resolve_value(names), model_field_type=list[str] | str, inject_before_resolve=False
)
_Metrics = Annotated[tuple[Metric, ...], PlainSerializer(lambda metrics: [metric.api_name for metric in metrics])]


class ComponentSettings(dg.Model):
    """The settings that the definitions of one component depend on, and the names derived from them."""

    name: str = Field(
        default=DEFAULT_NAME,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="Prefix of the names of jobs, schedules, sensors, resources, groups and the pool.",
    )
    key_prefix: Annotated[tuple[str, ...], BeforeValidator(split_names), NAMES_IN_YAML] = Field(
        default=(), description="Prefix of all asset keys. Default: the name."
    )
    tables: Annotated[tuple[str, ...], BeforeValidator(_selected_assets), NAMES_IN_YAML] = Field(
        default=ASSET_NAMES, description="Assets to define, or -name to leave one out. Default: all."
    )
    owners: Annotated[tuple[str, ...], BeforeValidator(split_names), NAMES_IN_YAML] = Field(
        default=(), description="Owners of all assets: e-mail addresses, or `team:` and a name."
    )
    # An earlier start is a typo, and would make more partitions than a browser can show.
    start_date: Annotated[date, dg.Resolver.default(model_field_type=str)] = Field(
        default=date(2024, 1, 1), ge=date(2000, 1, 1), description="The first partition."
    )
    restate_days: int = Field(default=28, ge=1, le=730, description="Days that the daily schedule fetches again.")
    refetch_factor: float = Field(
        default=1.5,
        ge=1.1,
        description="An older day is fetched again whenever its age has grown by this factor: with the default at 42,"
        " 63, 94, 141 … days.",
    )
    due_hour_utc: int = Field(
        default=12, ge=0, le=23, description="Hour of the day, in UTC, at which the previous day is due."
    )
    metrics: Annotated[_Metrics, _parsed_by(parse_metrics), NAMES_IN_YAML] = Field(
        default=DEFAULT_METRICS,
        description="Metrics to request, by API or column name; `all` for every known metric. Default: the eleven that"
        " the paged API version returns.",
    )
    campaign_metrics: Annotated[_Metrics, _parsed_by(parse_campaign_metrics), NAMES_IN_YAML] = Field(
        default=DEFAULT_CAMPAIGN_METRICS,
        description="Metrics of campaigns to request for whole periods, by name or `all`; days have those that add up."
        " Default: spend, return, links, reach and content cost.",
    )
    automation: str = Field(
        default="",
        pattern=r"^(running|stopped)?$",
        description="Initial state of all schedules and sensors: running or stopped. Default: those that fetch posts"
        " are stopped, and the others run.",
    )
    rollup_partitions_per_run: int | None = Field(
        default=None, ge=1, description="Maximum partitions in one run of a rollup backfill. Default: all in one run."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read_variable(cls, value: Any) -> Any:
        """Return the value of an environment variable, which definitions need when they load."""
        return os.environ.get(value.env_var_name, "") if isinstance(value, ENVIRONMENT_VARIABLES) else value

    @property
    def resource_key(self) -> str:
        """The key of the `LaterReportingResource`."""
        return f"{self.name}_reporting"

    @property
    def pool(self) -> str:
        """The pool of the steps that fetch posts and campaigns."""
        return f"{self.name}_api"

    @property
    def due_cron(self) -> str:
        """The schedule of what is evaluated when a day is due."""
        return f"0 {self.due_hour_utc} * * *"

    @property
    def daily_campaign_metrics(self) -> tuple[Metric, ...]:
        """The selected metrics of campaigns that add up over days, which are requested by day."""
        return tuple(metric for metric in self.campaign_metrics if metric.kind.adds_up_over_days)

    def schedule_status(self, *, runs_by_default: bool) -> dg.DefaultScheduleStatus:
        """Return the initial state of a schedule. Later, its state is what was last set in the UI."""
        return dg.DefaultScheduleStatus(self.automation.upper() or ("RUNNING" if runs_by_default else "STOPPED"))

    def sensor_status(self, *, runs_by_default: bool) -> dg.DefaultSensorStatus:
        """Return the initial state of a sensor, as `schedule_status` does that of a schedule."""
        return dg.DefaultSensorStatus(self.schedule_status(runs_by_default=runs_by_default).value)

    # Cached, because Dagster computes a thousand ticks of the schedule to check a policy.
    @cached_property
    def freshness(self) -> dg.FreshnessPolicy:
        """For the UI's health badge, which knows only when an asset was last materialized.

        The asset checks look at the newest day of each instance.
        """
        return dg.FreshnessPolicy.cron(self.due_cron, lower_bound_delta=timedelta(hours=23))

    @property
    def fetched_tables(self) -> tuple[str, ...]:
        """The tables that the daily run fetches from the API."""
        fetched = {*FETCHED_NAMES, CAMPAIGNS_TABLE, CAMPAIGN_PERIODS_TABLE}
        return tuple(name for name in self.tables if name in fetched)

    def refetch_ages(self, today: date) -> list[int]:
        """Return the ages, in days, at which old days are fetched again."""
        return refetch_ages(self.restate_days, self.refetch_factor, oldest=(today - self.start_date).days)

    def expected_days(self, now: datetime) -> list[date]:
        """Return the days that have to be in the lake: every day from the start date to the newest due day."""
        return expected_days(now, start_date=self.start_date, due_hour_utc=self.due_hour_utc)

    def asset_key(self, table_name: str) -> dg.AssetKey:
        """Return the key of the asset of a table, or of the report."""
        return dg.AssetKey([*(self.key_prefix or (self.name,)), table_name])

    def op_name(self, table_name: str) -> str:
        """Return the name of the step that materializes an asset: its key, joined by two underscores."""
        return "__".join(self.asset_key(table_name).path)

    @property
    def posts_job_name(self) -> str:
        """The name of the job that fetches the raw tables."""
        return f"{self.name}_posts"

    def rollups(self, tables: Iterable[RollupTable]) -> list[RollupTable]:
        """Return those of the rollups that are defined, with the selected metrics."""
        return [table.with_metrics(self.metrics) for table in tables if table.name in self.tables]

    def dependencies(self, *table_names: str) -> list[dg.AssetKey]:
        """Return the keys of the tables that are defined; of all if none is: another code location may define them."""
        names = dict.fromkeys(table_names)
        return [self.asset_key(name) for name in [name for name in names if name in self.tables] or names]


def default_lake_root(name: str = DEFAULT_NAME) -> str:
    """Return the lake's root of the demo mode if none is set: `<name>-lake` in the working directory."""
    return str(Path.cwd() / f"{name}-lake")


# References to environment variables, and YAML


def environment_texts(fields: Iterable[str]) -> dict[str, str]:
    """Return the values of those settings whose environment variable is set and not empty."""
    return {field: text for field in fields if (text := os.environ.get(f"LATER_{field.upper()}"))}


def variable_name(value: object) -> str | None:
    """Return the name of the environment variable that a value stands for; None if it does not stand for one."""
    if isinstance(value, ENVIRONMENT_VARIABLES):
        return value.env_var_name
    if isinstance(value, Mapping) and value.keys() == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


def is_reference(value: object) -> bool:
    """Return whether a text of YAML has references to environment variables, and no other templates."""
    if not isinstance(value, str):
        return False
    without_references, count = _REFERENCE.subn("", value)
    return count > 0 and not _TEMPLATE.search(without_references)


def from_yaml(value: Any, context: dg.ResolutionContext) -> Any:
    """Return a value of YAML: references to environment variables stay what they are, other templates are resolved."""
    if isinstance(value, dict):
        return {key: from_yaml(each, context.at_path(key)) for key, each in value.items()}
    if not is_reference(value):
        # Dagster would make a number of a text with digits, such as a client id.
        return context.resolve_value(value) if _TEMPLATE.search(str(value)) else value
    match = _REFERENCE.fullmatch(value)
    return dg.EnvVar(match[1] or match[2]) if match else value


def resolved(value: Any) -> Any:
    """Return a value with those of environment variables in place of the references to them.

    Raises:
        ValueError: a variable is not set.
    """
    if (name := variable_name(value)) is not None:
        return _value_of(name)
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _value_of(match[1] or match[2]), value)
    if isinstance(value, Mapping):
        return {key: resolved(each) for key, each in value.items()}
    return [resolved(each) for each in value] if isinstance(value, list) else value


def resolved_options(options: Mapping[str, Any]) -> Any:
    """Return options with the values of environment variables. If all is one reference, it has to be a JSON object."""
    if (name := variable_name(options)) is not None:
        try:
            options = msgspec.json.decode(_value_of(name), type=dict[str, Any])
        except msgspec.DecodeError:  # whose message has the value
            raise ValueError(
                f'{name} must be a JSON object, such as {{"endpoint_url": "https://example.com"}}'
            ) from None
    return resolved(options)


def _value_of(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set")
    return value


def setting_name(field: str) -> str:
    """Return how messages name a setting: by its environment variable and its field or attribute."""
    return f"LATER_{field.upper()} ({field})"


def describe_invalid(error: ValidationError) -> str:
    """Return one line that names each invalid setting. It does not contain their values, which may be secrets."""
    lines = []
    for each in error.errors():
        raised = each.get("ctx", {}).get("error")
        reason = str(raised) if isinstance(raised, ValueError) else each["msg"]
        lines.append(f"{setting_name(str(each['loc'][-1]))}: {reason}" if each["loc"] else reason)
    return "; ".join(lines)


def without_bounds(model: type[BaseModel], described: type[BaseModel]) -> type[BaseModel]:
    """Return Dagster's model of YAML attributes without bounds: they apply to the value of a template, not to its text.

    Descriptions, which Dagster's model lacks, are those of the class `described`.
    """
    fields: dict[str, Any] = {
        name: (
            _without_metadata(field.annotation),
            Field(default=field.default, description=described.model_fields[name].description),
        )
        for name, field in model.model_fields.items()
    }
    return create_model(model.__name__, __base__=dg.Model, **fields)


def _without_metadata(annotation: Any) -> Any:
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _without_metadata(arguments[0])
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    # Dagster allows a text in place of everything. In place of a mapping, it would only make errors longer.
    models = [each for each in arguments if isinstance(each, type) and issubclass(each, BaseModel)]
    return models[0] if models else Union[tuple(map(_without_metadata, arguments))]  # noqa: UP007 - computed
