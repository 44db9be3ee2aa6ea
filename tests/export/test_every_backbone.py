"""Each backbone's ONNX file in onnxruntime and OpenCV, one crop and five, against the formula in numpy."""

import cv2
import pytest

from sphereface.export.formats import Export, onnx_runner, write_onnx
from sphereface.export.graph import InputFormat
from sphereface.models import BACKBONES

from .networks import TINY, by_formula, crops_of, needs, network, off


def check_in_both(export, path):
    crops = crops_of(export.model.input_spec.size)
    wanted = by_formula(export.model, crops)
    run, net = onnx_runner(path), cv2.dnn.readNetFromONNX(str(path))
    for count in (1, 5):
        fed = export.form.feed(crops[:count])
        assert off(run(fed), wanted[:count]) < 1e-4
        net.setInput(fed)
        assert off(net.forward(), wanted[:count]) < 1e-4


def test_every_backbone_is_exported_here():
    assert set(BACKBONES) - {"timm"} == TINY.keys()


@pytest.mark.parametrize("name", TINY)
def test_onnxruntime_and_opencv_give_the_embeddings(name, exported):
    check_in_both(*exported(name))


@pytest.mark.parametrize(("architecture", "size"), [("test_vit", (32, 32)), ("test_resnet", (48, 32))])
def test_timms_networks_too(architecture, size, tmp_path):
    """A ViT has a GELU, which OpenCV loads in one of its forms only."""
    needs("timm", "onnx", "onnxscript", "onnxruntime")
    if "vit" in architecture and int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 refuses a ViT's class token")
    model, path = network("timm", architecture=architecture, size=size), tmp_path / "face.onnx"
    export = Export(model, InputFormat("bgr" if model.input_spec.order == "rgb" else "rgb", "nchw", "float32"))
    assert write_onnx(export, path, {}) < 1e-4
    check_in_both(export, path)
