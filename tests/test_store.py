import ast
import errno
import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherbook import store
from fisherbook.network.networks import Network
from fisherbook.store import Store, array_digest, canonical, closure, digest, made_by, source_digest, unchanged

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
names = st.text().filter(lambda name: not name.startswith("@"))
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=12)


def shuffled(value):
    """The same value with the keys of every dict in reverse order and every list as a tuple."""
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in reversed(value.items())}
    return tuple(map(shuffled, value)) if isinstance(value, list) else value


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(values)
def test_order_of_keys_and_kind_of_sequence_leave_the_digest_alone(value):
    assert digest(shuffled(value)) == digest(value)


@settings(deadline=None)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_two_floats_share_a_digest_only_if_they_are_equal(first, second):
    assert (digest(first) == digest(second)) == (first == second)
    assert digest(np.float64(first)) == digest(first)


def test_whole_floats_are_whole_numbers_but_neither_truths_nor_texts():
    assert canonical([1.0, -0.0, np.float32(2), np.int64(3)]) == "[1,0,2,3]"
    assert len({canonical(value) for value in (1, True, "1", [1], None)}) == 5


def test_nan_has_no_digest_because_it_is_not_equal_to_itself():
    with pytest.raises(ValueError, match=r"value\['kappa'\]\[1\] must be a number, not NaN"):
        canonical({"kappa": [0.5, float("nan")]})


@dataclass(frozen=True)
class Stage:
    name: str
    steps: int
    cached: object = field(default=None, compare=False)


@dataclass(frozen=True)
class Phase:
    name: str
    steps: int


def test_a_dataclass_is_its_name_and_the_fields_it_is_compared_by():
    assert canonical(Stage("late", 3, cached=print)) == '{"@Stage":{"name":"late","steps":3}}'
    assert digest(Stage("late", 3)) != digest(Phase("late", 3)) != digest({"name": "late", "steps": 3})


def test_what_has_no_digest_is_named_with_its_place():
    with pytest.raises(TypeError, match=r"value\[0\]\['name'\] is of type builtin_function_or_method, which has no"):
        canonical([Stage(print, 1)])
    with pytest.raises(TypeError, match="the keys of value must be strings that do not begin with '@', not 3"):
        canonical({3: 1})
    with pytest.raises(TypeError, match="array of dtype object has no digest"):
        canonical(np.array([None]))


def test_an_array_is_told_by_its_dtype_shape_and_values_and_not_by_its_layout_or_library():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    same = [
        array.copy(order="F"),
        array.astype(">f4"),
        torch.from_numpy(array),
        np.repeat(array, 2, axis=0)[::2],
    ]
    assert {array_digest(other) for other in same} == {array_digest(array)}
    others = [array.reshape(6, 4), array.astype(float), array + 1, array[:0], array[:0, :2], np.array("a"), 1]
    assert len({array_digest(other) for other in [array, *others]}) == 8
    assert digest(torch.float32) == digest("torch.float32") != digest(np.dtype("float32")) == digest("float32")
    assert digest(torch.ones(2, requires_grad=True)) == digest(np.ones(2, np.float32)) != digest([1, 1])


SOURCE = '''"""A module."""
LIMIT = 3


class Thing:
    """A class."""


def half(x):
    """Halve."""
    return x / 2  # exactly
'''


@pytest.fixture
def source(tmp_path):
    """Digest of a package made of a text, each in a folder of its own."""

    def of(text):
        package = tmp_path / str(len(list(tmp_path.iterdir())))
        (package / "inner").mkdir(parents=True)
        (package / "inner" / "one.py").write_text(text)
        (package / "two.py").write_text("x = 1")
        return source_digest("inner.one", "two", package=package)

    return of


def test_what_modules_that_have_changed_or_are_gone_once_made_is_older():
    assert unchanged("angles store", source_digest("angles", "store"))
    assert not unchanged("angles store", source_digest("angles"))
    assert not unchanged("angles adaptation", source_digest("angles"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("exactly", "more or less"),
        ("Halve.", "Divide by two."),
        ("A module.", "Other."),
        ("\n\n\n", "\n\n# so\n"),
    ],
)
def test_a_comment_or_a_docstring_leaves_the_source_digest_alone(source, old, new):
    assert source(SOURCE.replace(old, new)) == source(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("= 3", "= 4"), ("= 3", "= 3.0"), ("/", "//"), ("x", "y"), ("= 3", "= None"), ("class", "@half\nclass")],
)
def test_a_constant_an_operator_or_a_name_changes_the_source_digest(source, old, new):
    ast.parse(SOURCE.replace(old, new))
    assert source(SOURCE.replace(old, new)) != source(SOURCE)


def test_source_digest_takes_modules_in_any_order_and_names_the_nearest_for_an_unknown_one():
    assert source_digest("store", "checks") == source_digest("checks", "store") != source_digest("checks")
    with pytest.raises(ValueError, match=r"modules must be one of .*, not 'stor'; did you mean 'store'\?"):
        source_digest("stor")


def write(text, path):
    path.write_text(text)


def fill(cache, keys, compute):
    return cache.fill("text", keys, compute, write, Path.read_text, ".txt")


def upper(missing):
    return ((key, key.upper()) for key in missing)


@pytest.fixture
def cache(tmp_path):
    return Store(tmp_path / "store")


def refuse(missing):
    raise AssertionError(f"computed again: {missing}")


def test_asked_twice_computed_once(cache):
    asked = []

    def compute(missing):
        asked.append(missing)
        return upper(missing)

    assert fill(cache, ["b", "a"], compute) == {"b": "B", "a": "A"}
    assert list(fill(cache, ["c", "a", "b", "c"], compute).items()) == [("c", "C"), ("a", "A"), ("b", "B")]
    assert asked == [["b", "a"], ["c"]]
    assert fill(cache, ["a", "b"], refuse) == {"a": "A", "b": "B"}


def test_get_put_and_remove_one_value(cache):
    assert cache.get("text", "a", Path.read_text, ".txt") is None
    cache.put("text", "a", "first", write, ".txt")
    cache.put("text", "a", "second", write, ".txt")
    assert cache.get("text", "a", Path.read_text, ".txt") == "second"
    cache.remove("text", "a", ".txt")
    cache.remove("text", "a", ".txt")
    assert cache.get("text", "a", Path.read_text, ".txt") is None
    assert [path for path in cache.root.rglob("*") if path.is_file()] == []


def test_no_lock_and_no_temporary_file_stays_behind(cache):
    fill(cache, ["a", "b"], upper)
    files = {path.name for path in cache.root.rglob("*") if path.is_file()}
    assert files == {"a.txt", "a.txt.sidecar", "b.txt", "b.txt.sidecar"}


def test_what_was_yielded_before_a_failure_stays(cache):
    def fail_after_one(missing):
        yield missing[1], "second"
        raise RuntimeError("the machine stopped")

    with pytest.raises(RuntimeError, match="the machine stopped"):
        fill(cache, ["a", "b"], fail_after_one)
    assert fill(cache, ["a", "b"], upper) == {"a": "A", "b": "second"}


def test_a_surplus_key_and_a_missing_key_are_named(cache):
    with pytest.raises(ValueError, match="compute was asked for a, but yielded 'b'"):
        fill(cache, ["a"], lambda missing: [("b", "B")])
    with pytest.raises(RuntimeError, match="compute ended without a value for b"):
        fill(cache, ["a", "b"], lambda missing: [("a", "A")])
    assert fill(cache, ["a"], refuse) == {"a": "A"}


@pytest.mark.parametrize("key", ["", "../a", "a/b", ".a", "a~b", "a b"])
def test_a_key_that_is_no_file_name_is_refused(cache, key):
    with pytest.raises(ValueError, match="key must be a name of letters, digits"):
        fill(cache, [key], upper)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "B"),
        ("a.txt", ""),
        ("a.txt.sidecar", "{"),
        ("a.txt.sidecar", "[]"),
        ("a.txt.sidecar", '{"size": 1}'),
        ("a.txt.sidecar", None),
    ],
)
def test_a_damaged_file_or_sidecar_is_named_and_counts_as_absent(cache, name, content):
    fill(cache, ["a"], upper)
    damaged = cache.root / "text" / name
    damaged.unlink() if content is None else damaged.write_text(content)
    if content is not None:
        with pytest.warns(UserWarning, match=r"a\.txt does not agree with its sidecar and counts as absent"):
            assert cache.get("text", "a", Path.read_text, ".txt") is None
    with pytest.warns(UserWarning, match=r"a\.txt does not agree with its sidecar and counts as absent"):
        assert fill(cache, ["a"], upper) == {"a": "A"}
    assert fill(cache, ["a"], refuse) == {"a": "A"}


def in_its_place(path, what):
    """Put something else where a file was."""
    path.unlink()
    if what == "folder":
        path.mkdir()
        (path / "inner").write_text("A")
    elif what == "loop":
        path.symlink_to(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "pipe":  # who opens it to read waits for ever
        os.mkfifo(path)
    elif what == "deep":
        path.write_text("[" * 100_000)
    else:
        path.write_bytes(b"\xff\0junk")


@pytest.mark.skipif(os.name == "nt", reason="there are no pipes and no /dev/zero on Windows")
@pytest.mark.parametrize("what", ["folder", "loop", "endless", "pipe", "deep", "junk"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.sidecar"])
def test_whatever_lies_in_the_place_of_a_file_is_named_and_the_value_computed_anew(cache, name, what):
    fill(cache, ["a"], upper)
    in_its_place(cache.root / "text" / name, what)
    with pytest.warns(store.Damaged, match=r"text.a\.txt does not agree with its sidecar") as told:
        assert fill(cache, ["a"], upper) == {"a": "A"}
    assert len(told) == 1
    assert fill(cache, ["a"], refuse) == {"a": "A"}
    in_its_place(cache.root / "text" / name, what)
    cache.remove("text", "a", ".txt")
    assert not list((cache.root / "text").iterdir())


def test_a_file_that_agrees_with_its_sidecar_but_cannot_be_read_is_damaged_too(cache):
    fill(cache, ["a"], upper)
    cache.put("text", "a", b"\xff", lambda value, path: path.write_bytes(value), ".txt")
    with pytest.warns(store.Damaged, match=r"a\.txt cannot be read \(.*\) and counts as absent"):
        assert fill(cache, ["a"], upper) == {"a": "A"}
    assert fill(cache, ["a"], refuse) == {"a": "A"}


def without_memory(path):
    raise MemoryError


def test_want_of_memory_is_no_damage(cache):
    fill(cache, ["a"], upper)
    with pytest.raises(MemoryError):
        cache.fill("text", ["a"], refuse, write, without_memory, ".txt")


@given(data=st.data())
@settings(max_examples=25)
def test_any_damage_to_the_bytes_of_a_file_or_sidecar_is_named_and_the_same_value_computed_anew(tmp_path_factory, data):
    cache = Store(tmp_path_factory.mktemp("store"))
    value = data.draw(st.binary(min_size=1, max_size=40))

    def fill(compute):
        return cache.fill("raw", ["a"], compute, lambda v, path: path.write_bytes(v), Path.read_bytes, ".bin")["a"]

    fill(lambda missing: [("a", value)])
    path = cache.root / "raw" / data.draw(st.sampled_from(["a.bin", "a.bin.sidecar"]))
    before, at = path.read_bytes(), data.draw(st.integers(0, path.stat().st_size - 1))
    after = data.draw(st.sampled_from([before[:at], before[:at] + b"\0" + before[at:]]) | st.binary(max_size=3))
    flipped = bytearray(before)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(data.draw(st.sampled_from([after, bytes(flipped)])))
    if path.suffix == ".bin" and path.read_bytes() == before:
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert fill(lambda missing: [("a", value)]) == value
        assert fill(refuse) == value
    assert len(told) <= 1  # a sidecar may say the same in other bytes
    assert path.suffix != ".bin" or "a.bin does not agree" in str(told[0].message)


@pytest.mark.parametrize("root", ["file", "file/below", "locks", "kind"])
def test_a_store_that_cannot_be_written_is_one_sentence_and_what_it_has_is_read(tmp_path, root):
    cache = Store(tmp_path / "store" if root in ("locks", "kind") else tmp_path / root)
    if root == "locks":
        fill(cache, ["a"], upper)
        (cache.root / ".locks").rmdir()
        (cache.root / ".locks").write_text("")
        assert fill(cache, ["a"], refuse) == {"a": "A"}
    elif root == "kind":
        cache.root.mkdir()
        (cache.root / "text").write_text("")
    else:
        (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"the store .* cannot be written \(.*\); name another folder .* FISHERBOOK_STORE"
    ):
        fill(cache, ["b"], refuse)


def test_a_sidecar_without_its_file_counts_as_absent(cache):
    fill(cache, ["a"], upper)
    (cache.root / "text" / "a.txt").unlink()
    assert fill(cache, ["a"], lambda missing: [("a", "again")]) == {"a": "again"}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed: No space left on device")],
)
def test_a_full_disk_is_one_sentence_with_the_folder_and_leaves_no_half_file(cache, error):
    def save(value, path):
        path.write_text("half")
        raise error

    fill(cache, ["a"], upper)
    with pytest.raises(OSError, match=r"no space is left in .*store.text to write b\.txt; what was") as caught:
        cache.fill("text", ["a", "b"], upper, save, Path.read_text, ".txt")
    assert caught.value.errno == errno.ENOSPC
    assert "FISHERBOOK_STORE" in str(caught.value)
    assert sorted(path.name for path in (cache.root / "text").iterdir()) == ["a.txt", "a.txt.sidecar"]


def test_a_disk_that_fills_without_saying_so_is_recognised(cache, monkeypatch):
    def save(value, path):
        raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        cache.put("text", "a", "A", save, ".txt")
    usage = store.shutil.disk_usage(cache.root)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: usage._replace(free=0))
    with pytest.raises(OSError, match="no space is left"):
        cache.put("text", "a", "A", save, ".txt")


def test_old_leavings_are_swept_but_neither_young_nor_locked_ones(cache):
    folder = cache.root / "text"
    folder.mkdir(parents=True)
    old, young, locked = (folder / f".0~{key}.txt" for key in "xyz")
    nested = folder / ".1~.0~z.txt.sidecar"
    for left in (old, young, locked, nested, folder / ".1~x.txt.sidecar"):
        left.write_text("half")
        if left is not young:
            os.utime(left, (0, time.time() - 7200))
    (cache.root / ".locks").mkdir()
    with filelock.FileLock(cache.root / ".locks" / "text~z.txt"):
        fill(cache, ["a"], upper)
    assert {path.name for path in folder.glob(".*")} == {young.name, locked.name, nested.name}


# The store needs nothing of the package but `checks`: processes that import just these two start quickly.
ALONE = """
import os, signal, sys, time, types
from pathlib import Path

sys.modules["fisherbook"] = types.ModuleType("fisherbook")
sys.modules["fisherbook"].__path__ = [sys.argv[1]]
from fisherbook.store import Store

def write(text, path):
    path.write_text(text)

def fill(keys, compute, write=write):
    return Store(Path(sys.argv[2])).fill("text", keys, compute, write, Path.read_text, ".txt")
"""

RACING = """
def compute(missing):
    for key in missing:
        time.sleep(0.2)
        yield key, f"{key} by {os.getpid()}"

print("ready", flush=True)
input()
print(fill(sys.argv[3:], compute))
"""

KILLED = """
def killed_in_c(text, path):
    path.write_text(text)
    if text == "C":
        os.kill(os.getpid(), signal.SIGKILL)

fill(list("abcd"), lambda missing: ((key, key.upper()) for key in missing), killed_in_c)
"""


def start(script, root, *keys):
    command = [sys.executable, "-c", ALONE + script, str(Path(store.__file__).parent), str(root), *keys]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_asking_at_once_compute_once(cache):
    both = [start(RACING, cache.root, *keys) for keys in ("abc", "cb")]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    first, second = (ast.literal_eval(process.communicate(timeout=60)[0]) for process in both)
    assert first == first | second
    assert fill(cache, ["a", "b", "c"], refuse) == first


def test_who_waits_for_one_piece_has_it_before_the_others_are_done(cache):
    got = []
    waiting = threading.Thread(target=lambda: got.append(fill(cache, ["a"], refuse)))

    def compute(missing):
        waiting.start()
        yield "a", "A"
        waiting.join(10)
        yield "b", str(got)

    assert fill(cache, ["a", "b"], compute)["b"] == "[{'a': 'A'}]"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_killed_in_the_middle_resumes_at_the_first_missing_piece(cache):
    process = start(KILLED, cache.root)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(list((cache.root / "text").glob(".*~c.txt"))) == 1
    asked = []

    def compute(missing):
        asked.extend(missing)
        return upper(missing)

    assert fill(cache, list("abcd"), compute) == {key: key.upper() for key in "abcd"}
    assert asked == ["c", "d"]


def test_the_store_is_in_the_checkout_unless_the_environment_names_a_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FISHERBOOK_STORE", raising=False)
    assert store.default_store().root == Path(store.__file__).parents[1] / ".store"
    monkeypatch.setenv("FISHERBOOK_STORE", str(tmp_path))
    assert store.default_store().root == tmp_path
    monkeypatch.delenv("FISHERBOOK_STORE")
    monkeypatch.setattr(store, "_PACKAGE", tmp_path / "site-packages" / "fisherbook")
    assert store.checkout() is None
    assert store.default_store().root == store.platformdirs.user_cache_path("fisherbook")


# ---- what made a number ---------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    """The digest of what `top` and all that it imports do, some of them with another text."""

    def of(**changed):
        texts = {
            "top": "from .middle import double\nif TYPE_CHECKING:\n    from . import hint",
            "middle": "def double(x):\n    from . import ground\n    return 2 * x + ground.ZERO",
            "ground": "ZERO = 0  # by definition",
            "hint": "WIDTH = 3",
            "beside": "ONE = 1",
            "checks": "SENTENCE = 'no'",
        }
        package = tmp_path / digest(changed) / "package"
        package.mkdir(parents=True)
        for name, text in (texts | changed).items():
            (package / f"{name}.py").write_text(text)
        return source_digest(*closure("top", package=package), package=package)

    return of


@pytest.mark.parametrize(
    ("module", "text"),
    [("top", "from .middle import double\nTHREE = 3"), ("middle", "from . import ground"), ("ground", "ZERO = 1")],
)
def test_a_change_in_any_module_of_the_closure_gives_a_new_key(made, module, text):
    assert made(**{module: text}) != made()


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("ground", '"""Nothing."""\n\nZERO = 0'),
        ("beside", "ONE = 2"),
        ("hint", "WIDTH = 4"),
        ("checks", "SENTENCE = ''"),
    ],
)
def test_a_comment_and_modules_that_make_no_number_leave_the_key_alone(made, module, text):
    assert made(**{module: text}) == made()


def test_every_module_that_trains_and_records_is_in_the_closure_of_what_does():
    trains = closure("network.training")
    assert {"angles", "network.losses", "network.networks", "network.readouts", "stimulus.rotation"} <= set(trains)
    assert not {"network.resnet", "network.banks", "network.probes", "network.backbones"} & set(trains)
    assert {"network.resnet", "network.banks"} <= set(closure("network.training", *Network("resnet18").kind.modules))
    assert "derivative" in closure("network.activity") and "network.resnet" not in closure("network.activity")


def test_device_dtype_and_torchs_minor_version_are_part_of_what_made_a_number(monkeypatch):
    made = made_by("angles", device="cuda:0", dtype="float32")
    assert made == made_by("angles", device="cuda:1", dtype="float32")
    others = [
        made_by("network.losses", device="cuda", dtype="float32"),
        made_by("angles", device="cpu", dtype="float32"),
        made_by("angles", device="cuda", dtype="float64"),
    ]
    version = importlib.metadata.version("torch")
    major, minor = map(int, version.split(".")[:2])
    for other, same in ((f"{major}.{minor}.99", True), (f"{major}.{minor + 1}.0", False)):
        monkeypatch.setattr(importlib.metadata, "version", lambda _, other=other: other)
        again = made_by("angles", device="cuda", dtype="float32")
        assert (again == made) is same
    assert len({digest(one) for one in (made, again, *others)}) == 5


def test_weights_enter_keys_by_their_contents(tmp_path):
    files = [tmp_path / name for name in ("one.pt", "copy.pt", "other.pt")]
    for file, content in zip(files, (b"weights", b"weights", b"others"), strict=True):
        file.write_bytes(content)
    one, copy, other = (digest(Network("resnet18", weights=file).keyed) for file in files)
    assert one == copy != other
