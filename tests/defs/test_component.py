"""The component: YAML and Python attributes, translation, post-processing, hooks, and several in one project."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing.test_cases import TestTranslation
from dagster.components.testing.utils import create_defs_folder_sandbox

import later_reporting_dagster
from later_reporting_dagster import LaterReportingComponent, LaterReportingResource
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.settings import ASSET_NAMES
from later_reporting_dagster.lake import Lake
from tests.defs.conftest import QUIET_LOGGING, assert_success

# Dagster itself causes these when it loads components.
pytestmark = pytest.mark.filterwarnings(
    "ignore::dagster.BetaWarning", "ignore:`parse_obj_as` is deprecated", "ignore:Accessing `{{automation_condition"
)

TYPE = "later_reporting_dagster.LaterReportingComponent"
YAML = {
    "name": "later",
    "client_id": "{{ env.LATER_CLIENT_ID }}",
    "client_secret": "{{ env.LATER_CLIENT_SECRET }}",
    "start_date": "2024-03-01",
    "key_prefix": ["marketing", "later"],
    "tables": ["posts_published", "post_metrics_daily", "organic_paid_daily"],
    "translation": {"group_name": "influencers", "owners": ["team:data"]},
}
PUBLISHED = dg.AssetKey(["later", "posts_published"])


@contextmanager
def loaded(
    attributes: dict[str, Any], *, type_: str = TYPE, **sections: Any
) -> Iterator[tuple[LaterReportingComponent, dg.Definitions]]:
    """Load a component from a `defs.yaml` with these attributes and further sections."""
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=LaterReportingComponent,
            defs_yaml_contents={"type": type_, "attributes": attributes, **sections},
        )
        with sandbox.load_component_and_build_defs(path) as (component, defs):
            assert isinstance(component, LaterReportingComponent) or sections
            yield component, defs  # post-processing wraps the component


def load_error(attributes: dict[str, Any]) -> BaseException | None:
    """Return the cause of the error that loading raises. Dagster's own message shows where the component is."""
    with pytest.raises(Exception, match="Error while") as error, loaded(attributes):
        pass
    return error.value.__cause__


def spec_of(defs: dg.Definitions, key: dg.AssetKey = PUBLISHED) -> dg.AssetSpec:
    return defs.resolve_assets_def(key).specs_by_key[key]


def test_component_is_built_from_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    # The variables are read when a run starts, so loading needs no secret.
    monkeypatch.delenv("LATER_CLIENT_ID", raising=False)
    with loaded(YAML) as (component, defs):
        keys = defs.resolve_asset_graph().get_all_asset_keys()
        assert {key.to_user_string() for key in keys} == {f"marketing/later/{name}" for name in YAML["tables"]}
        spec = spec_of(defs, dg.AssetKey(["marketing", "later", "posts_published"]))
        assert (spec.group_name, spec.owners) == ("influencers", ["team:data"])
        assert component.settings.start_date == date(2024, 3, 1)
        resource = (defs.resources or {})["later_reporting"]
        assert (resource.client_id, resource.client_secret) == (
            dg.EnvVar("LATER_CLIENT_ID"),
            dg.EnvVar("LATER_CLIENT_SECRET"),
        )
        assert {job.name for job in defs.resolve_all_job_defs()} >= {"later_posts", "later_checks", "later_compaction"}


def test_package_registers_its_component_only() -> None:
    assert {"LaterReportingComponent", "LaterReportingResource"} <= set(dir(later_reporting_dagster))
    with pytest.raises(AttributeError, match="no attribute 'Component'"):
        later_reporting_dagster.Component  # noqa: B018


def test_every_setting_is_a_described_attribute() -> None:
    attributes = LaterReportingComponent.model().model_json_schema()["properties"]
    assert attributes.keys() >= LaterReportingResource.model_fields.keys()
    assert [name for name, schema in attributes.items() if not schema.get("description")] == ["translation"]


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"name": "two words"}, "LATER_NAME (name): must be letters, digits and underscores, not 'two words'"),
        ({"start_date": "spring"}, "LATER_START_DATE (start_date): must be a date as YYYY-MM-DD, not 'spring'"),
        ({"restate_days": 0}, "LATER_RESTATE_DAYS (restate_days): must be a whole number from 1 to 730, not '0'"),
        ({"metrics": ["like"]}, "LATER_METRICS (metrics): unknown metric 'like'; the nearest is likes"),
        (
            {"memory_gb": 0.1},
            "LATER_MEMORY_GB (memory_gb): must be a number of GB above 0.25, such as 2 or 1.5, not '0.1'",
        ),
        ({"demo_mode": "{{ 'maybe' }}"}, "LATER_DEMO_MODE (demo_mode): must be true or false, not 'maybe'"),
        ({"tables": "post"}, f"LATER_TABLES (tables): there is no asset post; there are {', '.join(ASSET_NAMES)}"),
        (
            {"translation": {"key": "mine"}},
            "get_asset_spec or translation changed the key later/post_metrics_daily to mine: set key_prefix, which also"
            " changes it where other assets depend on it",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_invalid_attribute_is_named_in_one_line(attributes: dict[str, Any], line: str) -> None:
    assert str(load_error(attributes)) == line


def test_storage_options_refer_to_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"endpoint_url": "http://127.0.0.1:1", "client_kwargs": {"secret": "{{ env.SOME_SECRET }}"}}
    with loaded({"lake_root": "s3://lake", "storage_options": options}) as (_, defs):
        for key in ("later_reporting", "later_lake"):
            assert (defs.resources or {})[key].storage_options == {
                "endpoint_url": "http://127.0.0.1:1",
                "client_kwargs": {"secret": {"env": "SOME_SECRET"}},
            }


def test_numbers_can_be_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DAYS", "7")
    with loaded({"restate_days": "{{ env.SOME_DAYS }}", "memory_gb": "1.5"}) as (component, defs):
        assert component.settings.restate_days == 7
        assert (defs.resources or {})["later_reporting"].memory_gb == 1.5


class TestComponentTranslation(TestTranslation):
    """The translations that Dagster's own integrations are tested with."""

    def test_translation(self, attributes: Any, assertion: Any, key_modifier: Any) -> None:
        if key_modifier is not None:
            assert "set key_prefix" in str(load_error({"translation": attributes}))
        else:
            with loaded({"translation": attributes, "tables": "posts_published"}) as (_, defs):
                assert assertion(spec_of(defs))


def test_translation_can_use_the_default_spec() -> None:
    translation = {"group_name": "{{ spec.tags['later/layer'] }}"}
    with loaded({"translation": translation}) as (_, defs):
        assert spec_of(defs).group_name == "raw"
        assert spec_of(defs, dg.AssetKey(["later", "organic_paid_weekly"])).group_name == "rollup"


class CustomComponent(LaterReportingComponent):
    """Overrides both hooks."""

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        return super().get_asset_spec(spec).replace_attributes(owners=["team:custom"])

    def execute(
        self, context: dg.AssetExecutionContext, later: LaterReportingResource, step: AssetStep
    ) -> Iterable[dg.MaterializeResult[Any]]:
        context.log.info(f"before {step.name}")
        yield from super().execute(context, later, step)


def test_demo_mode_and_hooks_materialize_without_credentials(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    secret = dg.EnvVar("NO_SUCH_VARIABLE")
    component = CustomComponent(lake_root=lake.root, demo_mode=True, client_secret=secret, name="demo")
    defs = component.build_definitions()
    key = component.settings.asset_key("posts_published")
    assert spec_of(defs, key).owners == ["team:custom"]
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[key],
            tags=range_tags(date(2026, 3, 1), date(2026, 3, 2)),
            run_config=QUIET_LOGGING,
            raise_on_error=False,
        )
        assert_success(result)
        messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert "before demo__posts_published" in messages
    assert len(lake.partitions("posts_published")) == 8


def test_two_accounts_load_side_by_side() -> None:
    accounts = [LaterReportingComponent(name="later"), LaterReportingComponent(name="later_eu")]
    merged = dg.Definitions.merge(*(account.build_definitions() for account in accounts))
    dg.Definitions.validate_loadable(merged)
    assert {key.path[0] for key in merged.resolve_asset_graph().get_all_asset_keys()} == {"later", "later_eu"}
    roots = {name: (merged.resources or {})[f"{name}_reporting"].lake_root for name in ("later", "later_eu")}
    assert [Path(root).name for root in roots.values()] == ["later-lake", "later_eu-lake"]


@pytest.mark.parametrize("tables", [[name] for name in ASSET_NAMES])
def test_each_table_can_be_defined_alone(tables: list[str]) -> None:
    defs = LaterReportingComponent(tables=",".join(tables)).build_definitions()
    dg.Definitions.validate_loadable(defs)
    assert {key.path[-1] for key in defs.resolve_asset_graph().materializable_asset_keys} == set(tables)


def test_automation_sensor_is_optional() -> None:
    defs = LaterReportingComponent(automation_sensor=False).build_definitions()
    assert [sensor.name for sensor in defs.sensors or []] == ["later_instances"]


def test_rollup_backfills_can_be_divided_into_runs() -> None:
    defs = LaterReportingComponent(rollup_partitions_per_run=31).build_definitions()
    policy = defs.resolve_assets_def(dg.AssetKey(["later", "organic_paid_daily"])).backfill_policy
    assert policy == dg.BackfillPolicy.multi_run(31)
    assert defs.resolve_assets_def(PUBLISHED).backfill_policy == dg.BackfillPolicy.single_run()


def test_secret_in_yaml_is_not_a_default_of_the_resource() -> None:
    """Dagster shows defaults in the Launchpad."""
    component = LaterReportingComponent(client_id="id", client_secret="pa55word", access_token=dg.EnvVar("TOKEN"))
    resource = (component.build_definitions().resources or {})["later_reporting"]
    assert resource.client_secret == "pa55word"
    shown = json.dumps({name: str(field.default) for name, field in type(resource).model_fields.items()})
    assert "pa55word" not in shown + repr(resource)
    assert "TOKEN" in shown


def test_groups_carry_the_name_unless_it_is_the_default() -> None:
    def groups(name: str) -> set[str | None]:
        specs = LaterReportingComponent(name=name).build_definitions().resolve_all_asset_specs()
        return {spec.group_name for spec in specs}

    assert groups("later_eu") == {f"later_eu_{group}" for group in groups("later")}
