"""Sinks: where a run sends its figures, images and texts. ``log.sinks`` selects them.

A sink is a subclass of :class:`Sink`, registered with :func:`register_sink`. To add one from
outside, see docs/extend.md. :class:`~sphereface.training.monitor.Monitor` calls the sinks of a run
in the first process only.
"""

from . import jsonl, mlflow, tensorboard, wandb  # noqa: F401 -- each registers its sink
from .base import SINKS, Session, Sink, check_sinks, register_sink
from .channel import Channel

__all__ = ["SINKS", "Channel", "Session", "Sink", "check_sinks", "register_sink"]
