import dataclasses
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import jv

import fisherbook as fb
from fisherbook.stimulus import sources
from fisherbook.stimulus.faces import Faces
from fisherbook.stimulus.sources import _people, _plain, _split, load_faces

CHECKOUT = Path(__file__).parents[2]


def save(path, shape=(30, 20), value=None, mode="L", **options):
    """Write an image of one grey level, or of a different random one for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path.name)))
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.full((*shape, *channels), value) if value is not None else rng.integers(256, size=(*shape, *channels))
    Image.fromarray(pixels.astype(np.uint8), mode=None).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Three people with two images each, of different kinds and sizes."""
    root = tmp_path / "album"
    for level, (person, suffix, mode) in enumerate([("ada", "png", "RGB"), ("bo", "jpg", "L"), ("cy", "pgm", "L")]):
        for image in range(2):
            save(
                root / person / f"{person}{image}.{suffix}",
                (30 + 7 * level, 20 + image),
                40 * level + 20,
                mode,
            )
    return root


@pytest.fixture
def archive(folder, tmp_path):
    """The same folder as a zip archive, with what some systems add."""
    path = tmp_path / "album.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, Path("top") / file.relative_to(folder))
        archive.writestr("__MACOSX/top/ada/._ada0.png", b"no image")
        archive.writestr("top/.hidden.png", b"no image")
    return path


# ---- the ORL faces ---------------------------------------------------------------------------------------


def test_bundled_faces_are_those_whose_digest_the_script_demands():
    with np.load(CHECKOUT / "data" / "orl" / "faces.npz") as data:
        images, identity = data["images"], data["identity"]
    assert images.shape == (400, 112, 92)
    assert images.dtype == np.uint8
    script = (CHECKOUT / "data" / "get_orl.py").read_text()
    demanded = re.search(r'ARRAYS_SHA256 = "(\w{64})"', script)[1]
    assert hashlib.sha256(images.tobytes() + identity.tobytes()).hexdigest() == demanded
    assert demanded in (CHECKOUT / "data" / "README.md").read_text()


def test_orl_has_ten_images_of_each_of_forty_people():
    faces = load_faces("orl", size=32)
    assert faces.images.shape == (400, 1, 32, 32)
    assert faces.images.dtype == np.float32
    assert faces.images.min() >= 0
    assert faces.images.max() <= 1
    people, counts = np.unique(faces.identity, return_counts=True)
    assert (people == np.arange(1, 41)).all()
    assert (counts == 10).all()
    assert (faces.source, faces.symmetry, faces.noise, faces.attributes) == ("orl", 1, None, None)


def test_resizing_takes_the_central_square_and_keeps_its_mean():
    with np.load(CHECKOUT / "data" / "orl" / "faces.npz") as data:
        square = data["images"][:, 10:-10] / 255
    same, small = load_faces("orl", size=92), load_faces("orl", size=23)
    assert np.allclose(same.images[:, 0], square, atol=1e-6)
    assert np.allclose(small.images.mean((1, 2, 3)), square.mean((1, 2)), atol=0.02)


def test_limit_takes_the_first_images():
    few, all_of_them = load_faces("orl", 16, limit=50), load_faces("orl", 16)
    assert np.array_equal(few.images, all_of_them.images[:50])
    assert len(few) == 50


def test_the_script_undoes_converted_line_ends_in_pixels(rng):
    sys.path.insert(0, str(CHECKOUT / "data"))
    try:
        from get_orl import pixels
    finally:
        sys.path.pop(0)
    image = np.tile(rng.integers(50, 200, 92, dtype=np.uint8), (112, 1))
    image[20, 5], image[90, 70] = 10, 13
    pair = image.copy()
    pair[60, 40:42] = 13, 10
    for whole in (image, pair):
        pgm = b"P5\n92 112\n255\n" + whole.tobytes()
        assert np.array_equal(pixels(pgm), whole)
        restored = pixels(re.sub(rb"\r\n|\r|\n", b"\r\n", pgm)).astype(int)
        assert np.abs(restored - whole).max() == 2
        assert restored[60, 40:42].tolist() == whole[60, 40:42].tolist()


# ---- digests ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_digest_changes_with_data_size_split_seed_and_folds():
    variants = [
        {}, {"size": 16}, {"seed": 1}, {"split_by": "image"}, {"folds": 4}, {"limit": 390},
        {"parts": {"train": 0.5, "test": 0.3}}, {"parts": {"train": 0.7, "judge": 0.3}},
    ]  # fmt: skip
    digests = [load_faces("orl", **{"size": 24} | options).digest for options in variants]
    assert len(set(digests)) == len(variants)


@pytest.mark.slow
def test_digest_is_the_same_in_another_process():
    digests = "[load_faces(source, 16, folds=3).digest for source in ('orl', 'gratings')]"
    code = f"from fisherbook.stimulus.sources import load_faces; print({digests})"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert made.stdout.strip() == str([load_faces(source, 16, folds=3).digest for source in ("orl", "gratings")])


def test_digest_follows_from_what_faces_are_however_they_were_made(rng):
    images = rng.random((6, 1, 8, 8)).astype(np.float32)
    faces = Faces(images, "made")
    others = [
        Faces(1 - images, "made"), Faces(images, "made", np.arange(6)), dataclasses.replace(faces, noise=images),
        dataclasses.replace(faces, parts={"all": (np.arange(6),)}), Faces(images, "made", symmetry=2),
        Faces(images, "made", attributes=np.zeros((6, 1)), attribute_names=("Happy",)),
    ]  # fmt: skip
    assert len({faces.digest, *(other.digest for other in others)}) == 7
    assert Faces(images.copy(), "elsewhere").digest == faces.digest
    images[0] = 0.5  # in place: other images, which are measured anew
    assert faces.digest == Faces(images.copy(), "made").digest


def test_what_is_known_of_faces_goes_by_their_place_whatever_labels_a_table_has():
    images, told = np.zeros((4, 1, 8, 8), np.float32), pd.Series([0, 0, 1, 1], [3, 1, 0, 2])
    faces = Faces(images, "made", told, told.to_frame())
    assert faces.split(None).tolist() == [0, 1, 2, 3]
    assert faces.identity[[0, 3]].tolist() == faces.attributes[[0, 3], 0].tolist() == [0, 1]


def test_faces_that_do_not_agree_with_what_is_known_of_them_meet_a_sentence():
    images = np.zeros((3, 1, 8, 8), np.float32)
    with pytest.raises(ValueError, match="these must have equal lengths, but images has 3, identity has 2"):
        Faces(images, "made", np.arange(2))
    with pytest.raises(ValueError, match="identity must say of each face whom it shows, and some are missing"):
        Faces(images, "made", np.array([0, 1, np.nan]))
    with pytest.raises(ValueError, match="some are missing"):
        Faces(images, "made", np.ma.array([0, 1, 2], mask=[True, False, False]))
    with pytest.raises(ValueError, match=r"attributes must be 1 \(has it\), 0 \(has it not\) or NaN"):
        Faces(images, "made", attributes=np.array([[1], [-1], [1]]))
    with pytest.raises(ValueError, match="equal lengths, but train has 2, test has 1"):
        Faces(images, "made", parts={"train": ([0], [1]), "test": ([2],)})
    with pytest.raises(ValueError, match=r"parts\['test'\] must be indices from 0 to 2, or 3 of True and False"):
        Faces(images, "made", parts={"test": (np.array([0, -1]),)})
    mask = Faces(images, "made", parts={"test": (np.array([False, True, True]),)})
    assert mask.split("test").tolist() == [1, 2]


# ---- splits ----------------------------------------------------------------------------------------------


def made_faces(counts):
    identity = np.repeat(np.arange(len(counts)), counts)
    return Faces(np.zeros((len(identity), 1, 1, 1), np.float32), "made", identity[::-1].copy())


counts_of_people = st.lists(st.integers(1, 5), min_size=4, max_size=40)
three_parts = st.sampled_from([{"train": 0.5, "drive": 0.25, "judge": 0.25}, {"test": 0.3, "train": 0.4, "x": 0.3}])


@given(
    counts_of_people,
    three_parts,
    st.integers(1, 4),
    st.integers(0, 9),
    st.sampled_from(["identity", "image"]),
)
def test_no_person_is_on_two_sides_and_everybody_is_on_one(counts, parts, folds, seed, split_by):
    faces = made_faces(counts)
    split = _split(faces, split_by, parts, folds, seed)
    unit = faces.identity if split_by == "identity" else np.arange(len(faces))
    for fold in range(folds):
        sides = [set(unit[split[name][fold]]) for name in parts]
        assert sum(map(len, sides)) == len(set().union(*sides)) == len(np.unique(unit))


@given(counts_of_people, st.integers(1, 4), st.integers(0, 9))
def test_folds_hold_equally_many_people_and_hold_each_out_equally_often(counts, folds, seed):
    faces = made_faces(counts)
    split = _split(faces, "identity", {"train": 0.5, "test": 0.5}, folds, seed)
    held_out = [np.unique(faces.identity[indices]) for indices in split["test"]]
    assert len({len(people) for people in held_out}) == 1
    times = np.bincount(np.concatenate(held_out), minlength=len(counts))
    assert np.ptp(times) <= 1  # equal up to what the number of people permits


def test_ten_folds_of_orl_hold_each_person_out_three_times():
    faces = load_faces("orl", 16, folds=10)
    held_out = np.concatenate([np.unique(faces.identity[faces.split("test", fold)]) for fold in range(10)])
    assert (np.bincount(held_out)[1:] == 3).all()
    assert faces.folds == 10


def test_faces_of_a_split_are_ordered_by_person_so_that_folds_share_their_layout():
    faces = load_faces("orl", 16, folds=5, split_by="identity")
    for fold in range(5):
        indices = faces.split("train", fold)
        assert (np.diff(faces.identity[indices]) >= 0).all()
        assert np.array_equal(faces.identity[indices].reshape(28, 10).std(1), np.zeros(28))
    everybody = made_faces([2, 1]).split(None)
    assert everybody.tolist() == [1, 2, 0]


def test_orl_can_be_split_by_image_as_in_the_prior_work():
    faces = load_faces("orl", 16, split_by="image", parts={"train": 0.64, "validation": 0.16, "test": 0.2})
    assert [len(faces.split(name)) for name in faces.splits] == [256, 64, 80]
    assert set(faces.identity[faces.split("test")]) & set(faces.identity[faces.split("train")])


def test_first_part_stays_while_a_later_one_grows():
    small, large = (load_faces("orl", 16, parts={"test": 0.3, "train": share}) for share in (0.1, 0.7))
    assert np.array_equal(small.split("test"), large.split("test"))
    assert set(small.split("train")) < set(large.split("train"))


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("orl", {"split_by": "person"}, "split_by must be one of identity, image, not 'person'"),
        ("gratings", {"split_by": "identity"}, "split_by='identity' needs to know who is who"),
        ("orl", {"parts": {"train": 0.9, "test": 0.2}}, "fractions in parts must add up to at most 1, not"),
        ("orl", {"parts": {"train": 0.9, "judge": 0.001}}, "= 0.001 times the number of people, 40, leaves"),
        ("orl", {"parts": {"train": -0.5}}, r"parts\['train'\] must be a number above 0"),
        ("orl", {"folds": 41}, "folds must be at most the number of people, 40, not 41"),
        ("orl", {"folds": 0}, "folds must be a whole number of at least 1, not 0"),
        ("orl", {"size": 3}, "size must be a whole number of at least 8, not 3"),
        ("orl", {"limit": 0}, "limit must be a whole number of at least 1, not 0"),
        ("orI", {}, "source must be one of orl, celeba, gratings, not 'orI'; did you mean 'orl'"),
        ("celebA", {}, "did you mean 'celeba'"),
        ("gratings", {"contrast": 2}, "contrast must be a number above 0 and at most 1, not 2"),
        ("orl", {"noise": 0}, "noise must be a number above 0"),
        ("celeba", {}, "needs root, or FISHERBOOK_CELEBA in the environment: the folder that holds celeba/"),
    ],
)  # fmt: skip
def test_a_bad_argument_meets_a_sentence(source, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_faces(source, **options)


def test_an_option_the_source_does_not_have_meets_the_nearest_name():
    with pytest.raises(TypeError, match=r"load_faces\('gratings'\) takes .*, not 'freqency'; did you mean 'frequency'"):
        load_faces("gratings", freqency=3)
    with pytest.raises(TypeError, match="did you mean 'folds'"):
        load_faces("orl", fold=3)
    with pytest.raises(TypeError, match="source must be orl, celeba, gratings, or the path of images, not 3"):
        load_faces(3)


def test_an_unknown_split_or_fold_meets_a_sentence():
    faces = load_faces("orl", 16, folds=2)
    with pytest.raises(ValueError, match="split must be one of train, test, not 'tset'; did you mean 'test'"):
        faces.split("tset")
    with pytest.raises(ValueError, match="fold must be a whole number from 0 to 1, not 2"):
        faces.split("train", 2)


# ---- folders and archives --------------------------------------------------------------------------------


def test_a_folder_of_mixed_images_becomes_squares_of_one_size_with_identities(folder):
    faces = load_faces(folder, size=8, parts={"train": 0.7, "test": 0.3})
    assert faces.images.shape == (6, 1, 8, 8)
    assert np.allclose(faces.images[:, 0, 0, 0] * 255, [20, 20, 60, 60, 100, 100], atol=1)
    assert faces.identity.tolist() == [0, 0, 1, 1, 2, 2]
    assert faces.source == "album"
    assert faces.split("test").tolist() in ([0, 1], [2, 3], [4, 5])


def test_an_archive_is_read_as_its_folder_and_nothing_is_extracted(folder, archive):
    before = sorted(archive.parent.rglob("*"))
    from_folder, from_archive = load_faces(folder, 16), load_faces(str(archive), 16)
    assert from_folder.digest == from_archive.digest
    assert sorted(archive.parent.rglob("*")) == before


def test_an_archive_whose_names_lead_out_of_it_writes_nothing(tmp_path):
    save(tmp_path / "face.png")
    path = tmp_path / "bad" / "faces.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "face.png", "../../escaped.png")
        archive.write(tmp_path / "face.png", "inside.png")
    before = sorted(tmp_path.rglob("*"))
    with pytest.warns(UserWarning, match=r"source 'faces.zip': left out: names that lead out \(1\)$"):
        assert len(load_faces(path, 8, parts={"all": 1.0})) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_color_keeps_three_channels_and_grey_images_get_three_equal_ones(folder):
    save(folder / "ada" / "ada0.png", (20, 20, 3)[:2], mode="RGB")
    faces = load_faces(folder, size=20, color=True)
    assert faces.images.shape == (6, 3, 20, 20)
    with Image.open(folder / "ada" / "ada0.png") as image:
        assert np.allclose(np.moveaxis(faces.images[0], 0, -1) * 255, np.asarray(image), atol=1e-3)
    assert np.array_equal(faces.images[2:, 0], faces.images[2:, 1])


def test_crop_takes_that_many_pixels_of_the_centre(tmp_path):
    inner = np.full((40, 60), 10, np.uint8)
    inner[10:30, 20:40] = 200
    Image.fromarray(inner).save(tmp_path / "a.png")
    Image.fromarray(inner).save(tmp_path / "b.png")
    assert (load_faces(tmp_path, 16, crop=18).images * 255).round().min() == 200
    assert (load_faces(tmp_path, 16).images * 255).round().min() == 10


def test_a_large_photograph_decoded_at_a_fraction_shows_the_same_picture(tmp_path):
    height, width = np.mgrid[:1200, :1600]
    picture = (127 + 60 * np.sin(height / 150) + 60 * np.cos(width / 130)).astype(np.uint8)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(picture).save(tmp_path / name, **({"quality": 95} if "jpg" in name else {}))
    for options in ({}, {"crop": 700}):
        jpeg, png = load_faces(tmp_path, 32, parts={"all": 1.0}, **options).images
        assert np.abs(jpeg - png).max() < 0.02


def test_a_photograph_is_turned_the_way_its_camera_was_held(tmp_path):
    pixels = np.zeros((20, 30), np.uint8)
    pixels[:10] = 200  # bright above
    held = Image.Exif()
    held[0x0112] = 6  # shown turned by a quarter: bright at the right
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=held)
    shown = load_faces(tmp_path, 10, parts={"all": 1.0}).images[0, 0]
    assert shown[:, -2].mean() > 0.7 > 0.1 > shown[:, 1].mean()


def test_images_of_one_folder_have_no_identity_and_others_above_it_are_told_of(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / "flat" / "deeper" / name)
    assert load_faces(tmp_path / "flat", 8).identity is None
    save(tmp_path / "flat" / "above.png")
    with pytest.warns(UserWarning, match="source 'flat': nobody is told apart, for images lie in one folder and above"):
        faces = load_faces(tmp_path / "flat", 8)
    assert (len(faces), faces.identity) == (3, None)


# ---- who is who ------------------------------------------------------------------------------------------

part_of_a_name = st.sampled_from(["ada", "bo", "Cy", "josé", "zoë", "dé"])
layouts = st.sets(st.lists(part_of_a_name, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)
spoilt = {  # as archives and file systems have written names
    "as they are": str,
    "from here": "./{}".format,
    "absolute": "/{}".format,
    "backslashes": lambda name: name.replace("/", "\\"),
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
}


@given(layouts, st.sampled_from(sorted(spoilt)))
def test_people_of_any_layout_are_those_that_the_rule_says_whatever_form_names_have(layout, form):
    names = sorted(f"{name}.png" for name in layout)
    files = [_plain(spoilt[form](name)) for name in names]
    assert files == names
    folders = [name.rpartition("/")[0] for name in names]
    for rule, known in (
        ("parent", lambda name: name.split("/")[-2]),
        (r"^([^/]+)/.*", lambda name: name.split("/")[0]),
        ({name: name.split("/")[0] for name in names if "/" in name}, lambda name: name.split("/")[0]),
    ):
        # by hand: who is beside all folders, or beside all folders below a folder that holds all others, is nobody
        own = {n for n, folder in zip(names, folders, strict=True) if folder} if rule != "parent" else _own(names)
        if not own:
            with pytest.raises(ValueError, match="which finds nobody in"):
                _people(files, rule)
            continue
        kept, identity, said = _people(files, rule)
        assert kept == sorted(own)
        people = [known(name) for name in kept]
        assert [sorted(set(people))[i] for i in identity] == people
        assert any(f"left out: {len(names) - len(own)} of {len(names)} images" in s for s in said) == (own != {*names})


def _own(names):
    """Images in a folder, but for those that lie above all others."""
    own = set(names)
    while True:
        above = [n for n in own if all(m.startswith(n.rpartition("/")[0] + "/" * ("/" in n)) for m in own)]
        folders = {n.rpartition("/")[0] for n in own}
        if len(folders) == 1:
            return {n for n in own if "/" in n}
        if not above:
            return own
        own -= set(above)


@given(layouts)
def test_by_default_a_layout_in_which_folders_mean_other_people_is_told_of(layout):
    names = sorted(f"{name}.png" for name in layout)
    kept, identity, said = _people(names, "folders")
    folders = {name.rpartition("/")[0] for name in kept}
    if identity is None:
        assert kept == names and (len(folders) == 1 or said)
        return
    by_parent, by_top = (_people(names, rule)[1] for rule in ("parent", "top"))
    assert np.array_equal(identity, by_parent)
    same = len(set(zip(by_parent, by_top, strict=True))) == by_parent.max() + 1 == by_top.max() + 1
    assert any("people='top' would tell" in sentence for sentence in said) == (not same)


def test_a_stray_picture_beside_the_people_is_left_out_and_counted(folder, archive):
    save(folder / "cover.png")
    with zipfile.ZipFile(archive, "a") as more:
        more.write(folder / "cover.png", "top/cover.png")
    for source, name in ((folder, "cover.png"), (archive, "top/cover.png")):
        with pytest.warns(UserWarning, match=f"left out: 1 of 7 images, for nobody says whom they show: {name}$"):
            faces = load_faces(source, 8)
        assert faces.identity.tolist() == [0, 0, 1, 1, 2, 2]
        nobody = load_faces(source, 8, people=None)
        assert (len(nobody), nobody.identity) == (7, None)


def test_people_are_the_top_folders_the_nearest_or_what_a_pattern_or_a_mapping_says(tmp_path):
    names = ["ada/2001/x7.png", "ada/2002/y7.png", "bo/2001/x8.png", "bo/2001/x9.png"]
    for name in names:
        save(tmp_path / "album" / name)
    found = {
        rule: load_faces(tmp_path / "album", 8, people=rule, split_by="image").identity.tolist()
        for rule in ("top", "parent", "([xy])[0-9]", "[xy][0-9]")
    }
    assert found == {
        "top": [0, 0, 1, 1], "parent": [0, 1, 0, 0], "([xy])[0-9]": [0, 1, 0, 0], "[xy][0-9]": [0, 3, 1, 2]
    }  # fmt: skip
    said = {"x7.png": "Ada", "y7.png": "Ada", "./" + names[2]: "Bo", "x9.png": np.nan}
    with pytest.warns(UserWarning, match="left out: 1 of 4 images, for nobody says whom they show: bo/2001/x9.png"):
        faces = load_faces(tmp_path / "album", 8, people=said)
    assert faces.identity.tolist() == [0, 0, 1]
    with pytest.warns(UserWarning, match="2 people by the folders that images lie in; people='top' would tell 2"):
        load_faces(tmp_path / "album", 8)


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_people_of_a_mapping_are_one_where_their_names_are_the_same_but_for_how_they_are_written(tmp_path, kind):
    said = ["josé", unicodedata.normalize("NFD", "josé"), "josé ", 1, 1.0, np.float32(1), " ", None]
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        save(tmp_path / name)
    with pytest.warns(UserWarning, match=r"left out: 2 of 8 images, for nobody says whom they show: 6\.png, 7\.png"):
        faces = load_faces(tmp_path, 8, people=kind(dict(zip(names, said, strict=True))))
    assert faces.identity.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="people must say once whom an image shows, but says two people of one"):
        load_faces(tmp_path, 8, people=pd.Series(["Ada", "Bo"], ["0.png", "./0.png"]))


def test_a_name_that_several_folders_have_says_of_none_of_its_images_whom_they_show(tmp_path):
    for name in ("one/0.png", "two/0.png", "two/1.png", "two/2.png"):
        save(tmp_path / name)
    with pytest.warns(UserWarning, match=r"2 of 4 images, for nobody says whom they show: one/0.png, two/0.png"):
        faces = load_faces(tmp_path, 8, people={"0.png": "Ada", "1.png": "Bo", "2.png": "Cy"})
    assert faces.identity.tolist() == [0, 1]


def test_images_in_whose_name_a_pattern_finds_nothing_are_left_out_and_counted(tmp_path):
    for name in ("ada1.png", "bo1.png", "1.png"):
        save(tmp_path / name)
    with pytest.warns(UserWarning, match=r"left out: 1 of 3 images, for nobody says whom they show: 1\.png"):
        assert load_faces(tmp_path, 8, people="^[a-z]*").identity.tolist() == [0, 1]


def test_people_whose_names_differ_in_case_alone_are_told_of(tmp_path):
    for name in ("Ada/1.png", "ada/2.png"):
        save(tmp_path / name)
    with pytest.warns(UserWarning, match="people whose names differ in upper and lower case alone count as different"):
        assert load_faces(tmp_path, 8, parts={"all": 1.0}).identity.tolist() == [0, 1]


@pytest.mark.parametrize("people", ["(", "Parent", 3, {}, "nobody", np.array(["a", "b"])])
def test_what_finds_nobody_meets_a_sentence(folder, people):
    with pytest.raises(ValueError, match="people must be 'folders', 'parent', 'top', a regular expression, a mapping"):
        load_faces(folder, 8, people=people)


# ---- links, folders that can't be read, what isn't read --------------------------------------------------


def test_links_are_followed_and_each_file_is_read_once(folder, tmp_path):
    linked = tmp_path / "linked"
    (linked / "zoe").mkdir(parents=True)
    save(linked / "zoe" / "1.png")
    (linked / "ada").symlink_to(folder / "ada")
    (linked / "bo").mkdir()
    (linked / "bo" / "1.jpg").symlink_to(folder / "bo" / "bo0.jpg")
    assert load_faces(linked, 8).identity.tolist() == [0, 0, 1, 2]
    (linked / "again").symlink_to(linked / "zoe")
    (linked / "bo" / "again.jpg").symlink_to(folder / "bo" / "bo0.jpg")
    (linked / "bo" / "up").symlink_to(tmp_path)
    (linked / "bo" / "here").symlink_to(linked)
    (linked / "bo" / "lost.jpg").symlink_to("nowhere.jpg")
    said = r"left out: links to what is read already \(4\), broken links \(1\)$"
    with pytest.warns(UserWarning, match=said):
        faces = load_faces(linked, 8)
    assert len(faces) == 4


def test_folders_that_cannot_be_read_and_images_of_other_kinds_are_counted(folder, monkeypatch):
    (folder / "ada" / "ada2.heic").write_bytes(b"")
    shut = str(folder / "bo")
    scan = os.scandir

    def scandir(path):
        if str(path) == shut:
            raise PermissionError(13, "Permission denied", shut)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = r"left out: folders that can't be read \(1\)|images of other kinds \(1\)"
    with pytest.warns(UserWarning, match=said):
        faces = load_faces(folder, 8)
    assert faces.identity.tolist() == [0, 0, 1, 1]


def zipped(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in contents:
            made.writestr(name, data)
    return path


def picture(value):
    data = io.BytesIO()
    Image.fromarray(np.full((20, 20), value, np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_no_folder_could_have_neither_hang_nor_count_twice(tmp_path):
    link = zipfile.ZipInfo("bo/4.png")
    link.external_attr = 0o120777 << 16
    names = ["//", "/", "..", "\\", "./ada/1.png", "/ada\\2.png", "bo//3.png", "bo/3.png", "bo\\5.png"]
    path = zipped(tmp_path / "odd.zip", [*((name, picture(30 * k)) for k, name in enumerate(names)), (link, "3.png")])
    said = r"'odd.zip': left out: images whose name comes again \(1\), links in an archive \(1\)$"
    with pytest.warns(UserWarning, match=said):
        faces = load_faces(path, 8)
    assert faces.identity.tolist() == [0, 0, 1, 1]
    assert np.allclose(faces.images[:, 0, 0, 0] * 255, [120, 150, 210, 240])  # of two, the last, as when extracted


def test_an_entry_larger_than_any_picture_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST", 2**16)
    bomb = b"P5 20 20 255\n" + bytes(2**22)
    path = zipped(tmp_path / "bomb.zip", [("1.pgm", bomb), ("2.png", picture(9)), ("3.png", picture(9))])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"1 of 3 images can't be read: 1.pgm \(it is larger than 0 MiB\)"):
            load_faces(path, 8)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_a_damaged_archive_meets_a_sentence(archive):
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2] + whole[-22:])
    with pytest.raises(ValueError, match=r"source '.*album.zip' is a damaged zip archive \("):
        load_faces(archive)


# ---- where a source lies ---------------------------------------------------------------------------------


def test_a_folder_may_be_named_from_here_from_home_or_without_a_slash_but_a_sources_name_comes_first(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    digests = {load_faces(where, 8).digest for where in ("album", "./album", "~/album", Path("album"), folder)}
    assert len(digests) == 1
    folder.rename(tmp_path / "orl")
    assert len(load_faces("orl", 8)) == 400
    assert len(load_faces("./orl", 8)) == 6


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_attributes_of_part_of_the_images_leave_the_rest_unknown(request, folder, tmp_path, kind, inside):
    table = "\ufeff,Smiling,Young\nada0.png,-1,1\nbo1.jpg,1,\nelsewhere.jpg,1,1\n"
    (tmp_path / "list.csv").write_text(table, encoding="utf-8")
    if inside:
        (folder / "list.csv").write_text(table, encoding="utf-8")
    source = request.getfixturevalue(kind)
    name = {"folder": "list.csv", "archive": "top/list.csv"}[kind] if inside else tmp_path / "list.csv"
    faces = load_faces(source, 8, attributes=name)
    assert faces.attribute_names == ("Smiling", "Young")
    unknown = [np.nan, np.nan]
    expected = [[0, 1], unknown, unknown, [1, np.nan], unknown, unknown]
    assert np.array_equal(faces.attributes, np.array(expected, np.float32), equal_nan=True)
    assert faces.digest != load_faces(source, 8).digest


def test_attributes_tell_equal_names_in_different_folders_apart(tmp_path):
    for person in ("ada", "bo"):
        save(tmp_path / person / "1.png")
    (tmp_path / "list.csv").write_text("file,Happy\nbo/1.png,1\nada/1.png,0\n")
    faces = load_faces(tmp_path, 8, attributes="list.csv", parts={"all": 1.0})
    assert faces.attributes.tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file,Happy\nada0.png,yes\n", "is no table of comma-separated numbers: .* 'yes'"),
        ("file,Happy\nada0.png,1\nada1.png,1,1,1\n", "is no table of comma-separated numbers"),
        ("", "is no table of comma-separated numbers"),
        ("file,Happy,Young\nada0.png,1,0,\nada1.png,1,1,\n", "must name each column in its first line"),
        ("file,Happy\nada0.png,2\n", "must hold -1, 0, 1 or nothing, not 2"),
        ("file,Happy\nnobody.png,1\n", "must list each image once, and at least one of the images here"),
        ("file,Happy\nada0.png,1\nada0.png,0\n", "must list each image once"),
        ("ada0.png,1\nada1.png,0\n", "must name the attributes in its first line, not 'ada0.png'"),
    ],
)  # fmt: skip
def test_a_bad_attribute_list_meets_a_sentence(folder, table, sentence):
    (folder / "list.csv").write_text(table)
    with pytest.raises(ValueError, match=f"attributes: .*list.csv {sentence}"):
        load_faces(folder, attributes="list.csv")


def test_attributes_are_found_whatever_case_or_unicode_form_the_list_writes_names_in(tmp_path):
    for name in ("josé.png", "Zoë.png", "anna.png"):
        save(tmp_path / unicodedata.normalize("NFD", name))
    (tmp_path / "list.csv").write_text("file,Happy\njosé.png,1\n./zoë.PNG,0\nAnna.png,1\n", encoding="utf-8")
    faces = load_faces(tmp_path, 8, attributes="list.csv", parts={"all": 1.0})
    assert faces.attributes.ravel().tolist() == [0, 1, 1]  # Zoë, anna, josé


def test_a_missing_attribute_list_meets_a_sentence(folder):
    with pytest.raises(FileNotFoundError, match=r"attributes: no file 'lst.csv' in .*album, nor elsewhere"):
        load_faces(folder, attributes="lst.csv")


def test_unreadable_images_are_named_and_counted_and_skipped_only_on_request(folder):
    (folder / "bo" / "bo0.jpg").write_bytes(b"not an image")
    whole = (folder / "ada" / "ada1.png").read_bytes()
    (folder / "ada" / "ada1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "list.csv").write_text("file,Happy\nada0.png,1\ncy1.pgm,0\n")
    told = r"2 of 6 images can't be read: ada/ada1.png \(.+\), bo/bo0.jpg \(.+\)"
    with pytest.raises(ValueError, match=told + "; skip_unreadable=True leaves them out"):
        load_faces(folder, 8)
    with pytest.warns(UserWarning, match="left out: " + told):
        faces = load_faces(folder, 8, skip_unreadable=True, attributes="list.csv", parts={"all": 1.0})
    assert len(faces) == 4
    assert faces.identity.tolist() == [0, 1, 2, 2]
    assert faces.attributes[[0, 3], 0].tolist() == [1, 0]


def test_many_unreadable_images_are_not_all_named(tmp_path):
    for index in range(9):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"9 of 9 images can't be read: 0.png .*4.png \([^,]*, \.\.\.; skip"):
        load_faces(tmp_path, 8)
    with pytest.raises(ValueError, match="9 of 9 images"):
        load_faces(tmp_path, 8, skip_unreadable=True)


def test_images_that_would_lose_their_depth_or_are_smaller_than_the_crop_count_as_unreadable(tmp_path):
    Image.fromarray(np.full((30, 30), 40000, np.uint16)).save(tmp_path / "deep.png")
    save(tmp_path / "small.png", (12, 30))
    save(tmp_path / "fine.png")
    with pytest.raises(
        ValueError, match=r"deep.png \(more than 8 bits.*small.png \(30 x 12 px is less than crop = 15\)"
    ):
        load_faces(tmp_path, 8, crop=15)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_colours_of_what_is_transparent_are_not_seen(tmp_path, mode):
    for hidden in (0, 128, 255):
        pixels = np.full((20, 20, 4), [200, 200, 200, 255], np.uint8)
        pixels[10:] = hidden, hidden, hidden, 0
        image = Image.fromarray(pixels)
        if mode == "P":  # one colour of the palette is transparent
            pixels[10:, :, 3] = 255
            image = Image.fromarray(pixels).convert("L").convert("P")
            image.info["transparency"] = image.getpixel((0, 19))
        elif mode != "RGBA":
            image = image.convert(mode)
        image.save(tmp_path / f"{hidden}.{'tif' if mode == 'PA' else 'png'}")
    shown = load_faces(tmp_path, 20, parts={"all": 1.0}).images[:, 0]
    assert np.allclose(shown[:, :10] * 255, 200) and np.allclose(shown[:, 10:] * 255, 128)


def test_moving_pictures_show_their_first_frame_and_are_counted(tmp_path):
    frames = [Image.fromarray(np.full((20, 20), value, np.uint8)) for value in (50, 250)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.png")
    with pytest.warns(UserWarning, match=r"images that move, and show their first frame \(1\)"):
        shown = load_faces(tmp_path, 20, parts={"all": 1.0}).images
    assert np.allclose(shown * 255, 50, atol=1)


def test_many_faces_lie_where_there_is_room_for_them_or_are_refused(folder, tmp_path, monkeypatch, store_folder):
    expected = load_faces(folder, 8).images
    (folder / "ada" / "broken.png").write_bytes(b"")
    monkeypatch.setattr(sources, "_IN_MEMORY", 0)
    free = {str(store_folder): 2**30}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free.get(str(place), 0)))
    with pytest.warns(UserWarning, match="left out: 1 of 7 images can't be read: ada/broken.png"):
        faces = load_faces(folder, 8, skip_unreadable=True)
    assert isinstance(faces.images, np.memmap) and faces.images.shape == (6, 1, 8, 8)
    assert np.array_equal(faces.some(np.arange(6)).images, expected)
    free.clear()
    with pytest.raises(
        OSError, match=r"7 images of this size need 0 MiB, which neither .* nor the store, .*, has; set"
    ):
        load_faces(folder, 8)


def test_a_source_without_images_meets_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=rf"source '{re.escape(str(tmp_path))}' has no images in it, .*\.jpg"):
        load_faces(tmp_path)
    for path in (tmp_path / "notes.txt", tmp_path / "nothing", "faces.zip", "./orl"):
        with pytest.raises(FileNotFoundError, match="source must be an existing folder or zip archive, not"):
            load_faces(path)


# ---- gratings --------------------------------------------------------------------------------------------


def test_every_grating_is_the_same_and_its_noise_differs():
    faces = load_faces("gratings", size=32, limit=200, noise=0.2, seed=3)
    assert faces.images.shape == faces.noise.shape == (200, 1, 32, 32)
    assert np.ptp(faces.images, axis=0).max() == 0
    assert faces.noise.std() == pytest.approx(0.2, rel=0.01)
    assert np.abs(np.corrcoef(faces.noise.reshape(200, -1)[:, :50].T) - np.eye(50)).max() < 0.35
    assert faces.symmetry == 2
    assert np.array_equal(faces.images, faces.images[..., ::-1, ::-1])  # half a turn
    assert not np.array_equal(faces.noise, load_faces("gratings", 32, limit=200, seed=4, noise=0.2).noise)
    assert (faces.identity, len(load_faces("gratings", 16))) == (None, 1000)


@pytest.mark.parametrize("frequency", [2.0, 4.5])
@pytest.mark.parametrize("radius", [0.3, 0.5])
def test_information_of_the_pixels_of_a_grating_has_the_closed_form_of_the_docstring(frequency, radius):
    size, contrast, sigma, step = 400, 0.6, 0.25, 1e-5
    at = (np.arange(size) + 0.5) / size - 0.5
    x, y = at[None, :], at[:, None]

    def turned(angle):
        return 0.5 + contrast / 2 * np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))

    image = load_faces("gratings", size, limit=10, frequency=frequency, contrast=contrast).images[0, 0]
    assert np.allclose(image, np.broadcast_to(turned(0), (size, size)), atol=1e-6)
    inside = np.hypot(x, y) < radius
    speed = ((turned(step) - turned(-step)) / (2 * step))[inside]
    k = 4 * np.pi * frequency
    area = np.pi * radius**4 / 8 - np.pi * radius**2 * jv(2, k * radius) / k**2
    assert (speed**2).sum() / sigma**2 == pytest.approx(
        (np.pi * frequency * contrast * size / sigma) ** 2 * area, rel=0.01
    )


def test_other_splits_of_the_same_faces_are_other_faces_to_the_store():
    faces = load_faces("orl", 16)
    other, same = (faces.with_splits({"few": [np.arange(3)]}) for _ in range(2))
    assert other.splits == ("few",) and other.split("few").tolist() == [0, 1, 2] and other.images is faces.images
    assert len({faces.digest, other.digest, faces.with_splits({"few": (np.arange(4),)}).digest}) == 3
    assert other.digest == same.digest


def test_faces_without_splits_say_so_where_networks_are_to_be_trained():
    faces = Faces(np.zeros((4, 1, 8, 8), np.float32), "drawn")
    with pytest.raises(ValueError, match="these faces have no splits, such as train and test: load_faces or with_spl"):
        fb.train(fb.Stimulus(faces), fb.Network("mlp"), [fb.Stage("a", fb.uniform(), steps=1)], replicates=1)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 10, 16)),
        np.full((2, 1, 8, 8), 255.0),
        np.full((2, 1, 8, 8), np.nan),
        np.zeros((0, 1, 8, 8)),
        "f8",
    ],
    ids=["not square", "to 255", "NaN", "none", "double"],
)
def test_images_that_are_no_squares_of_numbers_from_0_to_1_meet_a_sentence(images):
    images = np.zeros((2, 1, 8, 8)) if isinstance(images, str) else images.astype(np.float32)
    with pytest.raises(ValueError, match=r"images must be squares of float32 in \[0, 1\], or uint8, not float"):
        Faces(images, "own")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_archive_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(FileNotFoundError, match="source must be an existing folder or zip archive"):
        load_faces(tmp_path / "pipe.zip")


def test_words_of_other_packages_are_not_told(folder, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png \(cannot identify image file\);"):
        load_faces(tmp_path / "one")
    for source, options, sentence in (
        (folder, {"attributes": 3}, "no file '3'"),
        ("~nobody_at_all/faces", {}, "source must be an existing folder or zip archive"),
        ("gratings", {"frequency": 40}, "frequency must be at most half the size, 32, not 40"),
        ("orl", {"noise": np.inf}, "noise must be a number above 0, not inf"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            load_faces(source, **options)
