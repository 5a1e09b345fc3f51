"""What a user can get wrong: each is one line that names it and says what to do, wherever the user sees it."""

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import dagster as dg
import pytest

from later_reporting_dagster.cli import main
from later_reporting_dagster.cli.terminal_text import in_one_line, shown_id
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.settings import LoadSettings
from tests.cli.conftest import User, environment, error_line, load_definitions
from tests.conftest import Service
from tests.defs.test_mistakes import AT_LOAD, OF_THE_CLIENT, OF_THE_INSTANCES, OF_THE_LAKE, Mistake, set_wrong

RANGE = ("--start", "2024-03-01", "--end", "2024-03-02")
PUBLISHED = ("backfill", "--asset", "later/posts_published", *RANGE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dagster that has been used: a new one for each mistake would take most of the time here."""
    home = tmp_path_factory.mktemp("dagster-home")
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}):
        return home


@pytest.fixture
def user(user: User, home: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return replace(user, home=home)


def not_well(user: User) -> list[str]:
    """The doctor's lines on what is not well."""
    result = user.types("doctor")
    assert result.exit_code == 1, result.output
    lines = result.output.splitlines()
    # A line that broke would have no mark.
    assert all(line.startswith(("ok  ", "FAIL", "Error: ")) for line in lines), lines
    return [line for line in lines if not line.startswith("ok  ")]


@pytest.mark.parametrize("mistake", [*OF_THE_CLIENT, *OF_THE_LAKE, *OF_THE_INSTANCES, *AT_LOAD], ids=str)
def test_doctor_names_a_wrong_setting(mistake: Mistake, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    set_wrong(mistake, monkeypatch)
    (line,) = not_well(user)
    assert re.search(mistake.line, line)
    assert "pa55w" not in line


@pytest.mark.parametrize("mistake", [*OF_THE_CLIENT, *OF_THE_INSTANCES, *OF_THE_LAKE[:2]], ids=str)
def test_backfill_names_a_wrong_setting(
    mistake: Mistake, user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_wrong(mistake, monkeypatch)
    load_definitions(monkeypatch)
    result = user.types(*PUBLISHED)
    assert result.exit_code == 1
    assert re.match(mistake.line, error_line(result))
    assert "pa55w" not in result.output
    assert service.requests == []


def test_dagsters_own_commands_end_with_the_line_too(tmp_path: Path) -> None:
    validate = ["dagster", "definitions", "validate", "-m", "later_reporting_dagster.definitions"]
    materialize = ["dagster", "asset", "materialize", "-m", "later_reporting_dagster.definitions"]
    # All that only a run needs is wrong, and nobody is there to talk to.
    wrong = {mistake.variable: mistake.value for mistake in (OF_THE_CLIENT[1], OF_THE_CLIENT[-2], OF_THE_LAKE[1])}
    commands = [
        (validate, {"LATER_START_DATE": "spring"}),
        (validate, wrong),
        ([*materialize, "--select", "later/posts_published", "--partition", "2024-03-01 nobody"], {}),
    ]
    homes = [tmp_path / str(number) for number in range(len(commands))]
    for each in homes:
        each.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**environment(), "DAGSTER_HOME": str(own_home), **settings},
            cwd=own_home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for own_home, (command, settings) in zip(homes, commands, strict=True)
    ]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 0, 1], told
    assert "ValueError: LATER_START_DATE is a day as YYYY-MM-DD, not 'spring'" in told[0]
    assert "2024-03-01 nobody" in told[2].splitlines()[-1]
    assert "pa55w" not in "".join(told)


def test_a_start_in_the_future_loads_and_the_doctor_says_so(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    monkeypatch.setenv("LATER_START_DATE", str(tomorrow))
    definitions(LoadSettings.from_environment())
    (line,) = not_well(user)
    assert f"LATER_START_DATE is {tomorrow}, which is not over yet (UTC): set it earlier" in line
    result = user.types(*PUBLISHED)
    assert f"before the first partition: set LATER_START_DATE, now {tomorrow}, earlier" in error_line(result)


@pytest.mark.parametrize(
    ("home", "told"),
    [("", "DAGSTER_HOME is not set"), ("relative", "DAGSTER_HOME=relative"), ("/no/such", "DAGSTER_HOME=/no/such")],
)
def test_a_dagster_home_that_is_none_is_named(
    home: str, told: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    (line,) = not_well(user)
    assert told in line
    assert told in error_line(user.types(*PUBLISHED))


def test_a_dagster_yaml_that_cannot_be_read_is_one_line(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: [\n no")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (line,) = not_well(user)
    assert f"DAGSTER_HOME={tmp_path} does not open" in line


@pytest.mark.parametrize("root", ["a file", "below a file", "nothing may be made here"])
def test_a_lake_that_cannot_be_written_is_named_with_the_next_step(
    root: str, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    monkeypatch.setenv("LATER_LAKE_ROOT", str({"a file": file, "below a file": file / "x"}.get(root, "/proc/later")))
    (line,) = not_well(user)
    assert re.search(r"FAIL  lake +LATER_LAKE_ROOT: cannot write .*Next step: ", line)


def test_doctor_names_an_instance_that_the_credentials_do_not_reach(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, ,007,no\nbody,")
    (line,) = not_well(user)
    assert r"LATER_INSTANCE_IDS names 'no\nbody', which the credentials do not reach" in line


# Flags.

VALID = {"asset": "later/posts_published", "start": "2024-03-01", "end": "2024-03-02"}


# Each option of each command but those that take any text there is.
TYPED_OPTIONS = [
    pytest.param(command, option, id=f"{name} {option.opts[0]}")
    for name, command in main.commands.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag and option.type is not click.STRING
]


@pytest.mark.parametrize(("command", "option"), TYPED_OPTIONS)
def test_a_value_that_no_flag_takes_is_one_line_that_names_the_flag(
    command: click.Command, option: click.Option, user: User, tmp_path: Path
) -> None:
    wrong = tmp_path / "file"
    wrong.write_bytes(b"")
    others = [
        argument
        for other in command.params
        if isinstance(other, click.Option) and other.required and other is not option
        for argument in (other.opts[0], VALID[str(other.name)])
    ]
    result = user.types(str(command.name), *others, option.opts[0], str(wrong))
    assert result.exit_code == 2
    assert error_line(result).startswith(f"Invalid value for '{option.opts[0]}'")


@pytest.fixture
def taken_port(service: Service) -> str:
    """A port on which somebody listens already."""
    return service.base_url.rpartition(":")[2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sandbox", "--port", "65536"], "Invalid value for '--port': 65536 is not in the range"),
        (["sandbox", "--port", "-1"], "Invalid value for '--port': -1 is not in the range"),
        (["sandbox", "--port", "TAKEN"], "--host, --port: .*in use"),
        (["sandbox", "--host", ""], "--host is empty.*leave it out"),
        (["sandbox", "--host", "no.such.host.invalid", "--port", "0"], r"--host, --port: .*no\.such\.host\.invalid"),
        (["sandbox", "--latency", "nan"], "Invalid value for '--latency': 'nan' is not a number of seconds"),
        (["sandbox", "--latency", "-1"], "Invalid value for '--latency'"),
        (["sandbox", "--window", "inf"], "Invalid value for '--window': 'inf' is not a number of seconds"),
        (["sandbox", "--window", "0"], "Invalid value for '--window'"),
        (["sandbox", "--seed", "-1"], "Invalid value for '--seed': -1 is not in the range"),
        (["sandbox", "--instances", "0"], "Invalid value for '--instances'"),
        (["sandbox", "--fault", "no-such:0.1"], "--fault: there is no fault 'no-such'; there are "),
        (["sandbox", "--fault", "http-500"], "--fault: 'http-500' is not a fault and its probability, as "),
        (["sandbox", "--hostile", "nan:2"], "--hostile: the probability of nan is from 0 to 1, not 2"),
        (["demo", "--directory", "FILE/below"], "--directory: .*Name a folder that can be written"),
        (["demo", "--days", "366"], "Invalid value for '--days'"),
        (["demo", "--seed", "-1"], "Invalid value for '--seed'"),
        (["demo", "--ui-port", "0"], "Invalid value for '--ui-port'"),
        (["demo", "--ui", "--ui-port", "TAKEN"], r"--ui-port \d+: .*in use"),
        (["backfill", "--asset", "nothing", *RANGE], "Invalid value for '--asset': 'nothing' is not one of"),
        (["backfill", "--asset", "posts_published", *RANGE, "--instances", ""], "--instances names none: leave it out"),
        (["backfill", "--asset", "posts_published", *RANGE, "--instances", "x" * 300], "--instances: .*has room for"),
        (
            ["backfill", "--asset", "posts_published", *RANGE, "--instances", "\udcff"],
            "--instances: .*not valid Unicode",
        ),
        (["instances", "--sync"], "No such option '?--sync"),
        (["no-such-command"], "No such command"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line_that_says_what_to_do(
    arguments: list[str], line: str, user: User, tmp_path: Path, taken_port: str, service: Service
) -> None:
    (tmp_path / "FILE").write_bytes(b"")
    typed = [each.replace("TAKEN", taken_port).replace("FILE", str(tmp_path / "FILE")) for each in arguments]
    result = user.types(*typed)
    assert result.exit_code in (1, 2)
    assert re.match(line, error_line(result))
    assert service.requests == []


def test_what_others_wrote_is_one_line_and_moves_no_cursor() -> None:
    assert in_one_line("as  it is") == "as  it is"
    assert in_one_line("two\n  lines, \x1b[31mred\x07") == "two lines, \ufffd[31mred\ufffd"
    assert shown_id("Zoë 😀  %2F") == "Zoë 😀  %2F"
    assert shown_id("a\nb\u202e") == r"'a\nb\u202e'"
