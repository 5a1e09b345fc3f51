"""The assets that are fetched by UTC day: posts by both date bases, and the performance of campaigns.

If the data version of a day changes, the condition in automation.py requests that day, week and month of the rollups,
and the tables over windows: rollup_tables.py says which read which raw table.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from hashlib import sha256
from itertools import chain

import dagster as dg
from pydantic import Field

from later_reporting_dagster.client import ClientEvent
from later_reporting_dagster.contract import Metric
from later_reporting_dagster.contract.days import newest_day, parse_day_ranges
from later_reporting_dagster.defs.checks.all_checks import evaluate_skipped_checks
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.dagster_private import add_tags, max_runtime_seconds
from later_reporting_dagster.defs.event_loop import iterate
from later_reporting_dagster.defs.events import combined_failure, day_materialization, failures, nothing_to_log
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.ingest.fetch_days import DayFetch, fetch_days, files_of_day
from later_reporting_dagster.ingest.progress import Progress, RouteRefused
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED, RawTable
from later_reporting_dagster.quality.instances import load_instances
from later_reporting_dagster.quality.late_posts import absent_posts, late_posts
from later_reporting_dagster.rollups.rollup_tables import Cadence

MAX_RUNTIME_TAG, PARENT_RUN_TAG = "dagster/max_runtime", "dagster/parent_run_id"
# At 120 requests a minute, of files with up to 400 posts. A history of 200 instances takes 0.25 s for each.
SECONDS_PER_FILE = 2


class FetchConfig(dg.Config):
    """Run config of a fetch; by default it fetches every selected day."""

    only_missing: bool = Field(default=False, description="Fetch only files that are missing, or stale, in the lake.")
    old_days: list[str] = Field(
        default_factory=list,
        description="Fetch these days besides the partitions of the run, such as [2024-01-03, 2024-01-05 to"
        " 2024-01-09]. The daily schedule names the old days here whose turn it is.",
    )
    allow_row_loss: bool = Field(
        default=False,
        description="Also replace files that lose more rows than LATER_MAX_ROW_LOSS_PERCENT allows, or all values of"
        " their metrics. Use it if rows or values were really deleted.",
    )


class InstancesConfig(FetchConfig):
    """Run config of a fetch of files of instances; by default it fetches every instance of the selected days."""

    instances: list[str] = Field(
        default_factory=list,
        description="Fetch only these instances. Empty: the instances in LATER_INSTANCE_IDS, else all that the API"
        " lists.",
    )
    days_by_instance: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Fetch only these days of these instances, such as {instance_000: [2024-01-03, 2024-01-05 to"
        " 2024-01-09]}. Days outside of the run's partitions are ignored.",
    )


def raw_asset(component: ComponentBase, table: RawTable) -> dg.AssetsDefinition:
    """Return a raw table. A backfill of any number of days is one run, which plans the fewest requests.

    If an instance fails, the other instances of the day are written, the day is materialized with `missing_instances`
    in its metadata, and the run fails at its end with the files that failed. If the API refuses the route of an
    optional table, the run logs a warning and writes nothing.
    """
    config_type = InstancesConfig if table.has_file_per_instance else FetchConfig

    @dg.multi_asset(
        **component.step(table.name),
        specs=[
            component.table_spec(
                table.name,
                table.columns(component.metrics_of(table)),
                description=table.description,
                group_name=table.rows,
                kinds={"later"},
                tags={"later/layer": "raw", "later/date_basis": str(table.date_basis)},
                partitions_def=build_partitions_def(Cadence.DAY, component.start_date),
                freshness_policy=component.freshness,
            )
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=component.pool,  # later_api, if the component has its default name
    )
    def raw_table(
        context: dg.AssetExecutionContext,
        config: config_type,  # type: ignore[valid-type] # Dagster reads the annotation
    ) -> Iterator[AssetEvent]:
        yield from component.execute(context, fetch_raw_table(context, config, component, table))

    return raw_table


def fetch_raw_table(
    context: dg.AssetExecutionContext, config: FetchConfig, component: ComponentBase, table: RawTable
) -> Iterator[AssetEvent]:
    """Fetch the run's days, and yield their materializations; if a file failed, also its checks."""
    later, progress = component.later(context), Progress(table.name)
    later.fetches.append(progress)
    failed: dict[str, str] = {}
    days_written = files_changed = 0
    expected: tuple[str, ...] = ()
    with failures():
        lake, fetch = later.lake(), _planned_fetch(context, config, component, table)
        context.log.info(
            f"Fetching {len(fetch.days)} days since {min(fetch.days)}{', only missing files' * fetch.only_missing}"
            + f", without what run {fetch.continued_run} has fetched" * (fetch.continued_run is not None)
        )
        client = later.client(on_event=event_log(context, progress))
        days_fetched = fetch_days(fetch, client=client, lake=lake, progress=progress, now=component.now)
        try:
            with closing(later.until_end_of_run(iterate(days_fetched))) as fetched:
                for number, day in enumerate(fetched):
                    if not number:  # now the number of files is known
                        _extend_time_limit(context, files=progress.slices)
                    expected = (*day.expected,)
                    failed |= {str(Partition(day.day, name)): reason for name, reason in day.failed.items()}
                    if day.written:
                        days_written += 1
                        files_changed += sum(file.changed for file in day.written.values())
                        yield day_materialization(context, day, files=files_of_day(day, table, lake), lake=lake)
        except RouteRefused as refused:
            progress.warnings.append(refusal_warning(context, refused))
        for warning in progress.warnings:
            context.log.warning(warning)
        context.log.info(
            f"{progress.written} of {progress.slices} files written, {files_changed} of them changed;"
            f" {days_written} day{'s' * (days_written != 1)} materialized; {progress.rows_text()};"
            f" {progress.requests} requests, {progress.retries} retries,"
            f" {progress.rate_limit_waits} waits for the rate limit"
        )
        if failed:
            yield from evaluate_skipped_checks(context, later, component, instances=expected)
            raise combined_failure(
                failed, asset=table.name, what="file", written=progress.written, is_temporary=progress.temporary > 0
            )
        yield nothing_to_log(context)


def _planned_fetch(
    context: dg.AssetExecutionContext, config: FetchConfig, component: ComponentBase, table: RawTable
) -> DayFetch:
    later = component.later(context)
    # Dagster replaces `{env: NAME}` in run config, and what a run does with it is in its log.
    if secret := later.secret_among(_texts_of(config)):
        raise dg.Failure(
            f"The run config has the value of {secret}. Nothing was requested. Next step: take it out",
            allow_retries=False,
        )
    lake = later.lake()
    days, pairs = _selected_days(context, config, component), None
    instances = load_instances(lake, configured=later.configured_instances(), listed=later.remembered_list)
    named: tuple[str, ...] = ()
    if isinstance(config, InstancesConfig):
        if config.days_by_instance:
            days, pairs = _selected_pairs(config, component, days)
        named = tuple(dict.fromkeys(config.instances or config.days_by_instance))
    metrics = component.metrics_of(table)
    compares = table is POSTS_PUBLISHED
    late_days = component.settled_days(component.now()) if compares and config.only_missing else ()
    return DayFetch(
        table=table,
        days=days,
        instances=instances,
        instance_ids=named if table.has_file_per_instance else instances.filter,
        pairs=pairs,
        only_missing=config.only_missing,
        stale={*late_posts(lake, days=late_days).stale} if late_days else frozenset(),
        absent=absent_posts(lake) if compares else None,
        metrics=metrics,
        padding_days=later.padding_days,
        limits=later.write_limits(allow_row_loss=config.allow_row_loss),
        run_id=context.run.run_id,
        continued_run=_continued_run(context, config, metrics),
        personal_data=later.store_creator_profiles,
    )


def _texts_of(config: FetchConfig) -> Iterator[str]:
    yield from config.old_days
    if isinstance(config, InstancesConfig):
        yield from (*config.instances, *config.days_by_instance, *chain(*config.days_by_instance.values()))


def _selected_days(context: dg.AssetExecutionContext, config: FetchConfig, component: ComponentBase) -> list[date]:
    """Return the days of a run: those of its partitions, and the old days in its config, which are partitions too."""
    days = partition_first_days(context, now=component.now())
    old_days = {text: _days_in_config("old_days", [text], component) for text in config.old_days}
    if unknown := [text for text, found in old_days.items() if not found]:
        raise dg.Failure(f"Run config old_days: there is no partition {unknown[0]}", allow_retries=False)
    return sorted({*days, *chain(*old_days.values())})


def _selected_pairs(
    config: InstancesConfig, component: ComponentBase, days: list[date]
) -> tuple[list[date], set[Partition]]:
    """Return those of the days that are in the pairs of a run's config, and the pairs."""
    pairs = {
        Partition(day, name)
        for name, ranges in config.days_by_instance.items()
        for day in _days_in_config("days_by_instance", ranges, component)
    }
    if selected := sorted({pair.day for pair in pairs}.intersection(days)):
        return selected, pairs
    raise dg.Failure("Run config days_by_instance: no day of them is a partition of this run", allow_retries=False)


def _days_in_config(field: str, ranges: list[str], component: ComponentBase) -> list[date]:
    try:
        return [*parse_day_ranges(ranges, earliest=component.start_date, latest=newest_day(component.now()))]
    except ValueError as error:
        raise dg.Failure(f"Run config {field}: {error}", allow_retries=False) from None


def _continued_run(context: dg.AssetExecutionContext, config: FetchConfig, metrics: tuple[Metric, ...]) -> str | None:
    """Return the run that a re-execution continues: the failed one before it, if it fetched the same metrics.

    Of a run that succeeded, or that had another config, everything is fetched again. If Dagster retries a step, it
    continues its own run.
    """
    if context.retry_number:
        return context.run.run_id
    op_name = context.op_def.name
    tag = f"{op_name}/metrics"
    names = ",".join(sorted(metric.api_name for metric in metrics))
    fetched = sha256(names.encode()).hexdigest()[:16]
    add_tags(context.instance, context.run.run_id, {tag: fetched})
    parent_id = context.run.tags.get(PARENT_RUN_TAG)
    parent = context.instance.get_run_by_id(parent_id) if parent_id else None
    if parent is None or parent.is_success or parent.tags.get(tag) != fetched:
        return None
    ops = parent.run_config.get("ops", {})
    before = type(config)(**ops.get(op_name, {}).get("config", {}))
    return parent_id if before == config else None


def event_log(context: dg.AssetExecutionContext, progress: Progress) -> Callable[[ClientEvent], None]:
    """Return what counts the events of a client, and logs those that users should know."""

    def log_event(event: ClientEvent) -> None:
        if line := progress.count(event):
            (context.log.warning if event.is_serious else context.log.info)(line)

    return log_event


def _extend_time_limit(context: dg.AssetExecutionContext, *, files: int) -> None:
    """Let Dagster's run monitoring, if it limits runs, end this one later: a long history takes more than a day."""
    run = context.instance.get_run_by_id(context.run.run_id)
    assert run is not None
    limit = run.tags.get(MAX_RUNTIME_TAG) or max_runtime_seconds(context.instance)
    if limit:
        seconds = float(limit) + files * SECONDS_PER_FILE
        add_tags(context.instance, run.run_id, {MAX_RUNTIME_TAG: f"{seconds:.0f}"})


def refusal_warning(context: dg.AssetExecutionContext, refused: RouteRefused) -> str:
    return (
        f"{context.asset_key.to_user_string()} was not updated, because the API refuses its route: {refused} All other"
        f" tables work without it. To request it no more, set LATER_TABLES (tables) to -{context.asset_key.path[-1]}."
    )
