"""Decide what an ONNX file reads, from the file and the user's options. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError, shown
from .input_spec import ORDERS, InputSpec, warn_of_scale

LAYOUTS = ("nchw", "nhwc")
MIRRORS = ("add", "join", "none")
"""How to use a mirror image: add its embedding, join it to 2D numbers, or ignore it."""

Numbers = tuple[float, ...]
_PIXELS: tuple[Numbers, Numbers] = ((0.0,), (1.0,))  # mean and std that do not change a pixel


@dataclass(frozen=True)
class Preset:
    """The input of a publisher's networks.

    Attributes:
        spec: size, channel order and scale.
        mirror: how the publisher's own evaluation uses mirror images, one of :data:`MIRRORS`.
        layout: used where the file's shape does not determine it.
    """

    spec: InputSpec
    mirror: str
    layout: str = "nchw"


def _preset(order: str, mean: float, std: float, mirror: str, size: tuple[int, int] = (112, 112)) -> Preset:
    return Preset(InputSpec(*size, order, (mean,), (std,)), mirror)


_ARCFACE = _preset("rgb", 127.5, 127.5, "add")

PRESETS: Mapping[str, Preset] = {
    # wy1iu/sphereface, test/code/evaluation.m
    "sphereface": _preset("bgr", 127.5, 128.0, "join", (112, 96)),
    # deepinsight/insightface, python-package/insightface/model_zoo/arcface_onnx.py; the mirror
    # images are added in recognition/arcface_torch/eval/verification.py and onnx_ijbc.py
    "arcface": _ARCFACE,
    "insightface": _ARCFACE,
    # mk-minchul/AdaFace, inference.py; utils.py adds the embeddings before they are divided by
    # their lengths
    "adaface": _preset("bgr", 127.5, 127.5, "add"),
    # mk-minchul/CVLface,
    # cvlface/research/recognition/code/run_v1/evaluations/verification_evaluator.py
    "cvlface": _preset("rgb", 127.5, 127.5, "add"),
    # IrvingMeng/MagFace, inference/gen_feat.py: cv2.imread, ToTensor, no mirror images
    "magface": _preset("bgr", 0.0, 255.0, "none"),
    # opencv/opencv, modules/objdetect/src/face_recognize.cpp: blobFromImage(crop, 1, (112, 112), 0,
    # swapRB=true)
    "sface": _preset("rgb", 0.0, 1.0, "none"),
    # davidsandberg/facenet, src/validate_on_lfw.py: fixed standardisation, --use_flipped_images
    # concatenates
    "facenet": _preset("rgb", 127.5, 128.0, "join", (160, 160)),
}
"""Values of ``--spec``. The comments name the publishers' files that they follow."""


@dataclass(frozen=True)
class OnnxOptions:
    """The user's options for an ONNX file; for None, the file or the preset must state the value.

    Attributes:
        spec: a key of :data:`PRESETS`.
        size: (height, width) in pixels.
        layout: one of :data:`LAYOUTS`.
        order: ``"bgr"`` or ``"rgb"``.
        mean, std: in pixel values, one number or three in ``order``.
        input, output: names in the graph; needed where it has several.
    """

    spec: str | None = None
    size: tuple[int, int] | None = None
    layout: str | None = None
    order: str | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    input: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class FileFacts:
    """The facts that an ONNX file states about its input.

    Attributes:
        path: of the file.
        shape: of the input; None where the file leaves a length open.
        dtype: ``"float32"``, ``"float16"`` or ``"uint8"``.
        order, mirror: of an export of this package, which also scales the pixels itself; None for
            other files.
        first: the operator at the start of the graph that scales the input, such as ``"Sub"``; None
            without one.
        insightface: whether InsightFace's own code assumes that the file scales the pixels itself.
    """

    path: Path
    shape: tuple[int | None, ...]
    dtype: str
    order: str | None = None
    mirror: str | None = None
    first: str | None = None
    insightface: bool = False


@dataclass(frozen=True)
class OnnxInput:
    """The input of an ONNX file.

    Attributes:
        spec: size, channel order and scale.
        layout: one of :data:`LAYOUTS`.
        dtype: of the array.
        batch: the one batch size that the file accepts; None for any.
        mirror: how to use mirror images, where the user does not choose.
        mirror_inside: ``"add"`` or ``"join"`` where the file embeds the mirror images itself, else
            ``"none"``.
        notes: decisions to report to the user.
    """

    spec: InputSpec
    layout: str
    dtype: str
    batch: int | None
    mirror: str
    mirror_inside: str = "none"
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the input as text: ``(B, 3, 112, 112) float32 = (pixel − 127.5) / 127.5, RGB``."""
        height, width = self.spec.size
        sides = f"3, {height}, {width}" if self.layout == "nchw" else f"{height}, {width}, 3"
        scale = "pixel" if (self.spec.mean, self.spec.std) == _PIXELS else self.spec.scale()
        batch = "B" if self.batch is None else self.batch
        return f"({batch}, {sides}) {self.dtype} = {scale}, {self.spec.order.upper()}"


def resolve_input(facts: FileFacts, options: OnnxOptions) -> OnnxInput:
    """Combine the facts of the file and the options of the user.

    Raises:
        UserError: a value is missing, or the two contradict each other.
    """
    if options.spec is not None and options.spec not in PRESETS:
        raise UserError(f"--spec: got {shown(options.spec)} · allowed: {', '.join(PRESETS)}")
    exported = facts.order is not None
    if exported and options.spec is not None:
        raise UserError(f"{facts.path}: --spec: got {options.spec} · exports of sphereface state their input · omit it")
    preset = PRESETS.get(options.spec or "")
    layout = _layout(facts, options, preset)
    size = _size(facts, options, preset, layout)
    order = _order(facts, options, preset)
    (mean, std), notes = _scale(facts, options, preset)
    missing = [name for name, value in (("--order", order), ("--mean", mean), ("--std", std)) if value is None]
    if order is None or mean is None or std is None:
        raise UserError(
            f"{facts.path}: does not state how it reads pixels: {', '.join(missing)} missing · "
            f"give {'it' if len(missing) == 1 else 'them'}, or --spec {'|'.join(PRESETS)}"
        )
    spec = InputSpec(*size, order, mean, std)
    warn_of_scale(str(facts.path), spec)
    return OnnxInput(
        spec, layout, facts.dtype, facts.shape[0],
        preset.mirror if preset else "join", facts.mirror or "none", notes,
    )  # fmt: skip


def _layout(facts: FileFacts, options: OnnxOptions, preset: Preset | None) -> str:
    """Return the layout, NCHW or NHWC, by the axis with 3 channels."""
    if len(facts.shape) != 4:
        raise UserError(f"{facts.path}: reads {_shape(facts)} · allowed: four axes, (B, 3, H, W) or (B, H, W, 3)")
    channels = {"nchw": facts.shape[1], "nhwc": facts.shape[3]}
    sure = [layout for layout in LAYOUTS if channels[layout] == 3]
    possible = sure or [layout for layout in LAYOUTS if channels[layout] is None]
    if not possible:
        raise UserError(f"{facts.path}: reads {_shape(facts)} · allowed: 3 channels, (B, 3, H, W) or (B, H, W, 3)")
    if options.layout is not None and options.layout not in possible:
        raise _contradiction(facts, "--layout", options.layout, possible[0])
    if options.layout is None and len(possible) > 1:
        if preset is None:
            raise UserError(f"{facts.path}: reads {_shape(facts)} · give --layout nchw or --layout nhwc")
        return preset.layout
    return options.layout or possible[0]


def _size(facts: FileFacts, options: OnnxOptions, preset: Preset | None, layout: str) -> tuple[int, int]:
    sides = facts.shape[2:] if layout == "nchw" else facts.shape[1:3]
    wanted = options.size or (preset.spec.size if preset else (None, None))
    for side, own in zip(wanted, sides, strict=True):
        if side is not None and own is not None and side != own:
            got = f"--size: got {_by(wanted)}" if options.size else f"--spec {options.spec}: reads {_by(wanted)}"
            advice = "omit it" if options.size else f"choose another --spec, or confirm with --size {_by(sides)}"
            raise UserError(f"{facts.path}: {got} · the file reads {_by(sides)} (height x width) · {advice}")
    height, width = (own or side for side, own in zip(wanted, sides, strict=True))
    if height is None or width is None:
        raise UserError(f"{facts.path}: reads {_shape(facts)} · give --size HEIGHTxWIDTH, such as 112x112")
    return height, width


def _scale(
    facts: FileFacts, options: OnnxOptions, preset: Preset | None
) -> tuple[tuple[Numbers | None, Numbers | None], tuple[str, ...]]:
    """Return mean and std, and notes for the user."""
    if facts.order is not None or facts.dtype == "uint8":  # the file scales the pixels
        for name, value, inside in (("--mean", options.mean, 0.0), ("--std", options.std, 1.0)):
            if value is not None and set(value) != {inside}:
                why = "reads bytes" if facts.dtype == "uint8" else "is an export of sphereface"
                raise UserError(
                    f"{facts.path}: {name}: got {_words(value)} · the file {why}, so it scales pixels itself · omit it"
                )
        return _PIXELS, ()
    given = (options.mean, options.std)
    unset = options.mean is None and options.std is None
    if preset is None or not (options.mean is None or options.std is None):
        return given, ()
    published = (preset.spec.mean, preset.spec.std)
    if options.spec in ("arcface", "insightface") and facts.insightface and unset:
        return _PIXELS, ("the graph subtracts and multiplies, so pixels are fed unscaled, as InsightFace does",)
    if facts.first is not None and unset and published != _PIXELS:
        mean, std = map(_words, published)
        raise UserError(
            f"{facts.path}: its graph begins with {facts.first} on the pixels, so it may scale them itself · "
            f"give --mean 0 --std 1 if it does, or --mean {mean} --std {std}, which --spec {options.spec} means"
        )
    return (options.mean or published[0], options.std or published[1]), ()


def _order(facts: FileFacts, options: OnnxOptions, preset: Preset | None) -> str | None:
    if options.order is not None and options.order not in ORDERS:
        raise UserError(f"--order: got {shown(options.order)} · allowed: {', '.join(ORDERS)}")
    if options.order is not None and facts.order not in (None, options.order):
        raise _contradiction(facts, "--order", options.order, facts.order)
    return facts.order or options.order or (preset.spec.order if preset else None)


def _contradiction(facts: FileFacts, name: str, given: Any, own: Any) -> UserError:
    return UserError(f"{facts.path}: {name}: got {given} · the file reads {own}, {_shape(facts)} · omit it")


def _shape(facts: FileFacts) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in facts.shape)}) {facts.dtype}"


def _by(sides: tuple[int | None, ...]) -> str:
    return "x".join("?" if side is None else str(side) for side in sides)


def _words(values: Numbers) -> str:
    return ",".join(f"{value:g}" for value in values)
