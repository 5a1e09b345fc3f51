"""A query string of a later page is parsed as the whole string would be, although most of it comes from a cache."""

from random import Random

import pytest

from later_reporting_dagster.contract import API_VERSIONS, CURSOR, PAGED
from later_reporting_dagster.contract.api_version import ApiVersion
from later_reporting_dagster.server import query_parameters
from later_reporting_dagster.server.problem_responses import ProblemError
from later_reporting_dagster.server.query_parameters import parse_posts_query

DAYS = "startDate=2024-01-01&endDate=2024-01-31"
PARTS = (
    "pageNumber=2", "pageNumber=2", "pageNumber=0", "pageNumber=501", "pageNumber=x", "pageNumber=", "pageNumber",
    "page%4Eumber=3", "pageNumber[]=3", "pageSize=10", "pageSize=0", "limit=10", "metrics=engagements",
    "nextCursor=AAAA", "nextCursor=%3D", "nextCursor=", "sortProperty=cpe", "sortProperty=x", "platform=tiktok",
    "contentType=tiktok", "instanceIds=a%26pageNumber%3D7", "instanceIds=a+b", "unknown=1", "", DAYS, DAYS,
)  # fmt: skip


def outcome(parse: object, query_string: str, api_version: ApiVersion) -> object:
    try:
        return parse(query_string, api_version)  # type: ignore[operator]
    except ProblemError as error:
        return error.status, error.type, str(error)


@pytest.mark.parametrize("api_version", API_VERSIONS.values(), ids=str)
def test_query_string_of_a_page_is_parsed_like_the_whole_string(api_version: ApiVersion) -> None:
    random = Random(7)
    texts = [DAYS, f"{DAYS}&metrics=engagements&limit=10"]
    cursors = [page.cursor_to(20) for _, page in [parse_posts_query(texts[1], CURSOR)]]
    parts = (*PARTS, *(f"nextCursor={cursor}" for cursor in cursors))
    succeeded = 0
    for _ in range(4000):
        base = random.choice([[], [random.choice(texts)]])
        chosen = [*base, *random.choices(parts, k=random.randrange(5))]
        random.shuffle(chosen)
        query_string = "&".join(chosen)
        whole = outcome(query_parameters._parse_whole_posts_query, query_string, api_version)
        assert outcome(parse_posts_query, query_string, api_version) == whole, query_string
        succeeded += not isinstance(whole[0], int)  # type: ignore[index]
    assert succeeded > 50


def test_cursor_of_a_page_is_decoded() -> None:
    query_string = f"{DAYS}&metrics=engagements&limit=10"
    query, first = parse_posts_query(query_string, CURSOR)
    found, page = parse_posts_query(f"{query_string}&nextCursor={first.cursor_to(30)}", CURSOR)
    assert (found, page.offset, page.size) == (query, 30, 10)


def test_page_number_counts_pages_of_the_requested_size() -> None:
    _, page = parse_posts_query(f"pageNumber=3&{DAYS}&pageSize=20", PAGED)
    assert (page.offset, page.size) == (40, 20)
