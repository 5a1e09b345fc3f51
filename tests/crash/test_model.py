"""Lake and ingest against a dictionary: faults, restatements, crashes, damage, compaction, and readers that poll."""

import asyncio
import json
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import Landed, Outcome
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    Lake,
    Partition,
    PartitionDamaged,
    content_hash_of,
    partition_path,
)
from tests.client.service import jwt, page_body, problem
from tests.crash.landings import DAILY, PUBLISHED
from tests.crash.nursery import Nursery, nursery

# As many days as a month needs to be worth compacting, and one more.
DAYS = [date(2024, 3, 1) + timedelta(days=number) for number in range(5)]
INSTANCE_IDS = ["007", "a/b"]
CELLS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]
ROWS_OF_A_PAGE = 3

Row = dict[str, Any]
Answered = tuple[Row, ...]
Cell = tuple[str, Partition]

a_cell = st.sampled_from(CELLS)
some_cells = st.lists(a_cell, min_size=1, unique=True)
a_source = st.sampled_from([PUBLISHED, DAILY])
faults = st.lists(st.sampled_from(["", "", "500", "429", "html", "cut", "401"]), max_size=6)


@st.composite
def posts(draw: st.DrawFn, *, only_good: bool = False) -> Callable[[Partition], Answered]:
    """What a cell may hold, as JSON has it."""
    drawn = draw(
        st.dictionaries(
            st.integers(1, 9),
            st.tuples(st.none() | st.integers(0, 2**53), st.none() | st.floats(0, 1e6), st.integers(0, 7)),
            max_size=7,
        )
    )

    def of(cell: Partition) -> Answered:
        rows = []
        for post_id, (impressions, cpm, oddity) in drawn.items():
            row = {
                "instanceId": cell.instance_id,
                "campaignId": post_id % 2,
                "postId": post_id,
                "postDate": f"{cell.day}T{post_id:02}:00:00.000Z",
                "contentType": "tiktok",
                "impressions": impressions,
                "cpm": cpm,
            }
            if oddity == 6 and not only_good:
                row["mood"] = "new"
            if oddity == 7 and not only_good:
                row["impressions"] = 8500.5
            rows.append(row)
        return tuple(rows)

    return of


def is_bad(row: Row) -> bool:
    return isinstance(row["impressions"], float)


def stored(answered: Answered) -> list[Row]:
    """The rows that the lake must hold of an answer, in its order."""
    rows = [
        dict.fromkeys((column.name for column in POST_COLUMNS), None)
        | {
            "instance_id": row["instanceId"],
            "campaign_id": row["campaignId"],
            "post_id": row["postId"],
            "post_date": datetime.fromisoformat(row["postDate"].replace("Z", "+00:00")),
            "content_type": row["contentType"],
            "platform": "tiktok",
            "impressions": row["impressions"],
            "cpm": row["cpm"],
            "extra": json.dumps({"mood": row["mood"]}, separators=(",", ":")) if "mood" in row else None,
        }
        for row in answered
        if not is_bad(row)
    ]
    return sorted(rows, key=lambda row: (row["campaign_id"], row["post_id"]))


class Service:
    """The truth, a few rows a page. What it was during an ingest is remembered for each cell."""

    def __init__(self) -> None:
        self.truth: dict[Partition, Answered] = dict.fromkeys(CELLS, ())
        self.been: dict[Partition, list[Answered]] = {}
        self.faults: deque[str] = deque()
        self.forbidden: set[str] = set()
        self.amid: deque[tuple[Partition, Answered] | None] = deque()

    def restate(self, cell: Partition, rows: Answered) -> None:
        self.truth[cell] = rows
        self.been.setdefault(cell, []).append(rows)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.url.path == "/oauth/token":
            return JSONResponse({"jwt": jwt()})
        if self.amid and (restated := self.amid.popleft()):
            self.restate(*restated)
        match self.faults.popleft() if self.faults else "":
            case "html":
                return Response("<html>", media_type="text/html")
            case "cut":
                return Response('{"data": [{"instanceId', media_type="application/json")
            case "401":
                return problem(401, "ANL_00401")
            case status if status:
                return Response(status_code=int(status), headers={"Retry-After": "0"})
        if request.url.path == "/v2/instances":
            reach = [each for each in INSTANCE_IDS if each not in self.forbidden]
            body = page_body(reach, page=1, page_size=100, total_items=len(reach))
            return JSONResponse(body | {"data": {"instanceIds": reach}})
        asked, instances = request.query_params, request.query_params.getlist("instanceIds")
        if self.forbidden.intersection(instances):
            return problem(403, "ANL_00403")
        rows = [
            row
            for cell, posts in self.truth.items()
            if asked["startDate"] <= str(cell.day) <= asked["endDate"] and cell.instance_id in instances
            for row in posts
        ]
        rows.sort(key=lambda row: (row["postDate"], row["instanceId"]), reverse=asked.get("sortDirection") == "DESC")
        page = int(asked["pageNumber"])
        of_page = rows[(page - 1) * ROWS_OF_A_PAGE : page * ROWS_OF_A_PAGE]
        return JSONResponse(page_body(of_page, page=page, page_size=ROWS_OF_A_PAGE, total_items=len(rows)))


class LakeAgainstADictionary(RuleBasedStateMachine):
    def __init__(self, writers: Nursery) -> None:
        super().__init__()
        self._writers = writers
        self._directory = tempfile.TemporaryDirectory()
        self.root = Path(self._directory.name) / "lake"
        self.lake = Lake(str(self.root))
        self.service = Service()
        # What the lake must hold: the answer that each partition was last made of; and how much of it was set aside.
        self.model: dict[Cell, Answered] = {}
        self.aside: dict[Cell, int] = {}
        self.damaged: set[Cell] = set()
        self._ages = count(1)

    def teardown(self) -> None:
        self._directory.cleanup()

    # What happens to the service.

    @rule(cell=a_cell, posts=posts())
    def a_cell_is_restated(self, cell: Partition, posts: Callable[[Partition], Answered]) -> None:
        self.service.restate(cell, posts(cell))

    @rule(instance_id=st.sampled_from(INSTANCE_IDS))
    def an_instance_goes_out_of_reach_or_returns(self, instance_id: str) -> None:
        self.service.forbidden ^= {instance_id}

    # What happens to the lake.

    @rule(cells=some_cells, source=a_source)
    def all_lands_from_a_service_that_is_well(self, cells: list[Partition], source: Source) -> None:
        outcomes = self._ingest(cells, source)
        for cell, outcome in outcomes.items():
            assert isinstance(outcome, Landed) == (cell.instance_id not in self.service.forbidden), outcome

    @rule(cells=some_cells, source=a_source, faults=faults)
    def some_land_from_a_service_that_fails(self, cells: list[Partition], source: Source, faults: list[str]) -> None:
        self.service.faults = deque(faults)
        self._ingest(cells, source)
        self.service.faults.clear()

    @rule(cells=some_cells, source=a_source, calm=st.integers(0, 3), posts=posts(), data=st.data())
    def a_cell_is_restated_amid_an_ingest(
        self,
        cells: list[Partition],
        source: Source,
        calm: int,
        posts: Callable[[Partition], Answered],
        data: st.DataObject,
    ) -> None:
        cell = data.draw(st.sampled_from(cells))
        new = posts(cell)
        # Pages of before and after that come to the same number are an answer that no count can tell from a good one.
        if len(new) == len(self.service.truth[cell]):
            return
        self.service.amid = deque([*[None] * calm, (cell, new)])
        self._ingest(cells, source)
        self.service.amid.clear()

    @rule(cells=some_cells, source=a_source, posts=posts(only_good=True), step=st.integers(1, 60))
    def a_writer_is_killed(
        self, cells: list[Partition], source: Source, posts: Callable[[Partition], Answered], step: int
    ) -> None:
        new = {(source.asset, cell): posts(cell) for cell in cells}
        with self._polled(new, {cell: [rows] for cell, rows in new.items()}):
            self._writers.start(
                "die_writing_posts",
                root=str(self.root),
                asset=source.asset,
                posts=[[str(cell.day), cell.instance_id, rows] for (_, cell), rows in new.items()],
                step=step,
            ).wait()
        for cell, rows in new.items():
            found = self._read(cell)
            if found == stored(rows):
                self.model[cell] = rows
                self.damaged.discard(cell)
            # Else it is as it was, which the invariants look at.

    @precondition(lambda self: self.model)
    @rule(data=st.data(), keep=st.floats(0, 0.99))
    def a_file_is_cut_off(self, data: st.DataObject, keep: float) -> None:
        cell = data.draw(st.sampled_from(sorted(self.model)))
        path = self._path(cell)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        self.damaged.add(cell)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def a_file_is_removed(self, data: st.DataObject) -> None:
        cell = data.draw(st.sampled_from(sorted(self.model)))
        self._path(cell).unlink()
        del self.model[cell]
        self.damaged.discard(cell)

    @rule(cell=a_cell, source=a_source, age=st.sampled_from([0, 86_400]))
    def a_writer_of_long_ago_has_left_half_a_file(self, cell: Partition, source: Source, age: int) -> None:
        path = self._path((source.asset, cell)).with_name(f".stage-{1_700_000_000 - age}-0123456789abcdef")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1 and not much more")

    @precondition(lambda self: self.model)
    @rule(source=a_source)
    def the_month_is_compacted(self, source: Source) -> None:
        # A file that was written moments ago is not copied: these have settled, each at a time of its own.
        for path in self.root.glob(f"{source.asset}/**/part-0.parquet"):
            at = 1_700_000_000 + next(self._ages)
            os.utime(path, (at, at))
        for _ in self.lake.compact(source.asset, closed_before=date(2024, 5, 1), now=datetime.now(UTC)):
            pass

    # What holds at any time.

    @invariant()
    def the_lake_holds_what_the_dictionary_does(self) -> None:
        for asset in (PUBLISHED.asset, DAILY.asset):
            present = sorted(cell for of, cell in self.model if of == asset)
            whole = [cell for cell in present if (asset, cell) not in self.damaged]
            assert self.lake.partitions(asset) == present
            table = self.lake.read(asset, whole, schema=POSTS_SCHEMA)
            assert table.to_pylist() == [row for cell in whole for row in stored(self.model[asset, cell])]
            for cell in present:
                if (asset, cell) in self.damaged:
                    with pytest.raises(PartitionDamaged):
                        self.lake.read(asset, [cell], schema=POSTS_SCHEMA)
                    continue
                facts = self.lake.facts(asset, cell)
                assert facts is not None
                assert facts.content_hash == content_hash_of(self.lake.read(asset, [cell], schema=POSTS_SCHEMA))
            aside = self.lake.quarantine.rows(asset)
            for cell, number in ((cell, number) for (of, cell), number in self.aside.items() if of == asset):
                assert sum(row.partition == cell for row in aside) == number

    def _ingest(self, cells: Sequence[Partition], source: Source) -> Mapping[Partition, Outcome]:
        before = dict(self.model)
        been = self.service.been = {cell: [self.service.truth[cell]] for cell in cells}
        outcomes: list[Outcome] = []

        async def no_wait(_seconds: float) -> None:
            return

        async def run() -> None:
            async with LaterClient(
                base_url="http://127.0.0.1:1",
                credentials=ClientCredentials(client_id="c", client_secret="s"),  # noqa: S106
                limiter=RateLimiter(requests=1_000_000),
                retry=RetryPolicy(attempts=3),
                transport=httpx.ASGITransport(self.service),
                sleep=no_wait,
            ) as client:
                await ingest(cells, source=source, client=client, lake=self.lake, deliver=outcomes.append)

        possible = {(source.asset, cell): been[cell] for cell in cells}
        with self._polled(possible, possible):
            asyncio.run(run())
        assert sorted(outcome.partition for outcome in outcomes) == sorted(cells)
        for outcome in outcomes:
            cell = (source.asset, outcome.partition)
            if not isinstance(outcome, Landed):
                self.aside.pop(cell, None)
                continue
            rows = outcome.table.to_pylist()
            answered = [each for each in been[outcome.partition] if stored(each) == rows]
            assert answered, "it landed what the service never held"
            was_there = cell not in self.damaged and cell in before and stored(before[cell]) == rows
            assert outcome.written.changed is not was_there
            self.model[cell] = answered[-1]
            self.damaged.discard(cell)
            bad = {sum(map(is_bad, each)) for each in answered}
            assert outcome.bad_rows in bad
            self.aside[cell] = outcome.bad_rows
        return {outcome.partition: outcome for outcome in outcomes}

    @contextmanager
    def _polled(self, cells: Mapping[Cell, object], versions: Mapping[Cell, list[Answered]]) -> Iterator[None]:
        """While the block runs, a reader must find each cell as it was before or as one of its new versions."""
        before = {cell: self._read(cell) for cell in cells}
        seen: dict[Cell, list[object]] = {cell: [] for cell in cells}
        done = threading.Event()
        problems: list[BaseException] = []

        def poll() -> None:
            try:
                # Without a rest it would keep the writers from their work.
                while not done.wait(0.001):
                    for cell, found in seen.items():
                        now = self._read(cell)
                        if not found or found[-1] != now:
                            found.append(now)
            except BaseException as problem:
                problems.append(problem)

        reader = threading.Thread(target=poll)
        reader.start()
        try:
            yield
        finally:
            done.set()
            reader.join()
        assert problems == []
        for cell, found in seen.items():
            possible = [before[cell], *map(stored, versions[cell])]
            assert all(each in possible for each in found), f"a reader saw something else of {cell}"

    def _read(self, cell: Cell) -> list[Row] | str:
        """The rows as a reader sees them, or why there are none."""
        asset, partition = cell
        try:
            if self.lake.facts(asset, partition) is None:
                return "absent"
            rows: list[Row] = self.lake.read(asset, [partition], schema=POSTS_SCHEMA).to_pylist()
        except PartitionDamaged:
            return "damaged"
        return rows

    def _path(self, cell: Cell) -> Path:
        return self.root / partition_path(*cell)


def test_lake_and_ingest_hold_what_a_dictionary_does(tmp_path: Path) -> None:
    with nursery("tests.crash.writes", log=tmp_path / "log") as writers:
        run_state_machine_as_test(
            lambda: LakeAgainstADictionary(writers),
            settings=settings(
                max_examples=12,
                stateful_step_count=25,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
