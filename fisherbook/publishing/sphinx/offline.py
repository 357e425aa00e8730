"""Make the built site self-contained: it loads nothing from another host.

Outputs of HoloViews refer to Bokeh and Panel by the addresses of their content
delivery networks. When a page is written, each such address becomes a relative path
below ``_static/vendor``, and the file is copied there, once for the whole site, from
the installed package: a page executed with another version is an error, for its
plots could not be drawn. MathJax comes from the package ``sphinx-mathjax-offline``.
An address that is left over is an error too.

The tables that figures offer, which a notebook holds in its links, become files. The
notebooks that pages offer are those of the book, in the order in which they run, without
the outputs that pages show.
"""

import base64
import importlib.util
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

VENDOR = "_static/vendor"
BOKEH = re.compile(r"https://cdn\.bokeh\.org/bokeh/release/(bokeh(?:-[a-z]+)?)-(\d+\.\d+\.\d+)\.min\.js")
PANEL = re.compile(r"https://cdn\.holoviz\.org/panel/(\d+\.\d+\.\d+)/dist/([^\"'?\\\s]+)(?:\?v=[\d.]+)?")
ELSEWHERE = re.compile(r"https://(?:cdn\.|unpkg\.com|cdnjs\.)[^\"'\s<]{0,80}")
TABLES = "_static/tables"
TABLE = re.compile(r'<a download="([\w.-]+)" href="data:text/csv;base64,([A-Za-z0-9+/=]*)"')
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("config-inited", _use_local_mathjax)
    app.connect("html-page-context", _make_page_local, priority=900)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _offer_without_outputs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _use_local_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = "vendor/mathjax/tex-chtml.js"  # relative to _static


def _copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        source = _package("sphinx-mathjax-offline") / "static" / "mathjax"
        for part in MATHJAX:
            for file in [source / part, *sorted((source / part).rglob("*"))]:
                if file.is_file():
                    _vendor(app, file, f"mathjax/{file.relative_to(source).as_posix()}")


def _offer_without_outputs(app: Sphinx, exception: Exception | None) -> None:
    for path in (Path(app.outdir) / "_sources").glob("*.ipynb"):
        committed = Path(app.srcdir).parents[2] / "book" / path.name
        notebook = nbformat.read(committed if committed.is_file() else path, 4)
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)


def _make_page_local(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    # The theme's button for live code registers its script twice, and loads it from
    # another host: there is no kernel.
    context["script_files"] = [s for s in context["script_files"] if "thebe" not in _script(s).lower()]
    body = context.get("body") or ""

    def local(package: str, executed: str, file: Path, target: str) -> str:
        if executed != version(package):
            raise ExtensionError(
                f"{pagename} was executed with {package} {executed}, but "
                f"{version(package)} is installed: execute it again"
            )
        return context["pathto"](_vendor(app, file, f"{package}-{executed}/{target}"), 1)

    def bokeh(found: re.Match[str]) -> str:
        name = f"{found[1]}.min.js"
        return local("bokeh", found[2], _package("bokeh") / "server" / "static" / "js" / name, name)

    def panel(found: re.Match[str]) -> str:
        return local("panel", found[1], _package("panel") / "dist" / found[2], found[2].replace("@^", "-"))

    def table(found: re.Match[str]) -> str:
        path = f"{TABLES}/{pagename}/{found[1]}"
        file = Path(app.outdir) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found[2]))
        return f'<a download="{found[1]}" href="{context["pathto"](path, 1)}"'

    context["body"] = TABLE.sub(table, PANEL.sub(panel, BOKEH.sub(bokeh, body)))
    if left := ELSEWHERE.search(context["body"]):
        raise ExtensionError(f"{pagename} would still load {left[0]}")


def _script(script: Any) -> str:
    """Return a script's file name or, of an inline one, its text."""
    return str(getattr(script, "filename", script)) + str(getattr(script, "attributes", {}).get("body") or "")


def _package(name: str) -> Path:
    return Path(importlib.util.find_spec(name).origin).parent  # pyrefly: ignore[missing-attribute]


def _vendor(app: Sphinx, source: Path, target: str) -> str:
    """Copy a file into the site, unless it is there, and return its path there."""
    if not source.is_file():
        raise ExtensionError(f"there is no local copy of {target}: {source} does not exist")
    copy = Path(app.outdir) / VENDOR / target
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    return f"{VENDOR}/{target}"
