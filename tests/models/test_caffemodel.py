"""The reader of ``.caffemodel`` files against Google's own protobuf, files by hand, and hostile ones."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sphereface.checkpoint import BadCheckpoint
from sphereface.models.caffemodel import read_caffemodel

from .published import blob, caffemodel, input_layer, layer, number, sphere_tensors, text, varint

A = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7.5
B = np.array([0.1, -3e38], np.float32)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def proto():
    """``NetParameter`` of caffe.proto, as far as it matters here, for Google's library to write."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe_part.proto", package="part", syntax="proto2")
    kinds = {"int32": 5, "int64": 3, "float": 2, "double": 1, "string": 9, "bool": 8}
    messages = {
        "BlobShape": [("dim", 1, "int64", "packed")],
        "BlobProto": [
            *(("shape", 7, "BlobShape", ""), ("data", 5, "float", "packed"), ("diff", 6, "float", "packed")),
            *(("double_data", 8, "double", "packed"), ("num", 1, "int32", ""), ("channels", 2, "int32", "")),
            *(("height", 3, "int32", ""), ("width", 4, "int32", "")),
        ],
        "ParamSpec": [("lr_mult", 3, "float", ""), ("decay_mult", 4, "float", "")],
        "InputParameter": [("shape", 1, "BlobShape", "repeated")],
        "LayerParameter": [
            *(("name", 1, "string", ""), ("type", 2, "string", ""), ("bottom", 3, "string", "repeated")),
            *(("param", 6, "ParamSpec", "repeated"), ("blobs", 7, "BlobProto", "repeated"), ("phase", 10, "int32", "")),
            ("input_param", 143, "InputParameter", ""),
        ],
        "V1LayerParameter": [
            *(("bottom", 2, "string", "repeated"), ("name", 4, "string", ""), ("type", 5, "int32", "")),
            *(("blobs", 6, "BlobProto", "repeated"), ("blobs_lr", 7, "float", "repeated")),
        ],
        "NetParameter": [
            *(("name", 1, "string", ""), ("input", 3, "string", "repeated"), ("input_dim", 4, "int32", "repeated")),
            *(("input_shape", 8, "BlobShape", "repeated"), ("force_backward", 5, "bool", "")),
            *(("layer", 100, "LayerParameter", "repeated"), ("layers", 2, "V1LayerParameter", "repeated")),
        ],
    }
    for message, fields in messages.items():
        made = file.message_type.add(name=message)
        for name, index, kind, how in fields:
            field = made.field.add(name=name, number=index, label=3 if how else 1, type=kinds.get(kind, 11))
            if kind not in kinds:
                field.type_name = f".part.{kind}"
            field.options.packed = how == "packed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("part.NetParameter"))


def test_reads_what_protobuf_itself_writes(tmp_path, proto):
    net = proto(name="net", force_backward=True)
    net.layer.add(name="data", type="Input").input_param.shape.add(dim=[1, 3, 112, 96])
    conv = net.layer.add(name="conv1_1", type="Convolution", bottom=["data"], phase=1)
    conv.param.add(lr_mult=1, decay_mult=1)
    weight = conv.blobs.add(data=A.ravel(), diff=A.ravel() * 2)
    weight.shape.dim.extend(A.shape)
    bias = conv.blobs.add(double_data=[0.1, 1e300])
    bias.shape.dim.append(2)
    net.layer.add(name="split", type="Split")
    conv.blobs.add(data=[5.0])  # no shape: a single number
    read = read_caffemodel(write(tmp_path / "x.caffemodel", net.SerializeToString()))
    assert read.input_shapes == [(1, 3, 112, 96)]
    assert list(read.blobs) == ["conv1_1"]
    first, second, third = read.blobs["conv1_1"]
    np.testing.assert_array_equal(first, A)
    np.testing.assert_array_equal(second, np.array([0.1, np.inf], np.float32))
    assert (third.shape, float(third)) == ((), 5.0)
    assert {blob.dtype for blob in read.blobs["conv1_1"]} == {np.dtype(np.float32)}


def test_reads_what_protobuf_writes_in_the_old_form(tmp_path, proto):
    net = proto(name="old", input=["data"], input_dim=[1, 3, 32, 24])
    old = net.layers.add(name="conv1_1", bottom=["data"], type=4, blobs_lr=[1, 2])
    old.blobs.add(num=2, channels=3, height=2, width=2, data=A.ravel())
    old.blobs.add(num=1, channels=1, height=1, width=2, data=B)
    read = read_caffemodel(write(tmp_path / "x.caffemodel", net.SerializeToString()))
    assert read.input_shapes == [(1, 3, 32, 24)]
    np.testing.assert_array_equal(read.blobs["conv1_1"][0], A)
    np.testing.assert_array_equal(read.blobs["conv1_1"][1], B.reshape(1, 1, 1, 2))


def test_the_writer_by_hand_agrees_with_protobuf(proto):
    """Or the other tests would test nothing."""
    net = proto.FromString(caffemodel({"a.weight": A, "a.bias": B}, start=input_layer((1, 3, 200, 4))))
    assert [one.name for one in net.layer] == ["input", "a"]
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 3, 200, 4]
    assert list(net.layer[1].blobs[0].data) == A.ravel().tolist()
    assert list(net.layer[1].blobs[1].shape.dim) == [2]


@pytest.mark.parametrize("how", [{}, {"double": True}, {"single": True}, {"single": True, "double": True}])
@pytest.mark.parametrize("v1", [False, True])
def test_all_ways_to_write_numbers(tmp_path, how, v1):
    path = write(tmp_path / "x", caffemodel({"a.weight": A, "a.bias": B, "b.weight": B[:1]}, v1=v1, **how))
    read = read_caffemodel(path)
    assert list(read.blobs) == ["a", "b"]
    for found, expected in zip([*read.blobs["a"], *read.blobs["b"]], (A, B, B[:1]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_repeated_fields_in_pieces(tmp_path):
    halves = text(7, number(1, 2) + number(1, 3)) + text(7, text(1, b"\x02\x02"))
    data = text(5, A.ravel()[:10].tobytes()) + text(5, A.ravel()[10:].tobytes())
    unknown = number(900, 2**63) + varint(901 * 8 + 1) + bytes(8) + varint(902 * 8 + 5) + bytes(4) + text(903, "?")
    path = write(tmp_path / "x", unknown + layer("a", [data + unknown + halves]) + unknown)
    np.testing.assert_array_equal(read_caffemodel(path).blobs["a"][0], A)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got 0 bytes · allowed for a .caffemodel: 1 to 2,147,483,647"),
        (b'name: "net"\nlayer {', r"byte 0: no field starts with 110"),
        (b"\x00\x01", "byte 0: no field starts with 0"),
        (b"\x0b\x0c", "byte 0: no field starts with 11"),  # a group
        (number(1, 400), "a number in place of a text, a layer or a blob"),  # a .solverstate begins so
        (b"\x80" * 11, "byte 10: a number of more than 10 bytes"),
        (text(1, "net") + b"\xa2", "byte 6: ends within a number"),
        (text(1, "net") + varint(802) + varint(10**15) + b"abc", "byte 5: a field of 1,000,000,000,000,000 byte"),
        (varint(801) + b"1234567", "byte 0: a field of 8 bytes where 7 are left"),
        (text(100, text(1, "a") + varint(58) + varint(9) + b"1234"), "byte 6: a field of 9 bytes where 4 are left"),
        (text(100, varint(58) + varint(9) + b"1234") + text(1, "more of the file"), "of 9 bytes where 4 are left"),
        (layer("a", [text(7, text(1, b"\x05")) + text(5, bytes(16))]), r"layer 'a': 16 bytes of numbers for .* \(5,\)"),
        (layer("a", [text(7, text(1, varint(2**40))) + text(5, bytes(16))]), r"for the shape \(1099511627776,\)"),
        (layer("a", [text(7, text(1, varint(2**64 - 1))) + text(5, bytes(4))]), "bytes of numbers for the shape"),
        (layer("a", [text(7, text(1, b"\x01")) + text(5, bytes(3))]), "3 bytes of numbers"),
        (layer("a", [text(7, text(1, b"\x01" * 33)) + text(5, bytes(4))]), "a shape of more than 32 axes"),
        (layer("a", [text(7, number(1, 1) * 33) + text(5, bytes(4))]), "a shape of more than 32 axes"),
        (layer("a", [b""]), "0 bytes of numbers"),
        (layer("a", [blob(B)]) * 2, "two layers called 'a'"),
        (layer("a", [blob(B)] * 10_001), "layer 'a': more than 10,000 blobs"),
        (b"".join(layer(str(i), [blob(B)] * 9) for i in range(1112)), "more than 10,000 blobs"),
        (number(4, 1) * 33, "a shape of more than 32 axes"),
    ],
)  # fmt: skip
def test_what_is_no_caffemodel(tmp_path, data, message):
    path = write(tmp_path / "x.caffemodel", data)
    with pytest.raises(BadCheckpoint, match=message) as raised:
        read_caffemodel(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_every_truncation_is_noticed_or_ends_between_fields(tmp_path):
    data = caffemodel({"a.weight": A, "a.bias": B, "b.weight": B}, start=input_layer((1, 3, 112, 96)))
    starts = {0}
    for part in (text(1, "a net"), input_layer((1, 3, 112, 96)), layer("a", [blob(A), blob(B)])):
        starts.add(max(starts) + len(part))
    for length in range(1, len(data)):
        path = write(tmp_path / "x", data[:length])
        if length in starts:
            assert set(read_caffemodel(path).blobs) <= {"a"}
        else:
            with pytest.raises(BadCheckpoint, match="truncated, damaged or not"):
                read_caffemodel(path)


def test_random_damage_ends_in_a_line_or_in_numbers(tmp_path):
    data = np.frombuffer(caffemodel(sphere_tensors()), np.uint8)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = data.copy()
        damaged[random.integers(0, len(data), 5)] = random.integers(0, 256, 5)
        damaged[random.integers(0, 300, 2)] = random.integers(0, 256, 2)  # where names and lengths are
        with contextlib.suppress(BadCheckpoint):
            read_caffemodel(write(tmp_path / "x", damaged.tobytes()))


def test_deep_nesting_is_not_followed(tmp_path):
    nested = b""
    for _ in range(5000):
        nested = text(143, nested) if len(nested) % 2 else text(100, nested)
    assert read_caffemodel(write(tmp_path / "x", nested)).blobs == {}


@pytest.mark.parametrize(
    "data",
    [
        text(100, text(7, text(5, bytes(4)) + varint(42) + varint(2**31))),
        layer("a", [text(7, text(1, b"\x01" * 4_000_000)) + text(5, bytes(4))]),
        b"".join(text(100, b"") for _ in range(20_000)),
        text(100, text(7, text(5, bytes(4))) * 30_000),
    ],
    ids=["length", "axes", "layers", "blobs"],
)
def test_a_small_file_takes_little_memory(tmp_path, data):
    path = write(tmp_path / "x", data)
    tracemalloc.start()
    with contextlib.suppress(BadCheckpoint):
        read_caffemodel(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_larger_than_protobuf_allows_is_not_even_opened(tmp_path):
    path = tmp_path / "x.caffemodel"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse
    with pytest.raises(BadCheckpoint, match=re.escape("got 2,147,483,648 bytes")):
        read_caffemodel(path)
