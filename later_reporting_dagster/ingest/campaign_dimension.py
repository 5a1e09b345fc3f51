"""The dimension table `campaigns`: every campaign that the API has ever listed, with its name, status and dates."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import BadRow, Campaign
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, CAMPAIGNS_TABLE, FileDamaged, Lake, WriteResult, schema_of

CAMPAIGNS_SCHEMA: pa.Schema = schema_of(CAMPAIGN_COLUMNS)


def campaigns_table(
    listed: Sequence[Campaign], *, previous: pa.Table | None, instance_ids: Collection[str], today: date
) -> pa.Table:
    """Return the dimension, sorted by instance and campaign: one row per campaign that is listed or was listed before.

    Args:
        listed: the campaigns that the API lists now.
        previous: the dimension as last written, if it exists. Campaigns that are no longer listed are kept.
        instance_ids: the instances whose listed campaigns are wanted; empty for all.
        today: the UTC day of the listing.
    """
    rows: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in previous.to_pylist() if previous is not None else []:
        rows[row["instance_id"], row["campaign_id"]] = row | {"listed_now": False}
    for campaign in listed:
        if instance_ids and campaign.instance_id not in instance_ids:
            continue
        first_seen = rows[campaign.key]["first_seen"] if campaign.key in rows else today
        fields = {name: getattr(campaign, name) for name in campaign.__struct_fields__}
        rows[campaign.key] = {**fields, "first_seen": first_seen, "last_seen": today, "listed_now": True}
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=CAMPAIGNS_SCHEMA)


def write_campaigns(
    lake: Lake, listed: Sequence[Campaign], bad_rows: Sequence[BadRow], *, instance_ids: Collection[str], today: date
) -> tuple[pa.Table, WriteResult]:
    """Update the dimension, and replace its quarantined rows by the bad rows of this listing.

    Returns:
        The rows of the dimension, and the result of the write.

    Raises:
        LakeUnavailable: the lake cannot be read or written.
    """
    outdated = lake.quarantine.files(CAMPAIGNS_TABLE)
    if bad_rows:
        written = lake.quarantine.write_rows_without_partition(
            CAMPAIGNS_TABLE, bad_rows, query="campaigns", day_range=(today, today)
        )
        outdated = [file for file in outdated if lake.storage.location(file.path) != written]
    rows = campaigns_table(listed, previous=stored_campaigns(lake), instance_ids=instance_ids, today=today)
    result = lake.write_table(CAMPAIGNS_TABLE, rows)
    for file in outdated:
        lake.quarantine.remove(file)
    return rows, result


def stored_campaigns(lake: Lake) -> pa.Table | None:
    """Return the dimension as last written; None if it does not exist or its file is damaged.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    # The next refresh replaces a damaged file. Campaigns that are no longer listed are then lost.
    with suppress(FileDamaged):
        return lake.read_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA)
    return None
