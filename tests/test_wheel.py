"""What a release consists of: a wheel and an sdist that work outside of the checkout, in an empty environment."""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.services import running_api

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def names(wheel: Path) -> list[str]:
    """Return the paths of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist of a copy of the checkout, in which each folder has a secret."""
    folder, copy = tmp_path_factory.mktemp("release"), tmp_path_factory.mktemp("checkout")
    for path in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
        (copy / path).with_name(".env.local").write_text("LATER_CLIENT_SECRET=")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--target", "sdist"]
    subprocess.run([*build, "--directory", str(folder)], cwd=copy, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_release_can_be_uploaded(release: tuple[Path, Path]) -> None:
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, release)], check=True)


def test_wheel_contains_all_of_the_package_and_nothing_else(release: tuple[Path, Path]) -> None:
    files = [path for path in (ROOT / "later_reporting_dagster").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    packed = [name for name in names(release[0]) if ".dist-info/" not in name]
    assert packed == sorted(str(path.relative_to(ROOT)) for path in files)
    assert "later_reporting_dagster/py.typed" in packed


def test_sdist_contains_no_other_hidden_files_than_the_repository(release: tuple[Path, Path]) -> None:
    with tarfile.open(release[1]) as archive:
        hidden = {name.partition("/")[2] for name in archive.getnames() if "/." in name}
    assert hidden == {".gitignore", "deploy/.env.example"}


def test_sdist_builds_the_same_wheel(release: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = release
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(sdist)]
    subprocess.run(command, check=True)
    assert names(tmp_path / wheel.name) == names(wheel)


def test_wheel_runs_the_demo_and_serves_it_in_an_empty_environment(release: tuple[Path, Path], tmp_path: Path) -> None:
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    venv.create(environment)
    folder.mkdir()
    install = ["--python", str(environment / "bin" / "python"), "install", "--no-compile"]
    subprocess.run([*PIP, *install, "--constraint", str(ROOT / "constraints.txt"), str(release[0])], check=True)
    installed = sorted(environment.rglob("*"))
    variables = {
        "HOME": str(tmp_path),
        "LATER_LAKE_ROOT": str(folder / ".later-demo" / "lake"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = str(environment / "bin" / "later-reporting")
    subprocess.run([command, "demo", "--days", "2"], cwd=folder, env=variables, check=True)
    serve = [command, "serve", "--no-auth", "--port", "0"]
    with running_api(serve, cwd=folder, env=variables) as (_, base_url, _printed):
        assert len(httpx.get(f"{base_url}/v2/instances").json()["data"]["instanceIds"]) == 4
    assert sorted(environment.rglob("*")) == installed
    assert [path.name for path in folder.iterdir()] == [".later-demo"]
