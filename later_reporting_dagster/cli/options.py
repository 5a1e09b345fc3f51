"""What the commands share: option types, errors of one line, and text that is safe to print."""

import errno
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from later_reporting_dagster.contract.days import newest_day, utc_now
from later_reporting_dagster.contract.safe_line import one_line

if TYPE_CHECKING:
    from later_reporting_dagster.cli.project import Project


def yesterday() -> date:
    """Return the newest day that is over in UTC."""
    return newest_day(utc_now())


class NumberRange(click.FloatRange):
    """A number in a range. `click.FloatRange` alone accepts `nan`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with a usage error."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def renamed_to(name: str) -> Callable[[click.Context, click.Parameter, object], None]:
    """Return the callback of an option whose name was given up: it is refused with the new one."""

    def refuse(_context: click.Context, option: click.Parameter, value: object) -> None:
        if value:
            raise click.UsageError(f"{option.opts[0]} is {name} now: rename it")

    return refuse


def table_name(asset: str, known: Sequence[str], *, project: "Project") -> str:
    """Return the table of an asset, given by its key, such as `later/posts_published`, or by the end of its key."""
    name = asset.rpartition("/")[2]
    if name not in known:
        raise click.UsageError(f"--asset {asset!r} is not one of {', '.join(known)}")
    key = project.settings.asset_key(name).to_user_string()
    if not f"/{key}".endswith(f"/{asset}"):
        raise click.UsageError(f"--asset {asset!r} is of another component: this one has {key}")
    return name


def current_project() -> "Project":
    """Return the project that the options of the command line choose."""
    from later_reporting_dagster.cli.project import load_project

    module, name = click.get_current_context().find_root().obj
    return load_project(module, name=name)


def user_errors() -> tuple[type[Exception], ...]:
    """Return the errors whose message tells a user what to do; any other error is a bug."""
    from later_reporting_dagster.client import LaterError
    from later_reporting_dagster.defs.resource import InvalidSetting
    from later_reporting_dagster.lake import FileDamaged, LakeUnavailable
    from later_reporting_dagster.lake.sql_query import QueryError

    return click.ClickException, FileDamaged, InvalidSetting, LakeUnavailable, LaterError, QueryError


class Interrupted(click.ClickException):
    """Ctrl-C ended a command, which then exits as a shell expects it."""

    exit_code = 128 + signal.SIGINT


class Commands(click.Group):
    """Commands that print errors for users as one line without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error
        except Exception as error:
            if str(error) == "Query interrupted":  # how DuckDB raises a Ctrl-C that it hears itself
                raise Interrupted("interrupted") from error
            if isinstance(error, user_errors()):
                raise click.ClickException(one_line(str(error))) from error
            raise


class SqlCommand(click.Command):
    """A command whose argument is SQL, which may begin with a comment."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments: `-- ` is no option."""
        return super().parse_args(ctx, [f"\n{each}" if each.startswith("-- ") else each for each in args])


def check_all(*checks: Callable[[], Any]) -> list[Any]:
    """Return the result of each, or raise one error for all that raise one, so that all that is not set is named."""
    results: list[Any] = []
    errors: list[Exception] = []
    for check in checks:
        try:
            results.append(check())
        except user_errors() as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise click.ClickException("; ".join(map(str, errors)))
    return results


@contextmanager
def prefix_errors_with(options: str) -> Iterator[None]:
    """Prefix errors inside the block with the options that caused them, for example `--host, --port`."""
    try:
        yield
    except BrokenPipeError:  # the reader of the output is gone, which no option can fix
        raise
    except (ValueError, OSError) as error:
        is_port_used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        message = "the port is in use: choose another one, or stop what listens there" if is_port_used else error
        raise click.UsageError(one_line(f"{options}: {message}")) from error
