"""Run the services of deploy/docker-compose.yaml as processes, with PostgreSQL from Debian in place of its image.

What containers would provide is replaced: the names of services by loopback, their ports by free ones, and their
volumes and mounted files by folders and files below a temporary folder. Commands, health checks and variables stay.
"""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.dagster_dev import REPOSITORY, clean_environment
from tests.services import WAIT_SECONDS, free_port, running_postgres, wait_until

DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"


def resolved_compose_file(folder: Path) -> Any:
    """Return docker-compose.yaml of a folder as Docker Compose reads it, with variables and defaults filled in."""
    command = ["docker-compose", "--file", "docker-compose.yaml", "config", "--format", "json"]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


def copy_with_env_file(folder: Path, settings: Mapping[str, str]) -> Path:
    """Copy deploy/ into a folder, with an `.env` file: the example with `settings` filled in. Return the copy."""
    copy = shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns(".env"))
    lines = [f"{name}={value}" for name, value in settings.items()]  # they replace the lines before them
    (copy / ".env").write_text("\n".join([(copy / ".env.example").read_text(), *lines, ""]))
    return copy


def image_instruction(name: str) -> Sequence[str]:
    """Return the command of the last `CMD` or `HEALTHCHECK` of the Dockerfile."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    pattern = r"^CMD (\[.*\])$" if name == "CMD" else r"^HEALTHCHECK .*CMD (\[.*\])$"
    command: Sequence[str] = json.loads(re.findall(pattern, text, re.MULTILINE)[-1])
    return command


def image_environment() -> Mapping[str, str]:
    """Return the variables that the last stage of the Dockerfile sets, without PATH."""
    pairs = [pair for line in re.findall(r"^ENV (.*)$", DOCKERFILE.read_text(), re.MULTILINE) for pair in line.split()]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name != "PATH"}


@dataclass
class Composition:
    """The services of a resolved compose file.

    Attributes:
        services: by name, as in the file.
        root: folder that stands for the root of each container's file system. All services share it, because they
            mount the same at the same places.
        ports: the free port in place of each port of a service.
    """

    services: Mapping[str, Any]
    root: Path
    ports: Mapping[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def translate(self, text: str) -> str:
        """Return an argument or a value as it is outside of containers."""
        if text in self.services or text == "0.0.0.0":  # noqa: S104
            return "127.0.0.1"
        if text in self.ports:
            return str(self.ports[text])
        for port, free in self.ports.items():
            text = re.sub(rf"127\.0\.0\.1:{port}\b", f"127.0.0.1:{free}", text)
        mounted = tuple(volume["target"] for service in self.services.values() for volume in service["volumes"])
        is_path = text.startswith(mounted) or any(target.startswith(f"{text}/") for target in mounted)
        return f"{self.root}{text}" if is_path else text

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a service: those of the compose file and of the image."""
        variables = {**image_environment(), **self.services[name]["environment"]}
        translated = {variable: self.translate(value) for variable, value in variables.items()}
        return clean_environment() | {"HOME": str(self.root), "XDG_CACHE_HOME": str(self.root / "cache")} | translated

    def mount(self) -> None:
        """Create the folders of all volumes, and copy the mounted files with translated values."""
        for volume in (volume for service in self.services.values() for volume in service["volumes"]):
            target = Path(f"{self.root}{volume['target']}")
            if volume["type"] == "volume":
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                source = Path(volume["source"]).read_text()
                target.write_text(re.sub(r"(?<=: )\S+", lambda value: self.translate(value[0]), source))

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the environment of a service, like `docker compose exec`."""
        arguments, options = [*map(self.translate, command)], {"cwd": self.root, "env": self.environment(name)}
        return subprocess.run(arguments, **options, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)

    def is_healthy(self, name: str) -> bool:
        """Run the health check of a service."""
        if (code := self.processes[name].poll()) is not None:
            raise AssertionError(f"{name} exited with {code}: {self.log(name).read_text()}")
        check = self.services[name].get("healthcheck", {}).get("test")
        return self.run(name, *(check[1:] if check else image_instruction("HEALTHCHECK"))).returncode == 0

    def start(self, name: str) -> None:
        """Start a service, and wait until it is healthy."""
        command = [self.translate(each) for each in self.services[name]["command"] or image_instruction("CMD")]
        # What `init: true` runs in a container.
        init = ["tini", "-s", "--"] if self.services[name].get("init") else []
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*init, *command],
                cwd=self.root,
                env=self.environment(name),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(f"{name} is healthy", lambda: self.is_healthy(name))

    def stop_all(self) -> None:
        """Stop all services, the last one first, and kill what is left of their processes after a while."""
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=90)
            subprocess.run(["pkill", "--signal", "KILL", "--session", str(process.pid)], check=False)
            process.wait()

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"


@contextmanager
def running_composition(directory: Path, settings: Mapping[str, str]) -> Iterator[Composition]:
    """Run all services of docker-compose.yaml while the block runs, with `settings` in its `.env` file."""
    services = resolved_compose_file(copy_with_env_file(directory, settings))["services"]
    database = services["postgres"]["environment"]["POSTGRES_DB"]
    with running_postgres(database) as url:
        ports = {"5432": urlsplit(url).port or 0, "4000": free_port(), "3000": free_port()}
        composition = Composition(services, directory / "root", ports)
        composition.mount()
        try:
            required = {name: service.get("depends_on", {}) for name, service in services.items()}
            for name in TopologicalSorter(required).static_order():
                if name != "postgres":
                    composition.start(name)
            yield composition
        finally:
            composition.stop_all()
