"""CelebA, by a small made copy in torchvision's layout whose digests take the place of the official ones."""

import hashlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CelebA

from fisherbook.stimulus.sources import load_faces

PARTITION = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2]
IDENTITY = [7, 7, 3, 3, 5, 9, 9, 2, 2, 4]
ATTRIBUTES = [f"Attribute_{number}" for number in range(40)]


@pytest.fixture
def celeba(tmp_path, monkeypatch, rng):
    """The folder of ten made images of six people."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, 11)]
    for number, name in enumerate(names):
        pixels = np.full((218, 178, 3), [20 * number, 128, 128], np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=95)
    signs = rng.choice([-1, 1], (10, 40))
    header = f"10\n{' '.join(ATTRIBUTES)} \n"  # the official list has that space too
    lists = {
        "list_attr_celeba.txt": (header, signs),
        "identity_CelebA.txt": ("", np.reshape(IDENTITY, (10, 1))),
        "list_bbox_celeba.txt": ("10\nimage_id x y width height\n", np.ones((10, 4), int)),
        "list_landmarks_align_celeba.txt": ("10\nlefteye_x lefteye_y\n", np.ones((10, 2), int)),
        "list_eval_partition.txt": ("", np.reshape(PARTITION, (10, 1))),
    }
    made = [("", "0" * 32, "img_align_celeba.zip")]
    for name, (head, rows) in lists.items():
        lines = [f"{image}  {' '.join(map(str, row))}" for image, row in zip(names, rows, strict=True)]
        (folder / name).write_text(head + "\n".join(lines) + "\n")
        made.append(("", hashlib.md5((folder / name).read_bytes()).hexdigest(), name))
    monkeypatch.setattr(CelebA, "file_list", made)
    return folder, signs


def test_official_splits_attributes_and_identities_are_kept(celeba):
    folder, signs = celeba
    faces = load_faces("celeba", 16, root=folder.parent)
    assert faces.images.shape == (10, 1, 16, 16)
    assert faces.identity.tolist() == IDENTITY
    assert faces.attribute_names == tuple(ATTRIBUTES)
    assert np.array_equal(faces.attributes, signs > 0)
    assert faces.splits == ("train", "drive", "test")
    split = {name: faces.split(name).tolist() for name in faces.splits}
    assert split == {"train": [2, 3, 4, 0, 1], "drive": [5, 6], "test": [7, 8, 9]}  # in order of person


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"limit": 5}, ("train", "test")),  # all in the official training set
        ({"split_by": "identity"}, ("train", "test")),
        ({"folds": 2}, ("train", "test")),
        ({"parts": {"train": 0.5, "drive": 0.25, "judge": 0.25}}, ("train", "drive", "judge")),
    ],
)
def test_people_are_split_anew_where_official_splits_do_not_serve(celeba, options, names):
    faces = load_faces("celeba", 16, root=celeba[0].parent, **options)
    assert faces.splits == names
    assert not set(faces.identity[faces.split("train")]) & set(faces.identity[faces.split(names[-1])])
    assert len(faces) == options.get("limit", 10)


@pytest.mark.parametrize("root", ["celeba", "celeba/img_align_celeba", "above", "celeba/."])
def test_one_folder_too_deep_or_too_high_is_the_same_dataset(celeba, root):
    folder, _ = celeba
    expected = load_faces("celeba", 16, root=folder.parent)
    where = folder.parent.parent if root == "above" else folder.parent / root
    faces = load_faces("celeba", 16, root=where)
    assert faces.digest == expected.digest
    assert faces.identity.tolist() == IDENTITY


def test_an_identity_list_beside_images_alone_is_read(celeba, tmp_path):
    folder, _ = celeba
    alone = tmp_path / "alone" / "aligned"
    shutil.copytree(folder / "img_align_celeba", alone)
    shutil.copy(folder / "identity_CelebA.txt", alone.parent)
    archive = shutil.make_archive(str(tmp_path / "alone" / "faces"), "zip", alone)
    for root in (alone, archive):
        faces = load_faces("celeba", 16, root=root)
        same = faces.identity[:, None] == faces.identity
        assert np.array_equal(same, np.equal.outer(IDENTITY, IDENTITY))


def test_scale_reduces_the_aligned_image_before_its_central_square_is_taken(celeba):
    folder, _ = celeba
    picture = np.zeros((218, 178), np.uint8)
    picture[20:198] = np.arange(178) // 4 * 4
    Image.fromarray(picture).save(folder / "img_align_celeba" / "000001.jpg", quality=95)
    whole, half = (load_faces("celeba", 89, root=folder.parent, limit=3, scale=s).images[0, 0] for s in (1, 0.5))
    assert np.allclose(half, whole, atol=0.03)
    with Image.open(folder / "img_align_celeba" / "000001.jpg") as image:
        reduced = image.resize((89, 109), Image.Resampling.BILINEAR)
    assert np.array_equal(half, np.asarray(reduced)[10:99] / np.float32(255))


def test_color_gives_three_channels(celeba):
    images = load_faces("celeba", 16, root=str(celeba[0].parent), color=True).images
    assert images.shape == (10, 3, 16, 16)
    assert np.allclose(images[:, 0, 8, 8] * 255, 20 * np.arange(10), atol=3)


def test_missing_celeba_meets_a_sentence_that_says_what_to_put_where(tmp_path):
    said = r"CelebA is missing or incomplete in .*celeba \(.*\); put img_align_celeba.zip, list_attr_celeba"
    with pytest.raises(FileNotFoundError, match=said + r".* from https://mmlab.* into .* or pass download=True"):
        load_faces("celeba", root=tmp_path)


def test_a_damaged_list_is_named_for_integrity_is_always_checked(celeba):
    folder, _ = celeba
    with (folder / "identity_CelebA.txt").open("a") as file:
        file.write("000011.jpg 1\n")
    with pytest.raises(FileNotFoundError, match=r"; put identity_CelebA\.txt from"):
        load_faces("celeba", root=folder.parent)


def test_missing_images_are_named_and_counted(celeba):
    folder, _ = celeba
    for name in ("000002.jpg", "000004.jpg"):
        (folder / "img_align_celeba" / name).unlink()
    said = r"2 of 10 images can't be read: 000002.jpg .*000004.jpg .*; unpack img_align_celeba.zip from"
    with pytest.raises(FileNotFoundError, match=said):
        load_faces("celeba", root=folder.parent)


def test_download_is_passed_on_and_without_gdown_names_the_extra(celeba, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    load_faces("celeba", 16, root=celeba[0].parent, download=True)  # all is there: nothing to download
    with pytest.raises(
        ModuleNotFoundError, match=r"needs gdown, which pip install 'fisherbook\[celeba\]' brings; or put"
    ):
        load_faces("celeba", root=tmp_path / "empty", download=True)


def test_a_download_that_fails_says_why_and_what_to_do(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("too many users")

    monkeypatch.setattr(CelebA, "download", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(FileNotFoundError, match=r"incomplete in .* \(too many users\); put img_align_celeba.zip"):
        load_faces("celeba", root=tmp_path, download=True)


def test_aligned_images_alone_will_do_even_when_they_were_reduced_before(celeba, tmp_path, monkeypatch):
    folder, signs = celeba
    alone = tmp_path / "half"
    (alone / "images").mkdir(parents=True)
    for path in (folder / "img_align_celeba").iterdir():
        with Image.open(path) as image:
            image.reduce(2).save(alone / "images" / path.name, quality=95)
    table = "\n".join(f"{k + 1:06}.jpg,{','.join(map(str, row))}" for k, row in enumerate(signs[:4]))
    (tmp_path / "list_attr_celeba_first4.csv").write_text(f",{','.join(ATTRIBUTES)}\n{table}\n")
    archive = shutil.make_archive(str(tmp_path / "half"), "zip", alone)
    monkeypatch.setenv("FISHERBOOK_CELEBA", archive)
    faces = load_faces("celeba", 16, limit=8, scale=0.5)
    native = load_faces("celeba", 16, limit=8, scale=0.5, root=folder.parent)
    assert (faces.source, faces.identity, faces.splits) == ("celeba", None, ("train", "test"))
    assert np.allclose(faces.images, native.images, atol=0.02)
    assert np.array_equal(faces.attributes[:4], signs[:4] > 0) and np.isnan(faces.attributes[4:]).all()
