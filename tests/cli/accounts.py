"""A user of the commands whose account is the independent server's, and what the lake should have of it."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from click.testing import Result

from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS
from tests.cli.conftest import User
from tests.conftest import Row
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, REPORTED_DAYS, IndependentServer, Posts

NEWEST = datetime.now(UTC).date() - timedelta(days=1)
"""The newest day that is over; its posts are those of the newest window."""

CAMPAIGNS = {name: tuple(10 * number + campaign for campaign in (1, 2, 3)) for number, name in enumerate("abcdefgh")}
"""The campaigns of each instance."""

ACCOUNT_PERIODS, CAMPAIGN_PERIODS = "instance_performance_periods", "campaign_performance_periods"
ACCOUNT_DAYS, CAMPAIGN_DAYS = "instance_performance_daily", "campaign_performance_daily"
POSTS = ("post_metrics_daily", "posts_published")
MONTHS = 5
"""Calendar months since the start date, with that of the newest day."""


def month_before(day: date, months: int) -> date:
    """Return the first day of the month so many months before that of a day."""
    number = day.year * 12 + day.month - 1 - months
    return date(number // 12, number % 12 + 1, 1)


FIRST_MONTH = month_before(NEWEST, MONTHS - 1)
FIRST_DAY = NEWEST - timedelta(days=1)
"""The first day of the lake, unless a test has it begin with the first month."""


def new_posts(*instance_ids: str, seed: int = 1) -> Posts:
    """Return posts of the newest days and of some in each month, all in campaigns of their instance alone."""
    first = FIRST_MONTH - timedelta(days=REPORTED_DAYS)
    days = [first + timedelta(days=offset) for offset in range((NEWEST - first).days + 1)]
    posts = Posts(
        first_day=first,
        days=len(days),
        instance_ids=instance_ids,
        seed=seed,
        least=1,
        most=3,
        campaign_ids=CAMPAIGNS,
        has_large_values=False,
        has_corrections=False,
    )
    few = {*days[-4:], *(day for day in days[:-14] if day.day == 10)}
    for day in days:
        if day not in few:
            posts.hidden |= {number for name in instance_ids for number in posts.ids(day, name)}
    return posts


@dataclass
class Account:
    """An account of the independent server, and the user whose settings select it."""

    user: User
    server: IndependentServer
    environment: pytest.MonkeyPatch
    _before: Counter[str] = field(default_factory=Counter)

    @property
    def lake(self) -> Path:
        return self.user.lake

    def configure(self, *instance_ids: str, tables: Sequence[str] = (), months: bool = False, **variables: str) -> None:
        """Set `LATER_INSTANCE_IDS`, or remove it if none is given; and other settings.

        `tables`: those of the lake; all unless some are named. `months`: whether it begins with the first month.
        """
        settings = {
            "LATER_INSTANCE_IDS": ",".join(instance_ids),
            "LATER_TABLES": ",".join(tables),
            "LATER_START_DATE": str(FIRST_MONTH if months else FIRST_DAY),
        }
        for name, value in (settings | variables).items():
            self.environment.setenv(name, value) if value else self.environment.delenv(name, raising=False)

    def run(self, *arguments: str, exit_code: int = 0) -> Result:
        """Run a command, and assert how it ends."""
        self._before = Counter(self.server.asked)
        result = self.user.run(*arguments)
        assert result.exit_code == exit_code, result.output
        return result

    def backfill(self, *arguments: str, days: int = 2, exit_code: int = 0) -> Result:
        """Fetch the newest days of all tables, and bring what depends on them up to date."""
        first = NEWEST - timedelta(days=days - 1)
        return self.run("backfill", "--start", str(first), "--end", str(NEWEST), *arguments, exit_code=exit_code)

    def query(self, sql: str) -> list[Row]:
        found: list[Row] = json.loads(self.run("query", sql, "--format", "json").stdout)
        return found

    def doctor(self, *, exit_code: int = 0) -> dict[str, tuple[str, str]]:
        """Return the mark and the message of each check of `doctor`, by subject; of several, the first."""
        printed = json.loads(self.run("doctor", "--format", "json", exit_code=exit_code).stdout)
        return {each["subject"]: (each["mark"], each["message"]) for each in reversed(printed)}

    @property
    def asked(self) -> Counter[str]:
        """The requests of the last command, by method and target."""
        return self.server.asked - self._before

    def requests(self, path: str = "") -> int:
        """Return how many requests the last command sent, of a path or of all of data."""
        return sum(
            number
            for target, number in self.asked.items()
            if target.startswith("GET ") and path in ("", urlsplit(target[4:]).path)
        )

    def asked_of(self, instance_id: str) -> list[str]:
        """Return the targets of the last command that name an instance."""
        return [target for target in self.asked if f"={instance_id}" in target.replace("%2C", "=").replace(",", "=")]

    def rows(self, table: str) -> list[Row]:
        """Return the rows of a table that is one file."""
        path = self.lake / table / "part-0.parquet"
        return pq.ParquetFile(path).read().to_pylist() if path.exists() else []

    def files(self, table: str) -> dict[str, int]:
        """Return the number of rows of each file of a table of days, by relative folder."""
        folder = self.lake / table
        found = {}
        for path in sorted(folder.rglob("part-0.parquet")):
            found[str(path.parent.relative_to(folder))] = pq.ParquetFile(path).metadata.num_rows
        return found

    def fetched(self, table: str) -> set[str]:
        """Return the instances with a file in a table of days."""
        return {each.partition("instance_id=")[2] for each in self.files(table)}

    def truth(self, first: date, last: date, instance_ids: Iterable[str]) -> Row:
        """Return the columns of the total of instances, as they are stored."""
        parameters = {"instanceIds": sorted(instance_ids), "dateBasis": ["performance_date"]}
        totals = self.server.totals(parameters, first, last)
        return {metric.column: totals[metric.api_name] for metric in ACCOUNT_METRICS}

    def totals(self, *, scope: str | None = None) -> list[Row]:
        """Return the rows of totals of accounts by period, of both scopes or of one."""
        return [row for row in self.rows(ACCOUNT_PERIODS) if scope in (None, row["scope"])]

    def assert_totals(
        self, instance_ids: Collection[str], *, scope: str = "all", but: Collection[date] = ()
    ) -> list[Row]:
        """Assert that there are totals of a scope, and that each is the server's of these instances.

        `but`: months that are left out.
        """
        rows = [row for row in self.totals(scope=scope) if "month" not in row["period"] or row["first_day"] not in but]
        assert rows
        for row in rows:
            expected = self.truth(row["first_day"], row["last_day"], instance_ids)
            assert {name: row.get(name) for name in expected} == expected, (row["period"], row["first_day"])
        return rows

    def periods(self, scope: str, instance_id: str = "") -> set[tuple[str, date]]:
        """Return the windows and months with a total."""
        return {
            (row["period"], row["first_day"]) for row in self.totals(scope=scope) if row["instance_id"] == instance_id
        }


@contextmanager
def serving(
    server: IndependentServer, *, home: Path, folder: Path, environment: pytest.MonkeyPatch
) -> Iterator[Account]:
    """Serve an account while the block runs, with settings that select it and a lake in the folder.

    Of a refusal that may pass, the first response counts.
    """
    environment.setattr(RetryPolicy, "wait_after", lambda *_arguments, **_options: None)
    user = User(home=home, lake=folder / "lake")
    with server.running() as base_url:
        settings = {
            "LATER_BASE_URL": base_url,
            "LATER_CLIENT_ID": CLIENT_ID,
            "LATER_CLIENT_SECRET": CLIENT_SECRET,
            "LATER_LAKE_ROOT": str(user.lake),
            "LATER_REQUESTS_PER_MINUTE": "1000000",
            "LATER_VERIFY_PERCENT": "0",  # of all that is fetched, a random part would be fetched twice
            "LATER_START_DATE": str(FIRST_DAY),
            "LATER_DUE_HOUR_UTC": "0",
        }
        for name, value in settings.items():
            environment.setenv(name, value)
        yield Account(user, server, environment)


def older_months(account: Account) -> list[date]:
    """Return the months before the last three that the last command asked for totals of, once for each request."""
    months = {month_before(NEWEST, number) for number in range(3, MONTHS)}
    found = (
        re.search(r"instances/performance\?startDate=([0-9-]+)&endDate=([0-9-]+)&", target) for target in account.asked
    )
    days = [(date.fromisoformat(each[1]), date.fromisoformat(each[2])) for each in found if each]
    return sorted(first for first, last in days if first in months and last == month_end(first))


def month_end(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def failures(stderr: str) -> list[tuple[str, str]]:
    """Return the table and the subject of each failure that a command printed; it prints equal ones on one line."""
    lines = [line.split("  ", 3) for line in stderr.splitlines() if line.startswith("failed  ")]
    without_count = [(table, re.sub("^[0-9]+ files, ", "", subjects)) for _, table, subjects, _ in lines]
    return [(table, subject) for table, subjects in without_count for subject in subjects.split(", ")]
