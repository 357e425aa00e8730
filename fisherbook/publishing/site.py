"""The site of an executed copy of the book, built by Jupyter Book."""

import re
import shutil
import subprocess
import sys
from pathlib import Path


def page(root: Path, folder: Path, name: str) -> Path:
    """Build a site of one executed notebook in the folder's book, and return its page."""
    (folder / "book" / "_toc.yml").write_text(f"format: jb-book\nroot: {name}\n", encoding="utf-8")
    return build_site(root, folder / "book", folder) / f"{name}.html"


def build_site(root: Path, copy: Path, output: Path, *options: str) -> Path:
    """Build an executed copy of the book from nothing and return the folder of the site."""
    for stale in ("html", ".doctrees"):
        shutil.rmtree(output / "_build" / stale, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(copy)]
    command += ["--config", str(root / "_config.yml"), "--path-output", str(output), "--all", *options]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()
        told = [line for line in said if re.search("WARNING|rror:", line)] or said[-10:]
        raise RuntimeError("\n".join(["the site was not built:", *dict.fromkeys(told)]))
    for left in (output / "_build" / "html").rglob("*.map"):  # of the theme's sources: for its debuggers, and large
        left.unlink()
    return output / "_build" / "html"


def copy_book(root: Path, copy: Path) -> None:
    """Copy a book without its notebooks, replacing a copy that is there."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root / "book", copy, ignore=shutil.ignore_patterns("*.ipynb", "conftest.py", ".*", "__pycache__"))
