"""The code location mails about a failed run and about a failed check, by SMTP."""

import importlib
import socketserver
import threading
from collections.abc import Iterator

import dagster as dg
import pytest

from later_reporting_dagster import definitions


class Mailbox(socketserver.ThreadingTCPServer):
    """An SMTP server on a free port that keeps the mails that it receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SmtpHandler)
        self.mails: list[str] = []


class SmtpHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                mail = b"".join(iter(self.rfile.readline, b".\r\n"))
                assert isinstance(self.server, Mailbox)
                self.server.mails.append(mail.decode())
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    with Mailbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ALERTS_SMTP", f"127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("ALERTS_FROM", "dagster@example.com")
        monkeypatch.setenv("ALERTS_TO", "data@example.com")
        monkeypatch.setenv("ALERTS_UI", "https://dagster.example.com/")
        yield server
        server.shutdown()


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2024-03-01"),
    check_specs=[dg.AssetCheckSpec("complete", asset="posts")],
)
def posts(config: dict[str, bool]) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    yield dg.AssetCheckResult(passed=config["complete"], description="2 files are missing")
    if config["fails"]:
        raise dg.Failure("the API is down")
    yield dg.MaterializeResult()


@pytest.mark.parametrize(
    ("complete", "fails", "texts"),
    [
        (True, False, []),
        (False, False, ["Subject: Dagster: failures in run ", "ERROR  posts  complete: 2 files are missing"]),
        (
            True,
            True,
            ["for 2024-03-01, https://dagster.example.com/runs/", "The run failed: ", "posts: the API is down"],
        ),
    ],
)
def test_alerts_mail_what_failed(complete: bool, fails: bool, texts: list[str], mailbox: Mailbox) -> None:
    defs = importlib.reload(definitions).defs
    with dg.DagsterInstance.ephemeral() as instance:
        config = {"ops": {"posts": {"config": {"complete": complete, "fails": fails}}}}
        result = dg.materialize(
            [posts], instance=instance, run_config=config, partition_key="2024-03-01", raise_on_error=False
        )
        status = dg.DagsterRunStatus.FAILURE if fails else dg.DagsterRunStatus.SUCCESS
        (sensor,) = [each for each in defs.sensors or [] if each.name == f"mail_about_{status.value.lower()}"]
        kind = dg.DagsterEventType.PIPELINE_FAILURE if fails else dg.DagsterEventType.PIPELINE_SUCCESS
        (event,) = instance.all_logs(result.run_id, of_type=kind)
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert event.dagster_event is not None
        context = dg.build_run_status_sensor_context(sensor.name, event.dagster_event, instance, run)
        sensor(context)  # type: ignore[operator]
    assert len(mailbox.mails) == bool(texts)
    assert all(text in mailbox.mails[0] for text in texts)


def test_code_location_mails_nothing_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALERTS_SMTP", raising=False)
    sensors = importlib.reload(definitions).defs.sensors or []
    assert {each.name for each in sensors} == {"later_missing_files", "later_rollups"}
