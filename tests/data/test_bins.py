"""InsightFace's .bin files: those that mxnet's users wrote, and those that somebody would write to do harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from sphereface.data import pickle_machine, pickled
from sphereface.data.bins import is_bin, read_bin
from sphereface.data.images import decode
from sphereface.data.pairs import is_lfw_view2
from sphereface.errors import UserError

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "insightface"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"{GOLDEN} is not there (faces, never committed)")

IMAGES = [bytes([k]) * (300 + k) for k in range(20)]
SAME = [True, False] * 5


def packed(path, unique=IMAGES, same=SAME, protocol=5):
    path.write_bytes(pickle.dumps((list(unique), list(same)), protocol))
    return path


def raw(path, *parts):
    path.write_bytes(b"".join(parts))
    return path


# ---------------------------------------------------------------- what it reads


@needs_golden
@pytest.mark.parametrize("name", ["pairs.bin", "pairs_py2.bin", "pairs_np.bin", "pairs_py2_np.bin"])
def test_files_of_insightface_in_both_pythons(name):
    expected = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))[name]
    unique, pairs = read_bin(GOLDEN / name)
    assert pairs.same.tolist() == expected["issame"]
    assert len(unique) == len(pairs.names) == len({image["payload_sha256"] for image in expected["images"]})
    rows = np.stack([pairs.left, pairs.right], axis=1).ravel()
    for image in expected["images"]:
        data = unique[rows[image["index"]]].read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (image["payload_bytes"], image["payload_sha256"])
        pixels = decode(data)
        assert list(pixels.shape) == image["shape"]
        np.testing.assert_allclose(pixels.reshape(-1, 3).mean(axis=0)[::-1], image["mean_rgb"], rtol=0, atol=0.5)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])  # 0 to 2 write bytes as text; InsightFace writes the highest
@pytest.mark.parametrize("form", ["bytes", "bytearray", "array", "column", "read-only array"])
def test_what_python_3_writes_reads_back(tmp_path, form, protocol):
    array = {
        "bytes": lambda data: data,
        "bytearray": bytearray,
        "array": lambda data: np.frombuffer(data, np.uint8).copy(),
        "column": lambda data: np.frombuffer(data, np.uint8).copy()[:, None],
        "read-only array": lambda data: np.frombuffer(data, np.uint8),
    }[form]
    unique, pairs = read_bin(packed(tmp_path / "a.bin", map(array, IMAGES), SAME, protocol))
    assert [image.read_bytes() for image in unique] == IMAGES
    assert (pairs.left.tolist(), pairs.right.tolist()) == (list(range(0, 20, 2)), list(range(1, 20, 2)))
    assert pairs.same.tolist() == SAME
    assert str(unique[3]) == f"{tmp_path / 'a.bin'}, image 3"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(list, id="booleans"),
        pytest.param(tuple, id="tuple"),
        pytest.param(lambda same: [int(answer) for answer in same], id="numbers"),
        pytest.param(lambda same: list(np.array(same)), id="booleans of numpy"),
        pytest.param(lambda same: list(np.array(same, np.int64)), id="numbers of numpy"),
        pytest.param(np.array, id="array"),
        pytest.param(lambda same: np.array(same)[:, None], id="column"),
        *(
            pytest.param(lambda same, dtype=dtype: np.array(same, dtype), id=f"array of {dtype}")
            for dtype in ("uint8", "int8", "int16", "int32", "int64")
        ),
    ],
)
def test_answers_in_any_form(tmp_path, form, protocol):
    path = raw(tmp_path / "a.bin", pickle.dumps((IMAGES, form(SAME)), protocol))
    unique, pairs = read_bin(path)
    assert pairs.same.tolist() == SAME
    assert pairs.same.dtype == bool
    assert [image.read_bytes() for image in unique] == IMAGES


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_bytes_of_every_value_written_as_text(tmp_path, protocol):
    """Zeros, line ends, backslashes and quotes have escapes of their own in protocol 0."""
    images = [bytes(range(256)) + bytes([k]) for k in range(18)] + [b"\\u0041\n'\"\0\r\x1a\xff", b"\xc3\xa9\n" * 9]
    unique, _ = read_bin(packed(tmp_path / "a.bin", images, SAME, protocol))
    assert [image.read_bytes() for image in unique] == images
    assert pickle.loads((tmp_path / "a.bin").read_bytes())[0] == images


def test_equal_images_are_one_however_they_are_written(tmp_path):
    """The first image three times: as bytes, as text in UTF-8, and as text with escapes."""
    data = b"\xff\\\n\x00A"
    text = data.decode("latin-1").encode()
    as_text = b"c_codecs\nencode\nX" + struct.pack("<I", len(text)) + text + b"X\x06\0\0\0latin1\x86R"
    escaped = b"c_codecs\nencode\nV\xff\\u005c\\u000a\\u0000A\nVlatin1\n\x86R"
    plain = b"C" + bytes([len(data)]) + data
    others = b"".join(b"C\x01" + bytes([k]) for k in range(17))
    path = raw(
        tmp_path / "a.bin", b"\x80\x03](" + plain + as_text + escaped + others + b"e](" + b"\x88\x89" * 5 + b"e\x86."
    )
    assert pickle.loads(path.read_bytes())[0][:3] == [data] * 3
    unique, pairs = read_bin(path)
    assert (pairs.left[:2].tolist(), pairs.right[:2].tolist()) == ([0, 0], [0, 1])
    assert len(unique) == 18
    assert unique[0].read_bytes() == data


def numpy_1(stream):
    """A pickle as numpy 1 would have written it."""
    assert b"numpy._core." in stream
    return stream.replace(b"numpy._core.", b"numpy.core.")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])  # from 4 on, names are preceded by their lengths
def test_the_spelling_of_numpy_1(tmp_path, protocol):
    images = [np.frombuffer(data, np.uint8).copy() for data in IMAGES]
    stream = pickle.dumps((images, list(np.array(SAME))), protocol)
    unique, pairs = read_bin(raw(tmp_path / "a.bin", numpy_1(stream)))
    assert [image.read_bytes() for image in unique] == IMAGES
    assert pairs.same.tolist() == SAME


def test_a_file_of_python_2_in_protocol_0(tmp_path):
    """What cPickle of Python 2 writes without a protocol: texts between quotes, numbers in words."""
    images = b"".join(b"aS'\\xff\\xd8\\n\\\\\\x%02x'\np%d\n" % (k, k + 2) for k in range(19))
    path = raw(
        tmp_path / "a.bin",
        b'((lp1\nS"it\'s"\np21\n',
        images,
        b"a(lp22\nI01\naI00\n" + b"aI01\naI00\n" * 4 + b"atp0\n.",
    )
    expected = [b"it's", *(b"\xff\xd8\n\\" + bytes([k]) for k in range(19))]
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (expected, SAME)
    unique, pairs = read_bin(path)
    assert [image.read_bytes() for image in unique] == expected
    assert pairs.same.tolist() == SAME


@pytest.mark.parametrize("protocol", [2, 5])
def test_one_image_named_400_000_times_is_read_once(tmp_path, protocol, monkeypatch):
    large = os.urandom(2_000_000)
    read = []
    monkeypatch.setattr(
        pickled.Bytes, "read", lambda self, data, read_=pickled.Bytes.read: read.append(self) or read_(self, data)
    )
    unique, pairs = read_bin(
        packed(tmp_path / "a.bin", [large, IMAGES[0]] * 200_000, [True, False] * 100_000, protocol)
    )
    assert (len(unique), len(pairs), len(read)) == (2, 200_000, 2)
    assert unique[0].read_bytes() == large
    assert (pairs.left == 0).all()
    assert (pairs.right == 1).all()


def test_one_text_made_bytes_400_000_times_is_read_once(tmp_path, monkeypatch):
    """The same, with a call for each time that the image is named."""
    text = os.urandom(1_000_000).decode("latin-1").encode()
    called = []
    for module in (pickle_machine, pickled):
        monkeypatch.setattr(
            module,
            "decoded",
            lambda data, coding: called.append(len(data)) or data.decode(coding).encode("latin-1"),
        )
    body = b"c_codecs\nencode\nq\0X" + struct.pack("<I", len(text)) + text + b"q\1Vlatin1\nq\2\x86q\3R"
    again = b"h\0h\3R"
    answers = b"\x88\x89" * 100_000
    with pytest.raises(UserError, match="a.bin: repeats one image 400,000 times · allowed: different images"):
        read_bin(raw(tmp_path / "a.bin", b"\x80\x02](" + body + again * 399_999 + b"e](" + answers + b"e\x86."))
    assert called == [len(text)] * 2  # to see that it is Latin-1, and to compare it


def test_a_file_that_changed_later_is_an_error_of_reading(tmp_path):
    path = packed(tmp_path / "a.bin", protocol=2)
    unique, _ = read_bin(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(OSError, match="changed after"):
        unique[0].read_bytes()


def test_images_beyond_64_kib_and_answers_as_numbers(tmp_path):
    large = [os.urandom(100_000), *IMAGES[1:]]
    unique, pairs = read_bin(packed(tmp_path / "a.bin", large, [1, 0] * 5))
    assert unique[0].read_bytes() == large[0]
    assert pairs.same.tolist() == SAME


def test_an_image_in_several_pairs_is_listed_once(tmp_path):
    order = [7, 3, 7, 7, 1, 3, *range(8, 22)]
    unique, pairs = read_bin(packed(tmp_path / "a.bin", [bytes([k]) * 99 for k in order]))
    assert [image.read_bytes()[0] for image in unique] == [7, 3, 1, *range(8, 22)]
    rows = np.stack([pairs.left, pairs.right], axis=1).ravel()
    assert [unique[row].read_bytes()[0] for row in rows] == order
    assert list(pairs.names) == sorted(set(pairs.names))
    assert pairs.names[:3] == ("000000", "000001", "000004")


@pytest.mark.parametrize("num_pairs", [10, 40, 47, 6000])
def test_folds_are_those_of_insightface(tmp_path, num_pairs):
    same = [k % 3 == 0 for k in range(num_pairs)]
    _, pairs = read_bin(packed(tmp_path / "a.bin", [struct.pack("<I", k) for k in range(2 * num_pairs)], same))
    assert pairs.num_folds == 10
    for fold, (_, test) in enumerate(KFold(n_splits=10, shuffle=False).split(np.arange(num_pairs)), start=1):
        np.testing.assert_array_equal(np.flatnonzero(pairs.fold == fold), test)


@pytest.mark.parametrize("protocol", [1, 2, 5])
def test_no_image_is_held_in_memory(tmp_path, protocol):
    path = packed(tmp_path / "a.bin", [os.urandom(500_000) for _ in range(20)], protocol=protocol)
    tracemalloc.start()
    try:
        unique, _ = read_bin(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(unique) == 20
    assert held < 100_000
    assert peak < 3_000_000  # one image at a time, as text more than once


def test_lfw_bin_is_known_by_its_name(tmp_path):
    assert is_lfw_view2(read_bin(packed(tmp_path / "lfw.bin"))[1])
    assert is_lfw_view2(read_bin(packed(tmp_path / "LFW-112.BIN"))[1])
    assert not is_lfw_view2(read_bin(packed(tmp_path / "calfw.bin"))[1])


def test_the_suffix_tells():
    assert is_bin("x/lfw.bin")
    assert is_bin(Path("LFW.BIN"))
    assert not is_bin("bin/pairs.txt")


# ---------------------------------------------------------------- what it refuses, and never runs


class Run:
    """Pickled as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def harm(marker):
    return f"open({str(marker)!r}, 'w').close()"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["image", "answer", "instead", "nested"])
@pytest.mark.parametrize("function", ["system", "eval", "exec", "getattr", "import"])
def test_a_call_is_refused_and_not_run(tmp_path, function, place, protocol):
    marker = tmp_path / "was-run"
    evil = {
        "system": lambda: Run(os.system, f"touch {marker}"),
        "eval": lambda: Run(eval, harm(marker)),
        "exec": lambda: Run(exec, harm(marker)),
        "getattr": lambda: Run(getattr, os, "system") if protocol < 0 else Run(getattr, "", "join"),
        "import": lambda: Run(__import__, "os"),
    }[function]()
    value = {
        "image": ([*IMAGES[1:], evil], SAME),
        "answer": (IMAGES, [*SAME[1:], evil]),
        "instead": evil,
        "nested": ([[(evil,)]], SAME),
    }[place]
    path = raw(tmp_path / "a.bin", pickle.dumps(value, protocol))
    with pytest.raises(UserError, match="none of its code was run"):
        read_bin(path)
    assert not marker.exists()


def test_the_message_says_what_was_asked_for(tmp_path):
    path = raw(tmp_path / "a.bin", pickle.dumps(Run(os.system, "true"), 4))
    with pytest.raises(UserError) as info:
        read_bin(path)
    assert str(info.value).startswith(f"{path}: at byte ")
    assert f"a reference to '{os.system.__module__}.system' · allowed: only (list of " in str(info.value)
    assert "\n" not in str(info.value)


def test_a_reduce_hidden_in_the_arguments_of_an_allowed_one(tmp_path):
    marker = tmp_path / "was-run"
    inner = pickle.dumps(Run(eval, harm(marker)), 2)[2:-1]  # without PROTO and STOP
    call = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + inner + b"tR."
    with pytest.raises(UserError, match=r"a reference to '(__builtin__|builtins)\.eval'"):
        read_bin(raw(tmp_path / "a.bin", b"\x80\x02", call))
    assert not marker.exists()


UINT8 = b"cnumpy\ndtype\nX\x02\0\0\0u1\x89\x88\x87R(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
BEGUN = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
FROMBUFFER = b"cnumpy.core.numeric\n_frombuffer\n"


def array(shape=b"K\x03\x85", dtype=UINT8, data=b"C\x03abc"):
    """One array of numpy in the middle of a pickle."""
    return BEGUN + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def test_the_arrays_below_are_spelt_rightly(tmp_path):
    """Lest the refusals that follow come from a slip in their spelling."""
    with pytest.raises(UserError, match="is not a pair of lists"):
        read_bin(raw(tmp_path / "a.bin", b"\x80\x03", array(), b"."))
    ten = b"\x80\x03](" + array() * 19 + array(data=b"C\x03abd") + b"e](" + b"\x88\x89" * 5 + b"e\x86."
    assert read_bin(raw(tmp_path / "a.bin", ten))[0][0].read_bytes() == b"abc"
    assert isinstance(pickle.loads(ten)[0][0], np.ndarray)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(array(shape=b"J\xff\xff\xff\x7f\x85"), id="a shape of 2 GiB"),
        pytest.param(array(shape=b"K\x03K\x03\x86"), id="a shape of another size"),
        pytest.param(array(shape=b"]"), id="a list for a shape"),
        pytest.param(array(dtype=UINT8.replace(b"u1", b"O8")), id="an array of objects"),
        pytest.param(array(dtype=UINT8.replace(b"u1", b"f8")), id="an array of floats"),
        pytest.param(array(dtype=b"N"), id="no dtype"),
        pytest.param(array(data=b"](C\x01ae"), id="objects in place of bytes"),
        pytest.param(array(data=BEGUN), id="an unfinished array in place of bytes"),
        pytest.param(array(dtype=UINT8.replace(b"K\0tb", b"K\x3ftb")), id="a dtype with flags"),
        pytest.param(array(dtype=UINT8.replace(b"|NNN", b"|N]N")), id="a dtype with fields"),
        pytest.param(array() + b"}b", id="the state of a finished array"),
        pytest.param(array() + b"(K\x01K\x03\x85" + UINT8 + b"\x89C\x03abctb", id="the state twice"),
        pytest.param(BEGUN.replace(b"ndarray", b"memmap"), id="memmap"),
        pytest.param(BEGUN.replace(b"cnumpy\nndarray", b"cnumpy\ndtype"), id="no array at all"),
        pytest.param(b"cnumpy\nndarray\nK\x03\x85R", id="ndarray called"),
        pytest.param(b"cnumpy\nload\nX\x01\0\0\0a\x85R", id="numpy.load"),
        pytest.param(b"cnumpy.core.multiarray\nscalar\nC\x01a\x85R", id="a scalar without its type"),
        pytest.param(b"cnumpy\ncore.multiarray._reconstruct\n", id="a dotted name"),
        pytest.param(FROMBUFFER + b"(C\x03abc" + UINT8 + b"K\x04\x85X\x01\0\0\0CtR", id="frombuffer past the end"),
        pytest.param(FROMBUFFER + b"(X\x03\0\0\0abc" + UINT8 + b"K\x03\x85X\x01\0\0\0CtR", id="frombuffer of a text"),
        pytest.param(FROMBUFFER + b"(C\x03abctR", id="frombuffer with fewer arguments"),
        pytest.param(FROMBUFFER + b"]R", id="arguments that are a list"),
        pytest.param(b"X\x06\0\0\0systemC\x03abc\x85R", id="a text called"),
        pytest.param(b"}", id="a dict"),
        pytest.param(b"\x8f", id="a set"),
        pytest.param(b"Q", id="a persistent id"),
        pytest.param(b"Pabc\n", id="a persistent id in text"),
        pytest.param(b"\x82\x01", id="an extension"),
        pytest.param(b"(cos\nsystem\no", id="OBJ"),
        pytest.param(b"(ios\nsystem\n", id="INST"),
        pytest.param(b"cnumpy\nndarray\n)\x81", id="NEWOBJ"),
        pytest.param(b"\x97", id="an out-of-band buffer"),
        pytest.param(b"\x8a\x09" + b"\xff" * 9, id="a long number"),
        pytest.param(b"]2", id="DUP"),
        pytest.param(b"h\x07", id="a value that was never stored"),
        pytest.param(b"t", id="a tuple without a mark"),
        pytest.param(b"R", id="a call without operands"),
        pytest.param(b"c_codecs\nencode\nX\x03\0\0\0abcX\x06\0\0\0rot_13\x86R", id="another codec"),
        pytest.param(b"c_codecs\nencode\nX\x03\0\0\0abc\x85R", id="no codec"),
        pytest.param(b"c_codecs\nencode\nX\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1\x86R", id="a text beyond Latin-1"),
        pytest.param(b"c_codecs\nencode\nX\x03\0\0\0\xed\xa0\x80X\x06\0\0\0latin1\x86R", id="half a character"),
        pytest.param(b"c_codecs\nencode\nC\x03abcX\x06\0\0\0latin1\x86R", id="encoded bytes"),
        pytest.param(b"c_codecs\nlookup\nX\x03\0\0\0hex\x85R", id="another function of _codecs"),
        pytest.param(b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R", id="bytes of 2 GiB"),
        pytest.param(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R", id="a bytearray of 2 GiB"),
        pytest.param(b"cbuiltins\nbytearray\nX\x01\0\0\0aX\x05\0\0\0utf-8\x86R", id="a bytearray of another codec"),
        pytest.param(b"cnumpy.core.multiarray\nscalar\n" + UINT8 + b"C\x02ab\x86R", id="a scalar of two bytes"),
        pytest.param(b"cnumpy.core.multiarray\nscalar\n" + UINT8 + b"C\0\x86R", id="a scalar of no bytes"),
        pytest.param(b")" + b"q\x00h\x00h\x00\x87" * 200 + b"N\x93", id="a global named by tuples in tuples"),
        pytest.param(b"c_codecs\nencode\n)" + b"q\x00h\x00h\x00\x87" * 200 + b"R", id="tuples in tuples for arguments"),
        pytest.param(b"\x86", id="a tuple without values"),
        pytest.param(b"NNe", id="no mark to append from"),
        pytest.param(b"K\x01K\x02a", id="appended to a number"),
        pytest.param(b"K\x01K\x02\x93", id="a global named by numbers"),
    ],
)
def test_tricks_are_refused(tmp_path, body):
    with pytest.raises(UserError, match="at byte [0-9]+: .* none of its code was run") as info:
        read_bin(raw(tmp_path / "a.bin", b"\x80\x04](", body, b"e](" + b"\x88\x89" * 5 + b"e\x86."))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="nothing"),
        pytest.param((IMAGES,), id="one list"),
        pytest.param((IMAGES, SAME, SAME), id="three lists"),
        pytest.param((b"ab", SAME), id="bytes for a list"),
        pytest.param((["a"] * 20, SAME), id="texts for images"),
        pytest.param(([*IMAGES[1:], 3], SAME), id="a number for an image"),
        pytest.param(([*IMAGES[1:], None], SAME), id="no image"),
        pytest.param((IMAGES, [*SAME[1:], 2]), id="the answer 2"),
        pytest.param((IMAGES, [*SAME[1:], "yes"]), id="the answer yes"),
        pytest.param((IMAGES, [*SAME[1:], b"1"]), id="the answer in bytes"),
        pytest.param((IMAGES, np.array([*SAME[1:], 2], np.int64)), id="the answer 2 in an array"),
        pytest.param((IMAGES, [*SAME[1:], np.int64(-1)]), id="the answer -1 of numpy"),
        pytest.param((IMAGES, np.array([*SAME[1:], 2], np.uint8).view(bool)), id="a boolean that is 2"),
        pytest.param(([*IMAGES[1:], np.array([1], np.int64)], SAME), id="an array of numbers for an image"),
        pytest.param((np.zeros(20, np.uint8), SAME), id="an array for the list of images"),
        pytest.param((IMAGES, [*SAME[1:], (True,)]), id="a nested answer"),
    ],
)
def test_another_content_is_an_error(tmp_path, value):
    with pytest.raises(UserError, match="is not a pair of lists|list has elements other|of its second list is"):
        read_bin(raw(tmp_path / "a.bin", pickle.dumps(value, 4)))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (1.0, "element 3 of its second list is 1.0 · allowed: True .or 1. for a pair of one person"),
        (float("nan"), "element 3 of its second list is nan"),
        (-1, "element 3 of its second list is -1"),
        (2**40, "the operation LONG1"),
        ("yes", "element 3 of its second list is a text"),
        (b"1", "element 3 of its second list is bytes"),
        (None, "element 3 of its second list is a value of type NoneType"),
        (np.float32(1), "of numpy's type 'f4', not one of u1, b1, i1, i2, i4, i8"),
        (np.uint64(1), "of numpy's type 'u8', not one of"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_answer_that_is_none_is_named(tmp_path, answer, message, protocol):
    data = pickle.dumps((IMAGES, [*SAME[:2], answer, *SAME[3:]]), protocol)
    with pytest.raises(UserError, match=message if protocol or "LONG1" not in message else "LONG"):
        read_bin(raw(tmp_path / "a.bin", data))
    if isinstance(answer, np.generic):
        with pytest.raises(UserError, match=message):
            read_bin(raw(tmp_path / "a.bin", pickle.dumps((IMAGES, np.array([answer] * 10)), protocol)))


@pytest.mark.parametrize(
    ("unique", "same", "message"),
    [
        (IMAGES[1:], SAME, "has 19 images for 10 pairs · allowed: two for each pair"),
        (IMAGES, SAME[1:], "has 20 images for 9 pairs"),
        ([*IMAGES, *IMAGES], SAME, "has 40 images for 10 pairs"),
        (
            IMAGES[:18],
            SAME[:9],
            "has 5 pairs of one person and 4 of two people · allowed: both kinds, 10 pairs or more",
        ),
        (IMAGES, np.array(SAME[1:]), "has 20 images for 9 pairs"),
        (IMAGES, [True] * 10, "has 10 pairs of one person and 0 of two"),
        ([], [], "has 0 pairs"),
    ],
)
def test_wrong_counts(tmp_path, unique, same, message):
    with pytest.raises(UserError, match=message):
        read_bin(raw(tmp_path / "a.bin", pickle.dumps((unique, same))))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_file_cut_off_anywhere_is_an_error(tmp_path, protocol):
    whole = pickle.dumps((IMAGES, SAME), protocol)
    for length in [*range(1, 60), *range(60, len(whole), 97), len(whole) - 1]:
        with pytest.raises(UserError, match="not a whole pickle .* download or copy it again"):
            read_bin(raw(tmp_path / "a.bin", whole[:length]))


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n", b"\xff" * 9, b"<!DOCTYPE html>", b"version https://git-lfs"])
def test_no_pickle_at_all(tmp_path, data):
    with pytest.raises(UserError, match=r"a\.bin: (not a whole pickle|at byte)"):
        read_bin(raw(tmp_path / "a.bin", data))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.bin: cannot be read \(No such file or directory\)"):
        read_bin(tmp_path / "none.bin")
    with pytest.raises(UserError, match="cannot be read"):
        read_bin(tmp_path)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(b"\x8e" + struct.pack("<Q", 2**62) + b"ab", id="4 EiB of bytes"),
        pytest.param(b"\x96" + struct.pack("<Q", 2**62) + b"ab", id="4 EiB of bytearray"),
        pytest.param(b"\x8e" + struct.pack("<Q", 2**64 - 1) + b"ab", id="more than a size can be"),
        pytest.param(b"B" + struct.pack("<I", 2**32 - 1) + b"ab", id="4 GiB of bytes"),
        pytest.param(b"T" + struct.pack("<i", -1) + b"ab", id="a negative length"),
        pytest.param(b"\x8d" + struct.pack("<Q", 2**62) + b"ab", id="4 EiB of text"),
        pytest.param(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"ab", id="a number of 2 GiB"),
        pytest.param(b"]r" + struct.pack("<I", 2**32 - 1) + b"}", id="place 4,294,967,295 of the memo"),
        pytest.param(b"\x95" + struct.pack("<Q", 2**62) + b"}", id="a frame of 4 EiB"),
        pytest.param(b")" + b"q\x00h\x00h\x00\x87" * 200 + b"}", id="tuples in tuples, 3^200"),
        pytest.param(b"]" + b"q\x00(h\x00h\x00h\x00e" * 200 + b"}", id="a list in itself"),
    ],
)
def test_a_bomb_of_a_size_costs_no_memory(tmp_path, bomb):
    path = raw(tmp_path / "a.bin", b"\x80\x04", bomb)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="not a whole pickle|none of its code was run"):
            read_bin(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_tuples_in_tuples_as_a_shape(tmp_path):
    """Spelling such a value out in a message would never end."""
    bomb = b")" + b"q\x00h\x00h\x00\x87" * 200
    with pytest.raises(UserError, match="an array whose shape is not"):
        read_bin(raw(tmp_path / "a.bin", b"\x80\x04](", array(shape=bomb), b"e."))


def test_the_number_of_operations_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MOST_OPERATIONS", 1000)
    assert read_bin(packed(tmp_path / "a.bin"))
    with pytest.raises(UserError, match="more than 1,040 operations"):
        read_bin(raw(tmp_path / "b.bin", b"\x80\x04]", b"\x94" * 2000, b"."))  # 2,004 bytes


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_one_line_and_never_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / "a.bin") if kind == "fifo" else (tmp_path / "a.bin").mkdir()
    with pytest.raises(UserError, match=r"a.bin: cannot be read \(.*\) · allowed: a verification set"):
        read_bin(tmp_path / "a.bin")


def test_a_message_does_not_repeat_a_long_number(tmp_path):
    with pytest.raises(UserError, match="not a whole pickle") as caught:
        read_bin(raw(tmp_path / "a.bin", b"I" + b"x" * 100_000 + b"\n."))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_random_damage_is_an_error_or_a_set_and_never_anything_else(tmp_path, protocol):
    rng = np.random.default_rng(0)
    whole = pickle.dumps(([np.frombuffer(data, np.uint8) for data in IMAGES], np.array(SAME)), protocol)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        try:
            unique, pairs = read_bin(raw(tmp_path / "a.bin", damaged))
        except UserError:
            continue
        assert len(pairs) >= 10
        assert all(len(image.read_bytes()) <= image.length for image in unique)


def test_an_ordinary_unpickler_would_have_run_it(tmp_path):
    """The harm above is real harm."""
    marker = tmp_path / "was-run"
    pickle.load(io.BytesIO(pickle.dumps(([Run(eval, harm(marker))], SAME))))
    assert marker.exists()


def test_bytes_after_the_end_of_the_pickle_are_refused(tmp_path):
    path = packed(tmp_path / "a.bin")
    data = path.read_bytes()
    for rest in (b"\0", b"junk", data):
        path.write_bytes(data + rest)
        with pytest.raises(
            UserError, match=f"a.bin: {len(rest):,} bytes follow the end of its pickle at byte {len(data):,}"
        ):
            read_bin(path)
