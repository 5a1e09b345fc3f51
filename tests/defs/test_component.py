"""The component: YAML and Python attributes, translation, hooks, and several in one project."""

import json
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config.pythonic_config.resource import get_resource_type_name
from dagster.components.testing.utils import create_defs_folder_sandbox

from later_reporting_dagster import LaterReportingComponent, LaterReportingResource
from later_reporting_dagster.defs.component_base import ASSET_NAMES, AssetEvent
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import PERIODS_TABLES, RAW_NAMES
from tests.defs.conftest import QUIET_LOGGING, assert_success

# Dagster itself causes these when it loads components.
pytestmark = pytest.mark.filterwarnings(
    "ignore::dagster.BetaWarning", "ignore:`parse_obj_as` is deprecated", "ignore:Accessing `{{automation_condition"
)

YAML = {
    "name": "later",
    "resource": {"client_id": "{{ env.LATER_CLIENT_ID }}", "client_secret": "{{ env('LATER_CLIENT_SECRET') }}"},
    "start_date": "2024-03-01",
    "key_prefix": ["marketing", "later"],
    "tables": ["posts_published", "post_metrics_daily", "organic_paid_daily"],
    "owners": ["team:data"],
    "translation": {"group_name": "influencers"},
}
PUBLISHED = dg.AssetKey(["later", "posts_published"])


@contextmanager
def loaded(attributes: dict[str, Any]) -> Iterator[tuple[LaterReportingComponent, dg.Definitions]]:
    contents = {"type": "later_reporting_dagster.LaterReportingComponent", "attributes": attributes}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=LaterReportingComponent, defs_yaml_contents=contents)
        with sandbox.load_component_and_build_defs(path) as (component, defs):
            assert isinstance(component, LaterReportingComponent)
            yield component, defs


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
        assert component.start_date == date(2024, 3, 1)
        resource = (defs.resources or {})["later_reporting"]
        assert (resource.client_id, resource.client_secret) == (
            dg.EnvVar("LATER_CLIENT_ID"),
            dg.EnvVar("LATER_CLIENT_SECRET"),
        )
        assert {job.name for job in defs.resolve_all_job_defs()} >= {"later_posts", "later_checks"}


SECRET = "s3cr3t-Zq7"
HOW_TO_WRITE_IT = (
    'write it as "{{ env.NAME }}", or as a text with that in it, so that it is read from the environment when a run'
    " starts, and stored nowhere"
)


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"name": "two words"}, "LATER_NAME (name): String should match pattern '^[A-Za-z][A-Za-z0-9_]*$'"),
        (
            {"lookback_days": "{{ env.NOT_A_NUMBER }}"},
            "LATER_LOOKBACK_DAYS (lookback_days): Input should be a valid integer,"
            " unable to parse string as an integer",
        ),
        ({"metrics": ["like"]}, "LATER_METRICS (metrics): unknown metric 'like'; the nearest is likes"),
        ({"tables": "post"}, f"LATER_TABLES (tables): there is no asset post; there are {', '.join(ASSET_NAMES)}"),
        (
            {"translation": {"key": "mine"}},
            "get_asset_spec or translation changed the key later/post_metrics_daily to mine: set key_prefix, which also"
            " changes it where other assets depend on it",
        ),
        (
            {"client_id": "id", "client_secret": SECRET},
            "client_id: Extra inputs are not permitted; client_secret: Extra inputs are not permitted",
        ),
        ({"secret": SECRET}, "secret: Extra inputs are not permitted"),
        ({"resource": {"client_secrets": SECRET}}, "resource.client_secrets: Extra inputs are not permitted"),
        ({"resource": {"access_token": [SECRET]}}, "resource.access_token: Input should be a valid string"),
        (
            {"resource": SECRET},
            "resource: Input should be a valid dictionary or instance of LaterReportingResourceModel",
        ),
        ({"resource": {"memory_gb": "{{ 0.1 }}"}}, "LATER_MEMORY_GB (memory_gb): Input should be greater than 0.25"),
        *(
            ({"resource": {"client_secret": written}}, f"LATER_CLIENT_SECRET (client_secret): {HOW_TO_WRITE_IT}")
            for written in (SECRET, "{{ env.A_SECRET | trim }}", "{{ env('A_SECRET', 'x') }}", "{{ 'x' }}")
        ),
        (
            {"resource": {"storage_options": {"client_kwargs": {"aws_secret_access_key": SECRET}}}},
            "LATER_STORAGE_OPTIONS.CLIENT_KWARGS.AWS_SECRET_ACCESS_KEY"
            f" (storage_options.client_kwargs.aws_secret_access_key): {HOW_TO_WRITE_IT}",
        ),
    ],
    ids=str,
)
def test_invalid_attribute_is_named_in_one_line(
    attributes: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_A_NUMBER", "many")
    monkeypatch.setenv("A_SECRET", SECRET)
    error = load_error(attributes)
    assert str(error) == line
    assert SECRET not in "".join(traceback.format_exception(error))


def test_secrets_reach_no_job_snapshot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Dagster stores a snapshot of each job that it runs, and the Launchpad shows the defaults in it."""
    monkeypatch.setenv("A_SECRET", SECRET)
    monkeypatch.setenv("OPTIONS", json.dumps({"key": SECRET}))
    resources = [
        {"client_id": "{{ env.A_SECRET }}", "client_secret": "{{ env('A_SECRET') }}"},
        {"access_token": "{{env.A_SECRET}}"},
        {"lake_root": "s3://{{ env.A_SECRET }}/lake", "storage_options": {"secret": "a{{ env.A_SECRET }}"}},
        {"storage_options": "{{ env.OPTIONS }}"},
    ]
    for attributes in resources:
        with loaded({"resource": attributes}) as (component, defs):
            assert SECRET not in repr(component)
            for job in defs.resolve_all_job_defs():
                snapshot = dg.serialize_value(job.get_job_snapshot())
                assert "later_reporting" in snapshot
                assert SECRET not in snapshot
            # A run has the values.
            resolved = dg.serialize_value(str(dict(component.resource.resolved())))
            assert SECRET in resolved
            assert "A_SECRET" not in resolved
    # A literal in Python is in no snapshot, either.
    resource = LaterReportingResource(client_secret=SECRET, lake_root=f"memory://u:{SECRET}@h")
    defs = LaterReportingComponent(resource=resource).build_definitions()
    assert SECRET not in "".join(dg.serialize_value(job.get_job_snapshot()) for job in defs.resolve_all_job_defs())


def test_run_config_sets_no_field_of_the_resources() -> None:
    defs = LaterReportingComponent().build_definitions()
    job = defs.resolve_job_def("later_posts")
    for key, config in (("later_reporting", {"base_url": "https://example.com"}), ("later_lake", {"lake_root": "x"})):
        with pytest.raises(dg.DagsterInvalidConfigError, match=next(iter(config))):
            dg.validate_run_config(job, {"resources": {key: {"config": config}}})


def test_numbers_and_texts_can_be_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DAYS", "7")
    monkeypatch.setenv("SOME_TABLES", "instances,coverage")
    resource = {
        "memory_gb": "1.5",
        "requests_per_minute": "{{ env.SOME_DAYS }}",
        "instance_ids": ["a", "{{ env.SOME_DAYS }}"],
        "base_url": "https://{{ env.SOME_TABLES | upper }}",
        "client_id": "0123",
    }
    attributes = {"lookback_days": "{{ env.SOME_DAYS }}", "tables": "{{ env.SOME_TABLES }}", "resource": resource}
    with loaded(attributes) as (component, _):
        assert (component.lookback_days, component.tables) == (7, ("instances", "coverage"))
        assert dict(component.resource)["requests_per_minute"] == dg.EnvVar("SOME_DAYS")
        later = component.resource.resolved()
        assert (later.memory_gb, later.requests_per_minute, later.client_id) == (1.5, 7, "0123")
        assert later.base_url == "https://INSTANCES,COVERAGE"
        assert later.configured_instances() == ("a", "7")


@dataclass
class Contact(dg.Resolvable):
    name: str


class OtherPartitions(LaterReportingComponent):
    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(partitions_def=dg.WeeklyPartitionsDefinition(start_date=str(self.start_date)))


@pytest.mark.parametrize("table", ["posts_published", "organic_paid_daily", "instances", "organic_paid_report"])
def test_other_partitions_of_a_spec_are_refused(table: str) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=f"changed .* of later/{table}, .*start_date"):
        OtherPartitions(tables=table).build_definitions()


class OtherIOManager(LaterReportingComponent):
    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.with_io_manager_key("warehouse") if spec.key.path[-1] == "posts_published" else spec


class Warehouse(dg.IOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> str:
        return f"warehouse {context.asset_key.path[-1]}"


def test_io_manager_of_a_spec_loads_its_table() -> None:
    loaded: list[str] = []

    @dg.asset(ins={"posts": dg.AssetIn(["later", "posts_published"])})
    def mine(posts: str) -> None:
        loaded.append(posts)

    own = dg.Definitions(assets=[mine], resources={"warehouse": Warehouse()})
    defs = dg.Definitions.merge(OtherIOManager().build_definitions(), own)
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[mine.key], run_config=QUIET_LOGGING).success
    assert loaded == ["warehouse posts_published"]


def test_tags_and_pool_of_steps_are_set_in_yaml() -> None:
    memory = {"container_config": {"resources": {"limits": {"memory": "4Gi"}}}}
    with loaded({"op": {"tags": {"dagster-k8s/config": memory}, "pool": "apis"}}) as (component, defs):
        graph = defs.resolve_asset_graph()
        steps = {defs.resolve_assets_def(key).op for key in graph.materializable_asset_keys}
        steps |= {check.op for check in defs.asset_checks or [] if isinstance(check, dg.AssetsDefinition)}
        assert len(steps) > len(component.fetched_tables)
        assert [step.name for step in steps if json.loads(step.tags["dagster-k8s/config"]) != memory] == []
        in_pool = {step.name for step in steps if step.pool == "apis"}
        assert in_pool == {component.op_name(name) for name in component.fetched_tables}
        assert {step.pool for step in steps} == {"apis", None}


def test_retry_policy_of_all_steps_is_set_in_yaml() -> None:
    policy = {"max_retries": 2, "delay": 30, "backoff": "EXPONENTIAL", "jitter": "FULL"}
    expected = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)
    with loaded({"retry_policy": policy}) as (component, defs):
        assert component.retry_policy == expected
        steps = {defs.resolve_assets_def(key).op for key in defs.resolve_asset_graph().materializable_asset_keys}
        steps |= {check.op for check in defs.asset_checks or [] if isinstance(check, dg.AssetsDefinition)}
        assert {step.retry_policy for step in steps} == {expected}
    assert "attributes.retry_policy" in str(load_error({"retry_policy": {"max_retries": 2, "backoff": "FAST"}}))


class AcmeResource(LaterReportingResource):
    """Acme's account."""

    team: str = ""


class AcmeComponent(LaterReportingComponent):
    resource: AcmeResource


def test_resource_class_of_a_host_is_configured_in_yaml() -> None:
    attributes = {"resource": {"team": "data", "client_secret": "{{ env.ACME_SECRET }}"}}
    component = AcmeComponent.resolve_from_dict(attributes)
    assert type(component.resource) is AcmeResource
    assert (component.resource.team, component.resource.client_secret) == ("data", dg.EnvVar("ACME_SECRET"))
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="resource.crew: Extra inputs are not permitted"):
        AcmeComponent.resolve_from_dict({"resource": {"crew": "data"}})


def test_pages_of_resources_show_their_class_and_where_fields_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SECRET", SECRET)
    resource = AcmeResource(
        client_secret=dg.EnvVar("ACME_SECRET"),
        lake_root="s3://{{ env.BUCKET }}/lake",
        storage_options={"secret": {"env": "S3_SECRET"}},
        base_url=f"https://{SECRET}",
    )
    resources = LaterReportingComponent(resource=resource).build_definitions().resources or {}
    shown, lake = (resources[name].get_resource_definition() for name in ("later_reporting", "later_lake"))
    assert get_resource_type_name(shown) == f"{__name__}.AcmeResource"
    assert (shown.description or "").splitlines()[:8] == [
        "Acme's account.",
        "",
        "| field | from |",
        "| --- | --- |",
        "| `base_url` | the definitions |",
        "| `client_secret` | `ACME_SECRET` |",
        "| `lake_root` | `BUCKET` |",
        "| `storage_options` | `S3_SECRET` |",
    ]
    assert get_resource_type_name(lake) == "later_reporting_dagster.defs.io_manager.LaterLake"
    assert "| `lake_root` | `BUCKET` |" in (lake.description or "")
    assert SECRET not in f"{shown.description}{lake.description}"


class CustomComponent(LaterReportingComponent):
    contacts: list[Contact] = []

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        return super().get_asset_spec(spec).replace_attributes(owners=["team:custom"])

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[AssetEvent]) -> Iterator[AssetEvent]:
        context.log.info(f"before {context.op_def.name}")
        for event in super().execute(context, events):
            if isinstance(event, dg.AssetMaterialization):
                context.log.info(f"between: {event.partition}")
            yield event
        context.log.info("after")


def test_field_of_a_subclass_is_resolved_by_dagster() -> None:
    attributes = {"contacts": [{"name": "{{ 'a' }}"}], "lookback_days": "{{ 3 + 4 }}"}
    component = CustomComponent.resolve_from_dict(attributes)
    assert (component.contacts, component.lookback_days) == ([Contact("a")], 7)


def test_demo_mode_and_hooks_materialize_without_credentials(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    secret = dg.EnvVar("NO_SUCH_VARIABLE")
    resource = LaterReportingResource(lake_root=lake.root, demo_mode=True, client_secret=secret)
    component = CustomComponent(resource=resource, name="demo")
    defs = component.build_definitions()
    key = component.asset_key("posts_published")
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
    hooks = ["before demo__posts_published", "between: 2026-03-01", "between: 2026-03-02", "after"]
    assert [message for message in messages if message in hooks] == hooks
    assert len(lake.partitions("posts_published")) == 8


def test_two_accounts_load_side_by_side() -> None:
    resource = LaterReportingResource(demo_mode=True)
    accounts = [LaterReportingComponent(name=name, resource=resource) for name in ("later", "later_eu")]
    merged = dg.Definitions.merge(*(account.build_definitions() for account in accounts))
    dg.Definitions.validate_loadable(merged)
    assert {key.path[0] for key in merged.resolve_asset_graph().get_all_asset_keys()} == {"later", "later_eu"}
    roots = {name: (merged.resources or {})[f"{name}_reporting"].lake_root for name in ("later", "later_eu")}
    assert [Path(root).name for root in roots.values()] == ["later-lake", "later_eu-lake"]
    groups: dict[str, set[str | None]] = {"later": set(), "later_eu": set()}
    for spec in merged.resolve_all_asset_specs():
        groups[spec.key.path[0]].add(spec.group_name)
    for name, of_account in groups.items():
        assert of_account == {
            f"{name}_{group}" for group in ("posts", "inventory", "campaigns", "totals", "organic_paid")
        }


def test_assets_name_their_source_and_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_OWNERS", "team:data, someone@example.com")
    specs = LaterReportingComponent.from_environment().build_definitions().resolve_all_asset_specs()
    assert {(*spec.owners,) for spec in specs} == {("team:data", "someone@example.com")}
    fetched = {*RAW_NAMES, "instances", "campaigns", *PERIODS_TABLES}
    assert {spec.key.path[-1] for spec in specs if "later" in spec.kinds} == fetched


def test_scaffolded_component_begins_30_days_ago() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=LaterReportingComponent)
        with sandbox.load_component_and_build_defs(path) as (component, _):
            assert isinstance(component, LaterReportingComponent)
            assert component.start_date == datetime.now(UTC).date() - timedelta(days=30)


def test_scaffolded_component_declares_its_variables() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=LaterReportingComponent)
        text = (path / "defs.yaml").read_text()
    variables = ["LATER_CLIENT_ID", "LATER_CLIENT_SECRET", "LATER_LAKE_ROOT"]
    assert re.findall(r"env\.(\w+)", text) == yaml.safe_load(text)["requirements"]["env"] == variables


def test_scaffolded_component_has_the_options_of_the_command() -> None:
    with create_defs_folder_sandbox() as sandbox:
        params = {"demo_mode": True, "lake_root": "/data/lake", "start_date": "2024-01-05"}
        path = sandbox.scaffold_component(component_cls=LaterReportingComponent, scaffold_params=params)
        assert "requirements" not in (path / "defs.yaml").read_text()
        with sandbox.load_component_and_build_defs(path) as (component, _):
            assert isinstance(component, LaterReportingComponent)
            assert component.start_date == date(2024, 1, 5)
            assert (component.resource.demo_mode, component.resource.lake_root) == (True, "/data/lake")


@pytest.mark.parametrize("table", ASSET_NAMES)
def test_each_table_can_be_defined_alone(table: str) -> None:
    defs = LaterReportingComponent(tables=table).build_definitions()
    dg.Definitions.validate_loadable(defs)
    assert [key.path[-1] for key in defs.resolve_asset_graph().materializable_asset_keys] == [table]


def test_attributes_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_NAME", "later_eu")
    monkeypatch.setenv("LATER_KEY_PREFIX", "marketing, later")
    monkeypatch.setenv("LATER_TABLES", "instances,posts_published,posts,campaigns,-campaigns")
    monkeypatch.setenv("LATER_MAX_WAIT_HOURS", "12")
    monkeypatch.setenv("LATER_METRICS", "likes,reach")
    monkeypatch.setenv("LATER_START_DATE", "")  # counts as unset
    component = LaterReportingComponent.from_environment()
    assert component == LaterReportingComponent(
        name="later_eu",
        max_wait_hours=12,
        key_prefix=("marketing", "later"),
        tables=("posts_published", "instances", "posts"),
        metrics=["likes", "reach"],
    )
    sensors = component.build_definitions().sensors or []
    assert [sensor.name for sensor in sensors] == ["later_eu_missing_files", "later_eu_rollups"]


def test_asset_with_a_condition_of_the_host_is_left_to_the_host() -> None:
    def translation(_default: dg.AssetSpec, spec: dg.AssetSpec) -> dg.AssetSpec:
        is_theirs = spec.key.path[-1] == "organic_paid_weekly"
        return spec.replace_attributes(automation_condition=dg.AutomationCondition.eager()) if is_theirs else spec

    defs = LaterReportingComponent(translation=translation).build_definitions()
    selection = defs.resolve_sensor_def("later_rollups").asset_selection
    assert selection is not None
    names = {key.path[-1] for key in selection.resolve(defs.resolve_asset_graph())}
    assert "organic_paid_weekly" not in names
    assert names >= {"organic_paid_daily", "organic_paid_monthly", "organic_paid_report"}


def test_rollup_backfills_can_be_divided_into_runs() -> None:
    defs = LaterReportingComponent(rollup_partitions_per_run=31).build_definitions()
    policy = defs.resolve_assets_def(dg.AssetKey(["later", "organic_paid_daily"])).backfill_policy
    assert policy == dg.BackfillPolicy.multi_run(31)
    assert defs.resolve_assets_def(PUBLISHED).backfill_policy == dg.BackfillPolicy.single_run()
