"""The raw assets `post_metrics_daily` and `posts_published`: posts as the API returns them, by UTC day.

They have one file per day and instance. If the data version of a day changes, the condition in automation.py requests
that day, week and month of the rollups, and the tables over windows: rollup_tables.py says which read which raw table.
"""

from collections.abc import Iterator
from contextlib import closing

import dagster as dg
from pydantic import Field

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.contract.days import newest_day, parse_day_ranges
from later_reporting_dagster.defs.assets.fetched_days import (
    FetchConfig,
    FetchLog,
    continued_run,
    event_log,
    selected_days,
)
from later_reporting_dagster.defs.checks.all_checks import evaluate_skipped_checks
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.event_loop import iterate
from later_reporting_dagster.defs.events import day_materialization, failures, nothing_to_log
from later_reporting_dagster.defs.partitions import build_partitions_def
from later_reporting_dagster.ingest.fetch_days import DayFetch, fetch_days, files_of_day
from later_reporting_dagster.lake import Partition, post_columns
from later_reporting_dagster.lake.coverage import versions_to_replace
from later_reporting_dagster.lake.tables import RawTable
from later_reporting_dagster.quality.instances import known_instances
from later_reporting_dagster.rollups.rollup_tables import Cadence

# docs/api.md, "Date basis"
_DESCRIPTIONS = {
    DateBasis.PERFORMANCE_DATE: (
        "The metrics that posts of any age recorded on the day: one row per post and campaign"
        " (`dateBasis=performance_date`). Days can be summed."
    ),
    DateBasis.POST_DATE: (
        "The posts published on the day, with their metrics to date (`dateBasis=post_date`)."
        " Metrics keep changing for weeks, so the newest days are fetched again every day."
    ),
}


class PostsConfig(FetchConfig):
    """Run config of a fetch of posts; by default it fetches every instance of the selected days."""

    instances: list[str] = Field(
        default_factory=list,
        description="Fetch only these instances. Empty: the instances in LATER_INSTANCE_IDS, else all that the API"
        " lists.",
    )
    pairs: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Fetch only these days of these instances, such as {instance_000: [2024-01-03, 2024-01-05 to"
        " 2024-01-09]}. Days outside of the run's partitions are ignored.",
    )


def posts_asset(component: ComponentBase, table: RawTable) -> dg.AssetsDefinition:
    """Return a raw table of posts. A backfill of any number of days is one run, which plans the fewest requests.

    If an instance fails, the other instances of the day are written, the day is materialized with `missing_instances`
    in its metadata, and the run fails at its end with the (day, instance) pairs that failed.
    """

    @dg.multi_asset(
        name=component.op_name(table.name),
        specs=[
            component.table_spec(
                table.name,
                post_columns(component.metrics),
                description=_DESCRIPTIONS[table.date_basis],
                group_name="posts",
                kinds={"later"},
                tags={"later/layer": "raw", "later/date_basis": str(table.date_basis)},
                partitions_def=build_partitions_def(Cadence.DAY, component.start_date),
                freshness_policy=component.freshness,
            )
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=component.pool,  # later_api, if the component has its default name
        required_resource_keys={component.resource_key},  # later_reporting, a LaterReportingResource
    )
    def posts(context: dg.AssetExecutionContext, config: PostsConfig) -> Iterator[AssetEvent]:
        yield from component.execute(context, fetch_posts(context, config, component, table))

    return posts


def fetch_posts(
    context: dg.AssetExecutionContext, config: PostsConfig, component: ComponentBase, table: RawTable
) -> Iterator[AssetEvent]:
    """Fetch the run's days, and yield their materializations; if a pair failed, also its checks."""
    later = component.later(context)
    with failures():
        lake, configured = later.lake(), later.configured_instances()
        days, pairs = selected_days(context, config, component), _selected_pairs(config, component)
        if pairs is not None:
            days = sorted({pair.day for pair in pairs}.intersection(days))
            if not days:
                raise dg.Failure("Run config pairs: no day of them is a partition of this run", allow_retries=False)
        named = tuple(dict.fromkeys(config.instances or config.pairs))
        fetch = DayFetch(
            table=table,
            days=days,
            instance_ids=named or configured,
            pairs=pairs,
            only_missing=config.only_missing,
            to_replace=versions_to_replace(lake, table.name, days=days) if config.only_missing else {},
            # If the run is limited to some instances, or the API lists only some, a complete day needs the others, too.
            known_instances=known_instances(lake, configured=configured),
            metrics=component.metrics,
            widen_days=later.widen_days,
            guard=later.write_guard(accept_shrinking=config.accept_shrinking),
            run_id=context.run.run_id,
            continued_run=continued_run(context, config, component.metrics),
        )
        log = FetchLog(context, component, fetch)
        client = later.client(on_event=event_log(context, log.progress))
        days_fetched = fetch_days(fetch, client=client, lake=lake, progress=log.progress, now=component.now)
        with closing(later.until_end_of_run(iterate(days_fetched))) as fetched:
            for day in fetched:
                log.add(day)
                if day.written:
                    yield day_materialization(context, day, files=files_of_day(day, table, lake), lake=lake)
        log.end()
        if log.failed:
            yield from evaluate_skipped_checks(context, later, component, instances=log.expected)
            raise log.failure()
        yield nothing_to_log(context)


def _selected_pairs(config: PostsConfig, component: ComponentBase) -> set[Partition] | None:
    if not config.pairs:
        return None
    partitions = {"earliest": component.start_date, "latest": newest_day(component.now())}
    try:
        return {
            Partition(day, name)
            for name, ranges in config.pairs.items()
            for day in parse_day_ranges(ranges, **partitions)
        }
    except ValueError as error:
        raise dg.Failure(f"Run config pairs: {error}", allow_retries=False) from None
