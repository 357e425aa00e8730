"""Where faces come from: the bundled ORL faces, CelebA, folders and archives of pictures, and gratings."""

import contextlib
import errno
import importlib.util
import io
import mimetypes
import os
import posixpath
import re
import shutil
import stat
import tempfile
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from .. import checks
from ..store import default_store
from .faces import PARTS, Faces, Parts

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SUFFIXES = ", ".join(SUFFIXES)
_PEOPLE = "'folders', 'parent', 'top', a regular expression, a mapping of file names to people, or None"

CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"

_CELEBA_WIDTH = 178  # px, of the aligned images
_CELEBA_PEOPLE = "identity_CelebA.txt"
_CELEBA_BESIDE = "list_attr_celeba*.csv", _CELEBA_PEOPLE  # looked for beside images that come alone
_IN_MEMORY = 20_000 * 64**2  # pixels; more are kept as 8-bit numbers in a file of their own
_LARGEST = 2**27  # bytes of a picture's or table's file; more are not read into memory
_GREY = (128, 128, 128, 255)  # behind what is transparent

_HIDDEN = (".", "__MACOSX")

Open = Callable[[], IO[bytes]]


def load_faces(
    source: str | Path, size: int = 64, *, split_by: str | None = None,
    parts: Mapping[str, float] | None = None, folds: int = 1, seed: int = 0, limit: int | None = None,
    noise: float | None = None, **options: Any,
) -> Faces:  # fmt: skip
    """Load face images as squares of `size` pixels, and split them.

    The square is resized with Pillow's antialiasing triangle filter on 8-bit channels: in integers, so that
    all machines agree, and without overshoot.

    Parameters
    ----------
    source : str or Path
        ``"orl"``, ``"celeba"``, ``"gratings"``; or a folder or zip archive, below the working directory unless its
        path is absolute; ``~`` is the home. A folder that has a source's name is a Path, or written ``"./orl"``.
    size : int
        Height and width of the images, px.
    split_by : {"identity", "image"}, optional
        No person is on two sides, or no image is. By default identity, where it is known.
    parts : mapping of str to float, optional
        Name of a split → its fraction of the people (or images), in order; 0.7 train and 0.3 test by default.
        They may add up to less than 1. The first part stays the same whatever the others.
    folds : int
        The seed puts the people in order once; fold f deals them out from f/folds of the way on. So each fold
        has equally many people in each part, and over the folds each person is held out equally often.
    seed : int
        Of the order of the people, and of the noise.
    limit : int, optional
        Only the source's first images.
    noise : float, optional
        Standard deviation of white Gaussian noise on the pixels, drawn once for each image, which does not turn. By
        default none, and 0.1 for gratings.
    **options
        The source's own, see Notes.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, ModuleNotFoundError
        One sentence: what came and what is allowed, or what is missing and where to get it.

    Notes
    -----
    * ``"orl"``: 400 grey images of 40 people (Samaria & Harter 1994; courtesy of AT&T Laboratories
      Cambridge), of which the central 92 x 92 px are used.
    * ``"celeba"``: `root`, the folder that holds ``celeba/`` (by default ``FISHERBOOK_CELEBA`` of the environment), and
      `download` are as in torchvision. `scale` reduces the aligned 178 x 218 px beforehand; `color` gives three
      channels, not one. Without `split_by`, `parts` and `folds` the splits are the official ones: train, drive (its
      validation set), test. If `limit` leaves one of them empty (the first 162,770 images all train), people are
      split as elsewhere. `root` may also be an archive or folder of the aligned images alone, reduced or not: then
      attributes are those of a ``list_attr_celeba*.csv`` beside them, and only an ``identity_CelebA.txt`` there tells
      who is who.
    * A folder or archive: `people` says whom an image shows. By default, ``"folders"``, that is the folder it lies in,
      if there are several; a warning says so where the first folder would tell other people apart. ``"parent"`` (the
      name of that folder, wherever it lies) and ``"top"`` (the first folder below the one that holds all) choose; a
      regular expression finds the person in an image's path, in its group if it has one, as
      ``people="([a-z]+)[0-9]+.png"``; a mapping or Series of file names says it outright; None: nobody knows. Images
      of nobody known are left out. `attributes` is a CSV file, inside or elsewhere, with the attributes' names in the
      first line, file names in the first column and -1 or 0 (no), 1 (yes) or nothing (unknown) in the others; it need
      not cover all images. `crop` is the side of the central square, px, by default the largest there is; `scale` and
      `color` as above. `skip_unreadable` warns about damaged images instead of refusing them. Links are followed, and
      each file is read once; names that begin with a dot are passed over. No archive is extracted. What is transparent
      shows mid-grey. A warning counts whatever else is left out.
    * ``"gratings"``: `limit` (1000) times the image I = 1/2 + c/2 cos 2πfx, x from the centre in widths,
      `frequency` f = 4, `contrast` c = 0.5. The period is half a turn. With noise σ the pixels' Fisher
      information is exactly F = ‖∂I/∂θ‖²/σ²: for fine pixels in an aperture of radius R widths,
      F = (πfc·size/σ)² [πR⁴/8 - πR²J₂(kR)/k²] with k = 4πf.

    Examples
    --------
    >>> faces = fb.load_faces("orl", size=16, limit=40)
    >>> faces.images.shape, len(faces.split("train")), len(faces.split("test"))
    ((40, 1, 16, 16), 30, 10)
    >>> fb.load_faces("gratings", size=16, limit=20).symmetry
    2
    """
    size, folds = checks.whole_number("size", size, 8), checks.whole_number("folds", folds)
    seed = checks.whole_number("seed", seed, 0)
    limit = limit if limit is None else checks.whole_number("limit", limit)
    noise = 0.1 if noise is None and source == "gratings" else noise
    if not isinstance(source, str | Path):
        raise TypeError(f"source must be {', '.join(SOURCES)}, or the path of images, not {source!r}")
    is_path = isinstance(source, Path) or Path(source).suffix or Path(source).name != source
    is_path = is_path or (source not in SOURCES and os.path.exists(os.path.expanduser(source)))
    load = _load_files if is_path else SOURCES[checks.one_of("source", source, SOURCES)]
    allowed = [*load_faces.__kwdefaults__, *(load.__kwdefaults__ or ())]
    for name in options.keys() - set(allowed):
        hint = checks.nearest(name, allowed)
        raise TypeError(f"load_faces({str(source)!r}) takes {', '.join(allowed)}, not {name!r}{hint}")
    faces = load(Path(os.path.expanduser(source)), size, limit, seed, **options)
    if not faces.parts or split_by or parts or folds > 1:
        faces = replace(faces, parts=_split(faces, split_by, parts or PARTS, folds, seed))
    if noise is not None:
        faces = replace(faces, noise=_noise(faces.images, checks.number("noise", noise, above=0), seed))
    return faces


def _split(faces: Faces, split_by: str | None, parts: Mapping[str, float], folds: int, seed: int) -> Parts:
    known = faces.identity is not None
    split_by = checks.one_of("split_by", split_by or ("image", "identity")[known], ("identity", "image"))
    if split_by == "identity" and not known:
        raise ValueError(f"split_by='identity' needs to know who is who, which {faces.source} doesn't tell")
    unit = faces.identity if split_by == "identity" else np.arange(len(faces))
    order = np.random.default_rng(seed).permutation(np.unique(unit))
    number = f"number of {'people' if split_by == 'identity' else 'images'}, {len(order)}"
    if folds > len(order):
        raise ValueError(f"folds must be at most the {number}, not {folds}")
    checks.having("parts", parts, "items", "shares by the names of splits")
    fractions = [checks.number(f"parts[{name!r}]", fraction, above=0) for name, fraction in parts.items()]
    if sum(fractions) > 1 + 1e-9:
        raise ValueError(f"the fractions in parts must add up to at most 1, not {sum(fractions):g}")
    edges = np.rint(np.cumsum([0, *fractions]) * len(order)).astype(int)
    dealt = [np.roll(order, -(fold * len(order) // folds)) for fold in range(folds)]
    split = {}
    for name, start, stop in zip(parts, edges, edges[1:], strict=False):
        if start == stop:
            raise ValueError(f"parts[{name!r}] = {parts[name]:g} times the {number}, leaves that split empty")
        split[name] = tuple(faces._where(np.isin(unit, people[start:stop])) for people in dealt)
    return split


def _noise(images: NDArray[np.float32], deviation: float, seed: int) -> NDArray[np.float32]:
    if images.dtype != np.float32:
        raise ValueError(f"noise must be drawn in memory, which {len(images)} of these images don't fit; set a limit")
    return np.random.default_rng(seed).standard_normal(images.shape, np.float32) * np.float32(deviation)


# A source is a function (path, size, limit, seed, *, options of its own) -> Faces that are not yet split.
def _load_orl(_path: Path, size: int, limit: int | None, _seed: int) -> Faces:
    package = Path(__file__).parents[1]
    inside = (package / "_data").is_dir()  # in an installed package; else this is a checkout
    with np.load((package / "_data" if inside else package.parent / "data") / "orl" / "faces.npz") as data:
        images, identity = data["images"][:limit], data["identity"][:limit]
    pixels = np.stack([_square(Image.fromarray(image), size, image.shape[1]) for image in images])
    return Faces(pixels.transpose(0, 3, 1, 2) / np.float32(255), "orl", identity)


def _load_celeba(
    _path: Path, size: int, limit: int | None, _seed: int, *,
    root: str | Path | None = None, scale: float = 1.0, download: bool = False, color: bool = False,
) -> Faces:  # fmt: skip
    root = celeba_root(root)
    if root is None:
        needs = "needs root, or FISHERBOOK_CELEBA in the environment"
        raise ValueError(f"load_faces('celeba') {needs}: the folder that holds celeba/, or is to hold it")
    try:  # takes seconds to import, and only CelebA needs it
        from torchvision.datasets import CelebA
        from torchvision.datasets.utils import check_integrity
    except ModuleNotFoundError as error:
        raise checks.not_installed("load_faces('celeba')", error, "celeba") from None
    scale, images = checks.number("scale", scale, above=0), "img_align_celeba"
    # `root` may be celeba/ itself, its folder of images, or hold the folder that holds celeba/
    places = [root / "celeba", root, *[root.parent] * (root.name == images), *sorted(root.glob("*/celeba"))]
    whole = (place for place in places if (place / images).is_dir() and (place / _CELEBA_PEOPLE).is_file())
    folder = next(whole, places[0])
    if not folder.is_dir() and (width := _first_width(root)):
        lists = [next((f for at in (root, root.parent) for f in sorted(at.glob(n))), None) for n in _CELEBA_BESIDE]
        people = lists[1] and dict(line.split()[:2] for line in lists[1].read_text().splitlines() if line.strip())
        reduced = scale * _CELEBA_WIDTH / width  # they may have been reduced before
        options = {"people": people, "attributes": lists[0], "color": color, "scale": reduced}
        return replace(_load_files(root, size, limit, _seed, **options), source="celeba")
    layout = type("CelebA", (CelebA,), {"base_folder": folder.name})
    try:
        celeba = layout(str(folder.parent), split="all", target_type=[], download=download)
    except Exception as error:  # whatever a download raises
        unpacked = ".zip" if (folder / images).is_dir() else ()  # then the archive is dispensable
        files = [(folder / name, md5) for _, md5, name in CelebA.file_list if not name.endswith(unpacked)]
        need = ", ".join(file.name for file, md5 in files if not check_integrity(str(file), md5))
        advice = f"put {need} from {CELEBA} into {folder} and unpack archives there"
        if download and importlib.util.find_spec("gdown") is None:
            needs = "download=True needs gdown, which pip install 'fisherbook[celeba]' brings"
            raise ModuleNotFoundError(f"{needs}; or {advice}") from error
        incomplete = f"CelebA is missing or incomplete in {folder} ({error})"
        raise FileNotFoundError(f"{incomplete}; {advice}, or pass download=True") from error
    names = celeba.filename[:limit]
    files = {name: partial(open, folder / images / name, "rb") for name in names}
    pixels, _, unreadable, _ = _read(files, names, size, color, scale=scale)
    if unreadable:
        raise FileNotFoundError(f"{unreadable}; unpack {images}.zip from {CELEBA} in {folder}")
    identity, attributes = (table[: len(names)].numpy() for table in (celeba.identity[:, 0], celeba.attr))
    attribute_names = tuple(name for name in celeba.attr_names if name)
    faces = Faces(pixels, "celeba", identity, attributes.astype(np.float32), attribute_names)
    partition = np.loadtxt(folder / "list_eval_partition.txt", dtype=int, usecols=1)[: len(names)]
    official = {name: (faces._where(partition == i),) for i, name in enumerate(("train", "drive", "test"))}
    return replace(faces, parts=official) if all(len(part) for (part,) in official.values()) else faces


def celeba_root(root: str | Path | None = None) -> Path | None:
    """Return where CelebA is: `root`, by default what ``FISHERBOOK_CELEBA`` of the environment says."""
    said = root or os.environ.get("FISHERBOOK_CELEBA")
    return Path(os.path.abspath(os.path.expanduser(said))) if said else None


def traces(path: str, root: str = "") -> list[tuple[str, int, int, int]]:
    """Return name, size and times of all files that a source or other path names: they change with what is in them."""
    place = celeba_root(root) if path == "celeba" else Path(os.path.abspath(os.path.expanduser(path)))
    if not path or path in ("orl", "gratings") or place is None or not place.exists():
        return []
    files = list(walk(place, Counter()) if place.is_dir() else [("", str(place))])
    beside = _CELEBA_BESIDE * (path == "celeba")
    files += [(file.name, str(file)) for pattern in beside for file in place.parent.glob(pattern)]
    found = ((name, os.stat(file)) for name, file in files)
    return sorted((name, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for name, at in found)


def _first_width(path: Path) -> int:
    """Return the width (px) of the first image in a folder or archive, or 0 if there is none."""
    files = _files(path)[0] if path.exists() else {}
    for name in _pictures(files):
        with contextlib.suppress(Exception), Image.open(io.BytesIO(_contents(files[name]))) as image:
            return image.width
    return 0


def _load_files(
    path: Path, size: int, limit: int | None, _seed: int, *, people: str | Mapping[str, Any] | None = "folders",
    attributes: str | Path | None = None, crop: int | None = None, color: bool = False, scale: float = 1.0,
    skip_unreadable: bool = False,
) -> Faces:  # fmt: skip
    scale = checks.number("scale", scale, above=0)
    crop = crop if crop is None else checks.whole_number("crop", crop)
    files, told = _files(path)
    if not (names := _pictures(files)):
        raise ValueError("; ".join([f"source {str(path)!r} has no images in it, no file named {_SUFFIXES}", *told]))
    names, identity, unknown = _people(names, people)
    table, columns = None, ()
    if attributes is not None:
        inside = _plain(str(attributes))
        list_file = Path(os.path.expanduser(str(attributes)))
        if inside not in files and not list_file.is_file():
            raise FileNotFoundError(f"attributes: no file {str(attributes)!r} in {path}, nor elsewhere")
        table, columns = _attributes(files.get(inside) or partial(open, list_file, "rb"), str(attributes), names)
    images, kept, unreadable, first = _read(files, names[:limit], size, color, crop, scale)
    if unreadable and not (skip_unreadable and len(kept)):
        raise ValueError(f"source {str(path)!r}: {unreadable}; skip_unreadable=True leaves them out")
    told += [*unknown, *([f"left out: {unreadable}"] if unreadable else ()), *first]
    if told:
        warnings.warn(f"source {path.name!r}: {'; '.join(told)}", stacklevel=3)
    identity, table = (None if known is None else known[kept] for known in (identity, table))
    return Faces(images, path.name, identity, table, columns)


def _people(names: list[str], people: Any) -> tuple[list[str], NDArray[np.int64] | None, list[str]]:
    """Return the images of which it is known whom they show, whom (None if of none), and what is said of it."""
    if isinstance(people, Mapping | pd.Series):
        said = {(_plain(str(name)), _person(person)) for name, person in people.items()}
        people = dict(said)
        if len(people) < len(said):
            raise ValueError("people must say once whom an image shows, but says two people of one")
    folders, told = {posixpath.dirname(name) for name in names}, []
    by_folders = isinstance(people, str) and people == "folders"
    while len(folders) > 1 and (above := posixpath.commonpath(folders)) in folders:
        folders.remove(above)  # images that lie above all others: beside the folders of people
    one = len(folders) == 1
    if people is None or (by_folders and one):
        mixed = people and any(posixpath.dirname(name) not in folders for name in names)
        return names, None, ["nobody is told apart, for images lie in one folder and above it"] * bool(mixed)
    above = posixpath.dirname(*folders) if one else posixpath.commonpath(folders)
    below = re.escape(posixpath.join(above, ""))
    rules = {"parent": rf"^{below}(?:.*/)?([^/]+)/[^/]+$", "top": rf"^{below}([^/]+)/"}
    rules["folders"] = rules["parent"]

    def told_by(rule: str | Mapping[str, Any]) -> list[Any]:
        if isinstance(rule, Mapping):
            short = [posixpath.basename(name) for name in names]
            once = {name for name, count in Counter(short).items() if count == 1}  # others tell no images apart
            return [rule.get(name, rule.get(s) if s in once else None) for name, s in zip(names, short, strict=True)]
        found = (re.search(rule, name) for name in names)
        return [match and match[min(match.re.groups, 1)] for match in found]

    try:
        who = told_by(rules.get(people, people) if isinstance(people, str) else people)
    except (re.error, TypeError) as error:
        raise ValueError(f"people must be {_PEOPLE}, not {people!r} ({error})") from error
    known = {name: person for name, person in zip(names, who, strict=True) if person}
    persons = {*known.values()}
    if not known:
        raise ValueError(f"people must be {_PEOPLE}, not {people!r}, which finds nobody in {names[0]!r} or others")
    if others := [name for name in names if name not in known]:
        told += [f"left out: {len(others)} of {len(names)} images, for nobody says whom they show: {_first(others)}"]
    both = {*zip(who, told_by(rules["top"]), strict=True)} - {(None, None)}
    tops = {top for _, top in both}
    if by_folders and not len(both) == len(persons) == len(tops):
        told += [f"{len(persons)} people by the folders that images lie in; people='top' would tell {len(tops)} apart"]
    if len({person.casefold() for person in persons}) < len(persons):
        told += ["people whose names differ in upper and lower case alone count as different"]
    return list(known), np.unique(list(known.values()), return_inverse=True)[1], told


def _person(person: Any) -> str:
    """Return a person's name as those of folders are written, nothing for nobody."""
    person = getattr(person, "item", lambda: person)()
    whole = isinstance(person, float) and person.is_integer()
    return "" if pd.isna(person) else unicodedata.normalize("NFC", str(int(person) if whole else person)).strip()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


def _load_gratings(
    _path: Path, size: int, limit: int | None, _seed: int, *,
    frequency: float = 4.0, contrast: float = 0.5,
) -> Faces:  # fmt: skip
    if checks.number("frequency", frequency, above=0) > size / 2:  # it would look like a slower one
        raise ValueError(f"frequency must be at most half the size, {size / 2:g}, not {frequency!r}")
    if not 0 < contrast <= 1:
        raise ValueError(f"contrast must be a number above 0 and at most 1, not {contrast!r}")
    x = (np.arange(size) + 0.5) / size - 0.5
    image = 0.5 + 0.5 * contrast * np.cos(2 * np.pi * frequency * x)
    shape = (limit or 1000, 1, size, size)
    return Faces(np.broadcast_to(image, shape).astype(np.float32), "gratings", symmetry=2)


SOURCES: dict[str, Callable] = {"orl": _load_orl, "celeba": _load_celeba, "gratings": _load_gratings}


def _files(path: Path) -> tuple[dict[str, Open], list[str]]:
    """Return what opens each file in a folder or zip archive, by its plain name, and what is said of those left out."""
    left, files = Counter(), {}
    if path.is_dir():
        found = ((name, partial(open, file, "rb")) for name, file in walk(path, left))
    elif path.is_file() and zipfile.is_zipfile(path):  # and no pipe, which would be waited for
        found = _entries(path, left)
    else:
        raise FileNotFoundError(f"source must be an existing folder or zip archive, not {str(path)!r}")
    for name, opened in found:
        name, image = _plain(name), name.lower().endswith(SUFFIXES)
        left["images of other kinds"] += not image and (mimetypes.guess_type(name)[0] or "").startswith("image/")
        left["images whose name comes again"] += image and name in files
        left["names that lead out"] += name.startswith("../")
        if not any(part.startswith(_HIDDEN) for part in name.split("/")):
            files[name] = opened
    counted = ", ".join(f"{what} ({count})" for what, count in left.items() if count)
    return files, [f"left out: {counted}"] if counted else []


def _pictures(files: Mapping[str, Open]) -> list[str]:
    return sorted(name for name in files if name.lower().endswith(SUFFIXES))


def walk(folder: Path, left: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield name and path of all files below a folder, links followed, each file once; `left` counts what is left out.

    Names that begin with a dot are not looked at.
    """
    # A link to what lies above would lead to any files, and to these once more.
    seen = {str(above) for above in folder.resolve().parents}
    unreadable = partial(left.update, ["folders that can't be read"])
    for above, folders, files in os.walk(folder, onerror=lambda _: unreadable(), followlinks=True):
        real, below = os.path.realpath(above), os.path.relpath(above, folder)
        again, broken = "links to what is read already", "broken links"
        if real in seen:
            left[again] += 1
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
        for name in sorted(name for name in files if not name.startswith(_HIDDEN)):
            path = os.path.join(above, name)
            target = os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)
            if os.path.isfile(path) and target not in seen:
                seen.add(target)
                yield f"{below}/{name}", path
            else:
                left[again if target in seen else broken] += 1


def _entries(path: Path, left: Counter[str]) -> Iterator[tuple[str, Open]]:
    """Yield name and what opens it of all files in a zip archive."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # of many types, from the archive's directory
        raise ValueError(f"source {str(path)!r} is a damaged zip archive ({error})") from error
    for entry in archive.infolist():
        if stat.S_ISLNK(entry.external_attr >> 16):
            left["links in an archive"] += 1
        elif not entry.filename.endswith(("/", "\\")):
            yield entry.filename, partial(archive.open, entry)


def _plain(name: str) -> str:
    """Return a name with slashes, relative, without ``.``, with ``..`` in front at most, in the Unicode form NFC."""
    return posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/").lstrip("/"))


def _contents(opened: Open) -> bytes:
    """Return the bytes of a file that is not too large for a picture, whatever an archive says of its size."""
    with opened() as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
    return data


def _attributes(opened: Open, said: str, names: Sequence[str]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the table (image, attribute) of 1, 0 and NaN, and the attributes' names."""
    try:
        data = io.BytesIO(_contents(opened))
        frame = pd.read_csv(data, index_col=0, encoding="utf-8-sig", skipinitialspace=True).astype(float)
    except ValueError as error:
        raise ValueError(f"attributes: {said} is no table of comma-separated numbers: {error}") from error
    if str(frame.index.name).strip().lower().endswith(SUFFIXES):
        raise ValueError(f"attributes: {said} must name the attributes in its first line, not {frame.index.name!r}")
    if frame.index.name is None and frame.iloc[:, -1:].isna().all(axis=None):  # lines that end with a comma
        raise ValueError(f"attributes: {said} must name each column in its first line, and have no empty last one")
    strange = np.setdiff1d(frame.to_numpy()[frame.notna()], [-1, 0, 1])
    if len(strange):
        raise ValueError(f"attributes: {said} must hold -1, 0, 1 or nothing, not {strange[0]:g}")
    listed, keys = (pd.Index([_plain(str(name)) for name in each], dtype=object) for each in (frame.index, names))
    for short in (posixpath.basename, str.casefold):  # the folder, or the case, that tells no images apart is no matter
        if keys.map(short).is_unique and listed.map(short).nunique() == listed.nunique():
            listed, keys = listed.map(short), keys.map(short)
    if listed.has_duplicates or not listed.isin(keys).any():
        raise ValueError(f"attributes: {said} must list each image once, and at least one of the images here")
    frame.index = listed
    return frame.clip(lower=0).reindex(keys).to_numpy(np.float32), tuple(map(str, frame.columns))


def _read(
    files: Mapping[str, Open], names: Sequence[str], size: int, color: bool, crop: int | None = None, scale: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int64], str, list[str]]:
    """Return images (face, channel, size, size) in [0, 1], which they are, and what is said of others and of these."""
    mode = "RGB" if color else "L"
    shape, failed, moving = (len(names), len(mode), size, size), {}, []
    many = np.prod(shape) > _IN_MEMORY
    pixels = _mapped(shape) if many else np.zeros(shape, np.uint8)

    def read(index: int) -> None:
        try:
            face, moves = _face(_contents(files[names[index]]), size, mode, crop, scale)
            pixels[index] = face.transpose(2, 0, 1)
            moving.extend([index] * moves)
        except Exception as error:  # Pillow raises errors of many types on damaged files
            failed[index] = f"{names[index]} ({str(error).partition(' <')[0]})"

    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        done = pool.map(read, range(len(names)))
        list(tqdm(done, "reading faces", len(names), leave=False, unit="face", delay=2))
    kept = np.setdiff1d(np.arange(len(names)), list(failed))
    shown = _first([failed[index] for index in sorted(failed)])
    for place, index in enumerate(kept if failed else ()):
        pixels[place] = pixels[index]
    images = pixels[: len(kept)] if many else pixels[: len(kept)] / np.float32(255)
    unreadable = f"{len(failed)} of {len(names)} images can't be read: {shown}" if failed else ""
    return images, kept, unreadable, [f"images that move, and show their first frame ({len(moving)})"] if moving else []


def _mapped(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array in a file that has its room on the disk already, for a disk that fills would end the process."""
    size, places = int(np.prod(shape)), (Path(tempfile.gettempdir()), default_store().root)
    for place in places:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            # the file has no name, and vanishes with the last array that is mapped to it
            with tempfile.TemporaryFile(dir=place) as file:
                if shutil.disk_usage(place).free > size:
                    getattr(os, "posix_fallocate", lambda *_: None)(file.fileno(), 0, size)
                    return np.memmap(file, np.uint8, shape=shape)
    needs = f"{shape[0]} images of this size need {size >> 20} MiB"
    raise OSError(errno.ENOSPC, f"{needs}, which neither {places[0]} nor the store, {places[1]}, has; set a limit")


def _face(data: bytes, size: int, mode: str, crop: int | None, scale: float) -> tuple[NDArray[np.uint8], bool]:
    """Return the square at the centre of an image that is first turned upright and reduced by `scale`; if it moves."""
    with Image.open(io.BytesIO(data)) as image:
        side = crop or min(image.size)
        fraction = side / min(image.size)
        if fraction > 1:
            raise ValueError(f"{image.width} x {image.height} px is less than crop = {crop}")
        if scale == 1:  # JPEG files decode faster at 1/2, 1/4 or 1/8: here to twice the needed pixels
            image.draft(mode, [-(-2 * size * length // side) for length in image.size])
        moves = getattr(image, "is_animated", False) and image.format != "MPO"  # whose others are previews, or depth
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):  # convert would clip
            raise ValueError("more than 8 bits per channel")
        if upright.has_transparency_data:  # the colours of what nobody sees are anything
            seen = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", seen.size, _GREY), seen)
        upright = upright.convert(mode)
    if scale != 1:
        upright = upright.resize([round(n * scale) for n in upright.size], Image.Resampling.BILINEAR)
    return _square(upright, size, fraction * min(upright.size)), moves


def _square(image: Image.Image, size: int, side: float) -> NDArray[np.uint8]:
    """Return the square of that side (px) at the image's centre, resized."""
    left, top = ((length - side) / 2 for length in image.size)
    corners = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, corners)).reshape(size, size, -1)
