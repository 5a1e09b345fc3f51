"""The result of a probe: a verdict on each assumption, and its JSON, which has no text of the server."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from later_reporting_dagster.contract.parameters import platform_of
from later_reporting_dagster.probe.assumptions import ASSUMPTIONS, Answer
from later_reporting_dagster.probe.sample import NotTestable, Sample

Verdict = Literal["holds", "does not hold", "not testable"]


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on an assumption, and the tables whose numbers are wrong."""

    name: str
    question: str
    verdict: Verdict
    answer: Answer
    affected_tables: tuple[str, ...] = ()


def judge(sample: Sample) -> list[Result]:
    """Return the result of each assumption."""
    results = []
    for answer_of, tables in ASSUMPTIONS.items():
        name, question = answer_of.__name__, answer_of.__doc__ or ""
        try:
            answer = answer_of(sample)
        except NotTestable as error:
            results.append(Result(name, question, "not testable", Answer(False, str(error))))
        else:
            verdict: Verdict = "holds" if answer.holds else "does not hold"
            results.append(Result(name, question, verdict, answer, () if answer.holds else tables))
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
                "name": result.name,
                "question": result.question,
                "verdict": result.verdict,
                "text": result.answer.text,
                "numbers": result.answer.numbers,
                "affected_tables": result.affected_tables,
            }
            for result in results
        ],
        "networks": networks(sample),
    }
