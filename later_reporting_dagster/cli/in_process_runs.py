"""Run assets and checks in this process, each call as one run of the Dagster instance."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click
import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from later_reporting_dagster.cli.lost_interrupts import lost_interrupts_repeated
from later_reporting_dagster.cli.project import Project
from later_reporting_dagster.cli.terminal_text import one_line
from later_reporting_dagster.defs.jobs import checks_job_name
from later_reporting_dagster.defs.materializations import FAILED_PARTITIONS
from later_reporting_dagster.defs.progress import PROGRESS_LISTENER, Progress
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_tables import TABLES

_PERIODS = {table.name: table.period for table in TABLES}


@dataclass(frozen=True, slots=True)
class WrittenAsset:
    """What a run wrote of an asset.

    Attributes:
        key: the key of the asset.
        period: what a partition is; None without partitions.
        partitions: number of partitions.
        changed: how many of them changed; 0 or 1 without partitions.
        rows: rows in them; None if it is not a table.
        url: where its last file is.
    """

    key: str
    period: Period | None
    partitions: int
    changed: int
    rows: int | None
    url: str

    def __str__(self) -> str:
        rows = "" if self.rows is None else f"; {self.rows:,} rows"
        if self.period is None:
            return f"{self.key}: {'changed' if self.changed else 'unchanged'}{rows}"
        plural = "s" * (self.partitions != 1)
        return f"{self.key}: {self.partitions:,} {self.period}{plural}, {self.changed:,} of them changed{rows}"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of a run.

    Attributes:
        run_id: id of the run in the Dagster instance.
        succeeded: whether everything succeeded.
        failed: the reason of each failure, by asset and partition; for raw assets, by asset and "day instance".
        error: the reason, if a whole step failed; else None.
        written: what was written of each asset, also if the run failed.
        is_interrupted: whether a signal stopped it.
        checks: results of asset checks.
        fetches: the final progress of each raw table that was fetched.
    """

    run_id: str
    succeeded: bool
    failed: Mapping[tuple[str, str], str]
    error: str | None
    written: Sequence[WrittenAsset]
    is_interrupted: bool
    checks: Sequence[dg.AssetCheckEvaluation]
    fetches: Sequence[Progress] = ()


def dagster_instance() -> dg.DagsterInstance:
    """Return the Dagster instance of `DAGSTER_HOME`.

    Raises:
        click.ClickException: `DAGSTER_HOME` is not set, or its instance cannot be opened.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise click.ClickException(
            "DAGSTER_HOME is not set. Create a folder for Dagster's runs and partitions, and set DAGSTER_HOME to its"
            " absolute path."
        )
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        raise click.ClickException(
            f"Cannot open the Dagster instance in DAGSTER_HOME={home}: {one_line(str(error))}"
        ) from error


def materialize(
    project: Project,
    assets: Sequence[str],
    *,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    verbose: bool = False,
) -> RunOutcome:
    """Materialize assets in one run. All of them must have the same kind of partitions.

    Failures are part of the returned outcome and are not raised.

    Args:
        project: the project that defines the assets.
        assets: names of tables or of the report.
        instance: the Dagster instance that records the run.
        tags: tags that select a range of partitions, from `range_tags`.
        config: run config of each of the assets.
        on_progress: called as a fetch proceeds.
        verbose: print the run's log.
    """
    definitions, settings = project.definitions, project.settings
    op_config = {settings.op_name(asset): {"config": dict(config)} for asset in assets} if config else {}
    fetches: dict[str, Progress] = {}

    def listen(progress: Progress) -> None:
        fetches[progress.table_name] = progress
        if on_progress is not None:
            on_progress(progress)

    keys = [settings.asset_key(asset) for asset in assets]
    listener_token = PROGRESS_LISTENER.set(listen)
    try:
        job = definitions.resolve_implicit_global_asset_job_def()
        with lost_interrupts_repeated(), _storage_errors():
            result = job.execute_in_process(
                instance=instance,
                asset_selection=keys,  # recorded in the run: the UI shows it as the run's target
                tags=dict(tags or {}),
                run_config={**_logger_config(verbose=verbose), "ops": op_config},
                raise_on_error=False,
            )
    finally:
        PROGRESS_LISTENER.reset(listener_token)
    return replace(_outcome(result, instance, settings), fetches=tuple(fetches.values()))


def evaluate_checks(project: Project, *, instance: dg.DagsterInstance) -> RunOutcome:
    """Evaluate all asset checks as one run."""
    job = project.definitions.resolve_job_def(checks_job_name(project.settings))
    with lost_interrupts_repeated(), _storage_errors():
        result = job.execute_in_process(
            instance=instance, run_config=_logger_config(verbose=False), raise_on_error=False
        )
    return _outcome(result, instance, project.settings)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Raise an error of Dagster's storage, such as a full disk, as one line."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise click.ClickException(
            f"Dagster cannot store the run: {one_line(str(reason))}. What has been written to the lake stays. See that"
            f" DAGSTER_HOME={os.environ.get('DAGSTER_HOME')} has free space and can be written, and run again."
        ) from error


def _logger_config(*, verbose: bool) -> dict[str, Any]:
    return {"loggers": {"console": {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}}}


def _outcome(
    result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance, settings: DefinitionSettings
) -> RunOutcome:
    failed: dict[tuple[str, str], str] = {}
    error: str | None = None
    is_interrupted = False
    for event in result.all_events:
        if event.is_step_failure:
            is_interrupted |= _is_interrupted(event)
            partition_failures = dict(_partition_failures(event, settings))
            failed |= partition_failures
            if not partition_failures:
                error = _step_error(event) or error
    if is_interrupted:
        # An interrupt leaves connections of Dagster open. On Python 3.13, SQLAlchemy logs an error for each at exit.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    if not result.success and not failed and error is None:
        error = f"Run {result.run_id} failed. See its log in the Dagster UI."
    return RunOutcome(
        run_id=result.run_id,
        succeeded=result.success,
        failed=failed,
        error=error,
        written=_written_assets(result.run_id, instance),
        is_interrupted=is_interrupted,
        # `result` lacks the check evaluations of a failed run. The event log has them.
        checks=[
            entry.dagster_event.asset_check_evaluation_data
            for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            if entry.dagster_event
        ],
    )


def _written_assets(run_id: str, instance: dg.DagsterInstance) -> list[WrittenAsset]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
    for event in (entry.asset_materialization for entry in entries):
        if event is not None:
            events.setdefault(event.asset_key, []).append(event)
    return [_written_asset(key, of_asset) for key, of_asset in events.items()]


def _written_asset(key: dg.AssetKey, events: Sequence[dg.AssetMaterialization]) -> WrittenAsset:
    metadata: list[dict[str, Any]] = [{name: value.value for name, value in event.metadata.items()} for event in events]
    row_counts = [each.get("dagster/partition_row_count", each.get("dagster/row_count")) for each in metadata]
    return WrittenAsset(
        key=key.to_user_string(),
        period=None if events[0].partition is None else _PERIODS.get(key.path[-1], Period.DAY),
        partitions=len(events),
        changed=sum(bool(each.get("files_changed") or each.get("changed")) for each in metadata),
        rows=sum(count or 0 for count in row_counts) if row_counts[0] is not None else None,
        url=str(metadata[-1].get("dagster/uri", "")),
    )


def _partition_failures(event: dg.DagsterEvent, settings: DefinitionSettings) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield (asset, partition) and reason for each failed partition in the metadata of a step failure."""
    user_data = event.step_failure_data.user_failure_data
    entry = user_data.metadata.get(FAILED_PARTITIONS) if user_data else None
    if isinstance(entry, dg.JsonMetadataValue) and isinstance(entry.data, dict):
        asset = str(event.step_key).removeprefix(settings.op_name(""))
        yield from (((asset, str(key)), str(reason)) for key, reason in entry.data.items())


def _step_error(event: dg.DagsterEvent) -> str | None:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    if data.error is None:
        return None
    cause = data.error.cause or data.error
    if _is_interrupted(event):
        return "Interrupted. Files written so far are kept; run the command again for the rest."
    return cause.message.strip().removeprefix(f"{cause.cls_name}: ")


def _is_interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    return error is not None and (error.cause or error).cls_name == dg.DagsterExecutionInterruptedError.__name__
