"""Mistakes of users: each command prints one line that names the wrong setting or option and the next step."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.lake import Lake
from tests.cli.conftest import User, error_line
from tests.conftest import Service
from tests.defs.test_invalid_settings import LOAD_SETTINGS, SETTINGS_OF_RUNS

RANGE = ("--start", "2024-03-01", "--end", "2024-03-02")
PUBLISHED = ("backfill", "--asset", "later/posts_published", *RANGE)


def failed_check_lines(user: User) -> list[str]:
    """Return the lines of failed checks that the doctor prints."""
    result = user.run("doctor")
    assert result.exit_code == 1, result.output
    lines = result.output.splitlines()
    # The second line of a message with a line break would start otherwise.
    assert all(line.startswith(("ok  ", "FAIL", "Error: ")) for line in lines), lines
    return [line for line in lines if not line.startswith("ok  ")]


# Runs and loading are tested with all of them.
@pytest.mark.parametrize(("field", "value", "line"), [*SETTINGS_OF_RUNS, *LOAD_SETTINGS][::2])
def test_doctor_names_an_invalid_setting(
    field: str, value: str, line: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LATER_{field.upper()}", value)
    (printed,) = failed_check_lines(user)
    assert re.search(line, printed)
    assert "pa55w" not in printed


def test_doctor_names_a_start_date_in_the_future(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).date()
    yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
    monkeypatch.setenv("LATER_START_DATE", str(tomorrow))
    (line,) = failed_check_lines(user)
    assert (
        f"LATER_START_DATE is {tomorrow}, which is not over yet (UTC), so there is nothing to fetch: set it earlier"
        in line
    )
    for command in (PUBLISHED, ("backfill",)):
        assert error_line(user.run(*command)) == (
            f"LATER_START_DATE {tomorrow} is not over yet: set it to {yesterday} or an earlier day (UTC)"
        )


@pytest.mark.parametrize(
    ("home", "message"),
    [("", "DAGSTER_HOME is not set"), ("relative", "DAGSTER_HOME=relative"), ("/no/such", "DAGSTER_HOME=/no/such")],
)
def test_commands_name_an_invalid_dagster_home(
    home: str, message: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    (line,) = failed_check_lines(user)
    assert message in line
    assert message in error_line(user.run(*PUBLISHED))


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (PUBLISHED, ["DAGSTER_HOME", "LATER_LAKE_ROOT", "LATER_CLIENT_ID"]),
        (("refresh",), ["DAGSTER_HOME", "LATER_LAKE_ROOT"]),
        (("instances",), ["LATER_LAKE_ROOT", "LATER_CLIENT_ID"]),
        (("serve",), ["LATER_SERVE_CLIENT_ID", "LATER_LAKE_ROOT"]),
    ],
    ids=lambda each: each[0],
)
def test_commands_name_all_variables_that_are_not_set(
    command: tuple[str, ...], missing: list[str], user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_HOME", "LATER_LAKE_ROOT", "LATER_CLIENT_ID", "LATER_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    line = error_line(user.run(*command))
    assert sorted(missing, key=line.index) == missing


def test_doctor_prints_one_line_for_an_invalid_dagster_yaml(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: [\n no")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (line,) = failed_check_lines(user)
    assert f"Cannot open the Dagster instance in DAGSTER_HOME={tmp_path}" in line


@pytest.mark.parametrize("root", ["a file", "below a file", "not writable"])
def test_doctor_names_a_lake_that_cannot_be_written_and_the_next_step(
    root: str, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    monkeypatch.setenv("LATER_LAKE_ROOT", str({"a file": file, "below a file": file / "x"}.get(root, "/proc/later")))
    (line,) = failed_check_lines(user)
    assert re.search(r"FAIL  lake +LATER_LAKE_ROOT: cannot write .*Next step: ", line)


def test_doctor_names_an_inaccessible_instance_on_one_line(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, ,007,no\nline,")
    (line,) = failed_check_lines(user)
    assert r"LATER_INSTANCE_IDS names 'no\nline', which the credentials cannot access" in line


# Options.


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sandbox", "--port", "USED"], "--host, --port: the port is in use: choose another one"),
        (["sandbox", "--host", "\udcff"], "Invalid value for '--host': it is no address: omit it"),
        (["sandbox", "--host", ""], "Invalid value for '--host': it is no address: omit it"),
        (["sandbox", "--host", "no.such.host.invalid", "--port", "0"], r"--host, --port: .*no\.such\.host\.invalid"),
        (["serve", "--snapshot-gb", "nan"], "Invalid value for '--snapshot-gb': 'nan' is not a number"),
        (["sandbox", "--posts-per-day", "9223372036854775808"], "Invalid value for '--posts-per-day': "),
        (["serve", "--memory-gb", "inf"], "Invalid value for '--memory-gb': inf is not in the range"),
        (["demo", "--directory", "FILE/below"], "--directory: .*Name a folder that can be written"),
        (["demo", "--ui", "--ui-port", "USED"], r"--ui-port \d+: the port is in use: choose another one"),
        (
            ["backfill", "--asset", "posts_published", *RANGE, "--instances", ""],
            "--instances: '' names no instance: omit it to fetch all",
        ),
        (["backfill", "--asset", "posts_published", *RANGE, "--instances", "\udcff"], "--instances: .*Unicode"),
    ],
)
def test_commands_name_an_invalid_option_and_the_next_step(
    arguments: list[str], line: str, user: User, tmp_path: Path, service: Service
) -> None:
    (tmp_path / "FILE").write_bytes(b"")
    values = {"USED": service.base_url.rpartition(":")[2], "FILE/below": str(tmp_path / "FILE" / "below")}
    result = user.run(*(values.get(argument, argument) for argument in arguments))
    assert result.exit_code in (1, 2)
    assert re.match(line, error_line(result))
    assert service.requests == []


def test_internal_error_is_no_message_for_users(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_lake: Lake) -> None:
        [*zip([1], [], strict=True)]

    monkeypatch.setattr(Lake, "check_writable", fail)
    result = CliRunner().invoke(main, ["doctor"])
    assert str(result.exception) == "zip() argument 2 is shorter than argument 1"


def test_one_line_removes_control_characters() -> None:
    assert one_line("as  it is") == "as  it is"
    assert one_line("two\n  lines, \x1b[31mred\x07") == "two lines, \ufffd[31mred\ufffd"


@pytest.mark.parametrize("command", [("backfill", *RANGE), ("quarantine",)], ids=lambda command: command[0])
def test_commands_reject_an_asset_of_another_component(
    command: tuple[str, ...], user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_KEY_PREFIX", "marketing,later")
    for asset in ("marketing/posts_published", "eu/posts_published", "other/marketing/later/posts_published"):
        line = error_line(user.run(*command, "--asset", asset))
        assert line == f"--asset {asset!r} is of another component: this one has marketing/later/posts_published"
    for asset in ("posts_published", "later/posts_published", "marketing/later/posts_published"):
        assert user.run(*command, "--asset", asset).exit_code == 0


@pytest.mark.parametrize("given", [".", "pyproject.toml", "src"])
def test_commands_run_no_module_of_another_user(
    given: str, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_away: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    Path("src/planted.py").write_text("raise RuntimeError('it ran')")
    Path("pyproject.toml").write_text("[tool.dagster]\nmodule_name = 'planted'\n")
    assert error_line(user.run("quarantine")) == "cannot load planted: it ran"
    give_away(Path(given))
    assert "belongs to another user, whose code would run as yours: " in error_line(user.run("quarantine"))
    assert error_line(user.run("-m", "planted", "quarantine")) == "cannot load planted: it ran"
    Path("pyproject.toml").write_text("")
    assert user.run("quarantine").exit_code == 0


@pytest.mark.parametrize("given", [".", "dagster-home", "dagster-home/dagster.yaml"])
def test_demo_obeys_no_file_of_another_user(
    given: str, user: User, tmp_path: Path, give_away: Callable[[Path], None]
) -> None:
    home = tmp_path / ".later-demo" / "dagster-home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("python_logs: {dagster_handler_config: {handlers: {}}}")
    give_away(tmp_path / ".later-demo" / given)
    line = error_line(user.run("demo", "--directory", str(tmp_path / ".later-demo")))
    assert re.fullmatch(".* belongs to another user, .*: name another folder with --directory", line)


def test_commands_name_a_pyproject_file_that_cannot_be_read(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its module, they would use the lake of the environment."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("[tool.dg.project\n")
    assert "cannot read pyproject.toml: " in error_line(user.run(*PUBLISHED))
    assert not user.lake.exists()
