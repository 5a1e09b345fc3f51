"""An interrupt ends a fetch with its run: its client is closed, nothing is written later, its days are logged once."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import date
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import dagster as dg
import pytest
from anyio.from_thread import BlockingPortal
from starlette.requests import Request
from starlette.responses import Response

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.defs.event_loop import iterate, wait_for
from later_reporting_dagster.ingest import slice_writer
from tests.conftest import INSTANCE_IDS, Service, files
from tests.crash.restated_sandbox import NO_RESPONSE
from tests.defs.conftest import DAYS, Project
from tests.services import WAIT_SECONDS

RAW = "post_metrics_daily"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[LaterClient]:
    """The clients that have been opened."""
    opened, enter = list[LaterClient](), LaterClient.__aenter__

    async def record(self: LaterClient) -> LaterClient:
        opened.append(self)
        return await enter(self)

    monkeypatch.setattr(LaterClient, "__aenter__", record)
    return opened


def stalled(service: Service, day: object) -> threading.Event:
    """Send no response for a day; return what is set once one is awaited."""
    reached = threading.Event()

    def wait(request: Request) -> Response | None:
        if f"startDate={day}" not in str(request.url):
            return None
        reached.set()
        return NO_RESPONSE

    service.override = wait
    return reached


def interrupt_when(reached: Callable[[], bool]) -> threading.Thread:
    """Send SIGINT to this process once something is true."""

    def send() -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)  # unlike `raise_signal`, it wakes the main thread

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def assert_ended(
    project: Project, clients: list[LaterClient], run: dg.ExecuteInProcessResult, threads: set[int]
) -> None:
    written = files(project.root)
    assert not run.success
    assert [client._transport._http.is_closed for client in clients] == [True]
    for day in project.materializations(run):  # fails if one is logged twice
        assert len(project.lake.partitions(RAW, days=[date.fromisoformat(day)])) == len(INSTANCE_IDS)
    time.sleep(0.5)  # in which nothing may happen
    assert {thread.native_id for thread in threading.enumerate() if thread.name.startswith("AnyIO")} <= threads
    assert files(project.root) == written


def test_interrupt_while_a_response_is_awaited(
    project: Project,
    service: Service,
    clients: list[LaterClient],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = {thread.native_id or 0 for thread in threading.enumerate()}
    reached = stalled(service, DAYS[1])
    logged, handle = threading.Event(), dg.DagsterInstance.handle_new_event

    def record(self: dg.DagsterInstance, event: Any, **options: Any) -> None:
        handle(self, event, **options)
        if event.dagster_event and event.dagster_event.is_step_materialization:
            logged.set()

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", record)
    sender = interrupt_when(lambda: reached.is_set() and logged.is_set())
    run = project.fetch(RAW)
    sender.join()
    assert_ended(project, clients, run, threads)
    assert str(DAYS[1]) not in project.materializations(run)
    assert project.materializations(run)
    assert "Task was destroyed" not in caplog.text


def test_interrupt_before_the_future_of_a_task_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    start, cancelled = BlockingPortal.start_task_soon, threading.Event()
    calls: list[object] = []

    async def items() -> AsyncGenerator[int]:
        yield 1
        try:
            await asyncio.sleep(WAIT_SECONDS)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def start_and_interrupt(self: BlockingPortal, *arguments: Any, **options: Any) -> Any:
        future = start(self, *arguments, **options)
        calls.append(future)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return future

    monkeypatch.setattr(BlockingPortal, "start_task_soon", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(iterate(items()))
    assert cancelled.is_set()


def test_interrupt_while_a_worker_computes(
    project: Project, clients: list[LaterClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = {thread.native_id or 0 for thread in threading.enumerate()}
    write, begun = slice_writer.SliceWriter._write_batch, threading.Event()

    def slow_write(self: Any, *arguments: Any, **options: Any) -> Any:
        begun.set()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(range(1000))
        return write(self, *arguments, **options)

    monkeypatch.setattr(slice_writer.SliceWriter, "_write_batch", slow_write)
    sender = interrupt_when(begun.is_set)
    run = project.fetch(RAW)
    sender.join()
    assert_ended(project, clients, run, threads)


def test_interrupt_while_dagster_writes_an_event(
    project: Project, service: Service, clients: list[LaterClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster raises it after the write, outside of the asset, whose generators stay suspended."""
    threads = {thread.native_id or 0 for thread in threading.enumerate()}
    stalled(service, DAYS[1])
    handle = dg.DagsterInstance.handle_new_event

    def interrupted(self: dg.DagsterInstance, event: Any, **options: Any) -> None:
        if event.dagster_event and event.dagster_event.is_step_materialization:
            signal.raise_signal(signal.SIGINT)
        handle(self, event, **options)

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", interrupted)
    run = project.fetch(RAW)
    assert_ended(project, clients, run, threads)
    assert len(project.materializations(run)) == 1


def seeds(count: int) -> list[Any]:
    """Return the seeds of random trials: some by default, and all of them in the long tier."""
    return [pytest.param(seed, marks=[pytest.mark.faults] * (seed >= 3)) for seed in range(count)]


@pytest.fixture
def lost_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept that Python drops an interrupt that it raises in a finalizer or in the callback of a weak reference."""
    hook = sys.unraisablehook

    def unless_interrupt(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is not KeyboardInterrupt:
            hook(lost)

    monkeypatch.setattr(sys, "unraisablehook", unless_interrupt)


# An interrupt between the opening of a file, or of a folder for temporary rows, and the block that closes it leaves
# that to Python.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("seed", seeds(60))
@pytest.mark.usefixtures("lost_interrupts")
def test_nothing_is_written_or_requested_after_an_interrupt_at_any_moment(
    seed: int, project: Project, service: Service
) -> None:
    random = Random(seed)
    whole: Sequence[Callable[[], dg.ExecuteInProcessResult]] = [
        lambda: project.fetch(RAW),
        lambda: project.run("instances", "campaigns", "campaign_performance_periods"),
        lambda: project.roll_up("organic_paid_daily"),
        lambda: project.run("coverage", "posts", "organic_paid_by_creator", "campaign_results", "organic_paid_report"),
    ]
    interrupted = random.randrange(len(whole))
    for run in whole[:interrupted]:
        run()
    ended = threading.Event()

    def send() -> None:
        time.sleep(random.uniform(0, 2.5))
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    with suppress(KeyboardInterrupt):
        sender.start()
        whole[interrupted]()
        ended.set()
        sender.join()
    gc.collect()  # what is not closed, here and not in another test
    stored, requests = files(project.root), len(service.requests)
    time.sleep(0.5)  # in which nothing may happen
    assert (files(project.root), len(service.requests)) == (stored, requests)
    assert not [*project.root.rglob(".stage-*")]
    # The statement that was interrupted may keep tables of Dagster's database in memory locked: go on as a new process.
    with dg.DagsterInstance.ephemeral() as instance:
        project = replace(project, instance=instance)
        for run in whole[interrupted:]:
            assert run().success


# Of Dagster, which cannot close a loop of its own then.
@pytest.mark.filterwarnings("ignore:coroutine 'BaseEventLoop.shutdown_asyncgens':RuntimeWarning")
def test_fetch_works_in_a_running_event_loop(project: Project) -> None:
    """As in a notebook."""

    async def run() -> dg.ExecuteInProcessResult:
        return project.run(RAW, tags={"dagster/partition": str(DAYS[0])})

    assert asyncio.run(run()).success


def test_steps_in_one_process_have_loops_of_their_own() -> None:
    async def numbers(count: int) -> Any:
        for number in range(count):
            await asyncio.sleep(0)
            yield number

    first, second = iterate(numbers(3)), iterate(numbers(2))
    assert [next(first), next(second), next(first), next(second)] == [0, 0, 1, 1]
    assert [*first, *second] == [2]
    assert wait_for(lambda: asyncio.sleep(0, "result")) == "result"


def test_interrupt_after_an_item_has_arrived_closes_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment before the item is yielded, when the generator is suspended and no task runs it."""
    ended, result = threading.Event(), Future.result

    async def working() -> Any:
        task = asyncio.create_task(anyio.to_thread.run_sync(time.sleep, 0.5))
        try:
            yield 1
            yield 2
        finally:
            with anyio.CancelScope(shield=True):
                await task
            ended.set()

    def interrupted(self: Future[Any], *arguments: Any) -> Any:
        item = result(self, *arguments)
        if threading.current_thread() is not threading.main_thread():
            return item
        monkeypatch.setattr(Future, "result", result)
        raise KeyboardInterrupt

    items = iterate(working())
    assert next(items) == 1
    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(items)
    assert ended.is_set()
