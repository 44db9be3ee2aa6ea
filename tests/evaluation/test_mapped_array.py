import warnings
import zipfile

import numpy as np
import pytest

from sphereface.evaluation import mapped_array
from sphereface.evaluation.mapped_array import map_array, map_arrays


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_mapped_as_numpy_reads_it(tmp_path, dtype, order):
    array = np.asarray(np.random.default_rng(0).standard_normal((7, 5)), dtype=dtype, order=order)
    np.savez(tmp_path / "a.npz", names=np.array(["x" * 50]), embeddings=array)
    found = map_array(tmp_path / "a.npz", "embeddings")
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 0


def test_a_compressed_array_is_read(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    np.savez_compressed(tmp_path / "a.npz", embeddings=array)
    found = map_array(tmp_path / "a.npz", "embeddings")
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, array)


def test_several_arrays_of_which_some_may_be_missing(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["x", "y"]), embeddings=np.eye(2), more=np.zeros(9))
    found = map_arrays(tmp_path / "a.npz", ["names", "mirror", "embeddings"], optional=["mirror", "names"])
    assert list(found) == ["names", "embeddings"]
    np.testing.assert_array_equal(found["embeddings"], np.eye(2))
    with pytest.raises(KeyError, match="mirror"):
        map_arrays(tmp_path / "a.npz", ["names", "mirror"], optional=["names"])


def test_an_entry_that_the_directory_hides_is_found(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.zeros(3), mirror=np.zeros(3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    end = data.rindex(b"PK\x05\x06")
    first, last = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02", 0, end)
    data[first + 32 : first + 34] = (end - last).to_bytes(2, "little")
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="its end counts 2 members, its directory lists 1"):
        map_arrays(tmp_path / "a.npz", ["names"], optional=["mirror"])


def test_a_damaged_header_gives_no_warning(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data.replace(b"'<f8'", b"'\\<f'"))  # Python warns of the backslash
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises((ValueError, TypeError)):
            map_array(tmp_path / "a.npz", "a", checked=False)
    assert caught == []


def test_an_empty_array(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=np.empty((0, 4)))
    assert map_array(tmp_path / "a.npz", "embeddings").shape == (0, 4)


def test_damaged_bytes_are_found(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=np.zeros((100, 10)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[4000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="bad CRC-32 of embeddings.npy"):
        map_array(tmp_path / "a.npz", "embeddings")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_the_checksum_is_compared_also_where_the_array_is_compressed(tmp_path, compression):
    path = tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((100, 10)))
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("embeddings.npy", (tmp_path / "a.npy").read_bytes() + np.random.default_rng(1).bytes(50_000))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"embeddings.npy") - 30] ^= 1  # the checksum in the central directory
    path.write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="[Bb]ad CRC-32"):
        map_array(path, "embeddings")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_encrypted_array_is_refused(tmp_path, compression):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("embeddings.npy", bytes(100))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"embeddings.npy") - 46 + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="embeddings.npy is encrypted"):
        map_array(path, "embeddings")


@pytest.mark.parametrize("value", [np.array("text"), np.array(["a", "bc"]), np.float32(3)])
def test_texts_and_single_values(tmp_path, value):
    np.savez(tmp_path / "a.npz", x=value)
    found = map_array(tmp_path / "a.npz", "x")
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (4, 0), (0, 9)])
def test_versions_of_the_format(tmp_path, version):
    header = str({"descr": "<f8", "fortran_order": False, "shape": (2,)}).encode() + b"\n"
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + bytes(version) + length + header + np.arange(2.0).tobytes())
    if version in ((4, 0), (0, 9)):
        with pytest.raises(ValueError, match="x: version"):
            map_array(tmp_path / "a.npz", "x")
    else:
        np.testing.assert_array_equal(map_array(tmp_path / "a.npz", "x"), [0, 1])


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=np.array([1, "a"], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        map_array(tmp_path / "a.npz", "embeddings")


def test_a_shape_larger_than_the_file(tmp_path):
    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    member = b"\x93NUMPY\x01\x00" + len(header + "\n").to_bytes(2, "little") + (header + "\n").encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("embeddings.npy", member + bytes(80))
    with pytest.raises(ValueError, match="more than the file has"):
        map_array(tmp_path / "a.npz", "embeddings")


def test_a_name_that_is_not_there(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.zeros(1))
    with pytest.raises(KeyError):
        map_array(tmp_path / "a.npz", "embeddings")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", ["(1000000000000,)", "(-1,)", "(3, -2)", "(4,)"])
def test_a_header_that_claims_another_shape_costs_no_memory(tmp_path, compression, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(12)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("embeddings.npy", data)
    with pytest.raises(ValueError, match=r"embeddings: shape \("):
        map_array(tmp_path / "a.npz", "embeddings")


def test_a_compressed_array_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", embeddings=np.zeros(100_000))
    assert len(map_array(tmp_path / "a.npz", "embeddings")) == 100_000
    assert mapped_array._MOST_UNPACKED <= 1 << 28  # bytes: a list of names takes several times its array's memory
    monkeypatch.setattr(mapped_array, "_MOST_UNPACKED", 1000)
    with pytest.raises(ValueError, match=r"embeddings: unpacks from \d+ to 800,128 bytes"):
        map_array(tmp_path / "a.npz", "embeddings")
    numbers = np.random.default_rng(0).standard_normal(1000)  # of real numbers a hundredth is never enough
    np.savez_compressed(tmp_path / "b.npz", embeddings=numbers)
    np.testing.assert_array_equal(map_array(tmp_path / "b.npz", "embeddings"), numbers)
