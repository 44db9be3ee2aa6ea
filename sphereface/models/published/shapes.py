"""Derive the options of a network from the names and shapes of its published weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...checkpoint import BadCheckpoint
from .. import ir, iresnet, mobilefacenet, sfnet, spherenet
from .key_names import SphereNames

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor, by the publisher's key."""

OptionsOf = Callable[[Shapes], dict[str, Any]]
"""Returns options of ``model:``, and the ``columns`` and ``channels`` of :func:`input_size`."""

_USUAL_INPUTS = {7 * 6: (112, 96), 7 * 7: (112, 112)}  # by the number of places in the last map
_MOST_UNITS = 100


def input_size(columns: int, channels: int, asked: tuple[int, int] | None) -> tuple[int, int]:
    """Return the (height, width) of the crops whose last map the embedding layer fits.

    Args:
        columns: numbers that the layer reads.
        channels: of the map.
        asked: the size that the user or the file states; None to guess a usual size.

    Raises:
        BadCheckpoint: the size does not fit, or the user must give it.
    """
    places = columns // channels
    size = asked or _USUAL_INPUTS.get(places)
    if size is None:
        raise BadCheckpoint(
            f"the embedding layer reads {places} places of the last map, which is neither 112x96 nor 112x112 · "
            "give --input-size HxW"
        )
    height, width = (-(-side // 16) for side in size)  # halved four times, rounded up
    if height * width * channels != columns:
        raise BadCheckpoint(
            f"images of {size[0]}x{size[1]} give the embedding layer {height * width * channels:,} numbers, its "
            f"weights are for {columns:,} · give the --input-size that the network was trained with"
        )
    return size


def sphere_options(names: SphereNames) -> OptionsOf:
    """Return the function that finds units, widths and embedding length of a Sphere CNN."""

    def options(shapes: Shapes) -> dict[str, Any]:
        widths = [_shape(shapes, names.first_of(stage), 4)[0] for stage in (1, 2, 3, 4)]
        units = [_count_units(shapes, names, stage) for stage in (1, 2, 3, 4)]
        dim, columns = _shape(shapes, f"{names.fc5}.weight", 2)
        known = {counts: depth for depth, counts in spherenet.UNITS.items()}
        depth = known.get((units[0], units[1], units[2], units[3]))
        deep = {"depth": depth} if depth else {"units": units}
        return {"name": "spherenet", **deep, "widths": widths, **_ends_in(dim, columns, widths[-1])}

    return options


def iresnet_options(shapes: Shapes) -> dict[str, Any]:
    """Return the options of ArcFace's network."""
    depth = _depth_of(shapes, iresnet.UNITS, first=0)
    dim, columns = _shape(shapes, "fc.weight", 2)
    return {"name": "iresnet", "depth": depth, **_ends_in(dim, columns, iresnet.WIDTHS[-1])}


def sfnet_options(shapes: Shapes) -> dict[str, Any]:
    """Return the options of OpenSphere's Sphere CNN."""
    depth = _depth_of(shapes, sfnet.UNITS, first=1)
    dim, columns = _shape(shapes, "fc.weight", 2)
    norm = "batch" if "layer1.0.bn1.weight" in shapes else "none"
    return {"name": "sfnet", "depth": depth, "norm": norm, **_ends_in(dim, columns, sfnet.WIDTHS[-1])}


def ir_options(shapes: Shapes) -> dict[str, Any]:
    """Return the options of AdaFace's network."""
    units = _numbered(shapes, r"body\.(\d+)\.")
    known = {sum(counts): depth for depth, counts in ir.UNITS.items()}
    if units not in known:
        allowed = ", ".join(f"{number} (depth {depth})" for number, depth in known.items())
        raise BadCheckpoint(f"got {units} residual units · allowed: {allowed}")
    depth = known[units]
    dim, columns = _shape(shapes, "output_layer.3.weight", 2)
    channels = (ir.BOTTLENECK_WIDTHS if depth in ir.BOTTLENECK_DEPTHS else ir.WIDTHS)[-1]
    se = "body.0.res_layer.se_block.fc1.weight" in shapes
    return {"name": "ir", "depth": depth, "se": se, **_ends_in(dim, columns, channels)}


def mobilefacenet_options(shapes: Shapes) -> dict[str, Any]:
    """Return the options of MobileFaceNet, whose head has one weight per place of the map."""
    channels = _shape(shapes, "layers.0.layers.0.weight", 4)[0]
    known = {64 * size.scale: name for name, size in mobilefacenet.SIZES.items()}
    if channels not in known:
        allowed = ", ".join(f"{number} ({name})" for number, name in known.items())
        raise BadCheckpoint(f"layers.0.layers.0.weight: got {channels} channels · allowed: {allowed}")
    dim = _shape(shapes, "features.layers.2.weight", 2)[0]
    _, _, height, width = _shape(shapes, "features.layers.0.layers.0.weight", 4)
    return {"name": "mobilefacenet", "size": known[channels], **_ends_in(dim, height * width, 1)}


def _ends_in(dim: int, columns: int, channels: int) -> dict[str, Any]:
    return {"embedding_dim": dim, "columns": columns, "channels": channels}


def _depth_of(shapes: Shapes, units: Mapping[int, tuple[int, ...]], *, first: int) -> int:
    """Return the depth by the units in ``layer1`` … ``layer4``; skip ``first`` blocks of each."""
    counts = tuple(_numbered(shapes, rf"layer{stage}\.(\d+)\.") - first for stage in (1, 2, 3, 4))
    known = {stages: depth for depth, stages in units.items()}
    if counts not in known:
        allowed = "; ".join(f"{', '.join(map(str, stages))} (depth {depth})" for stages, depth in known.items())
        raise BadCheckpoint(f"got stages of {', '.join(map(str, counts))} residual units · allowed: {allowed}")
    return known[counts]


def _numbered(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def _count_units(shapes: Shapes, names: SphereNames, stage: int) -> int:
    units = 0
    while units < _MOST_UNITS and names.first_of(stage, units + 1) in shapes:
        units += 1
    return units


def _shape(shapes: Shapes, key: str, axes: int) -> tuple[int, ...]:
    if key not in shapes or len(shapes[key]) != axes or 0 in shapes[key]:
        got = f"got {shapes[key]}" if key in shapes else "missing"
        raise BadCheckpoint(f"{key}: {got} · allowed: a tensor with {axes} axes")
    return shapes[key]
