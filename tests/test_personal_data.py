"""With `store_creator_profiles: false`, and after `redact`, no file or output has personal data of creators.

The sandbox also returns it in unknown fields, in invalid values and in failed responses. Everything that commands have
written and printed is then searched for all that it returned.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dagster._cli.run import run_wipe_command
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import PERSONAL_COLUMNS, POSTS_PUBLISHED, RAW_TABLES
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, Service, sandbox_settings
from tests.test_secrets import contents_of

pytestmark = pytest.mark.e2e

SETTING = "LATER_STORE_CREATOR_PROFILES"
FIRST_DAY, LAST_DAY = date(2024, 2, 1), date(2024, 2, 5)  # enough days for a copy of the month
FETCHED = tuple(RAW_TABLES)
TABLES = (
    *(*FETCHED, "instances", "campaigns", "coverage", "organic_paid_daily", "organic_paid_overall"),
    *("organic_paid_by_creator", "organic_paid_by_campaign", "posts", "organic_paid_report"),
)
IN_FAILED_RESPONSES = "Failing Person"
TYPED_FIELDS = ("engagements", "creatorId", "postId", "postDate", "campaignId")
PHONE_NUMBER = 4_915_112_345_678
PROFILE_KINDS = {"name": "fullName", "handle": "handleName", "picture": "profileImage", "profile": "profileLink"}
POST_KINDS = {"post": "contentUrl", "image": "contentImageUrl"}


class Creators:
    """Changes the responses of the sandbox, and keeps the texts with personal data that it returned, by kind."""

    def __init__(self) -> None:
        self.texts: dict[str, set[str]] = {kind: set() for kind in (*PROFILE_KINDS, *POST_KINDS)}
        self._requests = 0

    def fail_some(self, request: Request) -> Response | None:
        if request.url.path != "/v2/posts/performance":
            return None
        self._requests += 1
        body = {"data": [{"creatorProfile": {"fullName": IN_FAILED_RESPONSES}, "title": IN_FAILED_RESPONSES}]}
        if self._requests % 10 == 2:
            return JSONResponse(body, 500)
        return Response(json.dumps(body)[:-2]) if self._requests % 10 == 4 else None

    def add_texts(self, _request: Request, body: Any) -> Any:
        for row in body["data"]:
            if row["postId"] % 25 == 1:
                row["creatorProfile"] = None
            elif row["postId"] % 25 == 2:
                row["creatorProfile"]["fullName"] = "\u202eadA\u202c \u2067عادة\u2069"
            profile = row["creatorProfile"] or {}
            fields = [(PROFILE_KINDS, profile), (POST_KINDS, row)]
            known = {kind: holder.get(name) for kinds, holder in fields for kind, name in kinds.items()}
            for kind, text in known.items():
                self.texts[kind].update([text] if text else [])
            texts = [text for text in known.values() if text]
            row |= {"caption": " ".join(texts), "mentions": texts, "people": {"by": texts}, texts[0]: 1}
            profile["biography"] = texts[0]
            match row["postId"] % 9:
                case 0:
                    row[TYPED_FIELDS[row["postId"] % len(TYPED_FIELDS)]] = texts[0]
                case 1:
                    row["contentUrl"] = texts
                case 2:
                    row["creatorProfile"] = texts[0]
                case 3:
                    row["contentImageUrl"] = PHONE_NUMBER
                    self.texts["image"].add(str(PHONE_NUMBER))
        return body


@dataclass(frozen=True)
class User:
    """Runs commands with a lake and a `DAGSTER_HOME` of their own, and keeps what they print."""

    directory: Path
    environment: dict[str, str]

    @classmethod
    def create(cls, directory: Path, base_url: str) -> "User":
        (directory / "home").mkdir()
        (directory / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        return cls(
            directory,
            {
                **sandbox_settings(base_url, lake_root=str(directory / "lake")),
                "LATER_START_DATE": str(FIRST_DAY),
                "LATER_TABLES": ",".join(TABLES),
                "DAGSTER_HOME": str(directory / "home"),
            },
        )

    def copy(self, directory: Path) -> "User":
        shutil.copytree(self.directory, directory)
        moved = {"LATER_LAKE_ROOT": str(directory / "lake"), "DAGSTER_HOME": str(directory / "home")}
        return User(directory, self.environment | moved)

    def run(self, *arguments: str, exit_code: int = 0, **variables: str) -> str:
        result = CliRunner().invoke(main, arguments, env=self.environment | variables)
        assert result.exit_code == exit_code, result.output
        number = len([*self.directory.glob("*.printed")])
        (self.directory / f"{number} {arguments[0]}.printed").write_text(result.output)
        return result.output

    def run_all(self, **variables: str) -> None:
        for table in FETCHED:
            days = ("--start", str(FIRST_DAY), "--end", str(LAST_DAY))
            self.run("backfill", "--asset", table, *days, "--verbose", **variables)
        for command in (["refresh"], ["quarantine", "--raw"]):
            self.run(*command, **variables)
        self.run("query", "FROM posts_published", "--format", "jsonl", **variables)

    @property
    def lake(self) -> Path:
        return self.directory / "lake"

    def kinds_in(self, creators: Creators, *below: str) -> dict[str, set[str]]:
        """Return the paths below some others whose content has any of the texts, by kind."""
        contents = contents_of(self.directory, *below)
        found: dict[str, set[str]] = {}
        for kind, texts in {**creators.texts, "failed": {IN_FAILED_RESPONSES}}.items():
            encoded = {form.encode() for text in texts for form in (text, json.dumps(text)[1:-1], repr(text)[1:-1])}
            if paths := {path for path, content in contents.items() if any(form in content for form in encoded)}:
                found[kind] = paths
        return found


@pytest.fixture(scope="module")
def creators() -> Creators:
    return Creators()


@pytest.fixture(scope="module")
def service(creators: Creators) -> Iterator[Service]:
    world = World(first_day=date(2024, 1, 1), last_day=LAST_DAY, seed=5, instances=2, posts_per_day=12)
    app = create_app(world, options=NO_RATE_LIMIT)
    service = Service(app=app, override=creators.fail_some, transform=creators.add_texts)
    with running_server(service) as service.base_url:
        yield service


@pytest.fixture(scope="module")
def stored(service: Service, tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user who has stored the profiles."""
    user = User.create(tmp_path_factory.mktemp("stored"), service.base_url)
    user.run_all()
    return user


@pytest.fixture(scope="module")
def not_stored(service: Service, tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user who has not."""
    user = User.create(tmp_path_factory.mktemp("not-stored"), service.base_url)
    user.run_all(**{SETTING: "false"})
    return user


def test_search_finds_what_is_stored_by_default(stored: User, creators: Creators) -> None:
    kinds = {*creators.texts}
    assert all(creators.texts.values())
    for place in ("lake/posts_published", "lake/post_metrics_daily", "lake/_quarantine", "*.printed"):
        assert stored.kinds_in(creators, place).keys() == kinds, place
    assert {"name", "handle", "post"} <= stored.kinds_in(creators, "lake/posts").keys()
    assert {"name", "profile", "post"} <= stored.kinds_in(creators, "lake/organic_paid_report").keys()
    assert {"name", "handle"} <= stored.kinds_in(creators, "home").keys()


def test_nothing_is_found_where_profiles_are_not_stored(not_stored: User, creators: Creators) -> None:
    assert not_stored.kinds_in(creators, "*") == {}
    for path in ("home/history", "lake/_quarantine", "0 backfill.printed"):
        assert (not_stored.directory / path).exists()
    rows = pq.read_table(not_stored.lake / "organic_paid_by_creator" / "part-0.parquet")
    assert rows["creator_id"].null_count < rows.num_rows
    assert len({*rows["creator_id"].to_pylist()}) > 5
    assert {rows[name].null_count for name in PERSONAL_COLUMNS & {*rows.column_names}} == {rows.num_rows}


def test_day_that_is_fetched_again_loses_them(stored: User, creators: Creators, tmp_path: Path) -> None:
    user = stored.copy(tmp_path / "copy")
    days = ("--start", str(FIRST_DAY), "--end", str(FIRST_DAY))
    printed = user.run("backfill", "--asset", "posts_published", *days, **{SETTING: "false"})
    assert "1 day, 1 of them changed" in printed
    found = user.kinds_in(creators, "lake/posts_published")
    assert {path.split("/")[2] for path in found["name"]} == {f"date=2024-02-0{day}" for day in range(2, 6)}


def test_redact_is_refused_while_the_setting_stores_profiles(stored: User) -> None:
    assert f"{SETTING} (store_creator_profiles) is true" in stored.run("redact", exit_code=2)


def test_redact_keeps_all_but_personal_data(
    stored: User, not_stored: User, creators: Creators, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = stored.copy(tmp_path / "copy")
    before = {path.relative_to(user.lake): pq.ParquetFile(path) for path in user.lake.glob("[a-z]*/**/*.parquet")}
    before = {path: (file.metadata.metadata, file.read()) for path, file in before.items()}
    interrupted = Lake.rewrite

    def rewrite(lake: Lake, path: str, change: Any) -> bool:
        if "date=2024-02-03" in path:
            raise KeyboardInterrupt
        return interrupted(lake, path, change)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "rewrite", rewrite)
        user.run("redact", exit_code=130, **{SETTING: "false"})
    user.run("redact", **{SETTING: "false"})

    assert user.kinds_in(creators, "lake") == {}
    quarantine = [path.read_text().count("\n") for path in sorted(stored.lake.glob("_quarantine/**/*.jsonl"))]
    assert quarantine == [path.read_text().count("\n") for path in sorted(user.lake.glob("_quarantine/**/*.jsonl"))]
    for path, (metadata, rows) in before.items():
        file = pq.ParquetFile(user.lake / path)
        others = [name for name in rows.column_names if name not in {*PERSONAL_COLUMNS, "extra"}]
        assert file.read(others).equals(rows.select(others)), path
        key = b"later_reporting.content_hash"
        assert {**file.metadata.metadata, key: b""} == {**metadata, key: b""}
        # Without the setting, rows are bad whose only invalid values are personal data.
        if path.parts[0] == POSTS_PUBLISHED.name:
            fetched = pq.read_table(not_stored.lake / path, partitioning=None).to_pylist()
            assert [row for row in file.read().to_pylist() if row not in fetched] == []
    rewritten = {line for line in user.run("redact", **{SETTING: "false"}).splitlines() if "rewritten" in line}
    assert all(" 0 of " in line for line in rewritten)

    user.run("refresh", **{SETTING: "false"})
    assert (user.lake / "organic_paid_report" / "report.html").exists()
    assert user.kinds_in(creators, "lake") == {}


def test_records_of_runs_can_be_removed_as_documented(
    stored: User, service: Service, creators: Creators, tmp_path: Path
) -> None:
    user = stored.copy(tmp_path / "copy")
    result = CliRunner().invoke(run_wipe_command, ["--force"], env=user.environment)
    assert result.exit_code == 0, result.output
    for path in (user.directory / "home").rglob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM")
    shutil.rmtree(user.directory / "home" / "storage")
    assert user.kinds_in(creators, "home") == {}

    requests = service.data_requests
    days = ("--start", str(FIRST_DAY), "--end", str(LAST_DAY))
    user.run("backfill", "--asset", "posts_published", *days, "--only-missing")
    assert service.data_requests == requests
