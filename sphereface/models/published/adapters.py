"""The known publishers: how to recognise their files, and what their networks read.

A row of :data:`ADAPTERS` is a key map, an input spec and the place of the head. The rows follow the
publishers' own code; docs/pretrained.md names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...checkpoint import BadCheckpoint
from ...choices import PUBLISHERS, Publisher
from .files import Contents
from .key_names import CAFFE, SFNET_DEPRECATED, YAKHYO, same_names
from .shapes import OptionsOf, ir_options, iresnet_options, mobilefacenet_options, sfnet_options, sphere_options

Layout = Literal["CD", "DC", "either"]
"""Axes of a head's weight: (classes, D), (D, classes), or the one that fits D."""

Input = Mapping[str, Any]
_CAFFE_INPUT = {"input_order": "bgr", "input_mean": 127.5, "input_std": 128.0}
_BGR = {"input_order": "bgr", "input_mean": 127.5, "input_std": 127.5}
_RGB = {"input_order": "rgb", "input_mean": 127.5, "input_std": 127.5}
_MAGFACE = {"input_order": "bgr", "input_mean": 0.0, "input_std": 255.0, "batch_norm": {"eps": 2e-5}}


@dataclass(frozen=True)
class Adapter:
    """One network of one publisher.

    Attributes:
        publisher: value of ``--publisher``.
        source: repository and network, for people.
        prefixes: possible text before the network's keys. A slash ends the key of an enclosing
            dictionary.
        marks: keys, without a prefix, that only this network has. A file with all of them is
            recognised.
        options_of: returns the options of the network from names and shapes.
        given: further ``model:`` options: the input as published, and the eps of batch
            normalisation.
        names: key map; see :mod:`sphereface.models.published.key_names`.
        heads: where the weight of the head may be, and its layout. They include keys of files given
            with ``--head``.
        ignored: keys beside the network that are not needed.
        bare: prefixes that other publishers use too. They count only with ``--publisher``, or where
            no other publisher of the table has them.
        kinds: of file.
        size: (height, width) of the published crops; None where the publisher's files differ.
        order_beside: whether a configuration beside the file states the channel order.
    """

    publisher: Publisher
    source: str
    prefixes: tuple[str, ...]
    marks: tuple[str, ...]
    options_of: OptionsOf
    given: Input
    names: Callable[[str], str | None] = same_names
    heads: Mapping[str, Layout] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("torch", "safetensors")
    size: tuple[int, int] | None = (112, 112)
    order_beside: bool = False


_WRAPPED = ("", "module.")  # DataParallel and DistributedDataParallel add module.
_ARCFACE = (*_WRAPPED, "state_dict_backbone/", "state_dict_backbone/module.")
_ARCFACE_HEADS: Mapping[str, Layout] = {"state_dict_softmax_fc/weight": "CD"}
_OPENSPHERE = ("backbone/", "model/backbone/")
_OPENSPHERE_HEADS: Mapping[str, Layout] = {
    "head/w": "either", "model/head/w": "either", "w": "either", "module.w": "either",
}  # fmt: skip
_ADAFACE_HEADS: Mapping[str, Layout] = {"state_dict/head.kernel": "DC", "head.kernel": "DC"}
_ADAFACE_BUFFERS = tuple(f"{at}head.{name}" for at in ("state_dict/", "") for name in ("t", "batch_mean", "batch_std"))
_CVLFACE_HEADS: Mapping[str, Layout] = {"classifier.weight": "CD", "partial_fc.weight": "CD"}
_IRESNET_MARKS = ("conv1.weight", "prelu.weight", "layer4.0.bn3.weight")
_IR_MARKS = ("input_layer.0.weight",)

ADAPTERS = (
    Adapter(
        "caffe", "wy1iu/sphereface, SphereFace-20", ("",), ("conv1_1.weight",), sphere_options(CAFFE), _CAFFE_INPUT,
        CAFFE, {"fc6.weight": "CD"}, ("fc6.bias",), kinds=("caffe",), size=None,
    ),
    Adapter(
        "clcarwin", "clcarwin/sphereface_pytorch, sphere20a", _WRAPPED, ("conv1_1.weight",), sphere_options(CAFFE),
        _CAFFE_INPUT, CAFFE, {"fc6.weight": "DC", "module.fc6.weight": "DC"}, ("fc6.bias",), size=None,
    ),
    Adapter(
        "yakhyo", "yakhyo/face-recognition, sphere20 and sphere36", (*_WRAPPED, "model/", "model/module."),
        ("layer1.0.0.weight", "layer1.0.1.weight"), sphere_options(YAKHYO), _RGB, YAKHYO,
    ),
    Adapter(
        "adaface", "mk-minchul/AdaFace, net.py", ("state_dict/model.",), _IR_MARKS, ir_options, _BGR,
        heads=_ADAFACE_HEADS, ignored=_ADAFACE_BUFFERS, bare=("", "module.", "model."),
    ),
    Adapter(
        "cvlface", "mk-minchul/CVLface, iresnet", ("net.", "model.net."), _IR_MARKS, ir_options, _RGB,
        heads=_CVLFACE_HEADS, bare=_WRAPPED, order_beside=True,
    ),
    Adapter(
        "cvlface", "mk-minchul/CVLface, iresnet_insightface", ("net.", "model.net."), _IRESNET_MARKS, iresnet_options,
        _RGB, heads=_CVLFACE_HEADS, order_beside=True,
    ),
    Adapter(
        "magface", "IrvingMeng/MagFace, iresnet", ("state_dict/features.module.", "state_dict/module.features."),
        _IRESNET_MARKS, iresnet_options, _MAGFACE,
        heads={"state_dict/parallel_fc.weight": "CD", "state_dict/module.fc.weight": "DC",
               "state_dict/fc.weight": "either"},
        bare=(*_WRAPPED, "features.", "features.module.", "module.features."),
    ),
    Adapter(
        "opensphere", "ydwen/opensphere, sfnet", _OPENSPHERE, ("layer1.0.conv1.bias",), sfnet_options, _RGB,
        heads=_OPENSPHERE_HEADS, bare=_WRAPPED,
    ),
    Adapter(
        "opensphere-deprecated", "ydwen/opensphere, sfnet*_deprecated", (), ("layer1.0.conv1.bias",),
        sphere_options(SFNET_DEPRECATED), _RGB, SFNET_DEPRECATED, _OPENSPHERE_HEADS, bare=(*_WRAPPED, *_OPENSPHERE),
    ),
    Adapter(
        "opensphere", "ydwen/opensphere, iresnet", _OPENSPHERE, _IRESNET_MARKS, iresnet_options, _RGB,
        heads=_OPENSPHERE_HEADS,
    ),
    Adapter(
        "arcface", "deepinsight/insightface, arcface_torch iresnet", _ARCFACE, _IRESNET_MARKS, iresnet_options, _RGB,
        heads=_ARCFACE_HEADS,
    ),
    Adapter(
        "arcface", "deepinsight/insightface, arcface_torch mobilefacenet", _ARCFACE, ("conv_sep.layers.0.weight",),
        mobilefacenet_options, _RGB, heads=_ARCFACE_HEADS,
    ),
    # the last row, because its marks are also keys of an iresnet
    Adapter(
        "opensphere", "ydwen/opensphere, sfnet with batch normalisation", (*_OPENSPHERE, *_WRAPPED),
        ("layer1.0.conv1.weight", "layer1.0.bn1.running_mean", "layer4.0.conv1.weight", "features.weight"),
        sfnet_options, _RGB, heads=_OPENSPHERE_HEADS, ignored=("head/b", "model/head/b", "head/bias"),
    ),
)  # fmt: skip


def recognise(contents: Contents, publisher: str | None) -> tuple[Adapter, str]:
    """Return the row that a file belongs to, and the prefix of its keys.

    Args:
        contents: of the file.
        publisher: consider only this publisher's rows.

    Raises:
        BadCheckpoint: no row fits, or rows of several publishers do; the message has no path.
    """
    rows = [row for row in ADAPTERS if publisher in (None, row.publisher)]
    certain = [(row, prefix) for row in rows for prefix in row.prefixes if _fits(row, prefix, contents)]
    if publisher is None and certain:
        return certain[0]
    found = certain or [(row, prefix) for row in rows for prefix in row.bare if _fits(row, prefix, contents)]
    names = list(dict.fromkeys(row.publisher for row, _ in found))
    if len(names) > 1:
        raise BadCheckpoint(f"has key names that several publishers use · give --publisher {' or '.join(names)}")
    if not found:
        listed = ", ".join(list(contents.tensors)[:10])
        of = f"of publisher {publisher}" if publisher else f"· known publishers: {', '.join(PUBLISHERS)}"
        raise BadCheckpoint(f"no known network {of} · the first keys are {listed}")
    return found[0]


def publishers_with_same_keys(adapter: Adapter, prefix: str, contents: Contents) -> list[str]:
    """Return other publishers with these key names whose networks read another input."""
    rows = (row for row in ADAPTERS if row.given != adapter.given and prefix in (*row.prefixes, *row.bare))
    return [row.publisher for row in rows if _fits(row, prefix, contents)]


def _fits(row: Adapter, prefix: str, contents: Contents) -> bool:
    return contents.kind in row.kinds and all(f"{prefix}{mark}" in contents.tensors for mark in row.marks)
