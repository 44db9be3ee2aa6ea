"""Recognise files of networks by their first bytes, for error messages. No torch."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path

from .archives import DAMAGED
from .files import regular_file

_START = 512  # bytes
_WEIGHTS = "the binary .caffemodel, a .pth or .safetensors"

ONNX = "an ONNX file · sphereface eval --onnx evaluates it; other commands need its checkpoint"
SAFETENSORS = "a .safetensors file · sphereface import converts it to a checkpoint"
TORCHSCRIPT = (
    "a TorchScript program · give its weights instead: the checkpoint of an export of this program, or "
    "a file of torch.save(net.state_dict(), …)"
)
_ONNX = b"\x08"  # field 1 of protobuf as a number, the version of the format; Caffe's field 1 is a text
_MAGIC = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive · unpack it first (7z x) and give the .pth in it",
    b"\x1f\x8b": "a gzip archive · unpack it first",
    b"Rar!": "a rar archive · unpack it first",
    b"\x89HDF": f"an HDF5 file · allowed: {_WEIGHTS}",
    b"\x93NUMPY": f"an array of numpy · allowed: {_WEIGHTS}",
    b"\xff\xd8\xff": f"an image · allowed: {_WEIGHTS}",
    b"\x89PNG": f"an image · allowed: {_WEIGHTS}",
    b"<": "a web page in place of the file · download it again with a browser",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file · fetch the file: git lfs pull",
}


def kind_of(path: Path) -> str | None:
    """Return what a file is and what to do with it.

    Returns:
        None for weights of PyTorch or Caffe, and for unknown files.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=regular_file) as file:
        start = file.read(_START)
    if what := next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None):
        return what
    if start[8:9] == b"{" and not _is_text(start):
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if start.startswith(_ONNX) and start[1:2] < b"\x80" and len(start) > 2:
        return ONNX
    return _kind_of_text(path) if _is_text(start) else None


def _kind_of_text(path: Path) -> str:
    """Return what a text file is; those of a run folder lie beside its checkpoints."""
    what = "a configuration" if path.suffix.lower() in (".yaml", ".yml") else "a text file"
    if (path.parent / "run.json").is_file():
        checkpoints = (path.with_suffix(".pt"), path.with_name("best.pt"), path.with_name("last.pt"))
        beside = next((f", such as {each}" for each in checkpoints if each.is_file()), f": {path.parent}")
        return f"{what}, which holds no weights · give a .pt of this run folder{beside}"
    return f"{what}, which holds no weights · allowed: {_WEIGHTS}"


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.rpartition("/")[2] for entry in archive.namelist()]
    except (*DAMAGED, OSError):
        return None  # its reader reports the damage
    if "constants.pkl" in names:
        return TORCHSCRIPT
    if "data.pkl" in names:
        return None
    if any(name.endswith(".npy") for name in names):
        return f"a .npz of numpy · allowed: {_WEIGHTS}"
    return "a zip archive · unpack it first and give the file of weights in it"


def _is_text(start: bytes) -> bool:
    """Return whether bytes are UTF-8 text, whose last character may be incomplete."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
