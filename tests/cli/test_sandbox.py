"""`later-reporting sandbox`: the documented endpoint for whoever wants to curl it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import httpx
import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli import main
from later_reporting_dagster.client.base_url import checked_base_url
from later_reporting_dagster.sandbox import FAULTS, FAULTS_HEADER, HOSTILE
from tests.cli.conftest import environment, error_line


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """The command in a process of its own, which ends with the block, its output and its errors."""
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "sandbox", "--port", "0", "--instances", "2"]
    environment_of_it = {**environment(), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *options], env=environment_of_it, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.kill()


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    """What the command says as it starts; it serves while the tests run, and ends as a Ctrl-C ends it."""
    with started() as (process, output, errors):
        yield [output.readline().strip() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert errors.read() == ""


@pytest.fixture(scope="module")
def api(lines: list[str]) -> Iterator[httpx.Client]:
    """A client as a person makes one from what the command prints."""
    settings = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
    with httpx.Client(base_url=settings["LATER_BASE_URL"]) as client:
        credentials = {"clientId": settings["LATER_CLIENT_ID"], "clientSecret": settings["LATER_CLIENT_SECRET"]}
        token = client.post("/oauth/token", json=credentials).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def test_its_first_line_says_that_the_data_is_synthetic(lines: list[str]) -> None:
    assert "SYNTHETIC DATA" in lines[0]


def test_it_prints_the_settings_that_point_at_it(lines: list[str]) -> None:
    assert [line.partition("=")[0] for line in lines[1:]] == [
        "export LATER_BASE_URL",
        "export LATER_CLIENT_ID",
        "export LATER_CLIENT_SECRET",
    ]


def test_it_serves_as_many_instances_as_it_was_told(api: httpx.Client) -> None:
    listed = api.get("/v2/instances").json()["data"]["instanceIds"]
    assert listed == ["instance_000", "instance_001", "instance_abc", "instance_def"]


@pytest.mark.parametrize(("option", "entries"), [("--fault", FAULTS), ("--hostile", HOSTILE)])
def test_it_lists_the_faults_and_the_hostile_rows_that_there_are(option: str, entries: dict[str, object]) -> None:
    result = CliRunner().invoke(main, ["sandbox", option, "list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(entries)
    assert f"{option} list" in CliRunner().invoke(main, ["sandbox", "--help"]).stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--fault", "http-599:0.1"], "'http-599'"),
        (["--fault", "http-500"], "'http-500'"),
        (["--fault", "http-500:2"], "http-500"),
        (["--fault", "http-500:0.7", "--fault", "http-503:0.7"], "1.4"),
        (["--hostile", "nan:all"], "'nan:all'"),
    ],
)
def test_a_wrong_fault_is_one_line_before_anything_is_served(options: list[str], named: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", *options])
    assert result.exit_code != 0
    assert named in error_line(result)
    assert result.stdout == ""


def test_on_all_addresses_it_prints_one_that_the_client_takes_and_what_others_need() -> None:
    with started("--host", "0.0.0.0") as (process, output, errors):
        base_url = [output.readline() for _ in range(4)][1].strip().removeprefix("export LATER_BASE_URL=")
        assert checked_base_url(base_url) == base_url
        assert httpx.get(f"{base_url}/v2/instances").status_code == 401
        process.send_signal(signal.SIGINT)
        assert "https" in errors.read()


def test_with_faults_it_says_at_its_end_how_many_there_were() -> None:
    options = ["--fault", "http-500:1", "--fault-seed", "7", "--hostile", "newlines:0.5", "--hostile-instances"]
    with started(*options) as (process, output, _):
        settings = dict(output.readline().strip().removeprefix("export ").partition("=")[::2] for _ in range(4))
        with httpx.Client(base_url=settings["LATER_BASE_URL"]) as client:
            credentials = {"clientId": settings["LATER_CLIENT_ID"], "clientSecret": settings["LATER_CLIENT_SECRET"]}
            assert [client.post("/oauth/token", json=credentials).status_code for _ in range(3)] == [500, 500, 500]
            client.headers[FAULTS_HEADER] = "off"
            token = client.post("/oauth/token", json=credentials).json()["jwt"]
            client.headers["Authorization"] = f"Bearer {token}"
            assert ".." in client.get("/v2/instances").json()["data"]["instanceIds"]
            posts = client.get("/v2/posts/performance?startDate=2024-01-01&endDate=2024-12-31").json()["data"]
        process.send_signal(signal.SIGINT)
        ended = dict(line.split() for line in output)
        assert process.wait(timeout=20) == 0
    altered = sum("\r\n" in post["creatorProfile"]["fullName"] for post in posts if post["creatorProfile"]["fullName"])
    assert ended == {"http-500": "3", "newlines": str(altered)}
