"""`later-reporting page`: copies the page with the results, or says where it is."""

from pathlib import Path

from later_reporting_dagster.report.report_data import REPORT_PATH
from tests.cli.conftest import User, error_line


def test_page_is_copied_to_a_file(user: User, tmp_path: Path) -> None:
    page = user.lake / REPORT_PATH
    page.parent.mkdir(parents=True)
    page.write_bytes(b"<html>results</html>")
    copy = tmp_path / "copy.html"
    assert user.run("page", "--output", str(copy)).stdout == ""
    assert copy.read_bytes() == page.read_bytes()
    assert user.run("page").stdout == f"{page}\n"


def test_page_that_does_not_exist_names_the_command_that_writes_it(user: User, tmp_path: Path) -> None:
    result = user.run("page", "--output", str(tmp_path / "copy.html"))
    assert result.exit_code == 1
    assert error_line(result) == f"{user.lake / REPORT_PATH} does not exist: `later-reporting refresh` writes it"


def test_link_to_a_page_on_a_disk_is_refused(user: User) -> None:
    page = user.lake / REPORT_PATH
    page.parent.mkdir(parents=True)
    page.write_bytes(b"<html>results</html>")
    result = user.run("page", "--link-days", "7")
    assert result.exit_code != 0
    assert error_line(result) == f"--link-days: {page} is on a disk, so no link leads to it: send a copy of the file"
