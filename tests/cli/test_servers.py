"""`later-reporting serve`, which never writes to the lake or prints a secret, and `sandbox`."""

import base64
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa
import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.server import Client
from tests.cli.conftest import environment, error_line
from tests.conftest import files
from tests.server.lake_store.clients import assert_problem, authenticated
from tests.services import WAIT_SECONDS, running_api

CLIENT_ID, SECRET = "dashboards", "s3cret/of+dashboards=="  # noqa: S105 - valid only here
CLIENT = Client(CLIENT_ID, SECRET)
CREDENTIALS = {"LATER_SERVE_CLIENT_ID": CLIENT_ID, "LATER_SERVE_CLIENT_SECRET": SECRET}
DAYS = [date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)]
INSTANCE_IDS = ("north", "south")
POSTS = f"/v2/posts/performance?startDate={DAYS[0]}&endDate={DAYS[-1]}"
MISSING_DAY = date(2024, 3, 4)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    for day in DAYS:
        for name in INSTANCE_IDS:
            post = {"instance_id": name, "campaign_id": 7, "content_type": "tiktok", "platform": "tiktok"}
            post_date = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
            rows = [{**post, "post_id": number + 100 * day.day, "post_date": post_date} for number in range(40)]
            Lake(str(root)).write("posts_published", Partition(day, name), pa.Table.from_pylist(rows, POSTS_SCHEMA))
    return root


@dataclass
class Command:
    """The command in a process of its own. Its errors go to a file, and its snapshots into a folder."""

    process: "subprocess.Popen[str]"
    base_url: str
    output: str
    folder: Path

    @property
    def snapshots(self) -> Path:
        return self.folder / "temporary"

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        self.output += self.process.communicate(timeout=WAIT_SECONDS)[0]
        return self.process.returncode


@contextmanager
def running(root: Path, *options: str, **variables: str) -> Iterator[Command]:
    """Run the command over a lake in a subprocess while the block runs, with options and environment variables."""
    folder = root.parent / "process"
    (folder / "temporary").mkdir(parents=True)
    variables = {**environment(), "LATER_LAKE_ROOT": str(root), "TMPDIR": str(folder / "temporary"), **variables}
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "serve", "--port", "0", *options]
    with (
        (folder / "stderr").open("wb") as errors,
        running_api(command, env=variables, stderr=errors, cwd=folder) as (process, base_url, printed),
    ):
        yield Command(process, base_url, printed, folder)


# Refusals


@pytest.fixture
def refusal(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A function that runs the command with options and variables, and returns what it prints when it refuses to start.

    The port is in use, so that a command that should be refused, but is not, ends nevertheless.
    """
    monkeypatch.setenv("LATER_LAKE_ROOT", str(lake))

    def run(*options: str, **variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        port = str(listener.getsockname()[1])
        result = CliRunner().invoke(main, ["serve", "--port", port, *options], prog_name="later-reporting")
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.stdout == ""
        assert SECRET not in result.stderr
        assert error_line(result)
        return result.stderr

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield run


@pytest.mark.parametrize(
    ("options", "variables", "words"),
    [
        ("", {}, ["LATER_SERVE_CLIENT_ID", "LATER_SERVE_CLIENT_SECRET", "--no-auth"]),
        ("", {"LATER_SERVE_CLIENT_ID": CLIENT_ID}, ["LATER_SERVE_CLIENT_SECRET"]),
        ("", {"LATER_SERVE_CLIENT_SECRET": SECRET, "LATER_SERVE_CLIENT_ID": ""}, ["LATER_SERVE_CLIENT_ID"]),
        ("--host 0.0.0.0", {}, ["LATER_SERVE_CLIENT_ID"]),
        ("--host 0.0.0.0", {**CREDENTIALS, "LATER_SERVE_CLIENT_SECRET": "x"}, ["can be guessed", "16 characters"]),
        *((f"--no-auth --host {host}", {}, ["--no-auth"]) for host in ("0.0.0.0", "::", "example.com")),
    ],
)
def test_serve_is_refused_without_credentials(
    options: str, variables: dict[str, str], words: list[str], refusal: Callable[..., str]
) -> None:
    message = refusal(*options.split(), **variables)
    assert all(word in message for word in words), message
    assert "port is in use" not in message


@pytest.mark.parametrize(("mode", "is_warned_of"), [(0o644, True), (0o600, False)])
def test_serve_warns_of_a_file_of_clients_that_others_can_read(
    mode: int, is_warned_of: bool, refusal: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "clients.toml"
    path.write_text("[[clients]]\nid = 'a'\nsecret = 'TOP'", encoding="utf-8")
    path.chmod(mode)
    assert (f"chmod 600 {path}" in refusal("--clients", str(path))) is is_warned_of


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("clients = [", ""),
        ("[[clients]]\nsecret = 'TOP'", "id"),
        ("[[clients]]\nid = 'a'\nsecret = ''", "secret"),
        ("[[clients]]\nid = 'twice'\nsecret = 'TOP'\n[[clients]]\nid = 'twice'\nsecret = 'TOP2'", "twice"),
        ("[[clients]]\nid = 'a'\nsecret = 'TOP'\ninstance = ['north']", "instance"),
        ("[[clients]]\nid = 'a'\nsecret = 'TOP'\ninstances = 'north'", "instances"),
    ],
)
def test_serve_refuses_a_bad_file_of_clients(text: str, word: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "list-of-clients.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    message = refusal(LATER_SERVE_CLIENTS=str(path))
    assert "list-of-clients.toml" in message
    assert word in message.replace("list-of-clients.toml", "")
    assert "TOP" not in message


# Serving


@pytest.mark.e2e
def test_serve_prints_no_secret_and_never_writes_to_the_lake(lake: Path) -> None:
    before = files(lake)
    with running(lake, **CREDENTIALS) as command:
        base_url = command.base_url
        with authenticated(base_url, CLIENT) as api:
            token = api.headers["Authorization"].removeprefix("Bearer ")
            sent = send_secrets(base_url, token)
            assert len(api.get(POSTS).json()["data"]) == 50
            assert api.get(f"{POSTS}&dateBasis=performance_date").status_code == 200
            assert_problem(api.get("/v2/campaigns"), 404, "ANL_00404")
        assert httpx.get(f"{base_url}/healthz").json() == {"status": "ok"}
        assert command.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        printed = command.output + command.errors
        for text in secret_texts(SECRET) | secret_texts(token) | {*token.split(".")[1:]}:
            assert text not in printed
        assert "Traceback" not in printed
        assert "INJECTED" not in [line.split()[0] for line in printed.splitlines() if line]
        assert "export LATER_BASE_URL=" in command.output
        assert "/v2/posts/performance" in command.errors
        # One line a request: those of this test, the token, and three that the server may not parse.
        assert sent + 6 <= len(command.errors.splitlines()) <= sent + 12
        assert [*command.snapshots.rglob("*")] == []
    assert files(lake) == before


def secret_texts(secret: str) -> set[str]:
    """Return a secret as it might appear in a log."""
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], encoded, secret[:20]}


def send_secrets(base_url: str, token: str) -> int:
    """Send credentials and a token in places where they do not belong; return the number of well-formed requests."""
    requests: list[tuple[str, str, dict[str, Any]]] = []
    for secret in (SECRET, token):
        text = quote(secret, safe="")
        requests += [
            ("GET", f"/v2/{text}", {}),
            ("GET", f"/{secret}", {}),
            ("GET", f"/oauth/token?clientSecret={text}", {}),
            ("POST", f"/oauth/token?clientSecret={text}", {"json": {"clientId": secret, "clientSecret": secret}}),
            ("POST", "/oauth/token", {"content": secret.encode()}),
            ("POST", "/oauth/token", {"json": {secret: secret}}),
            ("GET", f"{POSTS}&access_token={text}", {}),
            ("GET", f"{POSTS}&{text}=1", {}),
            ("GET", f"{POSTS}&sortProperty={text}", {"headers": {"Authorization": f"Bearer {token}"}}),
            ("GET", f"{POSTS}&instanceIds={text}", {"headers": {"Authorization": f"Bearer {token}"}}),
            ("GET", f"{POSTS}&metrics=cpe&nextCursor={text}", {"headers": {"Authorization": f"Bearer {token}"}}),
            ("GET", f"/v2/posts/performance?startDate={text}&endDate={text}", {}),
            ("GET", "/v2/instances", {"headers": {"Authorization": f"Basic {secret}"}}),
            ("GET", "/v2/instances", {"headers": {"Authorization": secret, "Cookie": secret, "User-Agent": secret}}),
            ("GET", "/v2/instances", {"headers": {"Referer": f"https://{text}.example/", "X-Forwarded-For": secret}}),
            ("DELETE", f"/v2/instances/{text}", {}),
        ]
    requests += [("GET", "/v2/instances%0AINJECTED%0d%0aINJECTED", {}), ("GET", f"{POSTS}&platform=%0AINJECTED", {})]
    with httpx.Client(base_url=base_url) as api:
        for method, target, arguments in requests:
            assert api.request(method, target, **arguments).status_code >= 400
    send_raw(base_url, f"{SECRET} / HTTP/1.1\r\n\r\n")
    send_raw(base_url, f"GET /{SECRET}\x01 HTTP/9.9\r\n{token}\r\n\r\n")
    send_raw(base_url, f"GET {token} HTTP/1.1\r\nHost: {SECRET}\r\n\r\n")
    return len(requests)


def send_raw(base_url: str, text: str) -> None:
    """Send bytes that are not HTTP, and read until the server closes the connection."""
    url = httpx.URL(base_url)
    with socket.create_connection((url.host, url.port or 0), timeout=WAIT_SECONDS) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


FOREIGN_HOSTS = (
    "example.com", "127.0.0.1.example.com", "localhost.example.com", "example.com#localhost", "localhost@example.com",
    "192.0.2.1", "[::2]", "localhost,example.com", "",
)  # fmt: skip


@pytest.mark.e2e
def test_serve_without_credentials_accepts_loopback_names_only(lake: Path) -> None:
    with running(lake, "--no-auth") as command:
        base_url = command.base_url
        port = httpx.URL(base_url).port
        accepted = [f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "LOCALHOST", "127.1.2.3"]
        refused = [f"example.com:{port}", *FOREIGN_HOSTS]
        with httpx.Client(base_url=base_url) as api:
            for route in (POSTS, "/v2/instances"):
                for host in accepted:
                    assert api.get(route, headers={"Host": host}).status_code == 200, host
                for host in refused:
                    assert 400 <= api.get(route, headers={"Host": host}).status_code < 500, host
            assert api.post("/oauth/token", headers={"Host": "example.com"}, json={}).status_code >= 400
            response = api.get(POSTS, headers={"Authorization": "Basic nonsense"})
            assert response.json()["pagination"]["totalItems"] == 240
            assert "X-Later-Missing-Days" not in response.headers
        with authenticated(base_url, Client("any", "thing")) as api:
            assert api.get("/v2/instances").json()["data"]["instanceIds"] == [*INSTANCE_IDS]
        assert "only if one client of an address" in command.output
        assert command.stop(signal.SIGINT) == 0
        assert [*command.snapshots.rglob("*")] == []
        assert "Traceback" not in command.errors


@pytest.mark.e2e
def test_serve_reads_its_options_from_the_environment(lake: Path, tmp_path: Path) -> None:
    clients = tmp_path / "clients.toml"
    clients.write_text(
        '[[clients]]\nid = "north only"\nsecret = "a"\ninstances = ["north"]\n[[clients]]\nid = "all"\nsecret = "b"\n',
        encoding="utf-8",
    )
    variables = {
        "LATER_SERVE_CLIENTS": str(clients),
        "LATER_SERVE_API_VERSION": "cursor",
        "LATER_SERVE_STRICT": "true",
        "LATER_SERVE_MEMORY_GB": "0.5",
        "LATER_SERVE_SNAPSHOT_GB": "0.5",
    }
    later = POSTS.replace(f"endDate={DAYS[-1]}", f"endDate={MISSING_DAY}")
    with (
        running(lake, **variables) as command,
        authenticated(command.base_url, Client("north only", "a")) as api,
        authenticated(command.base_url, Client("all", "b")) as everything,
    ):
        response = api.get(f"{POSTS}&metrics=cpe&limit=100").json()
        assert {row["instanceId"] for row in response["data"]} == {"north"}
        assert response["nextCursor"]
        assert_problem(api.get(f"{POSTS}&pageSize=5"), 400, "ANL_00400")
        response = everything.get(f"{later}&metrics=cpe")
        assert str(MISSING_DAY) in assert_problem(response, 409, "ANL_00409")


@pytest.mark.e2e
def test_serve_stops_although_a_client_does_not_read_its_response(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    post = {"instance_id": "north", "campaign_id": 7, "post_date": datetime(2024, 3, 1, tzinfo=UTC)}
    extra = f'{{"text":"{"x" * 200_000}"}}'
    rows = pa.Table.from_pylist([{**post, "post_id": number, "extra": extra} for number in range(100)], POSTS_SCHEMA)
    Lake(str(root)).write("posts_published", Partition(DAYS[0], "north"), rows)
    with running(root, "--no-auth") as command:
        url = httpx.URL(command.base_url)
        with socket.create_connection((url.host, url.port or 0), timeout=WAIT_SECONDS) as connection:
            connection.sendall(f"GET {POSTS}&pageSize=100 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
            command.stop()
        assert [*command.snapshots.rglob("*")] == []


# The sandbox


@pytest.mark.e2e
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_sandbox_prints_settings_of_a_client_and_the_days_that_have_posts(host: str) -> None:
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "sandbox", "--port", "0", "--host", host]
    with running_api(command, env=environment(), stderr=subprocess.PIPE) as (process, base_url, printed):
        assert process.stdout is not None
        banner, first_and_last, _ = printed.splitlines()
        credentials = [process.stdout.readline().strip().partition("=")[2] for _ in range(2)]
        assert validate_base_url(base_url) == base_url
        body = dict(zip(("clientId", "clientSecret"), credentials, strict=True))
        token = httpx.post(f"{base_url}/oauth/token", json=body).json()["jwt"]
        found = re.fullmatch(
            r"# \d+ instances with posts from (\S+) to (\S+) \(UTC\); other days are empty\.", first_and_last
        )
        assert found
        first, last = map(date.fromisoformat, found.groups())
        totals = [
            httpx.get(
                f"{base_url}/v2/posts/performance",
                params={"startDate": str(start), "endDate": str(start + timedelta(days=60))},
                headers={"Authorization": f"Bearer {token}"},
            ).json()["pagination"]["totalItems"]
            for start in (first - timedelta(days=61), first, last - timedelta(days=60))
        ]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert "SYNTHETIC DATA" in banner
    assert [total > 0 for total in totals] == [False, True, True]
    assert last == datetime.now(UTC).date() - timedelta(days=1)
    assert process.returncode == 0
    assert ("https" in errors) is (host == "0.0.0.0")  # a hint
