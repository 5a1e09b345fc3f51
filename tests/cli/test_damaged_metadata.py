"""Metadata of all kinds of files, damaged by kind: commands alone make the lake what it was, without a traceback."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.lake.parquet_file import FileDamaged, parse_metadata
from tests.cli.accounts import (
    ACCOUNT_PERIODS,
    CAMPAIGN_DAYS,
    CAMPAIGN_PERIODS,
    NEWEST,
    POSTS,
    Account,
    new_posts,
    serving,
)
from tests.independent_server import IndependentServer

pytestmark = pytest.mark.faults

DAYS = 2
FETCHED = (POSTS[0], CAMPAIGN_DAYS, ACCOUNT_PERIODS, CAMPAIGN_PERIODS, "instances", "campaigns")
COMPUTED = ("coverage", "organic_paid_daily", "organic_paid_by_platform")
PREFIX = b"later_reporting."
DAMAGE = {
    "absent": None,
    "empty": "",
    "of another type": "[[1]]",
    "naive": "2024-03-05T04:00:00",
    "far future": "9999-01-01T00:00:00+00:00",
    "very long": "9" * 100_000,
    "deeply nested": "[" * 100_000,
}


@pytest.fixture(scope="module")
def filled(prepared_dagster_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account with some days in the lake, of tables of each kind."""
    folder = tmp_path_factory.mktemp("filled")
    home = folder / "home"
    shutil.copytree(prepared_dagster_home, home)
    server = IndependentServer(new_posts("a", "b"), by_cursor=False)
    with (
        pytest.MonkeyPatch.context() as environment,
        serving(server, home=home, folder=folder, environment=environment) as account,
    ):
        environment.setenv("DAGSTER_HOME", str(home))
        account.configure(tables=(*FETCHED, *COMPUTED), LATER_START_DATE=str(NEWEST - timedelta(days=DAYS - 1)))
        account.backfill(days=DAYS)
        yield account


@pytest.fixture
def account(filled: Account) -> Iterator[Account]:
    """The account, whose lake and runs are afterwards as they were."""
    folders = filled.lake, filled.user.home
    for folder in folders:
        shutil.copytree(folder, folder.with_suffix(".kept"))
    yield filled
    for folder in folders:
        shutil.rmtree(folder)
        folder.with_suffix(".kept").rename(folder)


def files_by_table(lake: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(lake.rglob("*.parquet")):
        found.setdefault(path.relative_to(lake).parts[0], []).append(path)
    return found


def texts_of(path: Path) -> dict[bytes, bytes]:
    metadata = pq.ParquetFile(path).metadata.metadata or {}
    return {name: value for name, value in metadata.items() if name.startswith(PREFIX)}


def with_texts(path: Path, texts: dict[bytes, bytes]) -> bytes:
    """Return a file with other metadata."""
    rows = pq.ParquetFile(path).read().replace_schema_metadata()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, store_schema=False) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(texts)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def damage(lake: Path, text: str | None, *, number: int) -> None:
    """Damage the metadata of each table: another text in each file, if it has several."""
    for paths in files_by_table(lake).values():
        names = sorted({name for path in paths for name in texts_of(path)})
        for offset, path in enumerate(paths[: len(names)]):
            name = names[(number + offset) % len(names)]
            texts = texts_of(path)
            texts.pop(name, None)
            texts |= {} if text is None else {name: text.encode()}
            path.write_bytes(with_texts(path, texts))


def rows_of(lake: Path) -> dict[Path, list[dict[str, object]]]:
    """Return the rows of each file, but for when and by which run it was made."""
    return {
        path.relative_to(lake): [
            {name: value for name, value in row.items() if not name.endswith(("_at", "_version", "run_id"))}
            for row in pq.ParquetFile(path).read().to_pylist()
        ]
        for table, paths in files_by_table(lake).items()
        for path in paths
        if not table.startswith("_")
    }


def unreadable(lake: Path) -> dict[Path, str]:
    """Return why the metadata of files cannot be read. Damaged records are left out, and removed when they are old."""
    found = {}
    for table, paths in files_by_table(lake).items():
        for path in paths if not table.startswith("_") else ():
            try:
                parse_metadata(path.read_bytes())
            except FileDamaged as error:
                found[path] = str(error)[:200]
    return found


@pytest.mark.parametrize(("number", "kind"), [*enumerate(DAMAGE)], ids=str)
def test_commands_heal_damaged_metadata_of_all_kinds_of_files(number: int, kind: str, account: Account) -> None:
    intact = rows_of(account.lake)
    damage(account.lake, DAMAGE[kind], number=number)
    assert unreadable(account.lake)

    named = account.user.run("refresh").stderr
    assert "Damaged, so they count as missing: " in named
    assert "`later-reporting backfill --only-missing --start " in named
    healed = account.run("backfill", "--only-missing")
    assert "Damaged" not in healed.stderr
    assert rows_of(account.lake) == intact
    assert unreadable(account.lake) == {}
