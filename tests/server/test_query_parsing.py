"""Queries are parsed as the API reference says, which the keys of `REJECTED` quote."""

import pytest

from later_reporting_dagster.contract import CURSOR
from later_reporting_dagster.server.routes import POSTS, ProblemError

JUNE = "startDate=2024-06-01&endDate=2024-06-14"
ARRAYS = {"instanceIds": "instance_000", "campaignIds": "49761", "platform": "tiktok", "contentType": "instagram_reel"}
DATES = ["2024-6-1", "20240601", "2024-W22-6", "2024-06-01T00:00:00Z", "2024-02-30", "٢٠٢٤-٠٦-٠١", ""]
REJECTED = {
    "startDate required, endDate required": ["", "startDate=2024-06-01", "endDate=2024-06-01"],
    "Format: YYYY-MM-DD": [*(f"startDate={day}&endDate=2024-06-01" for day in DATES)],
    "not in the reference: the range is at most two years and not reversed": [
        "startDate=2024-06-02&endDate=2024-06-01",
        "startDate=2023-01-31&endDate=2025-02-01",
        "startDate=2024-02-29&endDate=2026-03-01",
    ],
    "Type: array number[]": [
        f"{JUNE}&campaignIds={value}" for value in ("abc", "1.5", "0x1", "+1", "--1", "٣", "9" * 5000)
    ],
    "campaignIds: array number[] …50": [
        f"{JUNE}&campaignIds={','.join(map(str, range(51)))}",
        f"{JUNE}{''.join(f'&campaignIds[]={number}' for number in range(51))}",
    ],
    "Type: enum": [
        f"{JUNE}&{parameter}"
        for parameter in (
            "platform=myspace",
            "platform=Instagram",
            "platform=instagram,myspace",
            "platform=instagram,tiktok&platform=youtube",
            "contentType=twitter",
            "contentType=instagram",
            "contentType[]=instagram_reel,tiktok",
            "dateBasis=postDate",
            "dateBasis=",
            "sortDirection=desc",
            "sortDirection=UP",
        )
    ],
    # The curl example in the reference sends both; the sandbox follows the text.
    "Cannot be combined with contentType - provide only one of the two": [
        f"{JUNE}&platform=instagram&contentType=instagram_reel",
        f"{JUNE}&platform[]=instagram&contentType[]=tiktok",
    ],
    "pageSize: number, min: 1, max: 100": [
        f"{JUNE}&pageSize={value}" for value in ("0", "-1", "101", "1.5", "ten", "", " 1", "9" * 5000)
    ],
    "pageNumber: number, min: 1, max: 500": [
        f"{JUNE}&pageNumber={value}" for value in ("0", "-1", "501", "1.5", "one", "")
    ],
    "not in the reference: unknown parameters": [
        f"{JUNE}&{parameter}"
        for parameter in ("pagesize=10", "limit=10", "cursor=", "startDate[]=2024-06-01", "=", "metrics=cpm")
    ],
    "not in the reference: repeated single values and empty values": [
        f"{JUNE}&pageSize=10&pageSize=20",
        *(f"{JUNE}&{name}={value}" for name, one in ARRAYS.items() for value in ("", f"{one},")),
    ],
}


@pytest.mark.parametrize("queries", REJECTED.values(), ids=REJECTED)
def test_invalid_query_is_rejected(queries: list[str]) -> None:
    for query in queries:
        with pytest.raises(ProblemError) as raised:
            POSTS.parse(query)
        assert (raised.value.status_code, raised.value.type) == (400, ""), query


def test_unsupported_sort_property_is_rejected_with_its_own_problem_type() -> None:
    with pytest.raises(ProblemError) as raised:
        POSTS.parse(f"{JUNE}&sortProperty=postId")
    assert (raised.value.status_code, raised.value.type) == (400, "ANL_00422")


@pytest.mark.parametrize(
    "query",
    [
        "startDate=2023-01-31&endDate=2025-01-31",
        "startDate=2024-02-29&endDate=2026-02-28",
        f"{JUNE}&campaignIds={','.join(map(str, range(50)))}",
        *(f"{JUNE}&{parameter}" for parameter in ("pageSize=1", "pageSize=100", "pageNumber=1", "pageNumber=500")),
    ],
)
def test_query_bounds_are_inclusive(query: str) -> None:
    POSTS.parse(query)


@pytest.mark.parametrize("parameter", ["pageSize=10", "pageNumber=1", "limit=0", "limit=101", "limit=ten", "page=1"])
def test_cursor_version_rejects_other_parameters(parameter: str) -> None:
    with pytest.raises(ProblemError, match=parameter.partition("=")[0]):
        POSTS.parse(f"{JUNE}&metrics=impressions&{parameter}", CURSOR)


def test_metrics_are_required_in_the_cursor_version() -> None:
    with pytest.raises(ProblemError, match="metrics is required, of engagements, impressions"):
        POSTS.parse(JUNE, CURSOR)


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "%C3%A9", "A" * 24, "!!!!"])
def test_unknown_cursor_is_rejected(cursor: str) -> None:
    with pytest.raises(ProblemError, match="nextCursor is invalid"):
        POSTS.parse(f"{JUNE}&metrics=impressions&nextCursor={cursor}", CURSOR)


@pytest.mark.parametrize("change", ["&limit=11", "&platform=tiktok", "&sortDirection=ASC", "&instanceIds=a"])
def test_cursor_is_valid_only_for_its_query(change: str) -> None:
    query = f"{JUNE}&metrics=impressions"
    _, page = POSTS.parse(query, CURSOR)
    assert POSTS.parse(f"{query}&nextCursor=null", CURSOR)[1] == page
    cursor = page.cursor_to(50)
    POSTS.parse(f"{query}&nextCursor={cursor}", CURSOR)
    with pytest.raises(ProblemError, match="nextCursor is invalid"):
        POSTS.parse(f"{query}{change}&nextCursor={cursor}", CURSOR)
