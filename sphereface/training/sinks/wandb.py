"""Weights & Biases, online or offline, as its environment variables set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ...extras import import_extra
from .base import Session, Sink, register_sink
from .channel import PATIENCE
from .written import Written

log = logging.getLogger(__name__)


@register_sink("wandb")
class WeightsAndBiases(Sink):
    """Send scalars, histograms and images to one W&B run, which every session of the run continues.

    Each call is a row with the column ``step``, which is the x axis of all panels. W&B cannot
    remove rows, so a resumed session leaves out what an earlier one sent. ``wandb.json`` in the run
    folder records that.
    """

    background = True

    @classmethod
    def check(cls) -> None:
        """Raise UserError if wandb is not installed."""
        import_extra("log.sinks", "wandb", "wandb", instead="leave wandb out")

    def start(self, session: Session) -> None:
        """Begin or continue the run in ``WANDB_PROJECT`` (``sphereface``), without any prompt."""
        self._wandb: Any = import_extra("log.sinks", "wandb", "wandb")
        if self._wandb.setup().settings.mode == "online" and not self._wandb.login(prompt=False):
            raise UserError("no API key · run `wandb login`, or set WANDB_MODE=offline")
        self._written = Written(session.folder / "wandb.json")
        self._run: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "sphereface",
            name=os.environ.get("WANDB_NAME") or f"{session.name} {session.folder.name}",
            id=self._written.run_id,
            resume="allow",
            dir=session.folder,
            config=dict(session.config),
            allow_val_change=True,
            reinit="create_new",  # does not touch runs of the calling program
            settings=self._wandb.Settings(console="off", silent=True, finish_timeout=PATIENCE),
        )
        self._written.begin(self._run.id, session.step)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        offline = f"{self._run.dir} · upload it with `wandb sync`"
        log.info("wandb: run %s · %s", self._run.id, offline if self._run.offline else self._run.url)

    def scalars(self, step: int, values: Mapping[str, float], images_seen: int) -> None:
        """Send a row."""
        new = {name: value for name, value in values.items() if not self._written.has(step, name)}
        if new:
            self._send(step, {**new, "images_seen": images_seen}, new)

    def histogram(self, step: int, name: str, values: npt.NDArray[np.float32]) -> None:
        """Send a distribution."""
        if not self._written.has(step, name):
            self._send(step, {name: self._wandb.Histogram(values)})

    def image(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Send an image."""
        if not self._written.has(step, name):
            self._send(step, {name: self._wandb.Image(image)})

    def close(self, complete: bool) -> None:
        """Upload what is left."""
        self._run.finish(exit_code=0 if complete else 1)

    def _send(self, step: int, row: Mapping[str, Any], scalars: Iterable[str] = ()) -> None:
        """Send a row at once, so that a kill loses none.

        W&B's own step is the row's number, because it must grow with each row.
        """
        number = max(step, self._written.row + 1)
        self._run.log({"step": step, **row}, step=number, commit=True)
        self._written.add(step, scalars, number)
