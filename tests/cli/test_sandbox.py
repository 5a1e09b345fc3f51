"""`later-reporting sandbox`: serves the API on this machine."""

import re
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli import main
from later_reporting_dagster.client.auth import validate_base_url
from tests.cli.conftest import environment, error_line
from tests.services import WAIT_SECONDS


@pytest.mark.e2e
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_sandbox_prints_settings_of_a_client_and_the_days_that_have_posts(host: str) -> None:
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "sandbox", "--port", "0", "--host", host]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            banner, range_, *exports = [process.stdout.readline().strip() for _ in range(5)]
            settings = dict(line.removeprefix("export ").split("=", 1) for line in exports)
            base_url = settings["LATER_BASE_URL"]
            assert validate_base_url(base_url) == base_url
            credentials = {"clientId": settings["LATER_CLIENT_ID"], "clientSecret": settings["LATER_CLIENT_SECRET"]}
            token = httpx.post(f"{base_url}/oauth/token", json=credentials).json()["jwt"]
            printed = re.fullmatch(r"# Posts from (\S+) to (\S+) \(UTC\); other days are empty\.", range_)
            assert printed
            first, last = map(date.fromisoformat, printed.groups())
            totals = [
                httpx.get(
                    f"{base_url}/v2/posts/performance",
                    params={"startDate": str(start), "endDate": str(start + timedelta(days=60))},
                    headers={"Authorization": f"Bearer {token}"},
                ).json()["pagination"]["totalItems"]
                for start in (first - timedelta(days=61), first, last - timedelta(days=60))
            ]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert "SYNTHETIC DATA" in banner
    assert [total > 0 for total in totals] == [False, True, True]
    assert last == datetime.now(UTC).date() - timedelta(days=1)
    assert process.returncode == 0
    assert ("https" in errors) is (host == "0.0.0.0")  # a hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "http-599:0.1"], "'http-599'"),
        (["--fault", "http-500:0.7", "--fault", "http-503:0.7"], "1.4"),
        (["--malformed-row", "nan:all"], "'nan:all'"),
    ],
)
def test_sandbox_rejects_an_invalid_fault_before_it_serves(options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", *options])
    assert result.exit_code != 0
    assert message in error_line(result)
    assert result.stdout == ""
