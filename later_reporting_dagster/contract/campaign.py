"""Campaigns, their performance, and lossless parsers of both (docs/api.md, "Campaigns")."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from later_reporting_dagster.contract.campaign_metrics import CAMPAIGN_METRICS
from later_reporting_dagster.contract.metrics import Metric
from later_reporting_dagster.contract.row_fields import (
    BadRow,
    Fields,
    ParsedRow,
    json_type,
    metric_fields,
    parse_instant,
    parse_integer,
    parse_text,
    to_json,
)


class Campaign(msgspec.Struct, kw_only=True, frozen=True):
    """An item of `GET /v2/campaigns`; `extra` is the JSON of its unknown fields."""

    instance_id: str
    campaign_id: int
    campaign_name: str | None = None
    description: str | None = None
    status: str | None = None
    start_date: datetime | None = None
    first_post_date: datetime | None = None
    last_post_date: datetime | None = None
    extra: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The row key: (`instance_id`, `campaign_id`)."""
        return (self.instance_id, self.campaign_id)


class CampaignPerformance(msgspec.Struct, kw_only=True, frozen=True):
    """An item of `GET /v2/campaigns/performance`.

    Attributes:
        campaign_id: the campaign; the row key.
        metrics: the values of the requested metrics by column; those that are not available are left out.
        extra: JSON of all other fields. The API reference does not name the fields that describe the campaign.
    """

    campaign_id: int
    metrics: Mapping[str, int | float]
    extra: str | None = None

    @property
    def key(self) -> int:
        """The row key."""
        return self.campaign_id


def campaign_from_json(row: object) -> Campaign | BadRow:
    """Parse one item of `GET /v2/campaigns`, as decoded by the standard library's JSON."""
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a campaign must be an object, not {json_type(row)}", raw=to_json(row))
    parsed = ParsedRow(row, fields=_CAMPAIGN_FIELDS)
    extra = parsed.extra()
    if parsed.problems:
        return BadRow(reason="; ".join(parsed.problems), raw=to_json(row), instance_id=parsed.values.get("instance_id"))
    return Campaign(**parsed.values, extra=extra)


def campaign_performance_from_json(
    row: object, *, metrics: tuple[Metric, ...], nested: bool = False
) -> CampaignPerformance | BadRow:
    """Parse one item of `GET /v2/campaigns/performance`, as decoded by the standard library's JSON.

    Args:
        row: the item.
        metrics: the requested metrics. Other known metrics, which the paged version returns unasked, are left out, so
            that both versions yield the same row.
        nested: whether metrics are nested under `metrics`, as in the cursor version.
    """
    if not isinstance(row, Mapping):
        return BadRow(reason=f"a campaign must be an object, not {json_type(row)}", raw=to_json(row))
    parsed = ParsedRow(row, fields=_PERFORMANCE_FIELDS, metric_fields=metric_fields(metrics), nested=nested)
    parsed.unknown = {name: value for name, value in parsed.unknown.items() if name not in _METRIC_NAMES}
    extra = parsed.extra()
    if parsed.problems:
        return BadRow(reason="; ".join(parsed.problems), raw=to_json(row))
    return CampaignPerformance(campaign_id=parsed.values.pop("campaign_id"), metrics=parsed.values, extra=extra)


# API name -> (attribute, parser, is_required)
_CAMPAIGN_FIELDS: Fields = {
    "instanceId": ("instance_id", parse_text, True),
    "campaignId": ("campaign_id", parse_integer, True),
    "campaignName": ("campaign_name", parse_text, False),
    "description": ("description", parse_text, False),
    "status": ("status", parse_text, False),
    "startDate": ("start_date", parse_instant, False),
    "firstPostDate": ("first_post_date", parse_instant, False),
    "lastPostDate": ("last_post_date", parse_instant, False),
}
_METRIC_NAMES = frozenset(metric.api_name for metric in CAMPAIGN_METRICS)
_PERFORMANCE_FIELDS: Fields = {"campaignId": ("campaign_id", parse_integer, True)}
