"""Events in batches, on a real PostgreSQL server: the same as one by one, and none is lost when a run fails."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.context.asset_execution_context import AssetExecutionContext

from later_reporting_dagster.defs import event_batch
from later_reporting_dagster.defs.checks import log_check_results
from later_reporting_dagster.defs.event_batch import batched_events, stores_batches
from tests.conftest import INSTANCE_IDS, Service, files
from tests.crash.restated_sandbox import NO_RESPONSE
from tests.defs.conftest import DAYS, Project, asset_key, reject_instance
from tests.services import postgres_storage, running_postgres

pytestmark = pytest.mark.services

MATERIALIZATION, CHECK = dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION
LETTERS = ("a", "b", "c", "d", "e")
TABLE, OTHER = dg.AssetKey("table"), dg.AssetKey("other")


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def dagster_home(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a Dagster instance whose storage is the PostgreSQL server."""
    home = tmp_path / "postgres-home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n" + postgres_storage(postgres_url))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@pytest.fixture
def instance(dagster_home: Path) -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance on PostgreSQL."""
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        instance.wipe()
        yield instance


@pytest.fixture
def batches(postgres_url: str) -> Callable[[], list[int]]:
    """Return the sizes of the stored batches: the rows of one statement have the same transaction id."""

    def sizes() -> list[int]:
        with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
                " GROUP BY xmin, asset_key ORDER BY min(id)"
            )
            return [size for (size,) in cursor.fetchall()]

    return sizes


def normalized(entry: dg.EventLogEntry) -> Any:
    """Return the stored JSON of an event without what differs between two runs: ids, and times."""
    document = json.loads(dg.serialize_value(entry).replace(entry.run_id, "the run"))
    document["timestamp"] = document["dagster_event"]["pid"] = None
    text = json.dumps(document, sort_keys=True)
    data = entry.get_dagster_event().event_specific_data
    tags = data.materialization.tags if hasattr(data, "materialization") else {}
    for name, value in tags.items():
        if name.startswith("dagster/input_event_pointer/"):
            text = text.replace(f'"{name}": "{value}"', f'"{name}": "a storage id"')
    return json.loads(text)


def what_dagster_shows(project: Project, run_id: str, asset: str) -> dict[str, Any]:
    """Return what an instance has stored of a run of one asset, without what differs between two runs."""
    instance, key = project.instance, asset_key(asset)
    entries = [entry for entry in instance.all_logs(run_id) if entry.is_dagster_event]
    by_type: dict[dg.DagsterEventType | None, list[Any]] = {MATERIALIZATION: [], CHECK: []}
    for entry in entries:
        if entry.dagster_event_type in by_type:
            by_type[entry.dagster_event_type].append(normalized(entry))
    (record,) = instance.get_asset_records([key])
    newest = record.asset_entry.last_materialization
    assert newest is not None
    checks = [
        check_key for check_key in project.defs.resolve_asset_graph().asset_check_keys if check_key.asset_key == key
    ]
    executions = [
        each
        for check_key in checks
        for each in instance.event_log_storage.get_asset_check_execution_history(check_key, limit=10)
    ]
    stats = instance.get_run_stats(run_id)
    return {
        "materializations": by_type[MATERIALIZATION],
        "check results": by_type[CHECK],
        "events": Counter(entry.dagster_event_type for entry in entries),
        "newest": normalized(newest),
        "run of the newest": record.asset_entry.last_run_id == run_id,
        "partitions": sorted(instance.get_materialized_partitions(key)),
        "statuses": project.statuses(asset),
        "in sync": [project.is_in_sync(asset, str(day)) for day in DAYS],
        "tags": sorted(
            sorted((name, value) for name, value in tags.items() if "pointer" not in name and "code" not in name)
            for tags in instance.get_event_tags_for_asset(key) or [{}]
        ),
        "checks": sorted((each.key.name, each.status.value, each.run_id == run_id) for each in executions),
        "counts": (stats.materializations, stats.steps_succeeded, stats.steps_failed),
    }


@pytest.mark.parametrize("rejected", [False, True], ids=["success", "failure"])
def test_events_equal_those_of_sqlite(
    rejected: bool,
    service: Service,
    project_on_disk: Project,
    instance: dg.DagsterInstance,
    batches: Callable[[], list[int]],
) -> None:
    shown = []
    for project in (project_on_disk, replace(project_on_disk, instance=instance)):
        for path in sorted(project.root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        service.override = reject_instance(INSTANCE_IDS[2]) if rejected else lambda request: None
        fetched, rolled_up = project.fetch("posts_published"), project.roll_up("organic_paid_by_publish_day")
        assert fetched.success is not rejected
        assert rolled_up.success
        shown.append(
            {
                "posts": what_dagster_shows(project, fetched.run_id, "posts_published"),
                "rollup": what_dagster_shows(project, rolled_up.run_id, "organic_paid_by_publish_day"),
                "in the result": [
                    (event.event_type, event.asset_key, event.partition)
                    for result in (fetched, rolled_up)
                    for event in result.all_events
                    if event.event_type in (MATERIALIZATION, CHECK)
                ],
            }
        )
    on_sqlite, on_postgres = shown
    assert on_postgres == on_sqlite
    assert len(on_sqlite["posts"]["materializations"]) == len(DAYS)
    assert batches() == [len(DAYS), len(DAYS)]


def run_asset(instance: dg.DagsterInstance, body: Callable[[AssetExecutionContext], None]) -> dg.ExecuteInProcessResult:
    """Run `body` within `batched_events` in an asset of all letters."""

    @dg.asset(
        key=TABLE,
        partitions_def=dg.StaticPartitionsDefinition([*LETTERS]),
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
    )
    def table(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        with batched_events(context):
            body(context)
        yield from ()

    return dg.materialize(
        [table],
        instance=instance,
        tags={"dagster/asset_partition_range_start": LETTERS[0], "dagster/asset_partition_range_end": LETTERS[-1]},
        raise_on_error=False,
    )


def add(context: AssetExecutionContext, day: date, key: dg.AssetKey = TABLE) -> None:
    tags = {"dagster/data_version": "version"}
    event = dg.AssetMaterialization(key, partition=str(day), metadata={"weekday": day.weekday()}, tags=tags)
    event_batch.log_event(context, event)


def add_all(context: AssetExecutionContext) -> None:
    for day in DAYS:
        add(context, day)


def stored_days(instance: dg.DagsterInstance, key: dg.AssetKey = TABLE) -> list[str | None]:
    """Return the materialized partitions in the order of storage."""
    return [record.partition_key for record in reversed(instance.fetch_materializations(key, limit=1000).records)]


def test_full_batches_are_stored_at_once(
    instance: dg.DagsterInstance, batches: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_batch, "MAX_BATCH_EVENTS", 2)
    monkeypatch.setattr(event_batch, "MAX_BATCH_SECONDS", 3600)
    counts = []

    def body(context: AssetExecutionContext) -> None:
        for day in DAYS:
            add(context, day)
            counts.append(len(stored_days(instance)))

    assert run_asset(instance, body).success
    assert counts == [0, 2, 2]
    assert batches() == [2, 1]
    assert stored_days(instance) == [*map(str, DAYS)]


def test_events_are_stored_with_the_next_one_when_the_time_is_over(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    elapsed, counts = [0.0], []
    monkeypatch.setattr(event_batch.time, "monotonic", lambda: elapsed[0])

    def body(context: AssetExecutionContext) -> None:
        batch = event_batch.EventBatch(context, now=lambda: elapsed[0])
        for seconds in (4.9, 5.0, 9.9, 10.1):
            elapsed[0] = seconds
            batch.add(dg.AssetMaterialization(TABLE, partition=f"{seconds}"))
            counts.append(len(stored_days(instance)))
        batch.flush()

    assert run_asset(instance, body).success
    assert counts == [0, 2, 2, 4]


def test_events_keep_their_order_by_asset(instance: dg.DagsterInstance, batches: Callable[[], list[int]]) -> None:
    newer = [DAYS[0] + timedelta(days=number) for number in range(150)]

    def body(context: AssetExecutionContext) -> None:
        for day in newer:
            add(context, day)
            add(context, day, OTHER)

    assert run_asset(instance, body).success
    assert stored_days(instance) == stored_days(instance, OTHER) == [*map(str, newer)]
    assert batches() == [50, 50] * 3
    (record,) = instance.get_asset_records([OTHER])
    assert record.asset_entry.last_materialization is not None
    assert record.asset_entry.last_materialization.get_dagster_event().partition == str(newer[-1])


def test_check_results_follow_the_materializations_before_them(instance: dg.DagsterInstance) -> None:
    def body(context: AssetExecutionContext) -> None:
        add(context, DAYS[0])
        log_check_results(context, [dg.AssetCheckResult(check_name="is_good", passed=True)])
        add(context, DAYS[1])

    result = run_asset(instance, body)
    assert result.success
    types = [entry.dagster_event_type for entry in instance.all_logs(result.run_id)]
    assert [each for each in types if each in (MATERIALIZATION, CHECK)] == [MATERIALIZATION, CHECK, MATERIALIZATION]


@pytest.mark.parametrize("error", [dg.Failure("no"), ValueError("no"), DagsterExecutionInterruptedError()], ids=repr)
def test_run_that_ends_early_stores_its_events(error: BaseException, instance: dg.DagsterInstance) -> None:
    def body(context: AssetExecutionContext) -> None:
        add(context, DAYS[0])
        add(context, DAYS[1])
        assert stored_days(instance) == []
        raise error

    assert not run_asset(instance, body).success
    assert stored_days(instance) == [*map(str, DAYS[:2])]


def test_interrupt_while_a_batch_is_stored_loses_no_event(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = instance.event_log_storage
    store_event_batch = storage.store_event_batch

    def interrupted(events: Any) -> None:
        monkeypatch.setattr(storage, "store_event_batch", store_event_batch)
        raise DagsterExecutionInterruptedError

    monkeypatch.setattr(storage, "store_event_batch", interrupted)
    monkeypatch.setattr(event_batch, "MAX_BATCH_EVENTS", len(DAYS))
    assert not run_asset(instance, add_all).success
    assert stored_days(instance) == [*map(str, DAYS)]


def test_batch_that_cannot_be_stored_is_stored_one_by_one(
    instance: dg.DagsterInstance, batches: Callable[[], list[int]], postgres_url: str
) -> None:
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        # As a pooler or a limit on the size of a statement would.
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF (SELECT count(*) FROM inserted) > 1 THEN RAISE 'one row at a time'; END IF; RETURN NULL; END $$;"
            " CREATE TRIGGER refuse AFTER INSERT ON event_logs REFERENCING NEW TABLE AS inserted"
            " EXECUTE FUNCTION refuse()"
        )
    try:
        result = run_asset(instance, add_all)
    finally:
        with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER refuse ON event_logs; DROP FUNCTION refuse")
    assert result.success
    assert stored_days(instance) == [*map(str, DAYS)]
    assert batches() == [1] * len(DAYS)
    (message,) = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.level == logging.WARNING]
    assert message.startswith("Storing 3 events one by one, because their batch failed: ")
    assert "one row at a time" in message
    assert len(message) < 400


def test_other_events_and_other_threads_are_not_held_back(instance: dg.DagsterInstance) -> None:
    held_back: list[dg.EventLogEntry] = []

    def body(context: AssetExecutionContext) -> None:
        with event_batch._held_back(instance.event_log_storage, held_back):
            context.log.info("a line")
            context.log_event(dg.AssetMaterialization(TABLE, partition="of this thread"))
            thread = Thread(target=context.log_event, args=[dg.AssetMaterialization(TABLE, partition="of another")])
            thread.start()
            thread.join()

    result = run_asset(instance, body)
    assert "a line" in [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert stored_days(instance) == ["of another"]
    assert [entry.get_dagster_event().partition for entry in held_back] == ["of this thread"]


def test_events_are_stored_at_once_if_dagster_does_not_call_the_storage(
    instance: dg.DagsterInstance, batches: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a later version of Dagster may do: it stores events by another function.
    stored = type(instance.event_log_storage).store_event
    monkeypatch.setattr(
        dg.DagsterInstance, "handle_new_event", lambda self, event, **_: stored(self.event_log_storage, event)
    )
    counts = []

    def body(context: AssetExecutionContext) -> None:
        for day in DAYS:
            add(context, day)
            counts.append(len(stored_days(instance)))

    run_asset(instance, body)
    assert counts == [1, 2, 3]
    assert batches() == [1] * len(DAYS)


def test_sqlite_stores_each_event_at_once(project_on_disk: Project) -> None:
    instance, counts = project_on_disk.instance, []

    def body(context: AssetExecutionContext) -> None:
        for day in DAYS:
            add(context, day)
            counts.append(len(stored_days(instance)))

    assert not stores_batches(instance.event_log_storage)
    assert run_asset(instance, body).success
    assert counts == [1, 2, 3]


def test_sensors_see_every_event_of_a_batch(instance: dg.DagsterInstance) -> None:
    @dg.sensor(job_name="later")
    def follows_all(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        records = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=TABLE, after_storage_id=int(context.cursor or 0)), limit=2, ascending=True
        ).records
        seen.append([record.partition_key for record in records])
        return dg.SensorResult(cursor=str(records[-1].storage_id) if records else context.cursor)

    @dg.asset_sensor(asset_key=TABLE, job_name="later")
    def follows_newest(context: dg.SensorEvaluationContext, event: dg.EventLogEntry) -> dg.SkipReason:
        newest.append(event.get_dagster_event().partition)
        return dg.SkipReason("seen")

    seen: list[list[str | None]] = []
    newest: list[str | None] = []
    assert run_asset(instance, add_all).success

    table = dg.asset(key=TABLE, partitions_def=dg.DailyPartitionsDefinition(str(DAYS[0])))(lambda: None)
    definitions = dg.Definitions(assets=[table], jobs=[dg.define_asset_job("later", "*")])
    for sensor in (follows_all, follows_newest):
        cursor: str | None = None
        for _ in range(3):
            with dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions) as context:
                cursor = sensor.evaluate_tick(context).cursor
    assert seen == [[*map(str, DAYS[:2])], [str(DAYS[2])], []]
    assert newest == [str(DAYS[-1])]


# The first lines of a process that stores nothing before the end of its run.
CHILD = """
from dataclasses import replace
import dagster as dg
from later_reporting_dagster.defs import event_batch
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.partitions import range_tags
from tests.defs.conftest import DAYS, asset_key
event_batch.MAX_BATCH_SECONDS = 3600
defs.resolve_implicit_global_asset_job_def().execute_in_process(
    instance=dg.DagsterInstance.get(),
    asset_selection=[asset_key("post_metrics_daily")],
    tags=range_tags(DAYS[0], DAYS[-1]),
)
"""


def test_events_lost_by_a_kill_are_reported_by_the_next_run(
    service: Service, settings: None, project_on_disk: Project, instance: dg.DagsterInstance
) -> None:
    project = replace(project_on_disk, instance=instance)
    service.override = lambda request: NO_RESPONSE if str(DAYS[-1]) in request.url.query else None
    environment = os.environ | {"LATER_START_DATE": str(DAYS[0])}
    command = [sys.executable, "-u", "-c", CHILD]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        logged = (line for line in process.stderr if "ASSET_MATERIALIZATION - " in line)
        lines = [next(logged) for _ in DAYS[:-1]]
        process.send_signal(signal.SIGKILL)
    assert len(lines) == 2
    written = files(project.root)
    assert len(written) == 2 * len(INSTANCE_IDS)
    assert stored_days(instance, asset_key("post_metrics_daily")) == []

    service.override = lambda request: None
    result = project.fetch("post_metrics_daily")
    assert result.success
    assert sorted(project.materializations(result)) == [*map(str, DAYS)]
    assert {path: content for path, content in files(project.root).items() if path in written} == written
