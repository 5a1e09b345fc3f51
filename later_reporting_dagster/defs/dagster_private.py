"""What is not public in Dagster and has no public counterpart.

Only what loading the definitions needs is imported here; a command imports the rest when it needs it.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import click
import dagster as dg

# With this metadata, Dagster logs nothing for a result, but executes the checks and the downstream steps of its asset.
# Needed until a run of several partitions can yield a result for each, with a data version of its own:
# https://github.com/dagster-io/dagster/issues/21072 and https://github.com/dagster-io/dagster/issues/34013.
# tests/defs/test_same_run.py fails without its effect.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as NOTHING_TO_LOG

if TYPE_CHECKING:
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin as CodeLocation

__all__ = [
    "NOTHING_TO_LOG",
    "add_tags",
    "backfills_in_progress",
    "code_location_of",
    "code_locations_of_project",
    "definitions_in",
    "events_of_run",
    "max_runtime_seconds",
    "newest_event_at",
    "newest_failed_evaluations",
    "newest_materialization_ids",
    "set_origin_of_runs",
]


@contextmanager
def _private_names() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise click.ClickException(
            f"this command does not work with dagster {dg.__version__}: {error}. Install an earlier version of dagster."
        ) from error


# The storage is no part of Dagster's documented API, which cannot read results of checks. Of its methods, this one also
# works in Dagster+. tests/defs/checks/test_red_checks.py fails without it.
def newest_failed_evaluations(
    instance: dg.DagsterInstance, keys: Set[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    """Return the newest result of each check whose newest result is a failure."""
    found: dict[dg.AssetCheckKey, dg.AssetCheckEvaluation] = {}
    for key, summary in instance.event_log_storage.get_asset_check_summary_records([*keys]).items():
        record = summary.last_completed_check_execution_record
        if record and record.evaluation and not record.evaluation.passed:
            found[key] = record.evaluation
    return found


# The documented API has the records of one kind of event of an asset, or of runs, but not the events of a run.
def events_of_run(instance: dg.DagsterInstance, run_id: str, *kinds: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    """Return the events of some kinds that a run has logged so far."""
    return [entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type={*kinds})]


def newest_event_at(instance: dg.DagsterInstance, run_id: str) -> float | None:
    """Return when a run logged its newest event, as a timestamp; None if it has logged none."""
    newest = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    return newest[0].timestamp if newest else None


# A documented call for each partition would be a query for each.
def newest_materialization_ids(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[int]:
    """Return the id of the newest materialization of each partition of an asset."""
    return [*instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION).values()]


# The documented API sets tags of a run only when it is requested.
def add_tags(instance: dg.DagsterInstance, run_id: str, tags: Mapping[str, str]) -> None:
    instance.add_run_tags(run_id, dict(tags))


def max_runtime_seconds(instance: dg.DagsterInstance) -> float | None:
    """Return the time limit of runs in `dagster.yaml`; None without one."""
    return instance.run_monitoring_max_runtime_seconds or None


# Dagster's documented API cannot list backfills. tests/defs/test_rollups_sensor.py fails without it.
def backfills_in_progress(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """Return the assets of the backfills that have not ended."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    not_ended = BulkActionsFilter(
        statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    )
    return {key for backfill in instance.get_backfills(filters=not_ended) for key in backfill.asset_selection or ()}


# How `dagster dev` finds the definitions of a folder. We know of no issue that asks for a public function.
# tests/e2e/test_own_project.py fails without these two.
def code_locations_of_project() -> "Sequence[CodeLocation]":
    """Return the code locations that `pyproject.toml` in the current folder names."""
    with _private_names():
        from dagster._core.workspace.load_target import get_origins_from_toml
    return get_origins_from_toml("pyproject.toml")


def definitions_in(module: ModuleType) -> object:
    """Return the definitions of a module, or the function that returns them."""
    with _private_names():
        from dagster._core.workspace.autodiscovery import loadable_targets_from_loaded_module
    return loadable_targets_from_loaded_module(module)[0].target_definition


# The timeline of the UI leaves out runs without an origin: the origin of their job, in a code location.
def code_location_of(module: str) -> "CodeLocation":
    """Return the code location of `dagster dev -m`."""
    with _private_names():
        from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
        from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    return ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name=module), module)


def set_origin_of_runs(instance: dg.DagsterInstance, job: dg.JobDefinition, location: "CodeLocation") -> None:
    """Give the runs that this process executes from now on the origin of runs of the job that a daemon launches."""
    with _private_names():
        from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
    repository = RemoteRepositoryOrigin(location, "__repository__")  # Dagster's name for that of a `Definitions`
    create = partial(instance.create_run_for_job, remote_job_origin=RemoteJobOrigin(repository, job.name))
    instance.create_run_for_job = create  # type: ignore[method-assign]
