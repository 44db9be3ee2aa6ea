"""The learner: network, head, optimiser and moving average, and the training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import record_function

from ..config import Config
from ..data.batch import Batch
from ..data.prefetch import moved
from ..data.transforms import to_input
from ..device import precision_on
from ..losses.distributed_head import make_head
from ..losses.head import HeadOutput
from ..losses.teacher import TeacherHead
from ..losses.whole_head import gather_head, own_copies, scatter_head, sharded_parameters
from ..models import build_model
from ..models.backbone import Backbone, ConvBackbone, Resized, check_backbone
from ..models.loading import load_weights, seen_sizes
from ..plugins import OF_LOSS, OF_NETWORK, OF_TEACHER, code_of
from ..schedules import warmup_factor
from .average import MovingAverage
from .deferred import FiniteCheck, reads_late
from .distributed import World
from .forward import Forward
from .loss_scale import LossScale
from .optimizer import gradient_values, make_optimizer
from .parts import check_parts, check_trained, freeze, keep_fixed_statistics
from .plan import Setting
from .replicas import average_statistics, check_pieces, figures_of_all, gradient_norm, gradients_stay, replicated
from .rng import restore_rng, rng_states
from .teacher import Teacher
from .watch import StepResult


class Learner:
    """Network, head and optimiser of a run.

    Args:
        config: the resolved configuration.
        num_classes: C.
        device: of all parts.
        world: the processes that train together; None for this process alone. They call every
            method together.
        teacher: the network learns from its embeddings besides the labels; None without one.
    """

    def __init__(
        self,
        config: Config,
        num_classes: int,
        device: torch.device,
        world: World | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.config, self.device, self.world = config, device, world or World()
        self.dtype = precision_on(device, config.train.precision)
        self.model: Backbone = build_model(config.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.seen_size = self.model.input_spec.size
        self.origin: dict[str, Any] = {}  # ``init_from`` of a checkpoint's ``meta``: the file of the first weights
        sizes = [("model.input_size", self.seen_size)]
        for number, stage in enumerate(config.stages):
            if stage.input_size is not None:
                sizes.append((f"train.stages[{number}].input_size", (stage.input_size[0], stage.input_size[1])))
        check_backbone(self.model, dict(sizes))
        self.model.recompute_units(config.train.recompute)
        dim, ranks = config.model.embedding_dim, self.world.ranks
        self.head = make_head(dim, num_classes, config.loss, seed=config.seed, ranks=ranks)
        self.head.to(device)
        self.teacher = teacher
        self.teacher_head: TeacherHead | None = None
        if teacher is not None:
            options, dim = config.train.teacher, config.model.embedding_dim
            head = TeacherHead(dim, teacher.dim, options, seed=config.seed, ranks=self.world.ranks)
            self.teacher_head = head.to(device)
        names = [name for prefix, part in self.parts.items() for name, _ in part.named_parameters(prefix)]
        self.factors = check_parts(config.train.lr_mult, names)
        freeze(self.parts, self.factors)
        check_trained(self.parts, has_start=config.train.init_from is not None)
        self.optimizer = make_optimizer(config, self.parts, self.factors, self.dtype)
        self.average = None if config.train.ema is None else MovingAverage(self.model, config.train.ema)
        half = self.dtype is torch.float16
        self.loss_scale = LossScale(device, enabled=half)
        self.check = FiniteCheck(device, self.optimizer, self.head, late=reads_late(device), overflow=half)
        self._called = Resized(self.model, self.seen_size) if isinstance(self.model, ConvBackbone) else self.model
        if config.train.compile:
            self._called.compile()
        share = config.train.batch_size // self.world.size
        check_pieces(config.train.micro_batch, share, self.world, batch_statistics=config.model.batch_statistics)
        self._replica = replicated(self._called, self.world, pieces=(config.train.micro_batch or share) < share)

    @property
    def network(self) -> nn.Module:
        """Return what a step calls: the backbone with resized crops, replicated over processes."""
        return self._called if self._replica is None else self._replica

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Return the trained parts by the names that checkpoints and ``train.lr_mult`` use."""
        teacher = {} if self.teacher_head is None else {"teacher": self.teacher_head}
        return {"model": self.model, "head": self.head, **teacher}

    def codes(self) -> dict[str, str]:
        """Return the code of the plugins of this run, see :func:`~sphereface.plugins.code_of`."""
        return {
            OF_NETWORK: code_of(self.model.modules()),
            OF_LOSS: code_of_losses(self.config),
            OF_TEACHER: "" if self.teacher is None else self.teacher.code,
        }

    def _see(self, size: tuple[int, int]) -> None:
        """Set the (height, width) of the crops that the network processes."""
        self.seen_size = size
        if isinstance(self._called, Resized):
            self._called.seen_size = size

    def inputs(self, batch: Batch, size: tuple[int, int] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch on the device, as the network reads it.

        The images, (B, 3, *size) float32, are mirrored, shrunk, augmented and normalised. The
        labels are (B,).
        """
        there = moved(batch, self.device)
        return to_input(there.images, self.model.input_spec, there.mirror, there.augment, size), there.labels

    def forward(self, batch: Batch, setting: Setting, piece: int = 0) -> Forward:
        """Compute the loss of one batch, or of one piece of it, ready for the backward pass.

        No weight changes. The random numbers of dropout depend on seed, step, process and piece
        alone. So a resumed run draws the same numbers, and each process draws others.
        """
        images, labels = self.inputs(batch, setting.input_size)
        draws = np.random.SeedSequence((self.config.seed, setting.step, self.world.rank, piece))
        torch.manual_seed(int(draws.generate_state(1, np.uint64)[0] >> 1))
        self.model.train()
        self._see(setting.input_size or self.model.input_spec.size)
        keep_fixed_statistics(self.parts, self.factors)
        self.head.margin = setting.margin
        with self.autocast():
            embeddings = self.network(images)  # (B, D)
            share = self.config.train.teacher.label_weight if self.teacher_head is not None else 1.0
            judged = embeddings if share > 0 else embeddings.detach()  # without labels, only the head learns from them
            output: HeadOutput = self.head(judged, labels, setting.lam, setting.step)
        total = output.loss if share in (0.0, 1.0) else share * output.loss
        if self.teacher_head is None:
            return Forward(total, output, embeddings, None)
        assert self.teacher is not None
        taught = self.teacher_head(embeddings, self.teacher.of_batch(moved(batch, self.device)))
        total = total + warmup_factor(setting.step, self.config.train.teacher.warmup_steps) * taught
        return Forward(total, output, embeddings, taught)

    def gradients(self, batch: Batch, setting: Setting) -> Forward:
        """Compute the gradient of the mean loss of one batch, in pieces of ``train.micro_batch``.

        The gradients are in every parameter's ``.grad``.

        Returns:
            The detached result of all pieces together, of this process only.
        """
        self.optimizer.zero_grad(set_to_none=True)
        images, done = len(batch.labels), list[Forward]()
        pieces = batch.split(self.config.train.micro_batch or images)
        for number, piece in enumerate(pieces):
            share = len(piece.labels) / images
            with nullcontext() if piece is pieces[-1] else gradients_stay(self.network):
                with record_function("forward"):  # names for --profile
                    given = self.forward(piece, setting, number)
                with record_function("backward"):
                    total = given.total if share == 1 else given.total * share
                    self.loss_scale.scale(total).backward()  # type: ignore[no-untyped-call]
            done.append(given.detached(share))  # else the log's window would keep the graphs
        return Forward.joined(done)

    def step(self, batch: Batch, setting: Setting, *, at_once: bool = False) -> StepResult:
        """Update network and head: the only place where the optimiser moves.

        If loss, gradient or ‖x‖ is not finite, nothing changes: neither weights nor the statistics
        that the forward pass updates. The host learns this here if ``check.late`` is False, else
        from :meth:`lost_steps`.

        Args:
            batch: this process's part.
            setting: learning rate, margin and λ.
            at_once: wait for the device, and raise here in any case.

        Raises:
            NotFinite: loss, gradient or ‖x‖ is not finite.
        """
        buffers = [buffer for part in self.parts.values() for buffer in part.buffers()]
        self.check.keep([*buffers, *self.loss_scale.tensors()])
        self.optimizer.set_lr(setting.lr)
        _, output, embeddings, taught = self.gradients(batch, setting)
        output, similarity = figures_of_all(output, embeddings, self.world)
        checked = output.loss if taught is None else output.loss + taught
        norm = self._clip_gradients()
        self.check.look(checked, norm, output.norms, at_once=at_once)
        with record_function("optimiser"):
            self.optimizer.step()
        self.loss_scale.update(self.check.skip)
        average_statistics(self.model, self.world)
        self.check.put_back()
        if self.average is not None:
            self.average.update(unless=self.check.tripped)
        lam = setting.lam if setting.has_lambda else None
        return StepResult(output, similarity=similarity, grad_norm=norm, lr=setting.lr, lam=lam, teacher=taught)

    def lost_steps(self) -> int:
        """Return how many of the last steps changed nothing: the first bad one and all after it.

        Waits for the device. The caller must restore its counters to before those steps and repeat
        the first one with ``at_once=True``; until then no step changes anything.
        """
        lost = self.check.lost_steps()
        if self.average is not None:
            self.average.updates -= lost
        return lost

    @contextmanager
    def evaluated(self) -> Iterator[Backbone]:
        """Give the network to evaluate, with averaged weights if there is an average."""
        with nullcontext() if self.average is None else self.average.applied():
            yield self._called

    def _clip_gradients(self) -> torch.Tensor:
        """Return the norm over all gradients without the loss scale, (), and clip the gradients.

        Without ``train.clip_grad_norm`` they are not clipped.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = gradient_values(parameters)
        self.loss_scale.unscale(gradients)
        norm = gradient_norm(parameters, sharded_parameters(self.head), self.world)
        if self.config.train.clip_grad_norm is not None:
            share = (self.config.train.clip_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, share)
        return norm

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of half precision for convolutions and products.

        The head keeps norms, ψ and log-sum-exp in fp32.
        """
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, except the batch, the learning rate and λ.

        The values are tensors and plain values. The optimiser's state is stored by parameter name
        and holds no settings, because those come from the configuration. The first process
        returns the whole state, as a single process would; the others return an empty dict.
        """
        whole_head = gather_head(self.head, self.optimizer.state)
        if whole_head is None:
            return {}
        head, of_head = whole_head
        outside = (each for each in self.named_parameters() if not each[0].startswith("head."))
        optimizer = {name: self.optimizer.state[parameter] for name, parameter in outside}
        untouched: dict[str, Any] = {f"head.{n}": {} for n, p in self.head.named_parameters() if p.requires_grad}
        average = {} if self.average is None else {"average": self.average.weights()}
        teacher = {} if self.teacher_head is None else {"teacher": self.teacher_head.state_dict()}
        return {
            **average,
            **teacher,
            "average_updates": 0 if self.average is None else self.average.updates,
            "seen_size": list(self.seen_size),
            "model": self.model.state_dict(),
            "head": head,
            "optimizer": {**optimizer, **untouched, **{f"head.{name}": entries for name, entries in of_head.items()}},
            "scaler": self.loss_scale.state_dict(),
            "rng": rng_states(self.device),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Restore the state that :meth:`state` returned, on any number of processes.

        :func:`~sphereface.training.resuming.check_state` must have checked it. ``path`` is for
        messages.
        """
        weights, head, optimizer = state["model"], state["head"], state["optimizer"]
        load_weights(self.model, weights, path)
        inside = (each for each in optimizer.items() if each[0].startswith("head."))
        of_head = {name.removeprefix("head."): entries for name, entries in inside}
        scatter_head(self.head, self.optimizer.state, head, of_head)
        if self.teacher_head is not None:
            self.teacher_head.load_state_dict(state["teacher"])
        for name, parameter in self.named_parameters():
            if not name.startswith("head."):
                self.optimizer.state[parameter] = own_copies(optimizer[name], self.device)
        self._see(seen_sizes(state, self.config.model, path)[0])
        self.loss_scale.load_state_dict(state["scaler"])
        if self.average is not None:  # an average that is new in this run starts from the weights
            self.average.restore(state.get("average", weights), state.get("average_updates", 0))
        restore_rng(state["rng"], self.device)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the trained parameters of network and head, as ``model.…`` and ``head.…``."""
        for prefix, module in self.parts.items():
            yield from ((f"{prefix}.{name}", p) for name, p in module.named_parameters() if p.requires_grad)


def code_of_losses(config: Config) -> str:
    """Return the code of the margins of a run and of its stages."""
    return code_of([config.loss, *(stage.loss for stage in config.stages)])
