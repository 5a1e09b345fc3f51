"""The plain script once more, with the standard library's client, a thread a connection: as good as the fastest.

CPU a page of 75 KB, at full speed over eight connections: pycurl 0.20 ms, this 0.23, pyreqwest 0.23, aiohttp 0.36
(0.28 with uvloop), urllib3 0.54, niquests 0.95, httpx 1.44; what pycurl saves is less than the noise of a run.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from tests.bench.plain import CONCURRENCY, pages_after, parameters_of, write
from tests.bench.workload import CREDENTIALS, Box, Figures


def land(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lands a box."""
    host = base_url.removeprefix("http://")
    own = threading.local()

    def connect() -> None:
        own.connection = HTTPConnection(host, timeout=60)

    def ask(method: str, path: str, *, body: str | None = None, headers: dict[str, str]) -> Any:
        own.connection.request(method, path, body, headers)
        answer = own.connection.getresponse()
        assert answer.status == 200, answer.status
        return msgspec.json.decode(answer.read())

    def page(query: Box, number: int, direction: str) -> Any:
        asked = urlencode(parameters_of(query, date_basis, number, direction))
        return ask("GET", f"/v2/posts/performance?{asked}", headers={"Authorization": f"Bearer {token}"})

    def answer_of(query: Box) -> int:
        answers = [page(query, 1, "ASC")]
        answers += [page(query, *each) for each in pages_after(answers[0])]
        return write(answers, query, date_basis=date_basis, root=root)

    connect()
    token = ask("POST", "/oauth/token", body=json.dumps(CREDENTIALS), headers={"Content-Type": "application/json"})[
        "jwt"
    ]
    with ThreadPoolExecutor(CONCURRENCY, initializer=connect) as threads:
        # Either the pages of one query side by side, or many queries.
        if date_basis == "performance_date":
            return Figures(rows=sum(threads.map(answer_of, box.queries(date_basis))))
        first = page(box, 1, "ASC")
        rest = threads.map(lambda each: page(box, *each), pages_after(first))
        return Figures(rows=write([first, *rest], box, date_basis=date_basis, root=root))
