"""A stateful test: the lake equals a dictionary after faults, restatements, kills, damage and compaction."""

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
from later_reporting_dagster.ingest.partition_writer import PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.raw_tables import RawTable
from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    FileDamaged,
    Lake,
    Partition,
    content_hash_of,
    partition_path,
)
from tests.client.scripted_api import jwt, page_body, problem
from tests.crash.fork_server import ForkServer, fork_server
from tests.crash.restated_sandbox import DAILY, PUBLISHED

# One day more than compaction requires of a month.
DAYS = [date(2024, 3, 1) + timedelta(days=number) for number in range(5)]
INSTANCE_IDS = ["007", "a/b"]
PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]
ROWS_PER_PAGE = 3

Row = dict[str, Any]
Rows = tuple[Row, ...]
TablePartition = tuple[str, Partition]
RowsOfPartition = Callable[[Partition], Rows]

one_partition = st.sampled_from(PARTITIONS)
some_partitions = st.lists(one_partition, min_size=1, unique=True)
raw_tables = st.sampled_from([PUBLISHED, DAILY])
faults = st.lists(st.sampled_from(["", "", "500", "429", "html", "cut", "401"]), max_size=6)


@st.composite
def posts(draw: st.DrawFn, *, without_bad_rows: bool = False) -> RowsOfPartition:
    """Draw a function that returns JSON rows for a partition."""
    drawn = draw(
        st.dictionaries(
            st.integers(1, 9),
            st.tuples(st.none() | st.integers(0, 2**53), st.none() | st.floats(0, 1e6), st.integers(0, 7)),
            max_size=7,
        )
    )

    def rows_of(partition: Partition) -> Rows:
        rows = []
        for post_id, (impressions, cpm, kind) in drawn.items():
            row = {
                "instanceId": partition.instance_id,
                "campaignId": post_id % 2,
                "postId": post_id,
                "postDate": f"{partition.day}T{post_id:02}:00:00.000Z",
                "contentType": "tiktok",
                "impressions": impressions,
                "cpm": cpm,
            }
            if kind == 6 and not without_bad_rows:
                row["mood"] = "new"
            if kind == 7 and not without_bad_rows:
                row["impressions"] = 8500.5
            rows.append(row)
        return tuple(rows)

    return rows_of


def is_bad(row: Row) -> bool:
    return isinstance(row["impressions"], float)


def stored_form(rows: Rows) -> list[Row]:
    """Return the rows that the lake must store for JSON rows, in its order."""
    stored = [
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
        for row in rows
        if not is_bad(row)
    ]
    return sorted(stored, key=lambda row: (row["campaign_id"], row["post_id"]))


class Service:
    """An API with mutable rows and a few rows per page.

    Attributes:
        rows: Current rows by partition.
        history: Rows by partition that were current at any time during an ingest.
        faults: Faults of the next requests.
        forbidden: Instances that the credentials cannot access.
        restatements: Changes to apply before the next requests.
    """

    def __init__(self) -> None:
        self.rows: dict[Partition, Rows] = dict.fromkeys(PARTITIONS, ())
        self.history: dict[Partition, list[Rows]] = {}
        self.faults: deque[str] = deque()
        self.forbidden: set[str] = set()
        self.restatements: deque[tuple[Partition, Rows] | None] = deque()

    def restate(self, partition: Partition, rows: Rows) -> None:
        self.rows[partition] = rows
        self.history.setdefault(partition, []).append(rows)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._respond(Request(scope))(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        if request.url.path == "/oauth/token":
            return JSONResponse({"jwt": jwt()})
        if self.restatements and (restated := self.restatements.popleft()):
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
            listed = [each for each in INSTANCE_IDS if each not in self.forbidden]
            body = page_body(listed, page=1, page_size=100, total_items=len(listed))
            return JSONResponse(body | {"data": {"instanceIds": listed}})
        query, instances = request.query_params, request.query_params.getlist("instanceIds")
        if self.forbidden.intersection(instances):
            return problem(403, "ANL_00403")
        rows = [
            row
            for partition, posts in self.rows.items()
            if query["startDate"] <= str(partition.day) <= query["endDate"] and partition.instance_id in instances
            for row in posts
        ]
        rows.sort(key=lambda row: (row["postDate"], row["instanceId"]), reverse=query.get("sortDirection") == "DESC")
        page = int(query["pageNumber"])
        page_rows = rows[(page - 1) * ROWS_PER_PAGE : page * ROWS_PER_PAGE]
        return JSONResponse(page_body(page_rows, page=page, page_size=ROWS_PER_PAGE, total_items=len(rows)))


class LakeModel(RuleBasedStateMachine):
    """A lake and the dictionary that it must equal.

    Attributes:
        model: JSON rows of each partition when it was last written.
        quarantined: Number of bad rows of each partition in quarantine.
        damaged: Partitions with a damaged file.
    """

    def __init__(self, writers: ForkServer) -> None:
        super().__init__()
        self._writers = writers
        self._directory = tempfile.TemporaryDirectory()
        self.root = Path(self._directory.name) / "lake"
        self.lake = Lake(str(self.root))
        self.service = Service()
        self.model: dict[TablePartition, Rows] = {}
        self.quarantined: dict[TablePartition, int] = {}
        self.damaged: set[TablePartition] = set()
        self._ages = count(1)

    def teardown(self) -> None:
        self._directory.cleanup()

    # Changes of the service

    @rule(partition=one_partition, posts=posts())
    def restate_partition(self, partition: Partition, posts: RowsOfPartition) -> None:
        self.service.restate(partition, posts(partition))

    @rule(instance_id=st.sampled_from(INSTANCE_IDS))
    def toggle_access_to_instance(self, instance_id: str) -> None:
        self.service.forbidden ^= {instance_id}

    # Changes of the lake

    @rule(partitions=some_partitions, raw_table=raw_tables)
    def ingest_without_faults(self, partitions: list[Partition], raw_table: RawTable) -> None:
        outcomes = self._ingest(partitions, raw_table)
        for partition, outcome in outcomes.items():
            assert isinstance(outcome, WrittenPartition) == (partition.instance_id not in self.service.forbidden), (
                outcome
            )

    @rule(partitions=some_partitions, raw_table=raw_tables, faults=faults)
    def ingest_with_faults(self, partitions: list[Partition], raw_table: RawTable, faults: list[str]) -> None:
        self.service.faults = deque(faults)
        self._ingest(partitions, raw_table)
        self.service.faults.clear()

    @rule(
        partitions=some_partitions,
        raw_table=raw_tables,
        requests_before=st.integers(0, 3),
        posts=posts(),
        data=st.data(),
    )
    def restate_partition_during_ingest(
        self,
        partitions: list[Partition],
        raw_table: RawTable,
        requests_before: int,
        posts: RowsOfPartition,
        data: st.DataObject,
    ) -> None:
        partition = data.draw(st.sampled_from(partitions))
        new = posts(partition)
        # With equal numbers of rows, totals do not show that pages are from before and after the restatement.
        if len(new) == len(self.service.rows[partition]):
            return
        self.service.restatements = deque([*[None] * requests_before, (partition, new)])
        self._ingest(partitions, raw_table)
        self.service.restatements.clear()

    @rule(partitions=some_partitions, raw_table=raw_tables, posts=posts(without_bad_rows=True), step=st.integers(1, 60))
    def kill_writer(self, partitions: list[Partition], raw_table: RawTable, posts: RowsOfPartition, step: int) -> None:
        new = {(raw_table.name, partition): posts(partition) for partition in partitions}
        with self._while_polling({partition: [rows] for partition, rows in new.items()}):
            self._writers.start(
                "write_posts_and_die",
                root=str(self.root),
                table_name=raw_table.name,
                posts=[[str(partition.day), partition.instance_id, rows] for (_, partition), rows in new.items()],
                step=step,
            ).wait()
        for partition, rows in new.items():
            found = self._read(partition)
            if found == stored_form(rows):
                self.model[partition] = rows
                self.damaged.discard(partition)
            # Otherwise it is unchanged, which the invariants check.

    @precondition(lambda self: self.model)
    @rule(data=st.data(), keep=st.floats(0, 0.99))
    def truncate_file(self, data: st.DataObject, keep: float) -> None:
        partition = data.draw(st.sampled_from(sorted(self.model)))
        path = self._path(partition)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        self.damaged.add(partition)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_file(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.model)))
        self._path(partition).unlink()
        del self.model[partition]
        self.damaged.discard(partition)

    @rule(partition=one_partition, raw_table=raw_tables, age=st.sampled_from([0, 86_400]))
    def leave_old_staged_file(self, partition: Partition, raw_table: RawTable, age: int) -> None:
        path = self._path((raw_table.name, partition)).with_name(f".stage-{1_700_000_000 - age}-0123456789abcdef")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1 and not much more")

    @precondition(lambda self: self.model)
    @rule(raw_table=raw_tables)
    def compact_month(self, raw_table: RawTable) -> None:
        # Compaction skips recent files and detects changes by modification time: set distinct times in the past.
        for path in self.root.glob(f"{raw_table.name}/**/part-0.parquet"):
            at = 1_700_000_000 + next(self._ages)
            os.utime(path, (at, at))
        for _ in self.lake.compact(raw_table.name, closed_before=date(2024, 5, 1), now=datetime.now(UTC)):
            pass

    # Invariants

    @invariant()
    def lake_equals_model(self) -> None:
        for table_name in (PUBLISHED.name, DAILY.name):
            existing = sorted(partition for name, partition in self.model if name == table_name)
            undamaged = [partition for partition in existing if (table_name, partition) not in self.damaged]
            assert self.lake.partitions(table_name) == existing
            table = self.lake.read(table_name, undamaged, schema=POSTS_SCHEMA)
            assert table.to_pylist() == [
                row for partition in undamaged for row in stored_form(self.model[table_name, partition])
            ]
            for partition in existing:
                if (table_name, partition) in self.damaged:
                    with pytest.raises(FileDamaged):
                        self.lake.read(table_name, [partition], schema=POSTS_SCHEMA)
                    continue
                metadata = self.lake.read_metadata(table_name, partition)
                assert metadata is not None
                assert metadata.content_hash == content_hash_of(
                    self.lake.read(table_name, [partition], schema=POSTS_SCHEMA)
                )
            bad_rows = self.lake.quarantine.rows(table_name)
            for (name, partition), number in self.quarantined.items():
                if name == table_name:
                    assert sum(row.partition == partition for row in bad_rows) == number

    def _ingest(self, partitions: Sequence[Partition], raw_table: RawTable) -> Mapping[Partition, PartitionResult]:
        before = dict(self.model)
        history = self.service.history = {partition: [self.service.rows[partition]] for partition in partitions}
        outcomes: list[PartitionResult] = []

        async def no_wait(_seconds: float) -> None:
            return

        async def run() -> None:
            async with LaterClient(
                base_url="http://127.0.0.1:1",
                credentials=ClientCredentials(client_id="c", client_secret="s"),  # noqa: S106
                limiter=RateLimiter(requests=1_000_000),
                retry=RetryPolicy(max_attempts=3),
                transport=httpx.ASGITransport(self.service),
                sleep=no_wait,
            ) as client:
                await ingest(partitions, table=raw_table, client=client, lake=self.lake, on_result=outcomes.append)

        possible = {(raw_table.name, partition): history[partition] for partition in partitions}
        with self._while_polling(possible):
            asyncio.run(run())
        assert sorted(outcome.partition for outcome in outcomes) == sorted(partitions)
        for outcome in outcomes:
            partition = (raw_table.name, outcome.partition)
            if not isinstance(outcome, WrittenPartition):
                self.quarantined.pop(partition, None)
                continue
            rows = outcome.posts.to_pylist()
            matching = [each for each in history[outcome.partition] if stored_form(each) == rows]
            assert matching, "the lake has rows that the service never had"
            was_stored = (
                partition not in self.damaged and partition in before and stored_form(before[partition]) == rows
            )
            assert outcome.file.changed is not was_stored
            self.model[partition] = matching[-1]
            self.damaged.discard(partition)
            assert outcome.bad_rows in {sum(map(is_bad, each)) for each in matching}
            self.quarantined[partition] = outcome.bad_rows
        return {outcome.partition: outcome for outcome in outcomes}

    @contextmanager
    def _while_polling(self, versions: Mapping[TablePartition, list[Rows]]) -> Iterator[None]:
        """Poll partitions while the block runs; assert that each is as before or has one of its new versions."""
        before = {partition: self._read(partition) for partition in versions}
        seen: dict[TablePartition, list[object]] = {partition: [] for partition in versions}
        done = threading.Event()
        problems: list[BaseException] = []

        def poll() -> None:
            try:
                # Without a pause, polling would slow down the writers.
                while not done.wait(0.001):
                    for partition, found in seen.items():
                        now = self._read(partition)
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
        for partition, found in seen.items():
            possible = [before[partition], *map(stored_form, versions[partition])]
            assert all(each in possible for each in found), f"a reader got other rows of {partition}"

    def _read(self, partition: TablePartition) -> list[Row] | str:
        """Return the rows of a partition, or why it cannot be read."""
        table_name, each = partition
        try:
            if self.lake.read_metadata(table_name, each) is None:
                return "absent"
            rows: list[Row] = self.lake.read(table_name, [each], schema=POSTS_SCHEMA).to_pylist()
        except FileDamaged:
            return "damaged"
        return rows

    def _path(self, partition: TablePartition) -> Path:
        return self.root / partition_path(*partition)


def test_lake_equals_model(tmp_path: Path) -> None:
    with fork_server("tests.crash.lake_writers", log=tmp_path / "log") as writers:
        run_state_machine_as_test(
            lambda: LakeModel(writers),
            settings=settings(
                max_examples=12,
                stateful_step_count=25,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
