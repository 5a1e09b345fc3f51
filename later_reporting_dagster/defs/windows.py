"""The rollup assets of windows: by campaign, by creator and by platform, each a table as of the newest day there is."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.defs.checks import WINDOWS_CHECKS, checks_of, selected_checks
from later_reporting_dagster.defs.metadata import column_lineage, table_metadata
from later_reporting_dagster.defs.organic_paid import ROLLUPS_GROUP, rollup_tags, when_posts_change
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.rollups import RolledUp

if TYPE_CHECKING:
    from later_reporting_dagster.defs.runs.verdicts import Verdict

SOURCES = {source.date_basis: source for source in (POST_METRICS_DAILY, POSTS_PUBLISHED)}


def windows_assets(tables: Sequence[RolledUp], *, due_hour_utc: int) -> dg.AssetsDefinition:
    """All tables of windows, which one step makes, because they read the same posts. Any of them can be made alone.

    They follow when any posts changed and nothing that brings posts is under way: not once for each of a backfill's
    days, but once.
    """

    @dg.multi_asset(
        name="organic_paid_by_window",
        specs=[
            dg.AssetSpec(
                windows_key(table),
                deps=[dg.AssetKey(["later", source.asset]) for source in SOURCES.values()],
                description=table.description,
                group_name=ROLLUPS_GROUP,
                kinds={"parquet"},
                tags=rollup_tags(table),
                metadata={**table_metadata(table.name, table.columns), **windows_lineage(table)},
                automation_condition=when_posts_change(),
                skippable=True,
            )
            for table in tables
        ],
        can_subset=True,
    )
    def organic_paid_by_window(
        context: AssetExecutionContext, later: LaterReportingResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        # Needs Arrow, which the definitions load without.
        from later_reporting_dagster.defs.runs.windows import roll_up_windows

        wanted = [table for table in tables if windows_key(table) in context.selected_asset_keys]
        yield from roll_up_windows(context, later, tables=wanted, due_hour_utc=due_hour_utc)

    return organic_paid_by_window


def windows_checks(table: RolledUp, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """The checks of a table of windows: it is read back and held against the raw rows of its days."""

    def verdicts(context: AssetCheckExecutionContext, later: LaterReportingResource) -> "Iterator[Verdict]":
        from later_reporting_dagster.defs.runs.windows import verdicts_on_windows

        return verdicts_on_windows(table, wanted=selected_checks(context), lake=later.lake(), due_hour_utc=due_hour_utc)

    return checks_of(windows_key(table), WINDOWS_CHECKS, verdicts=verdicts, due_hour_utc=due_hour_utc)


def windows_key(table: RolledUp) -> dg.AssetKey:
    """The key of a table's asset."""
    return dg.AssetKey(["later", table.name])


def windows_lineage(table: RolledUp) -> dict[str, dg.TableColumnLineage]:
    """From which raw columns each column is made, of both raw tables."""
    return {**column_lineage({SOURCES[basis].asset: table.columns_from(DateBasis(basis)) for basis in table.bases})}
