import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from small_book import PARAMETERS, small_book, write_notebook

from fisherbook.publishing import cli


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(small_book(tmp_path))
    return tmp_path


def test_list_prints_notebooks_and_parameters(root, capsys):
    assert cli.main(["list"]) == 0
    assert "kappa=0.5" in capsys.readouterr().out


@pytest.mark.slow
def test_run_prints_where_the_new_page_is_and_overrides_a_profile(root, capsys):
    settings = ["-p", "replicates=3", "-p", "source=my faces"]
    assert cli.main(["run", "first", *settings, "--profile", "published"]) == 0
    (page,) = (Path(line) for line in capsys.readouterr().out.splitlines() if line.endswith(".html"))
    assert "0.003 my faces False" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "frist"], "did you mean 'first'?"),
        (["run", "first", "-p", "kapa=1"], "did you mean 'kappa'?"),
        (["run", "first", "-p", "replicates=few"], "replicates must be of type int, not 'few'"),
        (["build", "--profile", "publishd"], "did you mean 'published'?"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(root, capsys, arguments, sentence):
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fisherbook: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1


@pytest.mark.slow
def test_a_failing_notebook_is_exit_code_1(root, capsys):
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, "raise ValueError('no faces')")
    assert cli.main(["run", "first"]) == 1
    assert "first.ipynb failed in cell [2]" in capsys.readouterr().err


@pytest.mark.parametrize("error", ["ValueError", "FileNotFoundError"])
def test_a_value_that_the_notebook_refuses_is_bad_input_where_it_is_the_readers(root, capsys, error):
    check = f"if kappa < 0:\n    raise {error}" + "(f'kappa must be positive, not {kappa}')"
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, check)
    assert cli.main(["run", "first", "-p", "kappa=-1"]) == 2
    assert capsys.readouterr().err == "fisherbook: kappa must be positive, not -1.0 (first with kappa=-1)\n"


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fisherbook {version('fisherbook')}\n"


def test_a_command_that_does_not_exist_is_exit_code_2(root, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bild"])
    assert stop.value.code == 2


@pytest.mark.slow
def test_papermill_alone_executes_a_notebook_with_parameters(root):
    command = [sys.executable, "-m", "papermill", "book/first.ipynb", "out.ipynb", "-p", "replicates", "6"]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert "3.0 orl False" in (root / "out.ipynb").read_text()


def test_an_interrupt_is_a_sentence_and_exit_code_130(root, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.execute, "build", interrupted)
    assert cli.main(["build"]) == 130
    assert capsys.readouterr().err == "fisherbook: interrupted; what was computed until now is kept\n"
