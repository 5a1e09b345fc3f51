"""The component: all definitions of one account of the API, configured in YAML or Python or by the environment."""

import warnings
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, Self, cast

import dagster as dg
from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator

from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.defs.assets.campaigns import campaigns_asset, periods_asset
from later_reporting_dagster.defs.assets.instances import coverage_asset, instances_asset
from later_reporting_dagster.defs.assets.raw_tables import raw_asset
from later_reporting_dagster.defs.assets.report import report_asset
from later_reporting_dagster.defs.assets.rollups import period_asset, windows_asset
from later_reporting_dagster.defs.automation import build_automation
from later_reporting_dagster.defs.checks.all_checks import check_definitions
from later_reporting_dagster.defs.component_base import METADATA_PREFIX, WITHOUT_VARIABLE, ComponentBase
from later_reporting_dagster.defs.io_manager import LaterLake
from later_reporting_dagster.defs.resource import (
    InvalidSetting,
    LaterReportingResource,
    default_lake_root,
    describe_invalid,
    environment_texts,
    reason_of,
    yaml_model,
)
from later_reporting_dagster.lake import CAMPAIGNS_TABLE
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE, PERIODS_TABLES, RAW_TABLES
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES, SINGLE_TABLES


class ScaffoldOptions(BaseModel):
    """The options of `dg scaffold defs` for the component."""

    demo_mode: bool = False
    lake_root: str | None = None
    start_date: date | None = None


class LaterReportingScaffolder(dg.Scaffolder[ScaffoldOptions]):
    """Writes a `defs.yaml` that begins 30 days ago, and reads credentials and the lake's root from the environment.

    What it reads is declared in it, so that `dg list envs` and `dg check yaml --validate-requirements` know it.
    """

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldOptions]:
        """Return the model of the options, of which `dg` makes those of its command."""
        return ScaffoldOptions

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldOptions]) -> None:
        options = request.params
        resource: dict[str, Any] = {"demo_mode": True} if options.demo_mode else {}
        names = [] if options.demo_mode else ["client_id", "client_secret"]
        if options.lake_root:
            resource["lake_root"] = options.lake_root
        elif not options.demo_mode:  # which has a lake in the working directory
            names.append("lake_root")
        variables = {name: f"LATER_{name.upper()}" for name in names}
        attributes = {
            "name": request.target_path.name,
            "start_date": str(options.start_date or utc_now().date() - timedelta(days=30)),
            "resource": resource | {name: f"{{{{ env.{variable} }}}}" for name, variable in variables.items()},
        }
        dg.scaffold_component(request, attributes)
        if variables and request.scaffold_format == "yaml":
            path = request.target_path if request.append else request.target_path / "defs.yaml"
            lines = ["requirements:", "  env:", *(f"  - {variable}" for variable in variables.values())]
            with path.open("a") as file:
                file.write("\n".join(["", *lines, ""]))


def _hide_values(attributes: Any, check: ModelWrapValidatorHandler[Any]) -> Any:
    """Name invalid attributes without their values, which may be secrets under a mistyped name."""
    try:
        return check(attributes)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {reason_of(each)}" for each in error.errors()]
        raise dg.DagsterInvalidDefinitionError("; ".join(lines)) from None


@dg.scaffold_with(LaterReportingScaffolder)
class LaterReportingComponent(dg.Component, ComponentBase, dg.Resolvable):
    """Fetches Later's Reporting API into a lake every day, and compares organic with paid performance.

    One component is one account: assets with their checks, a daily schedule, and sensors. Every attribute can also be
    set in Python; `from_environment` reads them from variables, `LATER_NAME` for `name`.

    To change the specs of assets, set `translation`, or override `get_asset_spec` in a subclass. To run code around a
    step, override `execute`. An invalid attribute raises a `DagsterInvalidDefinitionError` that names it.

    Example:
        >>> later = LaterReportingResource(lake_root="/data/later_eu", demo_mode=True)
        >>> component = LaterReportingComponent(name="later_eu", resource=later)
        >>> [job.name for job in component.build_definitions().jobs or []]
        ['later_eu_posts', 'later_eu_checks', 'later_eu_coverage']
    """

    @model_validator(mode="wrap")
    @classmethod
    def _check_attributes(cls, attributes: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(attributes)
        except ValidationError as error:
            raise dg.DagsterInvalidDefinitionError(describe_invalid(error)) from None

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the attributes in YAML."""
        hidden: Any = model_validator(mode="wrap")(cast(Any, _hide_values))  # pydantic passes no class
        return yaml_model(super().model(), cls, __validators__={"hidden": hidden})

    @classmethod
    def from_environment(cls, **attributes: Any) -> Self:
        """Return the component with the attributes that are set in the environment; `attributes` take precedence."""
        try:
            texts = environment_texts(cls.model_fields.keys() - WITHOUT_VARIABLE)
            resource = LaterReportingResource.from_environment()
        except InvalidSetting as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        return cls(**{**texts, "resource": resource, **attributes})

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Return all definitions, as Dagster does when it loads the component."""
        return self.build_definitions()

    def build_definitions(self) -> dg.Definitions:
        """Return all definitions. They load without a network and without secrets, and affect no others."""
        with warnings.catch_warnings():
            # Beta features are used on purpose. The warning filters of the host process stay as they are.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return self._build_definitions()

    def _build_definitions(self) -> dg.Definitions:
        resource = self.resource
        if resource.demo_mode and not resource.lake_root:
            # A folder that no other component uses.
            values = {field: getattr(resource, field) for field in resource.model_fields_set}
            resource = type(resource)(**{**values, "lake_root": default_lake_root(self.name)})
        settings = self.model_dump(mode="json", include={*ComponentBase.model_fields} - WITHOUT_VARIABLE)
        assets = [*self._assets()]
        return dg.Definitions(
            assets=assets,
            asset_checks=check_definitions(self),
            resources={
                self.resource_key: resource,
                self.lake_key: LaterLake(
                    lake_root=resource.lake_root,
                    storage_options=resource.storage_options,
                    due_hour_utc=self.due_hour_utc,
                ),
            },
            metadata={METADATA_PREFIX + self.name: dg.MetadataValue.json(settings)},
            **build_automation(self, [spec for asset in assets for spec in map(asset.get_asset_spec, asset.keys)]),
        )

    def _assets(self) -> Iterator[dg.AssetsDefinition]:
        """Yield the assets that are defined."""
        yield from (raw_asset(self, table) for name, table in RAW_TABLES.items() if name in self.tables)
        yield from (periods_asset(self, table) for name, table in PERIODS_TABLES.items() if name in self.tables)
        others = {
            INSTANCES_TABLE: instances_asset,
            CAMPAIGNS_TABLE: campaigns_asset,
            COVERAGE_TABLE: coverage_asset,
            REPORT: report_asset,
        }
        yield from (build(self) for name, build in others.items() if name in self.tables)
        yield from (period_asset(self, table) for table in self.rollups(PERIOD_TABLES))
        if windows := self.rollups(SINGLE_TABLES):
            yield windows_asset(self, windows)
