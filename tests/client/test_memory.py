"""What a service was last heard to speak is known to the next process, and to nobody else."""

import logging
import stat
from pathlib import Path

import pytest

from later_reporting_dagster.client import RevisionMemory, remembered_revision_path, shared_state_path
from later_reporting_dagster.contract import CURSOR, PAGED


def test_it_lies_beside_the_shared_rate_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = remembered_revision_path("https://example.com")
    assert path.parent == shared_state_path("https://example.com").parent
    assert path.name.startswith("revision-")
    assert path != remembered_revision_path("https://example.org")


def test_the_next_process_knows_and_only_this_user(tmp_path: Path) -> None:
    path = tmp_path / "no" / "folders" / "yet" / "revision"
    RevisionMemory(path).keep(CURSOR)
    assert RevisionMemory(path).recall() is CURSOR
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    RevisionMemory(path).keep(PAGED)
    assert RevisionMemory(path).recall() is PAGED


@pytest.mark.parametrize("content", [b"", b"page", b"\xff\xfe"])
def test_what_names_no_revision_is_as_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "revision"
    path.write_bytes(content)
    assert RevisionMemory(path).recall() is None


def test_a_file_that_cannot_be_written_costs_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    memory = RevisionMemory(tmp_path / "file" / "revision")
    with caplog.at_level(logging.INFO):
        memory.keep(CURSOR)
    assert memory.recall() is CURSOR
    assert "the revision of the API is not kept for other processes" in caplog.text
