import os
import re
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


ALONE = """
import sys
import numpy as np

class Missing:  # what only the extras bring is not there
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import fisherbook as fb

rng = np.random.default_rng(0)
angles = np.repeat(fb.grid(8), 16)
spikes = rng.poisson(3 + 2 * np.cos(angles[:, None] - np.arange(74) * 2 * np.pi / 74))
found = fb.estimate(spikes, angles=angles, estimator="pooled")
assert found.fisher_information.size == 8 and (found.standard_error > 0).all()
stages = [fb.Stage("uniform", fb.uniform(), steps=5)]
small = fb.Stimulus(fb.load_faces("orl", size=16))
kept = fb.measure(small, fb.Network("mlp", hidden=(4,)), stages, replicates=2, angles=4, progress=False)
assert kept.fisher_information.sizes["angle"] == 4
for ask in (lambda: fb.figures, lambda: fb.load_faces("celeba", root=".")):
    try:
        ask()
    except ImportError as error:
        print(error)
sys.argv = ["fisherbook", "list"]
import fisherbook.publishing.cli
"""


def test_package_alone_estimates_trains_and_says_which_extra_brings_the_rest(tmp_path):
    absent = {"holoviews", "bokeh", "panel", "papermill", "nbformat", "psutil", "IPython", "torchvision"}
    environment = os.environ | {"FISHERBOOK_STORE": str(tmp_path / "store"), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-W", "ignore", "-c", ALONE.format(absent=absent)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert said.stdout.splitlines() == [
        "fisherbook.figures needs holoviews: pip install 'fisherbook[book]' brings it",
        "load_faces('celeba') needs torchvision: pip install 'fisherbook[celeba]' brings it",
    ], said.stderr
    assert said.returncode == 1
    assert re.search(r"^fisherbook: the command needs \w+: pip install 'fisherbook\[book\]'", said.stderr, re.MULTILINE)


def test_wheel_holds_the_package_the_faces_and_the_published_results_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "fisherbook/_data/orl/faces.npz" in names
    published = {path.relative_to(CHECKOUT / "data").as_posix() for path in (CHECKOUT / "data").glob("results/*/*")}
    assert published and {f"fisherbook/_data/{path}" for path in published} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fisherbook"}
