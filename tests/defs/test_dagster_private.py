"""Private names of Dagster: loading the definitions needs one of them, and commands say so if another is gone."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import dagster as dg
import pytest
from dagster._annotations import is_public

import later_reporting_dagster
from later_reporting_dagster.defs.dagster_private import (
    add_tags,
    code_location_of,
    events_of_run,
    max_runtime_seconds,
    newest_event_at,
    newest_materialization_ids,
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

    @dg.asset(partitions_def=days)
    def table() -> None: ...

    with dg.DagsterInstance.local_temp(overrides={"run_monitoring": {"enabled": True}}) as instance:
        assert max_runtime_seconds(instance) is None
        results = [dg.materialize([table], partition_key=key, instance=instance) for key in ("a", "b", "b")]
        run_id = results[-1].run_id
        (made,) = events_of_run(instance, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert made.step_materialization_data.materialization.partition == "b"
        newest = max(entry.timestamp for entry in instance.all_logs(run_id))
        assert newest_event_at(instance, run_id) == newest
        assert newest_event_at(instance, dg.DagsterRun("none").run_id) is None
        records = instance.fetch_materializations(table.key, limit=10).records
        by_partition = {record.partition_key: record.storage_id for record in reversed(records)}
        assert sorted(newest_materialization_ids(instance, table.key)) == sorted(by_partition.values())
        add_tags(instance, run_id, {"a tag": "its value"})
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.tags["a tag"] == "its value"


def test_time_limit_of_runs_is_read() -> None:
    overrides = {"run_monitoring": {"enabled": True, "max_runtime_seconds": 60}}
    with dg.DagsterInstance.local_temp(overrides=overrides) as instance:
        assert max_runtime_seconds(instance) == 60


def test_methods_of_the_instance_that_are_not_public_are_called_in_one_file() -> None:
    private = {
        name
        for name, member in inspect.getmembers_static(dg.DagsterInstance)
        if not name.startswith("_") and not is_public(member.fget if isinstance(member, property) else member)
    }
    found = {
        (path.name, name)
        for path in Path(later_reporting_dagster.__file__).parent.rglob("*.py")
        if path.name != "dagster_private.py"
        for name in re.findall(r"\binstance\.(\w+)", path.read_text())
        if name in private
    }
    assert not found
