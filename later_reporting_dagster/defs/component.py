"""The component: all definitions of one account of the API, configured in YAML or Python or by the environment."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Self, cast

import dagster as dg
from dagster import AssetExecutionContext
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, create_model, model_validator

from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.assets.campaigns import campaign_steps
from later_reporting_dagster.defs.assets.instances import instances_steps
from later_reporting_dagster.defs.assets.posts import posts_steps
from later_reporting_dagster.defs.assets.report import report_steps
from later_reporting_dagster.defs.assets.rollups import rollup_steps
from later_reporting_dagster.defs.automation import build_automation, tag_run_with_updates
from later_reporting_dagster.defs.checks.campaigns import campaign_checks
from later_reporting_dagster.defs.checks.posts import posts_checks
from later_reporting_dagster.defs.checks.rollups import rollup_checks
from later_reporting_dagster.defs.component_settings import (
    DEFAULT_NAME,
    METADATA_PREFIX,
    ComponentSettings,
    default_lake_root,
    describe_invalid,
    environment_texts,
    without_bounds,
)
from later_reporting_dagster.defs.events import failures
from later_reporting_dagster.defs.io_manager import LaterLake, is_table
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource

# Each returns the steps, or the checks, of the assets that are defined.
STEPS = (posts_steps, instances_steps, campaign_steps, rollup_steps, report_steps)
CHECKS = (posts_checks, campaign_checks, rollup_checks)


class ScaffoldParameters(BaseModel):
    """Options of `dg scaffold defs later_reporting_dagster.LaterReportingComponent <name>`."""

    start_date: str = Field(default=str(ComponentSettings().start_date), description="First partition, YYYY-MM-DD.")
    demo_mode: bool = Field(default=False, description="Use the sandbox in place of the API, without credentials.")


class LaterReportingScaffolder(dg.Scaffolder[ScaffoldParameters]):
    """Writes a `defs.yaml` that reads credentials and the lake's root from the environment."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParameters]:
        """Return the class of the command's options."""
        return ScaffoldParameters

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParameters]) -> None:
        """Write the file."""
        attributes: dict[str, Any] = {"name": request.target_path.name, "start_date": request.params.start_date}
        names = ("client_id", "client_secret", "lake_root")
        attributes["resource"] = (
            {"demo_mode": True}
            if request.params.demo_mode
            else {name: f"{{{{ env.LATER_{name.upper()} }}}}" for name in names}
        )
        dg.scaffold_component(request, attributes)


def _reject_moved_attributes(attributes: Any) -> Any:
    """Name the new place of the attributes that earlier were those of the component. Their values may be secrets."""
    fields = LaterReportingResource.model_fields
    if moved := [name for name in attributes if name in fields] if isinstance(attributes, dict) else []:
        raise dg.DagsterInvalidDefinitionError(f"{', '.join(moved)}: write it below the attribute `resource`")
    return attributes


def _hide_values(attributes: Any, check: ModelWrapValidatorHandler[Any]) -> Any:
    """Name invalid attributes without their values, which may be secrets under a mistyped name."""
    try:
        return check(attributes)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise dg.DagsterInvalidDefinitionError("; ".join(lines)) from None


@dg.scaffold_with(LaterReportingScaffolder)
class LaterReportingComponent(dg.Component, ComponentSettings, dg.Resolvable):
    """Fetches Later's Reporting API into a lake every day, and compares organic with paid performance.

    One component is one account: assets with their checks, a daily schedule, and sensors. Every attribute can also be
    set in Python; `from_environment` reads them from variables, `LATER_NAME` for `name`.

    To change the specs of assets, set `translation`, or override `get_asset_spec` in a subclass. To run code around a
    step, override `execute`. An invalid attribute raises a `DagsterInvalidDefinitionError` that names it.

    Example:
        >>> later = LaterReportingResource(lake_root="/data/later_eu", demo_mode=True)
        >>> component = LaterReportingComponent(name="later_eu", resource=later)
        >>> [job.name for job in component.build_definitions().jobs or []]
        ['later_eu_posts', 'later_eu_checks', 'later_eu_compaction']
    """

    automation_sensor: bool = Field(
        default=True,
        description="Whether to define the sensor that updates rollups. If not, another automation sensor has to.",
    )
    translation: Annotated[TranslationFn[dg.AssetSpec], TranslationFnResolver[dg.AssetSpec](lambda spec: {})] | None = (
        Field(default=None, description="Changes the specs of all assets; `spec` is the default one.")
    )
    resource: LaterReportingResource = Field(
        default_factory=LaterReportingResource, description="The API and the lake: what a run needs."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_attributes(cls, attributes: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(_reject_moved_attributes(attributes))
        except ValidationError as error:
            raise dg.DagsterInvalidDefinitionError(describe_invalid(error)) from None

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the attributes in YAML."""
        validators: dict[str, Any] = {
            "moved": model_validator(mode="before")(_reject_moved_attributes),
            "hidden": model_validator(mode="wrap")(cast(Any, _hide_values)),  # pydantic passes no class
        }
        return create_model(cls.__name__, __base__=without_bounds(super().model(), cls), __validators__=validators)

    @classmethod
    def from_environment(cls, **attributes: Any) -> Self:
        """Return the component with the attributes that are set in the environment; `attributes` take precedence."""
        texts = environment_texts(cls.model_fields.keys() - {"translation", "resource"})
        try:
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

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return the spec of an asset. Override it to change any attribute but the key, which ends with its name."""
        return spec if self.translation is None else self.translation(spec, spec)

    def execute(
        self, context: AssetExecutionContext, later: LaterReportingResource, step: AssetStep
    ) -> Iterable[dg.MaterializeResult[Any]]:
        """Materialize the selected assets of a step. Override it to run code before or after."""
        yield from step.run(context, later)

    def _build_definitions(self) -> dg.Definitions:
        steps = [step for steps_of in STEPS for step in steps_of(self)]
        automated = [spec.key for step in steps for spec in step.specs if spec.automation_condition]
        # Unless a root is set, a folder that no other component uses.
        values = {field: getattr(self.resource, field) for field in self.resource.model_fields_set}
        resource = type(self.resource)(**{"lake_root": default_lake_root(self.name), **values})
        settings = self.model_dump(mode="json", include={*ComponentSettings.model_fields})
        return dg.Definitions(
            assets=[self._build_asset(step, automated) for step in steps],
            asset_checks=[check for checks_of in CHECKS for check in checks_of(self)],
            resources={
                self.resource_key: resource,
                self._lake_key: LaterLake(
                    lake_root=resource.lake_root,
                    storage_options=resource.storage_options,
                    due_hour_utc=self.due_hour_utc,
                ),
            },
            metadata={METADATA_PREFIX + self.name: dg.MetadataValue.json(settings)},
            **build_automation(
                self,
                [spec.key for step in steps for spec in step.specs],
                automated=automated,
                with_sensor=self.automation_sensor,
            ),
        )

    @property
    def _lake_key(self) -> str:
        return f"{self.name}_lake"

    def _build_asset(self, step: AssetStep, automated: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
        resource_key = self.resource_key

        @dg.multi_asset(
            name=step.name,
            specs=[self._final_spec(spec) for spec in step.specs],
            can_subset=len(step.specs) > 1,
            backfill_policy=step.backfill_policy,
            pool=step.pool,
            config_schema=None if step.config is None else step.config.to_fields_dict(),
            required_resource_keys={resource_key},
        )
        def materialize(context: AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
            tag_run_with_updates(context, automated)
            with failures():
                yield from self.execute(context, getattr(context.resources, resource_key), step)

        return materialize

    def _final_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        if self.name != DEFAULT_NAME:
            spec = spec.replace_attributes(group_name=f"{self.name}_{spec.group_name}")
        final = self.get_asset_spec(spec)
        if final.key != spec.key:
            raise dg.DagsterInvalidDefinitionError(
                f"get_asset_spec or translation changed the key {spec.key.to_user_string()} to"
                f" {final.key.to_user_string()}: set key_prefix, which also changes it where other assets depend on it"
            )
        return final.with_io_manager_key(self._lake_key) if is_table(final) else final
