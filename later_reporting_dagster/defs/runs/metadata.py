"""What the UI shows of a partition: counts, where it lies, and its first rows."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.contract import metrics_in
from later_reporting_dagster.ingest.changes import Changes
from later_reporting_dagster.ingest.landing import Landed
from later_reporting_dagster.ingest.quality import null_shares
from later_reporting_dagster.lake import Written
from later_reporting_dagster.rollups.columns import COMPARED, RESULTS
from later_reporting_dagster.rollups.sums import total as sum_of

PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 40
# The columns of a post that tell it apart at a glance; the others are a click on the file away.
POST_PREVIEW_COLUMNS = (
    "post_id",
    "content_type",
    "creator_handle_name",
    "impressions",
    "engagements",
    "paid_impressions",
    "paid_engagements",
)
# Of these, the first that was asked for tells how much a post was seen.
SEEN = ("impressions", "paid_impressions")


def posts_metadata(landed: Landed) -> dict[str, Any]:
    """Metadata of a landed partition of posts. A query's figures are shared by all the partitions that it filled."""
    fetched = landed.fetched
    table = landed.table
    metrics = [metric.api_name for metric in metrics_in(table.column_names)]
    return {
        **written_metadata(landed.written, preview=preview(_most_seen(table))),
        **(changes_metadata(landed.changes) if landed.changes else {}),
        "bad_rows": landed.bad_rows,
        **({"bad_rows_without_partition": fetched.unassigned_rows} if fetched.unassigned_rows else {}),
        "metrics": dg.MetadataValue.text(", ".join(metrics)),
        "query": dg.MetadataValue.text("\n".join(fetched.queries)),
        "pages": fetched.pages,
        "requests": fetched.requests,
        "retries": fetched.retries,
        "partitions_of_query": fetched.partitions,
        **{f"null_share/{metric}": round(share, 4) for metric, share in null_shares(table).items()},
    }


def changes_metadata(changes: Changes) -> dict[str, Any]:
    """Metadata of a partition that was replaced: numbers, which the UI plots, where there is one.

    A total that was or is not available has none, and says so.
    """
    totals: dict[str, Any] = {}
    for column, total in changes.totals.items():
        if total.change is not None:
            totals[f"change/{column}"] = total.change
        elif total.before is not None or total.after is not None:
            totals[f"change/{column}"] = f"{_or_not_available(total.before)} → {_or_not_available(total.after)}"
    return {
        "change/rows_added": changes.added,
        "change/rows_removed": changes.removed,
        "change/rows_restated": changes.restated,
        **totals,
    }


def written_metadata(written: Written, *, preview: dg.MarkdownMetadataValue | None = None) -> dict[str, Any]:
    """Metadata of any written partition."""
    return {
        "dagster/row_count": written.rows,
        "rows": written.rows,
        **({} if preview is None else {"preview": preview}),
        "changed": written.changed,
        "bytes": written.bytes,
        "content_hash": written.content_hash,
        "path": dg.MetadataValue.path(written.url),
    }


def plotted_totals(rollup: pa.Table) -> dict[str, Any]:
    """The results of a whole rolled-up partition: numbers, which the UI plots; none of a channel that has none.

    The coverage is how many of 100 posts report organic and paid impressions, in the posts that there are.
    """
    told: dict[str, Any] = {}
    posts = sum_of(rollup["posts"]) or 0
    for channel in COMPARED:
        for measure in RESULTS:
            name = f"{channel}_{measure}"
            if (found := sum_of(rollup[name])) is not None:
                told[f"total/{name}"] = found
        reported = sum_of(rollup[f"{channel}_impressions_posts"]) or 0
        if posts:
            told[f"coverage_percent/{channel}_impressions"] = round(100 * reported / posts, 2)
    return told


def preview(table: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table. A null is shown as an empty cell, never as 0."""
    head = table.slice(0, PREVIEW_ROWS).to_pylist()
    if not head:
        return dg.MetadataValue.md("*no rows*")
    lines = [_row(table.column_names), _row(["---"] * table.num_columns)]
    lines += [_row([_cell(value) for value in row.values()]) for row in head]
    if table.num_rows > len(head):
        lines.append(f"\n*{table.num_rows - len(head)} more rows*")
    return dg.MetadataValue.md("\n".join(lines))


def _most_seen(posts: pa.Table) -> pa.Table:
    """What tells posts apart, those first that were seen most: the first by key are often those nobody saw yet."""
    shown = posts.select([name for name in POST_PREVIEW_COLUMNS if name in posts.column_names])
    seen = [name for name in SEEN if name in shown.column_names][:1]
    return shown.sort_by([(name, "descending") for name in seen]) if seen else shown


def _or_not_available(total: float | None) -> str:
    return "not available" if total is None else f"{total:,}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:,.2f}" if isinstance(value, float) else str(value)
    # A creator's name is data: it must not end the cell, start markup or run over several lines.
    text = " ".join(text.split())[:PREVIEW_CHARACTERS]
    return "".join(f"\\{character}" if character in "\\|`*_{}[]<>#!" else character for character in text)
