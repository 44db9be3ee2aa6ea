"""Each backbone's ONNX file in onnxruntime and OpenCV, one crop and five, against the formula in numpy."""

import cv2
import pytest

from sphereface.export.formats import Export, onnx_runner, write_onnx
from sphereface.export.graph import InputFormat
from sphereface.models import BACKBONES

from .networks import TINY, by_formula, crops_of, needs, network, off


def check_in_both(model, path):
    needs("onnx", "onnxscript", "onnxruntime")
    crops, other = crops_of(model.input_spec.size), "bgr" if model.input_spec.order == "rgb" else "rgb"
    export = Export(model, InputFormat(other, "nchw", "float32"))
    wanted = by_formula(model, crops)
    assert write_onnx(export, path, {}) < 1e-4
    run, net = onnx_runner(path), cv2.dnn.readNetFromONNX(str(path))
    for count in (1, 5):
        fed = export.form.feed(crops[:count])
        assert off(run(fed), wanted[:count]) < 1e-4
        net.setInput(fed)
        assert off(net.forward(), wanted[:count]) < 1e-4


def test_every_backbone_is_exported_here():
    assert set(BACKBONES) - {"timm"} == TINY.keys()


@pytest.mark.parametrize("name", TINY)
def test_onnxruntime_and_opencv_give_the_embeddings(name, tmp_path):
    check_in_both(network(name), tmp_path / "face.onnx")


@pytest.mark.parametrize(("architecture", "size"), [("vit_tiny_patch16_224", (32, 32)), ("resnet18", (48, 32))])
def test_timms_networks_too(architecture, size, tmp_path):
    """A ViT has a GELU, which OpenCV loads in one of its forms only."""
    pytest.importorskip("timm", reason="pip install timm")
    if architecture.startswith("vit") and int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 refuses a ViT's class token")
    check_in_both(network("timm", architecture=architecture, size=size), tmp_path / "face.onnx")
