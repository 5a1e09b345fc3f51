"""The check between the two raw tables, of all that lies in the lake."""

from collections.abc import Iterator

import dagster as dg

from later_reporting_dagster.defs.checks import DAYS_ADD_UP
from later_reporting_dagster.defs.runs.landed import read_all
from later_reporting_dagster.defs.runs.verdicts import Verdict
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.rollups import SETTLEMENT_SCHEMA, TOLERANCE_PERCENT, Settlement, settlement


def verdicts_on_settlement(
    lake: Lake, recorded: Source, published: Source, *, settled_after_days: int
) -> Iterator[Verdict]:
    """Whether the days of settled posts add up to their metrics to date. What cannot be read is as if not landed."""
    days, posts = (read_all(lake, source.asset, schema=SETTLEMENT_SCHEMA).landed for source in (recorded, published))
    yield settlement_verdict(
        settlement(days, posts, settled_after_days=settled_after_days), settled_after_days=settled_after_days
    )


def settlement_verdict(found: Settlement, *, settled_after_days: int) -> Verdict:
    """The verdict, with each metric's difference as a number, which the UI plots."""
    differing = [name for name, sums in found.sums.items() if not sums.agree]
    if not found.posts:
        description = (
            f"No post is settled yet: one is, once it and each of the {settled_after_days} days after it have landed in"
            " both tables"
        )
    elif differing:
        description = f"{', '.join(differing)} of {found.posts} settled posts differ by over {TOLERANCE_PERCENT:g} %"
    else:
        description = f"The days of {found.posts} settled posts add up to their metrics to date"
    metadata: dict[str, object] = {"posts": found.posts, "posts_that_differ": found.posts_that_differ}
    for name, sums in found.sums.items():
        if sums.difference_percent is not None:
            metadata[f"difference_percent/{name}"] = round(sums.difference_percent, 6)
    metadata["sums"] = dg.MetadataValue.json(
        {name: {"sum_of_days": sums.of_days, "to_date": sums.to_date} for name, sums in found.sums.items()}
    )
    return Verdict(DAYS_ADD_UP, not differing, description, metadata, dg.AssetCheckSeverity.WARN)
