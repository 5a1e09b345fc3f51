"""CONTRIBUTING.md: its edits apply to a copy of the repository, and its commands run there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.conftest import CONTRIBUTING, ROOT, Shell, code_blocks, section, split_commands

pytestmark = pytest.mark.docs

# A path in the paragraph before a block, which ends in a colon; the language of the block; its content.
EDITS = re.compile(
    r"`((?:later_reporting_dagster/|tests/|docs/|README)[\w/.-]+)`(?:(?!\n\n).)*?:\n\n```(\w+)\n(.*?)^```",
    re.DOTALL | re.MULTILINE,
)
# Each section, its number of edits, and what its last command prints.
SECTIONS = [("Add a metric", 4, "organic_profile_visits_posts"), ("Add a rollup", 3, "paid_lift")]


def copy_of_the_repository(folder: Path) -> Path:
    """Copy the files of the repository into a new folder."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def apply_edits(repository: Path, text: str) -> list[str]:
    """Apply the edits of a section, and return the files that they change or create."""
    edits = EDITS.findall(text)
    for path, language, block in edits:
        file = repository / path
        if language == "diff":
            file.write_text(apply_diff(file.read_text(), block))
        else:
            assert not file.exists(), path
            file.write_text(block)
    return [path for path, _, _ in edits]


def apply_diff(text: str, diff: str) -> str:
    """Apply hunks separated by a line `...`; in lines that must exist, `…` stands for the rest of the line."""
    for hunk in diff.split("...\n"):
        lines = hunk.splitlines()
        expected = [line[1:] for line in lines if not line.startswith("+")]
        current = text.splitlines()
        places = [
            place
            for place in range(len(current))
            if all(map(_matches, current[place : place + len(expected)], expected))
        ]
        assert len(places) == 1, f"{hunk} is in {len(places)} places"
        place = places[0]
        replacement: list[str] = []
        for line in lines:
            if line.startswith("+"):
                replacement.append(line[1:])
                continue
            if not line.startswith("-"):
                replacement.append(current[place])
            place += 1
        text = "\n".join([*current[: places[0]], *replacement, *current[place:]]) + "\n"
    return text


def _matches(line: str, expected: str) -> bool:
    return line.startswith(expected[:-1]) if expected.endswith("…") else line == expected


@pytest.mark.docs
def test_edits_apply_and_commands_succeed(tmp_path: Path, shell: Shell) -> None:
    in_copy = shell.in_repository(copy_of_the_repository(tmp_path / "repository"))
    for heading, edits, shown in SECTIONS:
        text = section(CONTRIBUTING, heading)
        assert len(apply_edits(in_copy.directory, text)) == edits
        commands = [command for block in code_blocks(text, "sh") for command in split_commands(block)]
        # As processes of their own, which import the edited package.
        printed = [in_copy.run_process("bash", "-o", "pipefail", "-ec", command) for command in commands]
        assert shown in printed[-1]
        assert len(printed[-1].splitlines()) > 2
