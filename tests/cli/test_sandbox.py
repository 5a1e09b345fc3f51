"""`later-reporting sandbox`: serves the API on this machine."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import IO

import httpx
import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli import main
from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.sandbox import FAULTS, MALFORMATIONS
from tests.cli.conftest import environment, error_line
from tests.services import WAIT_SECONDS

# Two comments and three variables.
HEADER_LINES = 5


@contextmanager
def running_command(*options: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """Run the command in a subprocess while the block runs; yield the process, its output and its errors."""
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "sandbox", "--port", "0", "--instances", "2"]
    variables = {**environment(), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *options], env=variables, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.kill()


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    """The first lines of the command's output. The command serves until the tests end, and ends with Ctrl-C."""
    with running_command() as (process, output, errors):
        yield [output.readline().strip() for _ in range(HEADER_LINES)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=WAIT_SECONDS) == 0
        assert errors.read() == ""


@pytest.fixture(scope="module")
def api(lines: list[str]) -> Iterator[httpx.Client]:
    """A client built from the settings that the command prints."""
    settings = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    with httpx.Client(base_url=settings["LATER_BASE_URL"]) as client:
        credentials = {"clientId": settings["LATER_CLIENT_ID"], "clientSecret": settings["LATER_CLIENT_SECRET"]}
        token = client.post("/oauth/token", json=credentials).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.mark.e2e
def test_sandbox_prints_the_days_that_have_synthetic_posts(lines: list[str], api: httpx.Client) -> None:
    printed = re.fullmatch(r"# Posts from (\S+) to (\S+) \(UTC\); other days are empty\.", lines[1])
    assert printed
    first, last = map(date.fromisoformat, printed.groups())
    assert "SYNTHETIC DATA" in lines[0]
    assert len(api.get("/v2/instances").json()["data"]["instanceIds"]) == 2 + 2
    outside, inside = timedelta(days=1), timedelta(days=60)
    assert posts(api, first - outside, first - outside) == 0
    assert posts(api, first, first + inside) > 0
    assert posts(api, last - inside, last) > 0
    assert last == datetime.now(UTC).date() - outside


def posts(api: httpx.Client, first: date, last: date) -> int:
    """Return the number of posts that were published in a range of days."""
    dates = {"startDate": str(first), "endDate": str(last)}
    total: int = api.get("/v2/posts/performance", params=dates).json()["pagination"]["totalItems"]
    return total


@pytest.mark.e2e
def test_shell_evaluates_the_output_of_the_sandbox(lines: list[str]) -> None:
    script = "\n".join([*lines, 'echo "$LATER_BASE_URL $LATER_CLIENT_ID $LATER_CLIENT_SECRET"'])
    shell = subprocess.run(["sh", "-e", "-u"], input=script, capture_output=True, text=True, check=True)
    assert (shell.stdout.split(), shell.stderr) == ([line.partition("=")[2] for line in lines[2:]], "")


@pytest.mark.parametrize(("option", "entries"), [("--fault", FAULTS), ("--malformed-row", MALFORMATIONS)])
def test_sandbox_lists_all_faults_and_malformed_rows(option: str, entries: dict[str, object]) -> None:
    result = CliRunner().invoke(main, ["sandbox", option, "list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(entries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "http-599:0.1"], "'http-599'"),
        (["--fault", "http-500"], "'http-500'"),
        (["--fault", "http-500:2"], "http-500"),
        (["--fault", "http-500:0.7", "--fault", "http-503:0.7"], "1.4"),
        (["--malformed-row", "nan:all"], "'nan:all'"),
        (["--refuse-campaign-metric", "smiles"], "--refuse-campaign-metric: unknown campaign metric: smiles"),
    ],
)
def test_sandbox_rejects_an_invalid_fault_before_it_serves(options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", *options])
    assert result.exit_code != 0
    assert message in error_line(result)
    assert result.stdout == ""


@pytest.mark.e2e
def test_sandbox_on_all_addresses_prints_a_loopback_url_and_a_hint() -> None:
    with running_command("--host", "0.0.0.0") as (process, output, errors):
        base_url = [output.readline() for _ in range(HEADER_LINES)][2].strip().removeprefix("export LATER_BASE_URL=")
        assert validate_base_url(base_url) == base_url
        assert httpx.get(f"{base_url}/v2/instances").status_code == 401
        process.send_signal(signal.SIGINT)
        assert "https" in errors.read()
