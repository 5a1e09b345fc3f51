"""A run of the report: gathers what has landed, and writes the page where it differs from the one that is there."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.partitions import registered_instances
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Lake, LakeUnavailable, PartitionDamaged
from later_reporting_dagster.report.data import (
    METRICS_TABLE,
    PUBLISHED_TABLE,
    REPORTED_SCHEMA,
    Gathering,
    ReportData,
    SetAside,
    days_looked_at,
)
from later_reporting_dagster.report.figures import headlines, headlines_in_markdown
from later_reporting_dagster.report.page import report_page
from later_reporting_dagster.report.pictures import as_markdown, still_pictures
from later_reporting_dagster.report.wording import NOT_AVAILABLE
from later_reporting_dagster.rollups import SumOutOfRange

TABLES = (METRICS_TABLE, PUBLISHED_TABLE)


def write_report(
    context: AssetExecutionContext, later: LaterReportingResource, *, asset: str, file: str
) -> dg.MaterializeResult[Any]:
    """Writes the page, and tells its headlines and pictures.

    Raises:
        Failure: nothing has landed yet, or the lake cannot be read or written; the page stays as it was.
    """
    lake = later.lake()
    try:
        data = gathered(lake, registered=registered_instances(context.instance))
        written = lake.write_file(asset, file, report_page(data))
    except (LakeUnavailable, PartitionDamaged, SumOutOfRange) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(
        f"The report as of {data.as_of} {'lies' if written.changed else 'lies unchanged'} at {written.url}"
    )
    found = headlines(data)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(written.content_hash),
        metadata={
            "path": dg.MetadataValue.path(written.url),
            "bytes": written.bytes,
            "changed": written.changed,
            "as_of": str(data.as_of),
            "period_days": data.period,
            **{headline.name: NOT_AVAILABLE if headline.value is None else headline.value for headline in found},
            "preview": dg.MetadataValue.md(f"{headlines_in_markdown(found)}\n\n{as_markdown(still_pictures(data))}"),
        },
    )


def gathered(lake: Lake, *, registered: Iterable[str]) -> ReportData:
    """What the lake holds to report on. A damaged partition is named on the page, and stops nothing.

    Raises:
        Failure: nothing has landed yet.
        LakeUnavailable: the lake cannot be read: what is there for a moment only makes no report.
        PartitionDamaged: a quarantine file is not what it should be.
        SumOutOfRange: a sum does not fit its column.
    """
    days = {table: {partition.day for partition in lake.partitions(table)} for table in TABLES}
    landed = set[date]().union(*days.values())
    if not landed:
        raise dg.Failure(
            "No posts have landed yet, so there is nothing to report: materialize"
            f" {' and '.join(f'later/{table}' for table in TABLES)} first.",
            allow_retries=False,
        )
    gathering = Gathering(max(landed))
    for table in TABLES:
        for read in lake.read_days(table, days_looked_at(gathering.as_of, days[table]), schema=REPORTED_SCHEMA):
            gathering.add(
                table, read.day, {str(partition.instance_id): posts for partition, posts in read.tables.items()}
            )
            for partition, error in read.unread.items():
                if isinstance(error, LakeUnavailable):
                    raise error
                gathering.add_unread(table, read.day, partition.instance_id)
    return gathering.data(registered=registered, set_aside=_set_aside(lake))


def _set_aside(lake: Lake) -> Iterator[SetAside]:
    for table in TABLES:
        places = Counter((row.partition, row.reason) for row in lake.quarantined(table))
        for (partition, reason), rows in places.items():
            day, instance_id = (partition.day, partition.instance_id) if partition else (None, None)
            yield SetAside(table, day, instance_id, reason, rows)
