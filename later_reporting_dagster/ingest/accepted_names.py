"""Find out which metrics of a query the API accepts, when it rejects the query because of some of them."""

import re
from collections.abc import Awaitable, Callable, Sequence

from later_reporting_dagster.client import MetricsRejected


async def find_accepted_names(
    names: Sequence[str], *, detail: str, request: Callable[[Sequence[str]], Awaitable[object]]
) -> list[str]:
    """Return the metrics that the API accepts, in their order.

    The error detail may name the invalid metrics, the valid ones, or none. It is therefore never trusted by itself: it
    only decides how the metrics are split into two parts, which are requested separately.

    Args:
        names: the metrics of a query that was rejected.
        detail: the text of the rejection.
        request: sends the query with some metrics.

    Raises:
        LaterError: a request failed for another reason than its metrics.
    """
    if len(names) == 1:
        return []
    words = set(re.findall(r"\w+", detail))
    mentioned = [name for name in names if name in words]
    others = [name for name in names if name not in words]
    parts = [others, mentioned] if mentioned and others else [names[: len(names) // 2], names[len(names) // 2 :]]
    accepted: set[str] = set()
    for part in parts:
        try:
            await request(part)
            accepted.update(part)
        except MetricsRejected as error:
            accepted.update(await find_accepted_names(part, detail=error.detail, request=request))
    return [name for name in names if name in accepted]
