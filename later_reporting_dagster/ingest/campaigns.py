"""The dimension `campaigns`: the campaigns that are or were listed, with names, status and dates."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract.rows import BadRow, Campaign
from later_reporting_dagster.lake.lake import Lake, WriteResult
from later_reporting_dagster.lake.tables import CAMPAIGN_COLUMNS, CAMPAIGNS_TABLE, schema_of

CAMPAIGNS_SCHEMA: pa.Schema = schema_of(CAMPAIGN_COLUMNS)


def campaigns_table(
    listed: Sequence[Campaign], *, previous: pa.Table | None, instance_ids: Collection[str], today: date
) -> pa.Table:
    """Return the dimension, sorted by instance and campaign: one row per campaign that is listed or was listed before.

    `instance_ids`: the instances whose listed campaigns are wanted; empty for all.
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
    """Update the dimension, and replace its quarantined rows by the bad rows of this listing."""
    outdated = lake.quarantine.files(CAMPAIGNS_TABLE)
    if bad_rows:
        path = lake.quarantine.path_of_query(CAMPAIGNS_TABLE, "campaigns", (today, today))
        lake.quarantine.write(path, bad_rows, query="campaigns")
        outdated = [file for file in outdated if file.path != path]
    previous = lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA)
    rows = campaigns_table(listed, previous=previous, instance_ids=instance_ids, today=today)
    result = lake.write_table(CAMPAIGNS_TABLE, rows)
    for file in outdated:
        lake.storage.remove(file.path)
    return rows, result
