"""MLflow: a tracking server or a local store, as its environment variables set."""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...extras import import_extra
from .base import Session, Sink, register_sink
from .written import Written

log = logging.getLogger(__name__)

_MOST_PARAMS = 100  # per request
_LONGEST_PARAM = 6000  # characters
_NOT_ALLOWED = re.compile(r"[^\w.\- :/]")  # in names


@register_sink("mlflow")
class MLflow(Sink):
    """Send scalars and images to one MLflow run, which every session of the run continues.

    The configuration becomes the run's parameters. MLflow cannot remove a value, so a resumed
    session leaves out what an earlier one sent. ``mlflow.json`` in the run folder records that.
    """

    background = True

    @classmethod
    def check(cls) -> None:
        """Raise UserError if mlflow is not installed."""
        import_extra("log.sinks", "mlflow", "mlflow", instead="leave mlflow out")

    def start(self, session: Session) -> None:
        """Begin or continue the run.

        Its experiment is ``MLFLOW_EXPERIMENT_NAME``, or else has the name of the configuration.
        """
        self._mlflow: Any = import_extra("log.sinks", "mlflow", "mlflow")
        self._client: Any = self._mlflow.MlflowClient()
        self._written = Written(session.folder / "mlflow.json")
        run_id = self._known_run()
        if run_id is None:
            run_id = self._new_run(session)
        else:
            self._client.update_run(run_id, status="RUNNING")
        self._written.begin(run_id, session.step)
        self._run_id = run_id
        log.info("mlflow: run %s in %s", run_id, self._mlflow.get_tracking_uri())

    def scalars(self, step: int, values: Mapping[str, float], images_seen: int) -> None:
        """Send figures."""
        new = {name: value for name, value in values.items() if not self._written.has(step, name)}
        if not new:
            return
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        if any(name.startswith("train/") for name in new):
            new["train/images_seen"] = images_seen
        self._client.log_batch(self._run_id, metrics=[metric(_name(n), float(v), now, step) for n, v in new.items()])
        self._written.add(step, new)

    def image(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Send an image."""
        if not self._written.has(step, name):
            self._client.log_image(self._run_id, image, key=_name(name), step=step)

    def close(self, complete: bool) -> None:
        """Record how the run ended."""
        self._client.set_terminated(self._run_id, "FINISHED" if complete else "KILLED")

    def _known_run(self) -> str | None:
        """Return the run of an earlier session; None if there is none, or not in this store."""
        if self._written.run_id is None:
            return None
        try:
            self._client.get_run(self._written.run_id)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return self._written.run_id

    def _new_run(self, session: Session) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or session.name
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        run_id: str = self._client.create_run(experiment_id, run_name=session.folder.name).info.run_id
        param = self._mlflow.entities.Param
        params = [param(_name(key), str(value)[:_LONGEST_PARAM]) for key, value in _flat(session.config)]
        for begin in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(run_id, params=params[begin : begin + _MOST_PARAMS])
        return run_id


def _name(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten ``{"train": {"lr": 0.1}}`` to ``("train.lr", 0.1)``."""
    return itertools.chain.from_iterable(
        _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [(f"{prefix}{key}", value)]
        for key, value in values.items()
    )
