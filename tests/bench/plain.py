"""The yardstick: the shortest script that makes the fewest requests and writes the same partitions.

It verifies nothing, retries nothing, paces nothing and keeps no record: what this project does beyond it must cost
little. It makes one range query for `post_date`, and one query a day for `performance_date`.
"""

import asyncio
from collections import defaultdict
from datetime import date, datetime
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from later_reporting_dagster.lake import POSTS_SCHEMA
from tests.bench.workload import CREDENTIALS, Box, Figures

CONCURRENCY = 8
_PROFILE = "creatorProfile"
_COLUMN = {
    "".join([first, *(word.capitalize() for word in rest)]): "_".join([first, *rest])
    for first, *rest in (name.split("_") for name in POSTS_SCHEMA.names)
}


async def fetch(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lands a box, and says what it took."""
    in_flight = asyncio.Semaphore(CONCURRENCY)
    requests = rows = 0
    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
        token = (await client.post("/oauth/token", json=CREDENTIALS)).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"

        async def page(start: date, end: date, number: int, direction: str = "ASC") -> Any:
            nonlocal requests
            async with in_flight:
                requests += 1
                answer = await client.get(
                    "/v2/posts/performance",
                    params={
                        "startDate": str(start),
                        "endDate": str(end),
                        "instanceIds": ",".join(box.instance_ids),
                        "dateBasis": date_basis,
                        "pageSize": 100,
                        "pageNumber": number,
                        "sortProperty": "postDate",
                        "sortDirection": direction,
                    },
                )
            answer.raise_for_status()
            return msgspec.json.decode(answer.content)

        async def land(start: date, end: date) -> None:
            nonlocal rows
            first = await page(start, end, 1)
            total = first["pagination"]["totalItems"]
            # What lies beyond the 500 pages of one direction is reached from the other end.
            beyond = max(0, total - 50_000)
            rest = await asyncio.gather(
                *(page(start, end, number) for number in range(2, ceil((total - beyond) / 100) + 1)),
                *(page(start, end, number, "DESC") for number in range(1, ceil(beyond / 100) + 1)),
            )
            cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
            posts = {
                (post["instanceId"], post["campaignId"], post["postId"]): post
                for answer in (first, *rest)
                for post in answer["data"]
            }
            for post in posts.values():
                day = post["postDate"][:10] if date_basis == "post_date" else str(start)
                cells[day, post["instanceId"]].append(_row(post))
            for (day, instance_id), cell in cells.items():
                directory = root / f"date={day}" / f"instance_id={quote(instance_id, safe='')}"
                directory.mkdir(parents=True, exist_ok=True)
                table = pa.Table.from_pylist(cell, schema=POSTS_SCHEMA)
                pq.write_table(table, directory / "part-0.parquet", compression="zstd")
                rows += len(cell)

        if date_basis == "post_date":
            await land(box.start, box.end)
        else:
            days = iter(box.days)

            async def work() -> None:
                for day in days:
                    await land(day, day)

            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return Figures(requests=requests + 1, rows=rows)


def _row(post: dict[str, Any]) -> dict[str, Any]:
    profile = post.pop(_PROFILE) or {}
    row = {_COLUMN[name]: value for name, value in post.items()}
    row |= {f"creator_{_snake(name)}": value for name, value in profile.items()}
    row["post_date"] = datetime.fromisoformat(row["post_date"])
    return row


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
