"""What is not public in Dagster and has no public counterpart.

Only what loading the definitions needs is imported here; a command imports the rest when it needs it.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import dagster as dg

# With this metadata, Dagster logs nothing for a result, but executes the checks and the downstream steps of its asset.
# Needed until a run of several partitions can yield a result for each, with a data version of its own:
# https://github.com/dagster-io/dagster/issues/21072 and https://github.com/dagster-io/dagster/issues/34013.
# tests/defs/test_same_run.py fails without its effect.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as NOTHING_TO_LOG

if TYPE_CHECKING:
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin as CodeLocation
    from sqlalchemy import Engine

__all__ = [
    "NOTHING_TO_LOG",
    "StepFailure",
    "add_tags",
    "assets_of_job",
    "backfills_in_progress",
    "check_results_of_run",
    "code_location_of",
    "code_locations_of_project",
    "definitions_in",
    "failed_steps_of_run",
    "job_of_all_assets",
    "keep_engines_of_events",
    "materializations",
    "materializations_of_run",
    "max_runtime_seconds",
    "newest_event_at",
    "newest_failed_evaluations",
    "newest_materialization_id",
    "newest_materialization_ids",
    "op_context",
    "planned_checks_of_run",
    "selected_assets",
    "set_origin_of_runs",
    "variable_of",
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


# The documented API has the records of one kind of event of an asset, or of runs, but not the events of a run, nor what
# is in an event.
def _events(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    """Return the events of a kind that a run has logged so far."""
    return [entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type={kind})]


def materializations_of_run(instance: dg.DagsterInstance, run_id: str) -> Sequence[dg.AssetMaterialization]:
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    newest = instance.get_records_for_run(run_id, of_type=kind, limit=1, ascending=False)
    return _materializations_until(instance, run_id, newest.cursor)


# Each check of a run asks, and to read the events of a run of many days takes longer than some checks.
@lru_cache(maxsize=1)
def _materializations_until(
    instance: dg.DagsterInstance, run_id: str, newest: str
) -> Sequence[dg.AssetMaterialization]:
    """Return the materializations of a run; `newest` stands for the newest of its events."""
    events = _events(instance, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION)
    return [event.step_materialization_data.materialization for event in events]


def check_results_of_run(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    events = _events(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [event.asset_check_evaluation_data for event in events]


def planned_checks_of_run(instance: dg.DagsterInstance, run_id: str) -> set[dg.AssetCheckKey]:
    """Return the checks that a run evaluates."""
    events = _events(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED)
    return {event.asset_check_planned_data.asset_check_key for event in events}


class StepFailure(NamedTuple):
    """Why a step failed: the description and the metadata of its `dg.Failure`, or the error that it raised."""

    step: str
    description: str | None
    metadata: Mapping[str, dg.MetadataValue]
    error: str  # the name of its class
    message: str


def failed_steps_of_run(instance: dg.DagsterInstance, run_id: str) -> list[StepFailure]:
    failures = []
    for event in _events(instance, run_id, dg.DagsterEventType.STEP_FAILURE):
        data = event.step_failure_data
        cause, of_user = (data.error.cause or data.error) if data.error else None, data.user_failure_data
        failures.append(
            StepFailure(
                str(event.step_key),
                of_user.description if of_user else None,
                of_user.metadata if of_user else {},
                (cause.cls_name or "") if cause else "",
                cause.message if cause else "",
            )
        )
    return failures


def newest_event_at(instance: dg.DagsterInstance, run_id: str) -> float | None:
    """Return when a run logged its newest event, as a timestamp; None if it has logged none."""
    newest = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    return newest[0].timestamp if newest else None


def materializations(
    instance: dg.DagsterInstance, filter_: dg.AssetRecordsFilter, *, limit: int
) -> list[dg.AssetMaterialization]:
    """Return the newest materializations of an asset."""
    records = instance.fetch_materializations(filter_, limit=limit).records
    return [made for record in records if (made := record.asset_materialization)]


def newest_materialization_id(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> int:
    """Return the id of the newest materialization of any of some assets; 0 without any."""
    records = instance.get_asset_records(keys)
    return max([record.asset_entry.last_materialization_storage_id or 0 for record in records], default=0)


# A documented call for each partition would be a query for each.
def newest_materialization_ids(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[int]:
    """Return the id of the newest materialization of each partition of an asset."""
    return [*instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION).values()]


# The documented API sets tags of a run only when it is requested.
def add_tags(instance: dg.DagsterInstance, run_id: str, tags: Mapping[str, str]) -> None:
    instance.add_run_tags(run_id, dict(tags))


# Dagster's documented API does not say what a run, or a job, makes.
def selected_assets(run: dg.DagsterRun) -> Set[dg.AssetKey]:
    """Return the assets that were selected for a run; none if it executes a whole job."""
    return run.asset_selection or frozenset()


def assets_of_job(job: dg.JobDefinition) -> Set[dg.AssetKey]:
    """Return the assets that a job materializes."""
    return {*job.asset_layer.executable_asset_keys}


def job_of_all_assets(definitions: dg.Definitions) -> dg.JobDefinition:
    """Return the job that *Materialize* in the UI executes parts of."""
    return definitions.resolve_implicit_global_asset_job_def()


# In older versions of Dagster, the context of a check has no partitions, but this one has.
def op_context(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> dg.OpExecutionContext:
    return context.op_execution_context


# The classes of `dg.EnvVar("X")` and `dg.EnvVar.int("X")`.
_ENVIRONMENT_VARIABLES = (dg.EnvVar, type(dg.EnvVar.int("X")))


def variable_of(value: object) -> str | None:
    """Return the name of the environment variable of an `EnvVar`; None for another value."""
    return value.env_var_name if isinstance(value, _ENVIRONMENT_VARIABLES) else None


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


# Dagster makes two engines for each event that it stores in SQLite, and each compiles its statements anew, which took a
# sixth of the demo.
@cache
def keep_engines_of_events() -> None:
    """Let this process keep the SQLAlchemy engine of each SQLite database of events. Connections are not kept."""
    with _private_names():
        from dagster._core.storage.event_log.sqlite import sqlite_event_log
        from sqlalchemy import create_engine
    engines: dict[str, Engine] = {}

    def kept(url: str, **options: Any) -> "Engine":
        if url not in engines:
            engines[url] = create_engine(url, **options)
        return engines[url]

    sqlite_event_log.create_engine = kept  # type: ignore[assignment, attr-defined]


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
