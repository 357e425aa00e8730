"""Where faces come from: the bundled ORL faces, CelebA, folders and archives of pictures, and gratings."""

import importlib.util
import io
import os
import posixpath
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from .. import checks
from ..store import digest
from .faces import PARTS, Faces, Parts

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


_CELEBA_WIDTH = 178  # px, of the aligned images


_IN_MEMORY = 20_000 * 64**2  # pixels; more are kept as 8-bit numbers in a file of their own


Tree = Path | zipfile.Path


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
        ``"orl"``, ``"celeba"``, ``"gratings"``; or a folder or zip archive: a Path, or a string like one.
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
      nobody tells who is who, and attributes are those of a ``list_attr_celeba*.csv`` beside them.
    * A folder or archive: `attributes` is a CSV file, inside or elsewhere, with file names in the first
      column and -1 or 0 (no), 1 (yes) or nothing (unknown) in the others; it need not cover all images.
      `crop` is the side of the central square, px, by default the largest there is; `scale` and `color` as
      above. `skip_unreadable` warns about damaged images instead of refusing them. People are told apart by
      the folder an image lies in, if there are several and all images lie in one. No archive is extracted.
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
    load = _load_files if is_path else SOURCES[checks.one_of("source", source, SOURCES)]
    allowed = [*load_faces.__kwdefaults__, *(load.__kwdefaults__ or ())]
    for name in options.keys() - set(allowed):
        hint = checks.nearest(name, allowed)
        raise TypeError(f"load_faces({str(source)!r}) takes {', '.join(allowed)}, not {name!r}{hint}")
    faces = load(Path(source).expanduser(), size, limit, seed, **options)
    if not faces.parts or split_by or parts or folds > 1:
        faces = replace(faces, parts=_split(faces, split_by, parts or PARTS, folds, seed))
    if noise is not None:
        faces = replace(faces, noise=_noise(faces.images, checks.number("noise", noise, above=0), seed))
    contents = {name: value for name, value in vars(faces).items() if name not in ("source", "digest")}
    return replace(faces, digest=digest(contents))


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
        raise ValueError(
            f"noise must be drawn in memory, which {len(images)} images of this size don't fit; set a limit"
        )
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
    root = root or os.environ.get("FISHERBOOK_CELEBA")
    if not root:
        needs = "needs root, or FISHERBOOK_CELEBA in the environment"
        raise ValueError(f"load_faces('celeba') {needs}: the folder that holds celeba/, or is to hold it")
    from torchvision.datasets import CelebA  # takes seconds to import, and only CelebA needs it
    from torchvision.datasets.utils import check_integrity

    scale, folder = checks.number("scale", scale, above=0), Path(root).expanduser() / CelebA.base_folder
    if not folder.is_dir() and (width := _first_width(folder.parent)):
        beside = (folder.parent if folder.parent.is_dir() else folder.parent.parent).glob("list_attr_celeba*.csv")
        reduced = scale * _CELEBA_WIDTH / width  # they may have been reduced before
        options = {"attributes": next(beside, None), "color": color, "scale": reduced}
        return replace(_load_files(folder.parent, size, limit, _seed, **options), source="celeba")
    try:
        celeba = CelebA(str(folder.parent), split="all", target_type=[], download=download)
    except Exception as error:  # whatever a download raises
        unpacked = ".zip" if (folder / "img_align_celeba").is_dir() else ()  # then the archive is dispensable
        files = [(folder / name, md5) for _, md5, name in CelebA.file_list if not name.endswith(unpacked)]
        need = ", ".join(file.name for file, md5 in files if not check_integrity(str(file), md5))
        advice = f"put {need} from {CELEBA} into {folder} and unpack archives there"
        if download and importlib.util.find_spec("gdown") is None:
            needs = "download=True needs gdown, which pip install 'fisherbook[celeba]' brings"
            raise ModuleNotFoundError(f"{needs}; or {advice}") from error
        incomplete = f"CelebA is missing or incomplete in {folder} ({error})"
        raise FileNotFoundError(f"{incomplete}; {advice}, or pass download=True") from error
    names = celeba.filename[:limit]
    images, _, unreadable = _read(folder / "img_align_celeba", names, size, color, scale=scale)
    if unreadable:
        raise FileNotFoundError(f"{unreadable}; unpack img_align_celeba.zip from {CELEBA} in {folder}")
    identity, attributes = (table[: len(names)].numpy() for table in (celeba.identity[:, 0], celeba.attr))
    attribute_names = tuple(name for name in celeba.attr_names if name)
    faces = Faces(images, "celeba", identity, attributes.astype(np.float32), attribute_names)
    partition = np.loadtxt(folder / "list_eval_partition.txt", dtype=int, usecols=1)[: len(names)]
    official = {name: (faces._where(partition == i),) for i, name in enumerate(("train", "drive", "test"))}
    return replace(faces, parts=official) if all(len(part) for (part,) in official.values()) else faces


def _first_width(path: Path) -> int:
    """Return the width (px) of the first image in a folder or archive, or 0 if there is none."""
    if not (path.is_dir() or path.is_file()):
        return 0
    tree, files = _tree(path)
    first = next((name for name in files if name.lower().endswith(SUFFIXES)), None)
    if first is None:
        return 0
    with Image.open(io.BytesIO(tree.joinpath(first).read_bytes())) as image:
        return image.width


def _load_files(
    path: Path, size: int, limit: int | None, _seed: int, *, attributes: str | Path | None = None,
    crop: int | None = None, color: bool = False, scale: float = 1.0, skip_unreadable: bool = False,
) -> Faces:  # fmt: skip
    scale = checks.number("scale", scale, above=0)
    crop = crop if crop is None else checks.whole_number("crop", crop)
    tree, files = _tree(path)
    names = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not names:
        raise ValueError(f"source {str(path)!r} has no images in it, no file named {', '.join(SUFFIXES)}")
    folders = [posixpath.dirname(name) for name in names]
    identity, table, columns = None, None, ()
    if posixpath.commonpath(folders) not in folders:  # neither is there just one, nor does an image lie above
        identity = np.unique([posixpath.basename(folder) for folder in folders], return_inverse=True)[1]
    if attributes is not None:
        list_file = tree.joinpath(attributes) if attributes in files else Path(attributes).expanduser()
        if not list_file.is_file():
            raise FileNotFoundError(f"attributes: no file {str(attributes)!r} in {path}, nor elsewhere")
        table, columns = _attributes(list_file, names)
    images, kept, unreadable = _read(tree, names[:limit], size, color, crop, scale)
    if unreadable and not (skip_unreadable and len(kept)):
        raise ValueError(f"source {str(path)!r}: {unreadable}; skip_unreadable=True leaves them out")
    if unreadable:
        warnings.warn(f"source {str(path)!r}, left out: {unreadable}", stacklevel=3)
    identity, table = (None if known is None else known[kept] for known in (identity, table))
    return Faces(images, path.name, identity, table, columns)


def _load_gratings(
    _path: Path, size: int, limit: int | None, _seed: int, *,
    frequency: float = 4.0, contrast: float = 0.5,
) -> Faces:  # fmt: skip
    frequency = checks.number("frequency", frequency, above=0)
    if not 0 < contrast <= 1:
        raise ValueError(f"contrast must be a number above 0 and at most 1, not {contrast!r}")
    x = (np.arange(size) + 0.5) / size - 0.5
    image = 0.5 + 0.5 * contrast * np.cos(2 * np.pi * frequency * x)
    shape = (limit or 1000, 1, size, size)
    return Faces(np.broadcast_to(image, shape).astype(np.float32), "gratings", symmetry=2)


SOURCES: dict[str, Callable] = {"orl": _load_orl, "celeba": _load_celeba, "gratings": _load_gratings}


def _tree(path: Path) -> tuple[Tree, list[str]]:
    """Return a folder or zip archive, and the names of the files in it, sorted, with slashes."""
    if path.is_dir():
        tree, files = path, [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif zipfile.is_zipfile(path):
        tree = zipfile.Path(path)
        files = tree.root.namelist()
    else:
        raise FileNotFoundError(f"source must be an existing folder or zip archive, not {str(path)!r}")
    return tree, sorted(f for f in files if not any(p.startswith((".", "__MACOSX")) for p in f.split("/")))


def _attributes(file: Tree, names: Sequence[str]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the table (image, attribute) of 1, 0 and NaN, and the attributes' names."""
    try:
        with file.open("rb") as data:
            frame = pd.read_csv(data, index_col=0, encoding="utf-8-sig", skipinitialspace=True).astype(float)
    except ValueError as error:
        raise ValueError(f"attributes: {file} is no table of comma-separated numbers: {error}") from error
    strange = np.setdiff1d(frame.to_numpy()[frame.notna()], [-1, 0, 1])
    if len(strange):
        raise ValueError(f"attributes: {file} must hold -1, 0, 1 or nothing, not {strange[0]:g}")
    listed, keys = frame.index.astype(str), pd.Index(names)
    if keys.map(posixpath.basename).is_unique:  # then it doesn't matter in which folder an image lies
        listed, keys = listed.map(posixpath.basename), keys.map(posixpath.basename)
    if listed.has_duplicates or not listed.isin(keys).any():
        raise ValueError(f"attributes: {file} must list each image once, and at least one of the images here")
    frame.index = listed
    return frame.clip(lower=0).reindex(keys).to_numpy(np.float32), tuple(map(str, frame.columns))


def _read(
    tree: Tree, names: Sequence[str], size: int, color: bool, crop: int | None = None, scale: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int64], str]:
    """Return images (face, channel, size, size) in [0, 1], which they are, and what is said of the others."""
    mode = "RGB" if color else "L"
    shape, failed = (len(names), len(mode), size, size), {}
    many = np.prod(shape) > _IN_MEMORY
    if many:
        with tempfile.TemporaryFile() as file:  # it has no name, and vanishes with the last array that is mapped to it
            pixels = np.memmap(file, np.uint8, shape=shape)
    else:
        pixels = np.zeros(shape, np.uint8)

    def read(index: int) -> None:
        try:
            face = _face(tree.joinpath(names[index]).read_bytes(), size, mode, crop, scale)
            pixels[index] = face.transpose(2, 0, 1)
        except Exception as error:  # Pillow raises errors of many types on damaged files
            failed[index] = f"{names[index]} ({error})"

    with ThreadPoolExecutor(4) as pool:
        done = pool.map(read, range(len(names)))
        list(tqdm(done, "reading faces", len(names), leave=False, unit="face", delay=2))
    kept = np.setdiff1d(np.arange(len(names)), list(failed))
    first = ", ".join(failed[index] for index in sorted(failed)[:5]) + ", ..." * (len(failed) > 5)
    if len(kept) < len(names):
        pixels = pixels[kept]
    images = pixels if many else pixels / np.float32(255)
    return images, kept, f"{len(failed)} of {len(names)} images can't be read: {first}" if failed else ""


def _face(data: bytes, size: int, mode: str, crop: int | None, scale: float) -> NDArray[np.uint8]:
    """Return the square at the centre of an image that is first turned upright and reduced by `scale`."""
    with Image.open(io.BytesIO(data)) as image:
        side = crop or min(image.size)
        fraction = side / min(image.size)
        if fraction > 1:
            raise ValueError(f"{image.width} x {image.height} px is less than crop = {crop}")
        if scale == 1:  # JPEG files decode faster at 1/2, 1/4 or 1/8: here to twice the needed pixels
            image.draft(mode, [-(-2 * size * length // side) for length in image.size])
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):  # convert would clip
            raise ValueError("more than 8 bits per channel")
        upright = upright.convert(mode)
    if scale != 1:
        upright = upright.resize([round(n * scale) for n in upright.size], Image.Resampling.BILINEAR)
    return _square(upright, size, fraction * min(upright.size))


def _square(image: Image.Image, size: int, side: float) -> NDArray[np.uint8]:
    """Return the square of that side (px) at the image's centre, resized."""
    left, top = ((length - side) / 2 for length in image.size)
    corners = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, corners)).reshape(size, size, -1)
