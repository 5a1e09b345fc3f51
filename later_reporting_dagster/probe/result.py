"""The result of a probe: a verdict on each assumption, and its JSON, which has no text of the server."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from later_reporting_dagster.contract.parameters import platform_of
from later_reporting_dagster.probe.assumptions import ASSUMPTIONS, Result
from later_reporting_dagster.probe.sample import NotTestable, Sample


def judge(sample: Sample) -> list[Result]:
    """Return the result of each assumption."""
    results = []
    for assumption, tables in ASSUMPTIONS.items():
        try:
            found = assumption(sample)
        except NotTestable as error:
            found = Result(None, str(error))
        affected_tables, question = () if found.holds is not False else tables, assumption.__doc__ or ""
        results.append(replace(found, name=assumption.__name__, question=question, affected_tables=affected_tables))
    return results


def networks(sample: Sample) -> dict[str, Counter[str]]:
    """Return how many posts of each network the sample has, and how many of them report a metric at all."""
    found: dict[str, Counter[str]] = {}
    posts: list[Any] = []
    with suppress(NotTestable):
        posts = sample.to_date
    for post in posts:
        network = found.setdefault(platform_of(post.content_type) or "unknown", Counter())
        values = {"impressions": post.impressions, "views": getattr(post, "views", None), "paid": post.paid_impressions}
        network.update({"posts": 1} | {name: int(value is not None) for name, value in values.items()})
    return dict(sorted(found.items()))


def to_json(sample: Sample, results: Sequence[Result]) -> dict[str, Any]:
    """Return the results without ids, names, links and secrets."""
    return {
        "version": version("later-reporting-dagster"),
        "api_version": sample.service.api_version.name,
        "requests": sample.requests,
        "assumptions": [
            {
                name: getattr(result, name)
                for name in ("name", "question", "verdict", "text", "numbers", "affected_tables")
            }
            for result in results
        ],
        "networks": networks(sample),
    }
