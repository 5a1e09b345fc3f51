"""Private names of Dagster: loading the definitions needs one of them, and commands say so if another is gone."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import dagster as dg
import pytest
import sqlalchemy
from dagster._annotations import PUBLIC, is_public
from dagster._core.storage.event_log.sqlite import sqlite_event_log

import later_reporting_dagster
from later_reporting_dagster.defs.dagster_private import (
    add_tags,
    assets_of_job,
    check_results_of_run,
    code_location_of,
    failed_steps_of_run,
    job_of_all_assets,
    keep_engines_of_events,
    materializations,
    materializations_of_run,
    max_runtime_seconds,
    newest_event_at,
    newest_materialization_id,
    newest_materialization_ids,
    op_context,
    planned_checks_of_run,
    selected_assets,
    variable_of,
)

MODULES = (
    "dagster._core.remote_origin",
    "dagster._core.types.loadable_target_origin",
    "dagster._core.workspace.autodiscovery",
    "dagster._core.workspace.load_target",
)
LOAD = f"""
import dagster, sys
sys.modules |= dict.fromkeys({MODULES})
import later_reporting_dagster.definitions
"""


def test_definitions_load_without_the_private_names_that_only_commands_need() -> None:
    subprocess.run([sys.executable, "-c", LOAD], check=True)


@pytest.mark.parametrize("module", MODULES[:2])
def test_command_names_the_version_of_dagster_that_lacks_a_private_name(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(click.ClickException, match=f"does not work with dagster {dg.__version__}: .*{module}"):
        code_location_of("any")


def test_events_tags_and_partitions_of_a_run_are_read() -> None:
    days = dg.StaticPartitionsDefinition(["a", "b"])

    @dg.asset(partitions_def=days, check_specs=[dg.AssetCheckSpec("is_good", asset="table")])
    def table() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, description="it is bad")])

    with dg.DagsterInstance.local_temp(overrides={"run_monitoring": {"enabled": True}}) as instance:
        assert max_runtime_seconds(instance) is None
        assert newest_materialization_id(instance, [table.key]) == 0
        results = [dg.materialize([table], partition_key=key, instance=instance) for key in ("a", "b", "b")]
        run_id = results[-1].run_id
        (made,) = materializations_of_run(instance, run_id)
        assert made.partition == "b"
        assert planned_checks_of_run(instance, run_id) == {dg.AssetCheckKey(table.key, "is_good")}
        (result,) = check_results_of_run(instance, run_id)
        assert (result.check_name, result.passed, result.description) == ("is_good", False, "it is bad")
        newest = max(entry.timestamp for entry in instance.all_logs(run_id))
        assert newest_event_at(instance, run_id) == newest
        assert newest_event_at(instance, dg.DagsterRun("none").run_id) is None
        records = instance.fetch_materializations(table.key, limit=10).records
        by_partition = {record.partition_key: record.storage_id for record in reversed(records)}
        assert sorted(newest_materialization_ids(instance, table.key)) == sorted(by_partition.values())
        assert newest_materialization_id(instance, [table.key]) == max(by_partition.values())
        assert materializations(instance, dg.AssetRecordsFilter(table.key), limit=1) == [made]
        add_tags(instance, run_id, {"a tag": "its value"})
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.tags["a tag"] == "its value"


def test_materializations_are_read_while_their_run_goes_on() -> None:
    read = []

    @dg.asset
    def first() -> None: ...

    @dg.asset(deps=[first])
    def second(context: dg.AssetExecutionContext) -> None:
        read.append(len(materializations_of_run(context.instance, context.run.run_id)))

    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            run_id = dg.materialize([first, second], instance=instance).run_id
            read.append(len(materializations_of_run(instance, run_id)))
    assert read == [1, 2, 1, 2]


def test_databases_of_events_keep_their_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_event_log, "create_engine", sqlalchemy.create_engine)
    keep_engines_of_events.cache_clear()
    keep_engines_of_events()
    engines = []

    def add_engine(connection: sqlalchemy.Connection) -> None:
        if "/history/runs/" in str(connection.engine.url):
            engines.append(connection.engine)

    sqlalchemy.event.listen(sqlalchemy.Engine, "engine_connect", add_engine)
    try:
        with dg.DagsterInstance.local_temp() as instance:
            for _ in range(5):
                instance.report_runless_asset_event(dg.AssetMaterialization("table"))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "engine_connect", add_engine)
    assert len(engines) > 10
    assert len({*engines}) == len({engine.url for engine in engines})


def test_failures_of_a_run_are_read() -> None:
    @dg.asset
    def told() -> None:
        raise dg.Failure("why", metadata={"days": 3})

    @dg.asset
    def raised() -> None:
        raise KeyError("a name")

    with dg.DagsterInstance.ephemeral() as instance:
        run_id = dg.materialize([told, raised], instance=instance, raise_on_error=False).run_id
        failed = {each.step: each for each in failed_steps_of_run(instance, run_id)}
    assert (failed["told"].description, failed["told"].metadata["days"].value) == ("why", 3)
    assert (failed["raised"].description, failed["raised"].error) == (None, "KeyError")
    assert "a name" in failed["raised"].message


def test_assets_of_runs_and_jobs_are_read() -> None:
    @dg.asset
    def first(context: dg.AssetExecutionContext) -> None:
        assert op_context(context).run_id == context.run.run_id

    @dg.asset
    def second() -> None: ...

    defs = dg.Definitions([first, second])
    job = job_of_all_assets(defs)
    assert assets_of_job(job) == {first.key, second.key}
    with dg.DagsterInstance.ephemeral() as instance:
        whole = job.execute_in_process(instance=instance)
        part = job.execute_in_process(instance=instance, asset_selection=[first.key])
        runs = [instance.get_run_by_id(result.run_id) for result in (whole, part)]
    assert [run and selected_assets(run) for run in runs] == [frozenset(), {first.key}]


def test_variables_are_named() -> None:
    values = [dg.EnvVar("A"), dg.EnvVar.int("B"), "{{ env.C }}", 1]
    assert [variable_of(value) for value in values] == ["A", "B", None, None]


def test_time_limit_of_runs_is_read() -> None:
    overrides = {"run_monitoring": {"enabled": True, "max_runtime_seconds": 60}}
    with dg.DagsterInstance.local_temp(overrides=overrides) as instance:
        assert max_runtime_seconds(instance) == 60


# What the variables of these names are in the package. A name is public if it is in one of the classes: the contexts of
# assets and checks repeat the methods of that of ops, and are marked only there.
CLASSES: dict[str, Sequence[type]] = {
    "instance": [dg.DagsterInstance],
    "context": [dg.OpExecutionContext, dg.AssetExecutionContext, dg.AssetCheckExecutionContext, dg.InputContext]
    + [dg.SensorEvaluationContext, dg.ScheduleEvaluationContext, dg.RunStatusSensorContext, dg.ResolutionContext],
    "run": [dg.DagsterRun],
    "event": [dg.DagsterEvent, dg.AssetMaterialization],
    "asset": [dg.AssetsDefinition],
    "assets_def": [dg.AssetsDefinition],
    "definitions": [dg.Definitions],
    "repository_def": [dg.RepositoryDefinition],
    "job_def": [dg.JobDefinition],
    "job": [dg.JobDefinition],
    "result": [dg.ExecuteInProcessResult, dg.AssetCheckResult],
}
# Dagster documents these, and marks them nowhere.
DOCUMENTED = {"context.at_path", "definitions.metadata", "definitions.resources", "job.name", "result.success"}


def is_marked(cls: type, name: str) -> bool:
    """Return whether Dagster marks a name of a class as public; fields of events and results are all public."""
    if cls in (dg.AssetMaterialization, dg.AssetCheckResult):
        return hasattr(cls, name)
    for base in cls.__mro__:
        member = vars(base).get(name)
        target = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if target is not None and (getattr(member, "_is_public", False) or is_public(target)):
            return True
        annotation = vars(base).get("__annotations__", {}).get(name)
        if PUBLIC in getattr(annotation, "__metadata__", ()):
            return True
    return False


def test_names_that_are_not_public_are_used_in_one_file() -> None:
    names = re.compile(rf"\b({'|'.join(CLASSES)})\.([a-z]\w*)")
    found = {
        (path.name, f"{variable}.{name}")
        for path in Path(later_reporting_dagster.__file__).parent.rglob("*.py")
        if path.name != "dagster_private.py" and "import dagster as dg" in path.read_text()
        for variable, name in names.findall(path.read_text())
        if any(hasattr(cls, name) for cls in CLASSES[variable])
        and not any(is_marked(cls, name) for cls in CLASSES[variable])
    }
    assert sorted(each for each in found if each[1] not in DOCUMENTED) == []
