"""The teacher of a run (``train.teacher``): a network, or a table of its stored embeddings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..alignment.crop_template import CropTemplate, template_of_meta
from ..alignment.kept_settings import LEAST_APART
from ..checkpoint import trained_people, training_data
from ..config import Config
from ..config_sections import TeacherConfig
from ..data.batch import Batch
from ..data.crops import CropBatches
from ..data.identities import Labels
from ..data.sources import Source
from ..data.transforms import to_input
from ..errors import UserError, printable
from ..evaluation.embedder import Embedder
from ..evaluation.embedding_table import EmbeddingTable
from ..evaluation.onnx_embedder import OnnxEmbedder
from ..losses.teacher import LEAST_IMAGES
from ..models.backbone import Backbone
from ..onnx_input import OnnxOptions
from ..options import parse_options
from ..weights import resolve
from .distributed import World
from .teacher_check import Table, checked_mean, normalized, warn_of_strangers
from .teacher_names import rows_by_name
from .teacher_table import kept_embeddings, left_to_embed

log = logging.getLogger(__name__)

_OPTION = re.compile(r"(?<!\S)--(spec|size|layout|order|mean|std|input|output)(?:-name)?(?![\w-])")
_PRETENDED = 1000  # random embeddings instead of a teacher's, while a run is measured


@dataclass
class Teacher:
    """Stored embeddings, or a network that processes each batch as it is augmented.

    Attributes:
        dim: T, the length of an embedding.
        sha256: of the teacher's file.
        table: stored embeddings; None with ``network``.
        network: the teacher; None with ``table``.
        taught_by: of a checkpoint's ``meta``, see :func:`.checkpoint_meta.teacher_of`.
        people: names of those that it was trained on, as far as its file names them.
        code: of the plugin of its network, see :func:`~sphereface.plugins.code_of`.
        left: while a run is only measured: the number of images that the teacher must still embed,
            and about how many seconds that takes.
    """

    dim: int
    sha256: str
    table: Table | None = None
    network: Backbone | None = field(default=None, repr=False)
    left: tuple[int, float] = (0, 0.0)
    taught_by: Mapping[str, str] = field(default_factory=dict)
    people: Sequence[str] = ()
    code: str = ""
    template: CropTemplate | None = None
    """Of its training crops, if its file names it."""

    def warn_of_template(self, crops: CropTemplate | None) -> None:
        """Warn if the teacher's training crops were aligned unlike those that it sees now."""
        if self.template is None or crops is None or (apart := self.template.apart(crops)) < LEAST_APART:
            return
        log.warning(
            "train.teacher: %s was trained on crops whose landmarks lie up to %.1f pixels from those of data.train, so "
            "it may teach less well · align the photographs for it (sphereface align --like and its training crops), "
            "embed these crops, and give train.teacher.embeddings; or align data.train like them",
            *(printable(self.taught_by.get("file", "")), apart),
        )

    def attached(self, batch: Batch) -> Batch:
        """Return the batch with the teacher's stored embeddings of its images, if it has them."""
        if self.table is None or batch.indices is None:
            return batch
        return batch._replace(teacher=torch.from_numpy(self.table.at(batch.indices.numpy())))

    @torch.no_grad()
    def of_batch(self, batch: Batch) -> Tensor:
        """Return the (B, T) embeddings of a batch on its device, stored or computed.

        They are computed from the crops as they are augmented, but not shrunk.
        """
        if batch.teacher is not None:
            return batch.teacher
        assert self.network is not None
        embedded: Tensor = self.network(to_input(batch.images, self.network.input_spec, batch.mirror, batch.augment))
        return embedded

    def class_means(self, labels: Labels, num_classes: int) -> npt.NDArray[np.float32]:
        """Return (C, T), the mean direction of each identity's images, of length 1."""
        if self.table is None:
            raise UserError("train.init_head: got teacher with train.teacher.view same · allowed there: view stored")
        sums = np.zeros((num_classes, self.dim), dtype=np.float64)
        for block in self.table.blocks():
            rows = self.table.at(block)
            np.add.at(sums, labels[block], np.nan_to_num(normalized(rows)))
        means: npt.NDArray[np.float32] = normalized(sums).astype(np.float32)
        return means


def open_teacher(
    config: Config, source: Source, device: torch.device, world: World, *, pretend: bool = False
) -> Teacher | None:
    """Open the teacher of ``train.teacher``, and embed the training images if necessary.

    Args:
        config: the resolved configuration.
        source: the training set.
        device: where the teacher's network runs.
        world: the processes of the run; they call this together.
        pretend: embed two batches at most and use random embeddings, for a run that is only
            measured.

    Returns:
        None if ``train.teacher`` names no teacher.

    Raises:
        UserError: the teacher cannot be used, has no embedding for some of the images, or has the
            same direction for all.
    """
    options = config.train.teacher
    if not options.given:
        return None
    _check_pieces(config, world)
    if options.embeddings is not None:
        path = Path(options.embeddings)
        found, place, crops = EmbeddingTable(path), str(path), None
        sha256, table = found.sha256, Table(*rows_by_name(found, config.data.train, source))
        origin: dict[str, Any] = {"taught_by": {"file": path.name, "sha256": sha256}}
    else:
        if options.view == "same":
            return same_view(config, device)
        embedder = _embedder(options, device)
        sha256, dim, origin = embedder.sha256, embedder.model.embedding_dim, _origin(embedder)
        if pretend:
            rows = np.random.default_rng(0).standard_normal((_PRETENDED, dim), dtype=np.float32)
            left = left_to_embed(embedder, source, Path(config.runs_dir), world)
            return Teacher(dim, sha256, Table(rows, None, np.arange(len(source)) % _PRETENDED), left=left, **origin)
        kept, path = kept_embeddings(embedder, source, Path(config.runs_dir), world)
        table, place = Table(kept, None, np.arange(len(source))), f"{embedder.path}, kept in {path}"
        crops = CropBatches(source, config.model.input_spec.size)
    mean = checked_mean(table, source, crops, place=place)
    warn_of_strangers(table, source, place)
    if options.center:
        table = Table(table.image, table.mirror, table.index, mean)
    return Teacher(table.image.shape[1], sha256, table, **origin)


def same_view(config: Config, device: torch.device) -> Teacher:
    """Open a teacher whose network processes each batch as it is augmented.

    Raises:
        UserError: the teacher cannot be used, or reads crops of another size than the student.
    """
    embedder = _embedder(config.train.teacher, device)
    network = embedder.model
    _check_size(network, embedder.path, config)
    network.eval().requires_grad_(False)
    return Teacher(network.embedding_dim, embedder.sha256, network=network, **_origin(embedder))


def _origin(embedder: Embedder) -> dict[str, Any]:
    """Return ``taught_by``, ``people`` and ``code`` of a :class:`Teacher`, if its file has them."""
    meta = {**embedder.trained_on, "config": embedder.about().get("config") or {}}
    known = ", ".join(training_data(meta))
    names = {"file": embedder.path.name, "sha256": embedder.sha256, **({"data": known} if known else {})}
    template = None
    with suppress(UserError):  # damaged, which does not matter here
        kept = {"template": embedder.template} if embedder.template else {}
        template = template_of_meta(kept, embedder.model.input_spec.size, embedder.path)
    return {"taught_by": names, "people": trained_people(meta), "code": embedder.code, "template": template}


def _embedder(options: TeacherConfig, device: torch.device) -> Embedder:
    """Return the network of a checkpoint or of an ONNX file."""
    if options.checkpoint is not None:
        return Embedder.of_checkpoint(resolve(options.checkpoint), device=device)
    assert options.onnx is not None
    problems: list[str] = []
    reads = parse_options(OnnxOptions, options.input, prefix="train.teacher.input", problems=problems)
    if reads is None:
        raise UserError(problems[0])
    try:
        return OnnxEmbedder(Path(options.onnx), reads, device=device, mirror=None)
    except UserError as error:  # in words of the command line
        raise UserError(_OPTION.sub(r"train.teacher.input.\1", str(error))) from error


def _check_size(network: Backbone, path: Path, config: Config) -> None:
    theirs, ours = network.input_spec.size, config.model.input_spec.size
    if theirs != ours:
        got, allowed = (f"{height}×{width}" for height, width in (theirs, ours))
        raise UserError(
            f"train.teacher.view: got same, but {path} reads crops of {got} · allowed with view same: crops of "
            f"{allowed}, as the network that is trained · set train.teacher.view=stored"
        )


def _check_pieces(config: Config, world: World) -> None:
    """Refuse losses of pairs and triples if a piece of a batch has too few images."""
    share = config.train.batch_size // world.size
    images = min(config.train.micro_batch or share, share) * world.size
    for name in config.train.teacher.losses:
        if images < (least := LEAST_IMAGES.get(name, 1)):
            key = "batch_size" if images == config.train.batch_size else "micro_batch"
            raise UserError(
                f"train.{key}: got {getattr(config.train, key)}, so that {name} of train.teacher.losses sees {images} "
                f"images at a time · allowed there: {least} or more · set a larger train.{key}, or another loss"
            )
