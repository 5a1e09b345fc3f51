"""The yardstick: the shortest script that makes the fewest requests and writes the same partitions.

It verifies nothing, retries nothing, paces nothing and keeps no record: what this project does beyond it must cost
little. It makes one range query for `post_date`, and one query a day for `performance_date`.
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

from benchmarks.workload import CREDENTIALS, SOURCES, Box, Figures
from later_reporting_dagster.lake import POSTS_SCHEMA

CONCURRENCY = 8
_PROFILE = "creatorProfile"
_COLUMN = {
    "".join([first, *(word.capitalize() for word in rest)]): "_".join([first, *rest])
    for first, *rest in (name.split("_") for name in POSTS_SCHEMA.names)
}


def land(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lands a box."""
    return Figures(rows=asyncio.run(_land(box, base_url=base_url, date_basis=date_basis, root=root)))


async def _land(box: Box, *, base_url: str, date_basis: str, root: Path) -> int:
    in_flight = asyncio.Semaphore(CONCURRENCY)
    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
        token = (await client.post("/oauth/token", json=CREDENTIALS)).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"

        async def page(query: Box, number: int, direction: str = "ASC") -> Any:
            async with in_flight:
                parameters = parameters_of(query, date_basis, number, direction)
                answer = await client.get("/v2/posts/performance", params=parameters)
            answer.raise_for_status()
            return msgspec.json.decode(answer.content)

        async def answer(query: Box) -> int:
            first = await page(query, 1)
            rest = await asyncio.gather(*(page(query, *each) for each in pages_after(first)))
            return write([first, *rest], query, date_basis=date_basis, root=root)

        queries = iter(box.queries(date_basis))

        async def work() -> int:
            return sum([await answer(query) for query in queries])

        return sum(await asyncio.gather(*(work() for _ in range(CONCURRENCY))))


def parameters_of(query: Box, date_basis: str, number: int, direction: str) -> dict[str, str | int]:
    """What to ask for a page."""
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
    """The pages that the first one leaves; what lies beyond 500 pages of one direction comes from the other end."""
    total = first["pagination"]["totalItems"]
    beyond = max(0, total - 50_000)
    return [
        *((number, "ASC") for number in range(2, ceil((total - beyond) / 100) + 1)),
        *((number, "DESC") for number in range(1, ceil(beyond / 100) + 1)),
    ]


def write(answers: Iterable[Any], query: Box, *, date_basis: str, root: Path) -> int:
    """Writes the posts of a query's pages as a file a day and instance; gives how many they are."""
    posts = {
        (post["instanceId"], post["campaignId"], post["postId"]): post for answer in answers for post in answer["data"]
    }
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for post in posts.values():
        day = post["postDate"][:10] if date_basis == "post_date" else str(query.start)
        cells[day, post["instanceId"]].append(_row(post))
    for (day, instance_id), cell in cells.items():
        directory = root / SOURCES[date_basis] / f"date={day}" / f"instance_id={quote(instance_id, safe='')}"
        directory.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(cell, schema=POSTS_SCHEMA)
        pq.write_table(table, directory / "part-0.parquet", compression="zstd")
    return len(posts)


def _row(post: dict[str, Any]) -> dict[str, Any]:
    profile = post.pop(_PROFILE) or {}
    row = {_COLUMN[name]: value for name, value in post.items()}
    row |= {f"creator_{_snake(name)}": value for name, value in profile.items()}
    row["post_date"] = datetime.fromisoformat(row["post_date"])
    return row


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
