"""The two raw assets: posts as the API reports them, partitioned by UTC day, one file per day and instance."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from pydantic import Field

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract import DateBasis, Metric
from later_reporting_dagster.defs.checks import log_check_results
from later_reporting_dagster.defs.materializations import failure_of, log_materialization
from later_reporting_dagster.defs.metadata import preview, table_metadata
from later_reporting_dagster.defs.partitions import partition_days
from later_reporting_dagster.defs.posts_checks import PostsFindings, evaluate_posts
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.background_stream import stream
from later_reporting_dagster.ingest.daily_fetch import (
    DayResult,
    DayResults,
    FetchPlan,
    NoInstances,
    day_version,
    fetch_days,
)
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.ingest.partition_writer import Landed, Outcome
from later_reporting_dagster.ingest.progress import Progress, ProgressTeller
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import LakeUnavailable, Partition, post_columns

API_POOL = "later_reporting_api"

_DESCRIPTIONS = {
    DateBasis.PERFORMANCE_DATE: (
        "What each post of any age earned on the day: one row per post, with only the metrics recorded that day"
        " (`dateBasis=performance_date`). Days add up."
    ),
    DateBasis.POST_DATE: (
        "The posts published on the day, with their metrics to date (`dateBasis=post_date`)."
        " Restated for weeks, so the newest days are fetched again every day."
    ),
}


class PostsConfig(dg.Config):
    """What one run fetches; by default every wanted instance of its days."""

    instances: list[str] = Field(
        default_factory=list,
        description="Fetch only these instances. Empty: those of LATER_INSTANCE_IDS, else all that the API lists.",
    )
    only_missing: bool = Field(
        default=False, description="Fetch only the (day, instance) pairs that have no file in the lake."
    )
    accept_shrinking: bool = Field(
        default=False,
        description="Replace files that lose more posts than LATER_SHRINK_LIMIT_PERCENT allows: when posts have"
        " really been deleted.",
    )


def posts_asset(
    source: Source,
    *,
    partitions_def: dg.PartitionsDefinition,
    freshness: dg.FreshnessPolicy,
    due_hour_utc: int,
    metrics: tuple[Metric, ...],
) -> dg.AssetsDefinition:
    """Return the raw asset of a source, whose columns are those of `metrics`.

    Any number of days is one run. An instance that fails costs its own files: the day's other instances are written,
    the day is materialized with `missing_instances` in its metadata, and the run fails at the end by name.
    """

    @dg.asset(
        key=["later", source.asset],
        description=_DESCRIPTIONS[source.date_basis],
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "raw", "later/date_basis": str(source.date_basis)},
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        pool=API_POOL,
        metadata=table_metadata(source.asset, post_columns(metrics)),
        freshness_policy=freshness,
    )
    def posts(
        context: AssetExecutionContext, config: PostsConfig, later: LaterReportingResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        try:
            _PostsRun(context, config, later, source=source).run(due_hour_utc=due_hour_utc)
        except (NoInstances, LaterError, LakeUnavailable) as error:
            # The trace would add nothing to what the message says.
            raise dg.Failure(f"The fetch stopped: {error}", allow_retries=False) from None
        yield from ()

    return posts


class _PostsRun:
    """One run of a raw asset: fetches its days, and logs each as soon as all of its instances are known."""

    def __init__(
        self, context: AssetExecutionContext, config: PostsConfig, later: LaterReportingResource, *, source: Source
    ) -> None:
        self._context = context
        self._config = config
        self._later = later
        self._source = source
        self._lake = later.lake()
        self._findings = PostsFindings(source)
        self._files: dict[date, set[str]] = {}
        self._wanted: tuple[str, ...] = ()
        self._failed: dict[str, str] = {}
        self._days = self._files_changed = 0

    def run(self, *, due_hour_utc: int) -> None:
        """Run it.

        Raises:
            Failure: some (day, instance) pair failed, or the run names no day that can be fetched.
            NoInstances: there is nothing to fetch.
            LaterError: the API does not list the instances.
            LakeUnavailable: the lake cannot be listed or read.
        """
        log = self._context.log
        progress = Progress(self._source.asset)
        teller = ProgressTeller(progress, log=log.info, warn=log.warning)
        for event in self._events(partition_days(self._context), teller):
            if isinstance(event, FetchPlan):
                progress.partitions = len(event.pairs)
                results = self._begin(event)
                for complete in results.complete():
                    self._log_day(complete)
                continue
            day, instance_id = event.partition.day, str(event.partition.instance_id)
            if isinstance(event, Landed):
                self._files.setdefault(day, set()).add(instance_id)
                self._findings.add(event.partition, event.table)
                teller.landed()
            else:
                self._failed[str(event.partition)] = str(event.error)
                teller.failed()
            if (done := results.add(event)) is not None:
                self._log_day(done)
        log.info(
            f"{progress.landed} of {progress.partitions} files written, {self._files_changed} of them changed;"
            f" {self._days} days materialized; {progress.rows} rows from {progress.pages} pages,"
            f" {progress.retries} retries; {progress.waits} requests waited for the rate limit"
        )
        results_of_checks = evaluate_posts(
            self._findings, lake=self._lake, instances=self._wanted, files=self._files, due_hour_utc=due_hour_utc
        )
        log_check_results(self._context, results_of_checks)
        if self._failed:
            raise failure_of(self._failed, what="file", written=progress.landed)

    def _events(self, days: Sequence[date], teller: ProgressTeller) -> Iterator[FetchPlan | Outcome]:
        """Fetch in a thread of its own; yield the plan, then the outcome of each of its pairs."""
        client = self._later.client(on_event=teller.note)
        guard = self._later.guard(accept_shrinking=self._config.accept_shrinking)
        metrics, named = self._later.selected_metrics(), self._later.named_instances()

        async def fetch(emit: Callable[[FetchPlan | Outcome], None]) -> None:
            async with client:
                await fetch_days(
                    days,
                    instances=tuple(dict.fromkeys(self._config.instances)) or named,
                    only_missing=self._config.only_missing,
                    source=self._source,
                    client=client,
                    lake=self._lake,
                    emit=emit,
                    guard=guard,
                    metrics=metrics,
                )

        yield from stream(fetch)

    def _begin(self, plan: FetchPlan) -> DayResults:
        for partition in plan.present:
            self._files.setdefault(partition.day, set()).add(str(partition.instance_id))
        # A narrowed run does not list the instances, and yet its days lack those that it leaves out.
        is_narrowed = bool(self._config.instances)
        known = known_instances(self._lake, named=self._later.named_instances()) if is_narrowed else ()
        self._wanted = tuple(dict.fromkeys([*known, *plan.instances]))
        self._context.log.info(
            f"Fetching {len(plan.pairs)} files: {len(plan.instances)} instances, {plan.days[0]} to {plan.days[-1]}"
            + ", only what is missing" * self._config.only_missing
        )
        return DayResults(plan)

    def _log_day(self, result: DayResult) -> None:
        """Log the materialization of a day, unless all that was to be fetched of it failed."""
        if result.failed and not result.written:
            return
        asset, there = self._source.asset, self._files.get(result.day, set())
        others = self._lake.facts_of(asset, [Partition(result.day, name) for name in there - result.written.keys()])
        hashes = {str(partition.instance_id): facts.content_hash for partition, facts in others.items()}
        self._days += 1
        self._files_changed += result.files_changed
        log_materialization(
            self._context,
            result.day,
            data_version=day_version(hashes | result.written),
            metadata={
                "dagster/partition_row_count": result.rows + sum(facts.rows for facts in others.values()),
                "dagster/uri": self._lake.day_url(asset, result.day),
                "instances": len(there),
                "files_changed": result.files_changed,
                **day_metadata(result, missing=[name for name in self._wanted if name not in there]),
            },
        )


def day_metadata(result: DayResult, *, missing: Sequence[str]) -> dict[str, Any]:
    """Return what is worth saying of a fetched day: what it lacks, and what a restatement changed."""
    failed = {name: str(error) for name, error in sorted(result.failed.items())}
    return {
        **({"missing_instances": dg.MetadataValue.json([*missing])} if missing else {}),
        **({"failed_instances": dg.MetadataValue.json(failed)} if failed else {}),
        **({"bad_rows": result.bad_rows} if result.bad_rows else {}),
        **result.restatement,
        **({} if result.preview is None else {"preview": preview(result.preview)}),
    }
