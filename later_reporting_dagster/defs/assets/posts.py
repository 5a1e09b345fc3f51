"""The raw assets: posts as the API returns them, partitioned by UTC day, with one file per day and instance."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from pydantic import Field

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.contract.days import parse_day_ranges
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.assets.fetched_days import Emit, FetchConfig, FetchRun, fetched_step
from later_reporting_dagster.defs.checks.all_checks import evaluate_skipped_checks
from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.events import already_logged
from later_reporting_dagster.defs.partitions import partition_first_days
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.lake import Partition, post_columns
from later_reporting_dagster.lake.tables import RAW_TABLES, RawTable
from later_reporting_dagster.quality.instances import known_instances

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


def posts_steps(settings: ComponentSettings) -> list[AssetStep]:
    """Return the steps of the raw assets that are defined."""
    return [posts_step(raw_table, settings) for raw_table in RAW_TABLES if raw_table.name in settings.tables]


def posts_step(raw_table: RawTable, settings: ComponentSettings) -> AssetStep:
    """Return the step of a raw asset.

    If an instance fails, the other instances of the day are written, the day is materialized with `missing_instances`
    in its metadata, and the run fails at its end with the (day, instance) pairs that failed.
    """

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        _fetch_posts(context, later, raw_table=raw_table, settings=settings)
        yield already_logged(context)

    columns, description = post_columns(settings.metrics), _DESCRIPTIONS[raw_table.date_basis]
    return fetched_step(settings, raw_table, columns, description=description, config=PostsConfig, run=run)


def _fetch_posts(
    context: AssetExecutionContext, later: LaterReportingResource, *, raw_table: RawTable, settings: ComponentSettings
) -> None:
    """Fetch the run's days and log their materializations; if a pair failed, also their checks."""
    config = PostsConfig(**context.op_execution_context.op_config)
    fetch_run = FetchRun(context, later, raw_table.name)
    days, only_pairs = partition_first_days(context), _selected_pairs(config)
    if only_pairs is not None:
        days = sorted({pair.day for pair in only_pairs}.intersection(days))
        if not days:
            raise dg.Failure("Run config pairs: no day of them is a partition of this run", allow_retries=False)
    configured = later.configured_instances()

    async def fetch(client: LaterClient, emit: Emit) -> None:
        named = tuple(dict.fromkeys(config.instances or config.pairs))
        instances = named or configured or await client.fetch_instances()
        if not instances:
            raise dg.Failure(
                "The credentials have no access to any instance: have instances added to their scope.",
                allow_retries=False,
            )
        # If the run is limited to some instances, a complete day needs the others, too.
        known = known_instances(fetch_run.lake, configured=configured) if named else ()
        fetch_run.expected = tuple(dict.fromkeys([*known, *instances]))
        pairs = {Partition(day, name) for day in days for name in instances}
        if only_pairs is not None:
            pairs &= only_pairs
        await ingest(
            fetch_run.plan(pairs, only_missing=config.only_missing),
            table=raw_table,
            client=client,
            lake=fetch_run.lake,
            on_result=emit,
            guard=later.write_guard(accept_shrinking=config.accept_shrinking),
            metrics=settings.metrics,
        )

    fetch_run.run(fetch)
    if fetch_run.failed:
        for evaluation in evaluate_skipped_checks(context, later, settings, instances=fetch_run.expected):
            context.log_event(evaluation)
        raise fetch_run.failure()


def _selected_pairs(config: PostsConfig) -> set[Partition] | None:
    if not config.pairs:
        return None
    try:
        return {Partition(day, name) for name, ranges in config.pairs.items() for day in parse_day_ranges(ranges)}
    except ValueError as error:
        raise dg.Failure(f"Run config pairs: {error}", allow_retries=False) from None
