"""Find out which metrics of a query the API accepts, when it rejects the query because of some of them."""

import re
from collections.abc import Awaitable, Callable

from later_reporting_dagster.client import MetricsRejected
from later_reporting_dagster.contract import Metric


async def find_accepted_metrics(
    metrics: tuple[Metric, ...], request: Callable[[tuple[Metric, ...]], Awaitable[object]], *, separated: bool = False
) -> tuple[Metric, ...]:
    """Return the metrics that the API accepts, in their order.

    The text of a rejection may name the invalid metrics, the valid ones, or none. It is therefore never trusted by
    itself: it only decides how the metrics are separated into two parts, which are requested next. Without such a text
    they are halved. A rejected part is invalid if it is a single metric, or if one text has separated it from the
    others and the next one does not separate it further.

    `separated`: whether a text has done so with these metrics.
    """
    try:
        await request(metrics)
    except MetricsRejected as error:
        words = set(re.findall(r"\w+", error.detail))
    else:
        return metrics
    mentioned = tuple(metric for metric in metrics if metric.api_name in words)
    others = tuple(metric for metric in metrics if metric.api_name not in words)
    is_separated = bool(mentioned and others)
    if len(metrics) == 1 or (separated and not is_separated):
        return ()
    half = len(metrics) // 2
    accepted: set[Metric] = set()
    for part in (others, mentioned) if is_separated else (metrics[:half], metrics[half:]):
        accepted.update(await find_accepted_metrics(part, request, separated=is_separated))
    return tuple(metric for metric in metrics if metric in accepted)
