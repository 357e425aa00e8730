"""Keys for what was computed, and a folder that keeps it: digests, locks and files that are whole or absent.

The store is a cache. A value's key is the digest of everything that made it (`digest`, `source_digest`), so
nothing in the store is ever out of date; it may be deleted at any time at the cost of computing again.
"""

import ast
import contextlib
import dataclasses
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

import filelock
import numpy as np
import platformdirs

from . import checks

T = TypeVar("T")

_PACKAGE = Path(__file__).parent
_SIDECAR, _LONGEST = ".sidecar", 256  # bytes that a sidecar may have


class Damaged(UserWarning):
    """Something stored is not what was written, and counts as absent."""


def canonical(value: Any) -> str:
    """Write a value as JSON in exactly one way, so that equal parameters have equal digests.

    Parameters
    ----------
    value : None, bool, int, float, str, list, tuple, dict, dataclass, path, array, tensor or dtype
        Containers may be nested. Keys of a dict are strings that do not begin with ``@``.

    Returns
    -------
    str
        Keys are sorted; a tuple is a list; a whole float is that whole number (1.0 is 1, -0.0 is 0) and any
        other float its shortest exact form; a NumPy scalar is Python's; a dataclass is its class name and its
        fields (without those declared ``compare=False``); an array is its `array_digest`.

    Raises
    ------
    ValueError
        For NaN, which is not equal to itself.
    TypeError
        For anything else; the sentence says where in `value` it was met.
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"))


def _plain(value: Any, where: str) -> Any:
    """`value` in the terms of JSON; what JSON lacks is a dict with one key that begins with ``@``."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if np.isnan(value):
            raise ValueError(f"{where} must be a number, not NaN, to become part of a key")
        return {"@float": repr(value)} if np.isinf(value) else int(value) if value.is_integer() else value
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str) or key.startswith("@")]:
            raise TypeError(f"the keys of {where} must be strings that do not begin with '@', not {odd[0]!r}")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {part.name: getattr(value, part.name) for part in dataclasses.fields(value) if part.compare}
        return {f"@{type(value).__name__}": _plain(fields, where)}
    if type(value).__name__ == "dtype" or isinstance(value, np.dtype):
        return str(value)
    if hasattr(value, "__array__"):
        return {"@array": array_digest(value)}
    allowed = "None, bool, int, float, str, list, tuple, dict, dataclass, path, array, tensor and dtype"
    raise TypeError(f"{where} is of type {type(value).__name__}, which has no digest; allowed are {allowed}")


def digest(value: Any) -> str:
    """Return the SHA-256 digest, 64 hexadecimal digits, of a value's `canonical` form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def array_digest(array: Any) -> str:
    """Return the SHA-256 digest of an array's dtype, shape and bytes in row-major, little-endian order.

    Parameters
    ----------
    array : array or torch tensor, of any shape
        Numbers, booleans or fixed-width strings; a tensor and the equal array have equal digests.
    """
    array = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    if array.dtype.hasobject:
        raise TypeError(f"an array of dtype {array.dtype} has no digest; use numbers or fixed-width strings")
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    made = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    made.update(array.reshape(-1).view(np.uint8).data)
    return made.hexdigest()


@functools.cache
def _sources(package: Path) -> dict[str, str]:
    """The text of all modules of a package by their dotted names below it."""
    found = {path.relative_to(package).with_suffix(""): path for path in sorted(package.rglob("*.py"))}
    return {".".join(name.parts): path.read_text(encoding="utf-8") for name, path in found.items()}


# Read as the package is imported: an edit while the process lives changes neither what runs nor its digest.
_sources(_PACKAGE)


def modules() -> list[str]:
    """Return the names of the package's modules, such as ``"angles"`` or ``"fisher.kernels"``."""
    return list(_sources(_PACKAGE))


@functools.cache
def source_digest(*modules: str, package: Path = _PACKAGE) -> str:
    """Return the digest of what some modules do: their syntax trees without comments, layout and docstrings.

    Names are below the folder of the package, such as ``"angles"`` or ``"fisher.kernels"``, in any order; a
    ValueError names the nearest where there is none. The source is read once per process.
    """
    sources = _sources(package)
    written = (_written(name, sources[checks.one_of("modules", name, sources)]) for name in sorted(modules))
    return hashlib.sha256(f"[{','.join(written)}]".encode()).hexdigest()


def unchanged(modules: str, digest: str) -> bool:
    """Return whether `modules`, names apart by spaces, do what they did when they had a digest; none may be gone."""
    names = modules.split()
    return {*names} <= {*_sources(_PACKAGE)} and source_digest(*names) == digest


#: Modules that make no number: sentences of errors, files, and labels.
_NO_NUMBER = {"checks", "store", "results"}


@functools.cache
def closure(*modules: str, package: Path = _PACKAGE) -> tuple[str, ...]:
    """Return the names of some modules and of all that they import within the package, directly or not.

    What makes no number (`checks`, `store`, `results`) is left out, and so is what is imported for type hints alone.
    """
    sources = _sources(package)
    found, waiting = set(), [checks.one_of("modules", name, sources) for name in modules]
    while waiting:
        name = waiting.pop()
        if name not in found | _NO_NUMBER:
            found.add(name)
            waiting += _imported(name, sources[name], package.name, frozenset(sources))
    return tuple(sorted(found))


@functools.cache
def _imported(name: str, text: str, package: str, known: frozenset[str]) -> frozenset[str]:
    """The modules of the package that a module imports anywhere but under ``if TYPE_CHECKING``."""
    found, waiting = set(), list[ast.AST]([ast.parse(text)])
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = [package, *name.split(".")][: -node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)
    return frozenset(one.removeprefix(f"{package}.") for one in found) & known


def made_by(*modules: str, device: str = "cpu", dtype: Any = None) -> dict[str, str]:
    """Return what makes a number beside its inputs, for every key: code, kind of device, dtype and torch's version.

    Parameters
    ----------
    modules : str
        Those that compute; their `closure` is found here.
    device : str
        Such as ``"cuda:0"``; its number does not matter.
    dtype : dtype, optional
        Of what is computed.
    """
    torch = ".".join(importlib.metadata.version("torch").split(".")[:2])
    source = source_digest(*closure(*modules))
    return {"source": source, "device": str(device).partition(":")[0], "dtype": str(dtype), "torch": torch}


@functools.cache
def _written(name: str, text: str) -> str:
    """A module's name and its syntax tree as JSON."""
    return json.dumps([name, _tree(ast.parse(text))], separators=(",", ":"))


def _tree(node: Any) -> Any:
    """A syntax tree as nested lists, without empty fields, since newer Pythons add such."""
    if isinstance(node, list):
        return [_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = node.body[ast.get_docstring(node, clean=False) is not None :]
    kept = [[name, _tree(item)] for name, item in fields.items() if item not in (None, [])]
    return [type(node).__name__, *kept]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a name in the same folder (made if need be) with the same suffix; what is written there replaces
    `path` when the block ends, and is removed when the block fails.

    Raises
    ------
    OSError
        With ``errno.ENOSPC`` and the folder's name when its disk is full.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}~{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        full = isinstance(error, Exception) and _disk_full(error, path.parent)
        with contextlib.suppress(OSError):
            temporary.unlink()
        if full:
            sentence = f"no space is left in {path.parent} to write {path.name}; what was finished is kept"
            hint = "free some space, or name a folder for the store on another disk in FISHERBOOK_STORE"
            raise OSError(errno.ENOSPC, f"{sentence}: {hint}") from error
        raise


def _disk_full(error: Exception, folder: Path) -> bool:
    """Whether a full disk made the error; not all writers say so."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    return full or (folder.is_dir() and shutil.disk_usage(folder).free < 2**20)


class Store:
    """A folder of computed values, each a file named by its key in a sub-folder named by its kind.

    A file is written under a temporary name and moved into place, then a sidecar with its size and SHA-256
    digest is; both are checked before the file is read, and what has no valid sidecar counts as absent, whatever
    lies in its place; a warning, `Damaged`, names it. Every file has its own lock, so any number of threads and
    processes may share a store. `root` is made if needed.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def fill(
        self, kind: str, keys: Sequence[str], compute: Callable[[list[str]], Iterable[tuple[str, T]]],
        save: Callable[[T, Path], None], load: Callable[[Path], T], suffix: str,
    ) -> dict[str, T]:  # fmt: skip
        """Return the values of all keys; those that the store lacks are computed once, whoever else asks.

        Parameters
        ----------
        kind : str
            Name of the sub-folder.
        keys : sequence of str
            File names without suffix, usually digests.
        compute : callable
            Called at most once, with the missing keys in the order given, while their locks are held. Yields
            pairs of a key and its value, in any order; each is stored as it is yielded and stays stored.
        save, load : callable
            ``save(value, path)`` writes a new file; ``load(path)`` reads it whole.
        suffix : str
            Of the files, such as ``".nc"``.

        Raises
        ------
        ValueError, RuntimeError, OSError
            If `compute` yields a key it was not asked for, or not all that it was; if the disk is full or
            the store cannot be written.
        """
        paths = {key: self._path(kind, key, suffix) for key in keys}
        values = {key: value for key, path in paths.items() for value in _read(path, load)}
        self._sweep(kind)
        with contextlib.ExitStack() as stack:
            release = {}
            for key in sorted(paths.keys() - values.keys()):  # in one order, so that nobody waits in a circle
                release[key] = stack.enter_context(self._locked(paths[key]))
                for value in _read(paths[key], load, warn=True):
                    values[key] = value
                    release[key]()
            missing = [key for key in paths if key not in values]
            for key, value in compute(list(missing)) if missing else ():
                if key not in missing:
                    raise ValueError(f"compute was asked for {', '.join(missing)}, but yielded {key!r}")
                self._write(paths[key], value, save)
                values[key] = value
                missing.remove(key)
                release[key]()
            if missing:
                raise RuntimeError(f"compute ended without a value for {', '.join(missing)}")
        return {key: values[key] for key in paths}

    def get(self, kind: str, key: str, load: Callable[[Path], T], suffix: str) -> T | None:
        """Return the value of a key, or None where there is none that is whole; never waits."""
        path = self._path(kind, key, suffix)
        # no warning where there is no sidecar: the file may be still in the making
        return next(iter(_read(path, load, warn=os.path.lexists(_sidecar(path)))), None)

    def put(self, kind: str, key: str, value: T, save: Callable[[T, Path], None], suffix: str) -> None:
        """Store a value, replacing what the key had."""
        path = self._path(kind, key, suffix)
        self._sweep(kind)
        with self._locked(path):
            self._write(path, value, save)

    def remove(self, kind: str, key: str, suffix: str) -> None:
        """Remove the value of a key, if there is one."""
        path = self._path(kind, key, suffix)
        with self._locked(path):
            clear(_sidecar(path))
            clear(path)

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        for argument, name in (("kind", kind), ("key", key), ("suffix", "x" + suffix)):
            if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
                raise ValueError(f"{argument} must be a name of letters, digits, '_', '-' and '.', not {name!r}")
        return self.root / kind / (key + suffix)

    @contextlib.contextmanager
    def _locked(self, path: Path, blocking: bool = True) -> Iterator[Callable[[], None]]:
        """Hold a file's lock until the block ends or what is yielded is called."""
        lock = filelock.FileLock(self.root / ".locks" / f"{path.parent.name}~{path.name}")

        def release() -> None:
            if lock.is_locked:
                with contextlib.suppress(OSError):  # filelock lets those who wait on a file that is gone start over
                    os.unlink(lock.lock_file)
                lock.release()

        try:
            for folder in (path.parent, self.root / ".locks"):
                folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=blocking)
        except filelock.Timeout:
            raise
        except OSError as error:
            sentence = f"the store {self.root} cannot be written ({error.strerror}: {error.filename})"
            raise OSError(error.errno, f"{sentence}; name another folder for it in FISHERBOOK_STORE") from error
        try:
            yield release
        finally:
            release()

    def _write(self, path: Path, value: T, save: Callable[[T, Path], None]) -> None:
        clear(_sidecar(path))
        if path.is_dir():
            clear(path)
        with atomic(path) as temporary:
            save(value, temporary)
            seal = _seal(temporary)
        with atomic(_sidecar(path)) as temporary:
            temporary.write_text(json.dumps(seal))

    def _sweep(self, kind: str) -> None:
        """Remove what killed processes left half-written: older than an hour, and nobody holds its lock."""
        for left in (self.root / kind).glob(".*~*"):
            owner = left.with_name(left.name.rpartition("~")[2].removesuffix(_SIDECAR))
            with contextlib.suppress(OSError, filelock.Timeout):
                if time.time() - left.stat().st_mtime > 3600:
                    with self._locked(owner, blocking=False):
                        left.unlink()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + _SIDECAR)


def _seal(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def clear(path: Path) -> None:
    """Remove what is in a file's place, be it a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(path: Path, load: Callable[[Path], T], warn: bool = False) -> list[T]:
    """Return a file's value, alone in a list, or none unless it is whole; a warning, where asked for, names it."""
    why, sidecar = "does not agree with its sidecar", _sidecar(path)
    with contextlib.suppress(OSError, ValueError):
        # what is no file, or too long for a sidecar, may never end
        ours = path.is_file() and sidecar.is_file() and sidecar.stat().st_size < _LONGEST
        if ours and json.loads(sidecar.read_text()) == _seal(path):
            try:
                return [load(path)]
            except MemoryError:
                raise
            except Exception as error:  # whoever wrote it and its sidecar, it is no such value
                why = f"cannot be read ({error})"
    if warn and os.path.lexists(path):
        warnings.warn(f"{path} {why} and counts as absent", Damaged, stacklevel=3)
    return []


def checkout() -> Path | None:
    """Return the folder of the checkout that this package is run from, or None for an installed package."""
    project = _PACKAGE.parent / "pyproject.toml"
    ours = project.is_file() and 'name = "fisherbook"' in project.read_text(encoding="utf-8")
    return project.parent if ours else None


def default_store() -> Store:
    """Return the store in ``FISHERBOOK_STORE``, else ``.store`` of the checkout, else the user's cache."""
    folder = checkout()
    default = folder / ".store" if folder else platformdirs.user_cache_path("fisherbook")
    return Store(Path(os.path.abspath(os.path.expanduser(os.environ.get("FISHERBOOK_STORE") or default))))
