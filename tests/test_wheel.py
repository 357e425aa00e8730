import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fisherbook.stimulus.sources import load_faces

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without network: hatchling is one of the tools for development."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(CHECKOUT),
    ]
    made = subprocess.run([sys.executable, "-m", "pip", *build], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (path,) = folder.glob("fisherbook-*.whl")
    return path


def test_installed_wheel_brings_the_bundled_faces(wheel, tmp_path):
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import fisherbook.stimulus.sources as faces\n"
        "print(faces.__file__, faces.load_faces('orl', 16).digest)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    isolated = [sys.executable, "-I", "-c", code]
    said = subprocess.run(isolated, capture_output=True, text=True, cwd=elsewhere, env=environment)
    assert said.returncode == 0, said.stderr
    file, digest = said.stdout.split()
    assert Path(file).is_relative_to(target)
    assert digest == load_faces("orl", 16).digest


def test_wheel_holds_the_package_the_faces_and_the_published_results_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "fisherbook/_data/orl/faces.npz" in names
    published = {path.relative_to(CHECKOUT / "data").as_posix() for path in (CHECKOUT / "data").glob("results/*/*")}
    assert published and {f"fisherbook/_data/{path}" for path in published} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fisherbook"}
