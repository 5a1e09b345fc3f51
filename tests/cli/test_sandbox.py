"""`later-reporting sandbox`: the documented endpoint for whoever wants to curl it."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.cli.conftest import environment

# The document's own example [S], less the `contentType` that it may not be combined with.
EXAMPLE = (
    "/v2/posts/performance?startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_abc&instanceIds=instance_def"
    "&campaignIds=49761&campaignIds=49802&platform=instagram&platform=tiktok"
    "&dateBasis=post_date&pageSize=50&pageNumber=1&sortProperty=impressions&sortDirection=DESC"
)
CONTENT_TYPES = "&contentType=instagram_reel&contentType=tiktok"


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    """What the command says as it starts; it serves while the tests run, and ends as a Ctrl-C ends it."""
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "sandbox", "--port", "0", "--instances", "2"]
    process = subprocess.Popen(
        command, env={**environment(), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        yield [output.readline().strip() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


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


def test_the_documents_example_is_answered_in_the_documents_shape(api: httpx.Client) -> None:
    answer = api.get(EXAMPLE)
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"data", "pagination"}
    assert body["pagination"].keys() == {"page", "pageSize", "totalItems", "totalPages"}
    assert (body["pagination"]["page"], body["pagination"]["pageSize"]) == (1, 50)


def test_platform_and_content_type_together_are_refused(api: httpx.Client) -> None:
    answer = api.get(EXAMPLE + CONTENT_TYPES)
    assert (answer.status_code, answer.json()["type"]) == (400, "ANL_00400")
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_it_serves_as_many_instances_as_it_was_told(api: httpx.Client) -> None:
    listed = api.get("/v2/instances").json()["data"]["instanceIds"]
    assert listed == ["instance_000", "instance_001", "instance_abc", "instance_def"]
