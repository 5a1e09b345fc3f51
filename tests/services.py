"""Servers in processes for tests and benchmarks: PostgreSQL from Debian's packages, and the commands of the package."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

WAIT_SECONDS = 400
"""Longest wait for anything that happens at all: on a busy machine, some Dagster processes take minutes to start."""

_Result = TypeVar("_Result")

# Installed by `make services`, in an environment of its own.
DBT_FOLDER = Path(__file__).parents[1] / ".services" / "dbt" / "bin"


@contextmanager
def running_postgres(database: str = "dagster") -> Iterator[str]:
    """Run a PostgreSQL server with an empty database while the block runs.

    Yields:
        The URL of the database, `postgresql://dagster@127.0.0.1:<port>/<database>`.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        # PostgreSQL does not run as root. The package creates the user.
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        data, port = Path(folder, "data"), free_port()
        _run([_postgres("initdb"), "-D", data, "-U", "dagster", "-A", "trust", "--no-sync"], user=user)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=on"
        log = Path(folder, "log")
        _run([_postgres("pg_ctl"), "-D", data, "-l", log, "-w", "-o", options, "start"], user=user)
        try:
            _run([_postgres("createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "dagster", database])
            yield f"postgresql://dagster@127.0.0.1:{port}/{database}"
        finally:
            _run([_postgres("pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop"], user=user)


def postgres_storage(url: str) -> str:
    """Return the lines of a `dagster.yaml` that select a PostgreSQL database for all storage.

    The scheme names the driver that dagster-postgres needs: for `postgresql://`, SQLAlchemy 2.1 takes psycopg 3.
    """
    return f"storage: {{postgres: {{postgres_url: '{url.replace('postgresql:', 'postgresql+psycopg2:')}'}}}}\n"


@contextmanager
def running_api(command: Sequence[str], **options: Any) -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """Run a command that serves the API while the block runs; yield it, its base URL, and what it printed first."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        assert process.stdout is not None
        printed = ""
        try:
            for line in process.stdout:
                printed += line
                if "LATER_BASE_URL=" in line:
                    yield process, line.partition("LATER_BASE_URL=")[2].strip(), printed
                    return
            raise RuntimeError(f"{' '.join(command)} did not start: {printed}")
        finally:
            process.terminate()


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def wait_until(description: str, condition: Callable[[], _Result | None]) -> _Result:
    """Poll `condition` until it returns a true value, and return that."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_SECONDS} s: {description}")
        time.sleep(0.2)
    return result


def wait_for_port(port: int) -> None:
    """Wait until a server accepts connections on a loopback port."""

    def accepts() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    wait_until(f"a server accepts connections on port {port}", accepts)


def _postgres(program: str) -> str:
    """Return the path of a program of PostgreSQL. Debian keeps them outside of PATH."""
    if found := shutil.which(program):
        return found
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    if not installed:
        raise FileNotFoundError(f"{program} not found: apt-get install postgresql")
    return str(installed[-1])


def _run(command: Sequence[str | Path], *, user: str | None = None) -> None:
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, timeout=WAIT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
