"""How many requests a first run and a later one send, of accounts with one and with many instances."""

from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.accounts import MONTHS, Account, new_posts, serving
from tests.cli.test_instances import FETCHED, LISTS
from tests.independent_server import IndependentServer

# At most so many requests, besides those for tokens, of a run of 30 days into an empty lake, and of each that follows.
MOST = {("a",): (103 + 7 + MONTHS - 3, 96 + 7), tuple("abcdefgh"): (161, 152)}


@pytest.mark.parametrize("instance_ids", MOST, ids=["one", "eight"])
def test_runs_send_no_more_requests_than_they_need(
    instance_ids: tuple[str, ...], dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = IndependentServer(new_posts(*instance_ids), by_cursor=False)
    with serving(server, home=dagster_home, folder=tmp_path, environment=monkeypatch) as account:
        account.configure(tables=(*FETCHED, *LISTS), months=True)
        for most in MOST[instance_ids]:
            account.backfill(days=30)
            assert account.requests() <= most, by_path(account)


def by_path(account: Account) -> Counter[str]:
    found: Counter[str] = Counter()
    for target, number in account.asked.items():
        found[urlsplit(target.partition(" ")[2]).path] += number
    return found
