"""docs/serving.md agrees with `later-reporting serve`: its commands and programs run against a server of the lake."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import httpx
import pytest

from tests.docs.conftest import ROOT, Shell, code_blocks, section
from tests.services import running_api

pytestmark = pytest.mark.docs

PAGE = ROOT / "docs" / "serving.md"
START, READ_A_PAGE = code_blocks(PAGE.read_text(), "sh")
PANDAS = (ROOT / "examples" / "served_posts.py").read_text()


@dataclass(frozen=True)
class Server:
    base_url: str
    shell: Shell


@pytest.fixture(scope="module")
def server(shell: Shell) -> Iterator[Server]:
    """A server that is started by the commands of the page, on a free port."""
    command = "later-reporting serve"
    assert START.endswith(f"\n{command}\n")
    script = START.replace(command, f'echo "$LATER_SERVE_CLIENT_SECRET"; exec {command} --port 0')
    environment = {**shell.environment, "PYTHONPATH": str(ROOT)}
    options = {"cwd": shell.directory, "env": environment}
    with running_api(["bash", "-ec", script], **options) as (_, base_url, printed):
        secret, *_ = printed.splitlines()
        own = {"LATER_BASE_URL": base_url, "LATER_SERVE_CLIENT_ID": "dashboards", "LATER_SERVE_CLIENT_SECRET": secret}
        yield Server(base_url, replace(shell, environment={**environment, **own}))


def test_commands_read_a_page(server: Server) -> None:
    printed = server.shell.run_process("bash", "-o", "pipefail", "-ec", READ_A_PAGE)
    assert json.loads(printed)["totalItems"] > 10


def test_program_reads_all_pages_with_null_and_integers(server: Server) -> None:
    checks = 'assert str(posts.dtypes["impressions"]) == "Int64"; assert posts["impressions"].isna().any()'
    key = ["instanceId", "campaignId", "postId"]
    checks += f"; assert len(posts) == len(posts.drop_duplicates({key})) > 100"
    code = f"{PANDAS}\n{checks}\nassert str(posts.dtypes['postDate']).endswith('UTC]')\n"
    printed = server.shell.run_process(sys.executable, "-W", "error", "-c", code, "2024-01-01", "2024-12-31")
    assert "instagram_reel" in printed
    assert "missing: 2024-01-08/2024-12-31" in printed or "missing: 2024-01-05, 2024-01-08/2024-12-31" in printed


def test_dlt_loads_all_posts(server: Server, tmp_path: Path) -> None:
    shell = replace(
        server.shell, directory=tmp_path, environment={**server.shell.environment, "DLT_DATA_DIR": str(tmp_path)}
    )
    shell.run_process(sys.executable, str(ROOT / "examples" / "dlt_posts.py"), "2024-01-01", "2024-01-07")
    with duckdb.connect(tmp_path / "posts.duckdb", read_only=True) as connection:
        (loaded,) = connection.sql("SELECT count(*) FROM later.posts").fetchall()
    stored = server.shell.run("later-reporting query --format csv 'SELECT count(*) FROM posts_published'")
    assert loaded == (int(stored.split()[-1]),)


def test_clients_of_the_file_have_their_instances(server: Server, tmp_path: Path) -> None:
    (tmp_path / "clients.toml").write_text(code_blocks(section(PAGE, "Clients"))[0])
    (start,) = re.findall(r"`(later-reporting serve --clients [^`]+)`", PAGE.read_text())
    environment = {name: value for name, value in server.shell.environment.items() if "SERVE" not in name}
    with running_api([*shlex.split(start), "--port", "0"], cwd=tmp_path, env=environment) as (_, base_url, _printed):
        for client, secret, count in (("dashboards", "a long random text", 1), ("notebooks", "another one", 2)):
            body = {"clientId": client, "clientSecret": secret}
            jwt = httpx.post(f"{base_url}/oauth/token", json=body).json()["jwt"]
            page = httpx.get(f"{base_url}/v2/instances", headers={"Authorization": f"Bearer {jwt}"}).json()
            assert len(page["data"]["instanceIds"]) == count
