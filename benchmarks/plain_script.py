"""Method: the shortest script that makes the fewest requests and writes the same partitions.

The baseline of the benchmarks. It makes one query for the range by `post_date`, and one query a day by
`performance_date`. It does not verify responses, retry, limit its rate or keep records.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measurement import CREDENTIALS, TABLE_NAMES, Measurement, PartitionRange
from later_reporting_dagster.lake import POSTS_SCHEMA

CONCURRENCY = 8
MAX_POSTS_OF_QUERY = 50_000
_PROFILE = "creatorProfile"
_COLUMN = {
    "".join([first, *(word.capitalize() for word in rest)]): "_".join([first, *rest])
    for first, *rest in (name.split("_") for name in POSTS_SCHEMA.names)
}


def fetch(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions."""
    return Measurement(rows=asyncio.run(_fetch(partitions, base_url=base_url, date_basis=date_basis, root=root)))


async def _fetch(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> int:
    in_flight = asyncio.Semaphore(CONCURRENCY)
    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
        token = (await client.post("/oauth/token", json=CREDENTIALS)).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"

        async def fetch_page(query: PartitionRange, number: int, direction: str = "ASC") -> Any:
            async with in_flight:
                parameters = page_parameters(query, date_basis, number=number, direction=direction)
                response = await client.get("/v2/posts/performance", params=parameters)
            response.raise_for_status()
            return msgspec.json.decode(response.content)

        async def fetch_query(query: PartitionRange) -> int:
            first = await fetch_page(query, 1)
            others = await asyncio.gather(*(fetch_page(query, *page) for page in pages_after(first)))
            return write([first, *others], query, date_basis=date_basis, root=root)

        queries = iter(partitions.queries(date_basis))

        async def work() -> int:
            return sum([await fetch_query(query) for query in queries])

        return sum(await asyncio.gather(*(work() for _ in range(CONCURRENCY))))


def page_parameters(query: PartitionRange, date_basis: str, *, number: int, direction: str) -> dict[str, str | int]:
    """Return the query parameters of a page."""
    return {
        "startDate": str(query.start),
        "endDate": str(query.end),
        "instanceIds": ",".join(query.instance_ids),
        "dateBasis": date_basis,
        "pageSize": 100,
        "pageNumber": number,
        "sortProperty": "postDate",
        "sortDirection": direction,
    }


def pages_after(first: Any) -> list[tuple[int, str]]:
    """Return the numbers and sort directions of the pages after the first.

    Posts beyond the 500 pages of a query are fetched from the other end.
    """
    total = first["pagination"]["totalItems"]
    beyond = max(0, total - MAX_POSTS_OF_QUERY)
    return [
        *((number, "ASC") for number in range(2, ceil((total - beyond) / 100) + 1)),
        *((number, "DESC") for number in range(1, ceil(beyond / 100) + 1)),
    ]


def write(pages: Iterable[Any], query: PartitionRange, *, date_basis: str, root: Path) -> int:
    """Write the posts of a query as one file a day and instance; return their number."""
    posts = {(post["instanceId"], post["campaignId"], post["postId"]): post for page in pages for post in page["data"]}
    partitions: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for post in posts.values():
        day = post["postDate"][:10] if date_basis == "post_date" else str(query.start)
        partitions[day, post["instanceId"]].append(_row(post))
    for (day, instance_id), rows in partitions.items():
        directory = root / TABLE_NAMES[date_basis] / f"date={day}" / f"instance_id={quote(instance_id, safe='')}"
        directory.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=POSTS_SCHEMA)
        pq.write_table(table, directory / "part-0.parquet", compression="zstd")
    return len(posts)


def _row(post: dict[str, Any]) -> dict[str, Any]:
    profile = post.pop(_PROFILE) or {}
    row = {_COLUMN[name]: value for name, value in post.items()}
    row |= {f"creator_{_snake_case(name)}": value for name, value in profile.items()}
    row["post_date"] = datetime.fromisoformat(row["post_date"])
    return row


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
