"""Run assets in this process, each call as one run of the Dagster instance."""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import dagster as dg
import yaml  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

from later_reporting_dagster.cli.options import Interrupted
from later_reporting_dagster.cli.project import Project
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.defs.checks.posts import ROWS_BELONG, ROWS_UNIQUE
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.dagster_private import (
    StepFailure,
    check_results_of_run,
    failed_steps_of_run,
    job_of_all_assets,
    keep_engines_of_events,
    materializations_of_run,
    set_origin_of_runs,
)
from later_reporting_dagster.defs.events import FAILED_PARTITIONS, describe_failures
from later_reporting_dagster.defs.runs import REQUESTED_BY_TAG
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.rollups.rollup_tables import CADENCES, Cadence

# A daemon with `run_retries` would repeat a failed run, of which the command has listed what failed.
NO_RETRIES = {"dagster/max_retries": "0"}
SECONDS_BETWEEN_LINES = 10.0
# By what PostgreSQL or its driver says; the last words are in all of these texts.
_POSTGRES_FIELDS = {
    "authentication failed": ("username", "password"),
    'role "': ("username",),
    "does not exist": ("db_name",),
    "connection": ("hostname", "port"),
}
# Other checks are about missing days, or warn.
_CHECKS_OF_ROWS = {check.name for check in (ROWS_BELONG, ROWS_UNIQUE)}


@dataclass(frozen=True, slots=True)
class Written:
    """What a run has written of an asset. `partitions` is None if it has none, and `rows` if it is no table."""

    asset: str
    partitions: int | None
    changed: int
    rows: int | None

    def __str__(self) -> str:
        """Return it as a line."""
        rows = "" if self.rows is None else f"; {self.rows:,} rows"
        if self.partitions is None:
            return f"{self.asset}: {'changed' if self.changed else 'unchanged'}{rows}"
        period = CADENCES.get(self.asset.rpartition("/")[2], Cadence.DAY)
        periods = f"{self.partitions:,} {period}{'s' * (self.partitions != 1)}"
        return f"{self.asset}: {periods}, {self.changed:,} of them changed{rows}"


class Failure(NamedTuple):
    """What failed: an asset, which of its partitions or checks, and why."""

    asset: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of a run."""

    succeeded: bool  # also that no check found rows missing or damaged
    failures: Sequence[Failure]  # each reason once for an asset
    error: str | None  # the reason, if a whole step failed
    written: Sequence[Written]  # each asset of which something was written, also if the run failed
    checks: Sequence[dg.AssetCheckEvaluation]
    fetches: Sequence[Progress]  # the final progress of each table that was fetched


def dagster_home() -> str:
    """Return the value of `DAGSTER_HOME`."""
    if home := os.environ.get("DAGSTER_HOME"):
        return home
    raise click.ClickException(
        "DAGSTER_HOME is not set: create a folder for Dagster's runs and partitions, and set it to its absolute path"
    )


def dagster_instance() -> dg.DagsterInstance:
    """Return the Dagster instance of `DAGSTER_HOME`."""
    home = dagster_home()
    keep_engines_of_events()
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        raise click.ClickException(
            f"Cannot open the Dagster instance in DAGSTER_HOME={home}: {_why_it_cannot_be_opened(error, home)}"
        ) from error


def _why_it_cannot_be_opened(error: Exception, home: str) -> str:
    """Return what Dagster says, and which variable or package to see to."""
    text, cause = str(error), error.__cause__
    if unset := re.findall(r'environment variable "(\w+)" which is not set', text):
        return f"set {', '.join(unset)}, which its dagster.yaml reads"
    if isinstance(cause, SQLAlchemyError):  # Dagster says only that it has tried too often
        reason = one_line(str(getattr(cause, "orig", None) or cause))
        for words, fields in _POSTGRES_FIELDS.items():
            if words in reason:
                names = [_postgres_variable(home, field) for field in fields]
                return f"{reason}. Check {' and '.join(names)}"
    advice = ". Install it: pip install dagster-postgres" if "dagster_postgres" in text else ""
    return f"{one_line(text)}{advice}"


def _postgres_variable(home: str, field: str) -> str:
    """Return the variable from which the dagster.yaml of a home has a field of the database, or the field."""
    settings: Any = yaml.safe_load(Path(home, "dagster.yaml").read_text())
    for name in ("storage", "postgres", "postgres_db", field, "env"):
        if not isinstance(settings, dict) or name not in settings:
            return f"{field} in dagster.yaml"
        settings = settings[name]
    return str(settings)


def materialize(
    project: Project,
    assets: Sequence[str],
    *,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    verbose: bool = False,
) -> RunOutcome:
    """Materialize and check assets in one run, and show its progress. Failures are part of the returned outcome.

    All assets must have the same kind of partitions; `range_tags` selects some. `config` is the run config of
    assets, by name. An interrupted run raises a `ClickException`.
    """
    settings = project.settings
    job = job_of_all_assets(project.definitions)
    console = {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}
    ops = {settings.op_name(asset): {"config": dict(of_asset)} for asset, of_asset in (config or {}).items()}
    set_origin_of_runs(instance, job, project.location)
    fetches = project.later.fetches
    fetches.clear()
    try:
        with printed_progress(assets, fetches):
            result = job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                asset_selection=[settings.asset_key(asset) for asset in assets],  # the UI shows it as the run's target
                tags={**NO_RETRIES, REQUESTED_BY_TAG: "later-reporting", **(tags or {})},
                run_config={"loggers": {"console": console}, "ops": ops},
            )
    except (SQLAlchemyError, OSError) as failure:  # of Dagster's storage, such as a full disk
        reason = getattr(failure, "orig", None) or failure
        raise click.ClickException(
            f"Dagster cannot store the run: {one_line(str(reason))}. What has been written to the lake stays. See that"
            f" DAGSTER_HOME={os.environ.get('DAGSTER_HOME')} has free space and can be written, and run again."
        ) from failure
    return _outcome(result, settings, instance=instance, fetches=[*fetches])


@contextmanager
def printed_progress(assets: Sequence[str], fetches: Sequence[Progress]) -> Iterator[None]:
    """Print lines about a run that makes `assets` on standard error: at its start, now and then, and at its end."""
    started, ended, printed = time.monotonic(), threading.Event(), set[str]()
    # Dagster redirects file descriptor 2 while a step runs. The duplicate still points to the terminal.
    with os.fdopen(os.dup(2), "w") as stream:

        def print_lines() -> None:
            for line in progress_lines(assets, fetches, minutes=int((time.monotonic() - started) / 60)):
                if line not in printed:
                    printed.add(line)
                    print(line, file=stream, flush=True)

        def watch() -> None:
            while not ended.wait(SECONDS_BETWEEN_LINES):
                print_lines()

        print_lines()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            print_lines()


def progress_lines(assets: Sequence[str], fetches: Sequence[Progress], *, minutes: int) -> list[str]:
    """Return a line for each fetch of a run; as long as it has none, what it makes and for how long it has."""
    if not fetches:
        return [f"Making {', '.join(assets)}" + (f": {minutes} min so far" if minutes else "")]
    return [
        f"{fetch.table_name}: {fetch.done:,} of {fetch.slices:,} files,"
        f" {fetch.status or f'{fetch.requests:,} requests, {fetch.rows:,} rows'}"
        for fetch in fetches
    ]


def _outcome(
    result: dg.ExecuteInProcessResult,
    settings: ComponentBase,
    *,
    instance: dg.DagsterInstance,
    fetches: Sequence[Progress],
) -> RunOutcome:
    failures: list[Failure] = []
    error: str | None = None
    materializations: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
    # `result` lacks what steps have logged, and the check evaluations of a failed run.
    for made in materializations_of_run(instance, result.run_id):
        materializations.setdefault(made.asset_key, []).append(made)
    checks = check_results_of_run(instance, result.run_id)
    for failed in failed_steps_of_run(instance, result.run_id):
        if of_partitions := _partition_failures(failed):
            asset = failed.step.removeprefix(settings.op_name(""))
            failures += [Failure(asset, *described) for described in describe_failures(of_partitions, asset=asset)]
            continue
        if failed.error == dg.DagsterExecutionInterruptedError.__name__:
            # Connections of Dagster stay open. On Python 3.13, SQLAlchemy logs an error for each at exit.
            logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
            raise Interrupted("interrupted: what was written is kept, and `backfill --only-missing` fetches the rest")
        error = failed.description or failed.message.strip().removeprefix(f"{failed.error}: ") or error
    if not result.success and not failures and error is None:
        error = f"Run {result.run_id} failed. See its log in the Dagster UI."
    failures += [
        Failure(check.asset_key.path[-1], check.check_name, check.description or "")
        for check in checks
        if check.check_name in _CHECKS_OF_ROWS and not check.passed
    ]
    return RunOutcome(
        succeeded=result.success and not failures,
        failures=failures,
        error=error,
        written=[_written(key, events) for key, events in materializations.items()],
        checks=checks,
        fetches=fetches,
    )


def _partition_failures(failed: StepFailure) -> Mapping[str, str]:
    """Return the reason of each failed partition in the metadata of a step failure."""
    entry = failed.metadata.get(FAILED_PARTITIONS)
    return entry.data if isinstance(entry, dg.JsonMetadataValue) and isinstance(entry.data, dict) else {}


def _written(key: dg.AssetKey, events: Sequence[dg.AssetMaterialization]) -> Written:
    metadata: list[dict[str, Any]] = [{name: each.value for name, each in event.metadata.items()} for event in events]
    row_counts = [each.get("dagster/partition_row_count", each.get("dagster/row_count")) for each in metadata]
    return Written(
        asset=key.to_user_string(),
        partitions=None if events[0].partition is None else len(events),
        changed=sum(bool(each.get("files_changed") or each.get("changed")) for each in metadata),
        rows=None if row_counts[0] is None else sum(count or 0 for count in row_counts),
    )
