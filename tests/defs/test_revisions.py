"""A run lands the same whichever revision the API speaks, and says once when that has changed."""

from pathlib import Path

import pytest
from later_reporting_dagster.defs.runs.progress import Progress, ProgressTeller

from later_reporting_dagster.client import RevisionChanged
from tests.conftest import INSTANCE_IDS, Service, Truth, both_revisions, stored_rows
from tests.defs.conftest import DAYS, Project


@both_revisions
def test_a_run_lands_and_warns_once_of_a_change(
    project: Project, service: Service, truth: Truth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LATER_SECOND_LOOK_PERCENT", "0")
    told = []
    for _ in range(2):
        result = project.fetch("posts_published")
        assert result.success
        warnings = [entry for entry in project.instance.all_logs(result.run_id) if entry.level == 30]
        told.append([entry.user_message for entry in warnings])
        # What the next run remembers is what the service spoke before.
        (kept,) = (tmp_path / "cache" / "later-reporting").glob("revision-*")
        assert kept.read_text() == str(service.revision)
        kept.write_text("paged" if str(service.revision) == "cursor" else "cursor")
    other = {"paged": "cursor", "cursor": "paged"}[str(service.revision)]
    assert told == [[], [f"The API has changed: {RevisionChanged(other, str(service.revision))}"]]
    for day in DAYS:
        for instance_id in INSTANCE_IDS:
            rows = truth.partition("post_date", day, instance_id)
            assert stored_rows(project.root, "posts_published", day, instance_id) == rows


def test_a_change_is_a_warning_where_there_is_one_to_be_had() -> None:
    for warn in (True, False):
        lines: list[str] = []
        warnings: list[str] = []
        progress = Progress("posts_published", partitions=1)
        teller = ProgressTeller(progress, log=lines.append, warn=warnings.append if warn else None)
        teller.note(RevisionChanged("paged", "cursor"))
        (line,) = warnings if warn else lines
        assert line.startswith("The API has changed: the service speaks the revision cursor of the API now")
