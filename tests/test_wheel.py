"""The wheel is complete: it works outside of the checkout, with types and OpenAPI document."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from later_reporting_dagster.definitions import defs

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*build, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_contains_types_and_openapi_document(installed: Path) -> None:
    package = installed / "later_reporting_dagster"
    assert (package / "py.typed").is_file()
    assert (package / "contract" / "openapi.yaml").read_text().count("openapi: 3.1") == 1


def test_wheel_contains_no_tests(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"later_reporting_dagster"}


def test_wheel_definitions_load_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(installed)!r})
import later_reporting_dagster.definitions as loaded
assert loaded.__file__.startswith({str(installed)!r}), loaded.__file__
print(len(list(loaded.defs.resolve_all_asset_specs())))
"""
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(loaded.stdout) == len(list(defs.resolve_all_asset_specs()))
