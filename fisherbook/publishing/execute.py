"""From notebooks to a site: execution, and the book built from the executed copies.

The notebooks in ``book/`` are sources and are never written to. A build executes those that have changed into
``_build/executed/<profile>/``, makes ``_build/book/<profile>/``, a copy of the book with the executed
notebooks, and has Jupyter Book make ``_build/html`` of it. A rerun with other parameters has a folder of its
own. The datasets that a notebook keeps (`results.keep`) lie beside the executed one; those of the published
profile are put under ``data/results``, from where the next build takes them.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from tqdm import tqdm

from .. import checks, results, store
from ..stimulus.sources import traces
from .outcomes import OUTCOME, Outcome, answers_of, findings_of, tidy
from .profiles import Values, choose, find_root, located, parameters, profile_values, read, read_yaml
from .site import build_site, copy_book, page

_SHOWING = ("figures", "publishing")  # modules that make no number
LAST = "colophon"  # shows the records of the others, so it is executed after them
_REFUSALS = ("ValueError", "FileNotFoundError", "NotADirectoryError", "PermissionError")  # of what a reader gave
_KERNEL_MEMORY = 2 << 30  # bytes to allow for each of the notebooks that run side by side


@dataclass(frozen=True)
class Run:
    """What is kept of a notebook's execution, for the colophon and for the next build.

    `seconds` is the wall time it took, `budget` what it may take with quick parameters and an empty store on
    two cores (None if nothing is said), and `digest` that of all that went in: cells, values, package, data
    and versions.
    """

    notebook: str
    profile: str
    parameters: dict[str, Any]
    seconds: float
    budget: float | None
    digest: str


def build(profile: str = "quick", root: Path | None = None, fresh: bool = False) -> Path:
    """Execute the notebooks that have changed, build the site, and return its first page.

    A notebook that fails, and a warning from Jupyter Book, raise a RuntimeError.

    Parameters
    ----------
    profile : {"quick", "published", "prior"}
        Which parameters to use.
    root : Path, optional
        The folder that holds ``book/`` and ``_config.yml``; `find_root` by default.
    fresh : bool
        Compute what the published profile shows, even if ``data/results`` has it; interrupted, it goes on.
    """
    root = root or find_root()
    values = profile_values(root / "book", profile)
    copy, executed = root / "_build" / "book" / profile, root / "_build" / "executed" / profile
    published = root / "data" / "results" if profile == "published" else None
    others, last = ({n: v for n, v in values.items() if (n == LAST) == is_} for is_ in (False, True))
    with _alone(root / "_build" / "html"):
        copy_book(root, copy)
        runs = _execute(root, executed, copy, profile, others, (), published, fresh)
        (copy / "runs.json").write_text(json.dumps([asdict(run) for run in runs]))
        _execute(root, executed, copy, profile, last, after=runs)
        rows = [row for name in values for row in findings_of(copy / f"{name}.ipynb")]
        (copy / "findings.json").write_text(json.dumps(rows))
        answers = [answer for name in values for answer in answers_of(copy / f"{name}.ipynb")]
        (copy / "answers.json").write_text(json.dumps(answers))
        return build_site(root, copy, root, "-W", "-n", "--keep-going") / "index.html"


def compute_published(names: Sequence[str], root: Path | None = None) -> Path:
    """Execute notebooks with the published parameters, leave their datasets in ``data/results``, and return it.

    Nothing is taken from there: all is computed, or was before and is in the store. Interrupted, it goes on.
    """
    root = root or find_root()
    values, copy = profile_values(root / "book", "published"), root / "_build" / "book" / "published"
    chosen = {checks.one_of("notebook", name, values): values[name] for name in names}
    published, executed = root / "data" / "results", root / "_build" / "executed" / "published"
    with _alone(root / "_build" / "html"):
        copy_book(root, copy)
        _execute(root, executed, copy, "published", chosen, (), published, fresh=True)
    return published


def rerun(notebook: str, settings: Sequence[str] = (), profile: str = "quick", root: Path | None = None) -> Path:
    """Execute one notebook with other parameters and return its page, in a folder of its own.

    Each of `settings` is a text ``name=value``; `profile` and `root` are as for `build`. The same parameters,
    code and data give the same folder below ``_build/runs/``, where nothing is executed again.
    """
    root = root or find_root()
    with _executed(notebook, settings, profile, root) as folder:
        return page(root, folder, notebook)


def execute(notebook: str, settings: Sequence[str] = (), profile: str = "quick", root: Path | None = None) -> Path:
    """Execute one notebook as `rerun` does, make no page of it, and return the folder that is its own."""
    with _executed(notebook, settings, profile, root or find_root()) as folder:
        return folder


@contextmanager
def _executed(notebook: str, settings: Sequence[str], profile: str, root: Path) -> Iterator[Path]:
    """Execute one notebook as `rerun` does, and yield its folder, which is nobody else's until the block ends."""
    mine = values_of(notebook, settings, profile, root)
    key = _key(root / "book" / f"{notebook}.ipynb", mine, _state(root))
    folder = root / "_build" / "runs" / notebook / key[:10]
    with _alone(folder):
        copy_book(root, folder / "book")
        try:
            _execute(root, folder, folder / "book", profile, {notebook: mine})
        except RuntimeError as error:
            # With its own parameters a notebook runs: a value that it refuses is the reader's.
            if settings and (cause := error.__cause__) and isinstance(refusal := cause.__cause__, ValueError):
                raise ValueError(f"{refusal} ({notebook} with {', '.join(settings)})") from None
            raise
        yield folder


def values_of(notebook: str, settings: Sequence[str], profile: str, root: Path) -> dict[str, Any]:
    """Return the parameters that replace a notebook's own: those of a profile, and then `settings`, checked."""
    values = profile_values(root / "book", profile)
    path = root / "book" / f"{checks.one_of('notebook', notebook, values)}.ipynb"
    given: dict[str, str] = {}
    for name, equals, value in (setting.partition("=") for setting in settings):
        if not equals or not re.fullmatch(r"\w+", name):
            raise ValueError(f"a parameter must be given as name=value, not {name + equals + value!r}")
        if name in given:
            raise ValueError(f"{name} is given twice, as {given[name]!r} and {value!r}; `sweep` takes several values")
        given[name] = value
    return {**values[notebook], **located(choose(path, given))}


def report(notebook: nbformat.NotebookNode, table: str, root: Path | None = None) -> Path:
    """Execute a notebook that is none of the book's, in the book's style, and return its page.

    It finds `table` in a file ``table.json``.
    """
    root = root or find_root()
    folder = root / "_build" / "reports" / store.digest([table, *(cell.source for cell in notebook.cells)])[:10]
    with _alone(folder), _kernels(1, folder / "results"):
        copy_book(root, folder / "book")
        nbformat.write(notebook, folder / "report.ipynb")
        (folder / "book" / "table.json").write_text(table, encoding="utf-8")
        _papermill(folder / "report.ipynb", folder / "book" / "report.ipynb", folder / "book", {}, lambda: None)
        return page(root, folder, "report")


def unchanged(root: Path | None = None) -> dict[str, Path]:
    """Return what notebooks kept in the last quick build, folder by name, of those it would not execute again."""
    root = root or find_root()
    executed, state = root / "_build" / "executed" / "quick", [_state(root), [], False, {}]
    keys = {n: _key(root / "book" / f"{n}.ipynb", v, state) for n, v in profile_values(root / "book", "quick").items()}
    return {name: executed / "results" / name for name, key in keys.items() if _known(executed, name, key)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that fisherbook and the book depend on."""
    lines = importlib.metadata.requires("fisherbook") or []
    needed = (line for line in lines if "extra ==" not in line or "extra == 'book'" in line)
    names = sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed})
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def _execute(
    root: Path, executed: Path, copy: Path, profile: str, values: Values, after: Sequence[Run] = (),
    published: Path | None = None, fresh: bool = False,
) -> list[Run]:  # fmt: skip
    """Execute those notebooks that have changed, side by side, and put all of them into the book's copy.

    What a notebook keeps is taken from the folder `published`, unless it is to be `fresh`, and left there.
    """
    book, budgets = root / "book", read_yaml(root / "book" / "budgets.yml")
    state = [_state(root), [asdict(run) for run in after], fresh]

    def key(name: str) -> str:
        datasets = _digests(published / name) if published else {}
        return _key(book / f"{name}.ipynb", values[name], [*state, datasets])

    def one(name: str) -> Run:
        source, target, kept = book / f"{name}.ipynb", executed / f"{name}.ipynb", executed / "results" / name
        used = {p: d["default"] for p, d in parameters(source).items()} | dict(values[name])
        target.with_suffix(".json").unlink(missing_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        with _damage_told(name):
            if published and not fresh and _made_with(published / name, used):
                shutil.copytree(published / name, kept, ignore=shutil.ignore_patterns(results.SUMS))
        there = {*kept.glob("*.nc")}
        start = time.perf_counter()
        _papermill(source, target, copy, values[name], bar.update)
        seconds, used = round(time.perf_counter() - start, 1), _told(used)
        _sign({*kept.glob("*.nc")} - there, used, seconds)
        kept.mkdir(parents=True, exist_ok=True)
        outcome = Outcome(name, profile, used, list(findings_of(target)))
        (kept / OUTCOME).write_text(json.dumps(asdict(outcome), indent=1))
        results.seal(kept)
        if published and list(kept.glob("*.nc")):
            _replace(published / name, kept)
        for damage in tidy(target, profile, used, kept):
            _tell(f"{name}: {damage}")
        run = Run(name, profile, used, seconds, budgets.get(name), key(name))
        target.with_suffix(".json").write_text(json.dumps(asdict(run)))
        bar.write(f"{name}: {seconds:.0f} s")
        return run

    (executed / "results").mkdir(parents=True, exist_ok=True)
    for folder in (published / name for name in values if published):
        _restore(folder)
    runs = {name: run for name in values if (run := _known(executed, name, key(name)))}
    # The longest first, so that none is left to run alone at the end.
    pending = sorted(values.keys() - runs.keys(), key=lambda name: (-budgets.get(name, 0), name))
    cells = sum(cell.cell_type == "code" for n in pending for cell in read(book / f"{n}.ipynb").cells)
    others = set(psutil.Process().children())
    with (
        tqdm(total=cells, desc=profile, unit="cell", disable=None if pending else True) as bar,
        _kernels(len(pending), executed / "results") as jobs,
        ThreadPoolExecutor(jobs) as pool,
    ):
        futures = [pool.submit(one, name) for name in pending]
        try:
            wait(futures)
        except KeyboardInterrupt:  # kernels have a session of their own: no interrupt reaches them
            pool.shutdown(wait=False, cancel_futures=True)
            for kernel in set(psutil.Process().children()) - others:
                kernel.kill()
            raise
    if failures := [error for future in futures if (error := future.exception())]:
        raise RuntimeError("\n".join(map(str, failures))) from failures[0]
    runs |= {run.notebook: run for run in (future.result() for future in futures)}
    for name in values:
        shutil.copyfile(executed / f"{name}.ipynb", copy / f"{name}.ipynb")
    shutil.copytree(executed / "results", copy / "results", dirs_exist_ok=True)
    return [runs[name] for name in values]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have a folder for oneself; who comes later waits, and is told so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        _tell(f"waiting for another run that writes {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    """Leave the block where a notebook's dataset is damaged, and tell so."""
    try:
        yield
    except (OSError, ValueError) as error:
        _tell(f"{name}: {error}; it is computed anew")


def _tell(sentence: str) -> None:
    """Say something while bars are drawn."""
    tqdm.write(f"fisherbook: {sentence}", file=sys.stderr)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f".{folder.name}~{word}")


def _replace(folder: Path, new: Path) -> None:
    """Put a copy of the folder `new` in a folder's place, whole or not at all: `_restore` mends what a kill leaves."""
    made, old = (_beside(folder, word) for word in ("new", "old"))
    store.clear(made)
    shutil.copytree(new, made)
    store.clear(old)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    store.clear(old)


def _restore(folder: Path) -> None:
    """Put back a folder that was being replaced when the process was killed."""
    if (old := _beside(folder, "old")).is_dir() and not folder.exists():
        old.rename(folder)


class _OwnPython(AsyncKernelManager):
    """Starts kernels of this very Python, whatever else Jupyter's path calls ``python3``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)


@contextmanager
def _kernels(count: int, kept: Path) -> Iterator[int]:
    """Yield how many kernels may run side by side; those started meanwhile get their share of the cores.

    What notebooks keep, they find and leave in the folder `kept`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(count, cores, psutil.virtual_memory().available // _KERNEL_MEMORY))
    before = dict(os.environ)
    os.environ |= {"OMP_NUM_THREADS": str(cores // jobs), "PYTHONHASHSEED": "0", "TQDM_DISABLE": "1"}
    os.environ["FISHERBOOK_RESULTS"] = str(kept)
    for name in {"FISHERBOOK_STORE", "FISHERBOOK_CELEBA"} & {name for name, path in before.items() if path}:
        os.environ[name] = os.path.abspath(os.path.expanduser(before[name]))
    try:
        yield jobs
    finally:
        os.environ.clear()
        os.environ.update(before)


def _papermill(source: Path, target: Path, folder: Path, values: Mapping[str, Any], progress: Callable) -> None:
    """Execute one notebook with `folder` as its working directory; a failure is told in a few lines."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(
            source,
            target,
            dict(values),
            kernel_name="python3",
            kernel_manager_class=_OwnPython,
            progress_bar=False,
            on_cell_executed=lambda **_: progress(),
            resources={"metadata": {"path": str(folder)}},  # cwd= would move every thread of this process
            extra_arguments=["--log-level=CRITICAL"],  # else each kernel remarks on its start and end
        )
    except papermill.PapermillExecutionError as error:
        cell = f"cell [{error.exec_count}], which begins {error.source.strip().splitlines()[0]!r}"
        refusal = ValueError(error.evalue) if error.ename in _REFUSALS else None
        raise RuntimeError(f"{source.name} failed in {cell}:\n  {error.ename}: {error.evalue}") from refusal
    except DeadKernelError:
        raise RuntimeError(f"{source.name} failed: its kernel died, perhaps for want of memory") from None
    notebook = read(target)
    for part in (notebook, *notebook.cells):
        for record in ("papermill", "execution"):  # of paths and clock times
            part.metadata.pop(record, None)
    nbformat.write(notebook, target)


def _made_with(folder: Path, used: Mapping[str, Any]) -> bool:
    """Whether the datasets in a folder, one at least, were made with these parameters."""
    files = list(folder.glob("*.nc"))
    made = (json.loads(results.load(file).attrs.get("parameters", "{}")) for file in files)
    return bool(files) and all(_not_where(each) == _not_where(used) for each in made)


def _not_where(used: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that say where faces lie; what they are, ``data_source`` says."""
    return {name: value for name, value in used.items() if name not in ("source", "root", "scale")}


def _told(used: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as records and pages tell them: no path of this machine, only what faces are called."""
    named = {name: Path(str(used[name])).name for name in ("source", "weights") if name in used}
    return {name: value for name, value in used.items() if name != "root"} | named


def _sign(files: Iterable[Path], used: Mapping[str, Any], seconds: float) -> None:
    """Have the datasets that a notebook has just made say what made them."""
    from ..network.networks import choose_device
    from ..stimulus.sources import load_faces

    data = {"source": used.get("source", "orl")}
    if data["source"] == "orl":  # others may be too many to be read once more for this
        data["digest"] = load_faces("orl").digest
    for file in files:
        dataset = results.load(file)
        dataset.attrs |= results.provenance(
            f"{file.parent.name}: {file.stem}", used, seed=used.get("seed", 0), data=data,
            modules=[m for m in store.modules() if not m.startswith(_SHOWING)], device=choose_device("auto"),
            wall_time=seconds,
        )  # fmt: skip
        results.save(dataset, file)


def _known(executed: Path, name: str, key: str) -> Run | None:
    """Return the record of an executed notebook, if there is one for this key and what it kept is whole."""
    try:
        run = Run(**json.loads((executed / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    with _damage_told(name):
        if run.digest == key and (executed / f"{name}.ipynb").is_file():
            for file in (executed / "results" / name).glob("*.nc"):
                results.verify(file)
            return run
    return None


def _key(notebook: Path, values: Mapping[str, Any], state: Any) -> str:
    """Return the digest of all that an executed notebook depends on."""
    cells = [[cell.cell_type, cell.source, cell.metadata.get("tags")] for cell in read(notebook).cells]
    used = {name: declared["default"] for name, declared in parameters(notebook).items()} | dict(values)
    files = [traces(str(used[name]), used.get("root", "")) for name in ("source", "weights") if name in used]
    return store.digest([cells, dict(values), state, files])


def _state(root: Path) -> list[Any]:
    """Return what every notebook depends on: the package's source, the data and the versions."""
    data = {name: sha for name, sha in _digests(root / "data").items() if not name.startswith("results/")}
    return [store.source_digest(*store.modules()), data, versions()]


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 digests of a folder's files, by path below it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
