"""Describe each figure of a run in one sentence."""

from __future__ import annotations

import re

_TRAINING = {
    "loss": "Training loss, mean since the last point.",
    "accuracy": "Share of training images whose own identity has the largest logit, without margin (m = 1).",
    "embedding_norm_mean": "Mean length ‖x‖ of the embeddings, before normalisation.",
    "target_angle_deg_mean": "Mean angle between an embedding and the weight of its own identity, in degrees.",
    "embedding_similarity": "Mean cosine between the embeddings of a batch. Near 1, the network has collapsed.",
    "lambda": "λ of the annealed margin: ∞ is softmax without margin, 0 is the full margin.",
    "lr": "Learning rate, before the multipliers of single parameters.",
    "grad_norm": "L2 norm over all gradients, before clipping.",
    "images_per_s": "Training images per second, including waiting for data.",
    "minutes": "Training time so far, without evaluations and saving.",
    "teacher_loss": "Weighted sum of the losses that compare the network with its teacher.",
}
_EVALUATION = (
    (r"fold_\d+", "Verification accuracy of one fold, at the threshold of the other folds."),
    (r"accuracy", "Verification accuracy, mean over the folds."),
    (r"accuracy_.*", "Verification accuracy of one group."),
    (r"lowest_accuracy", "Verification accuracy of the group that has the lowest."),
    (r"rank_\d+", "Share of probes with an image of their identity among the k nearest gallery images (rank k)."),
    (r"map", "Mean average precision."),
    (r"changed", "1 where a run resumed with other content of this set: earlier figures are of another set."),
)


def description(name: str) -> str:
    """Return the meaning of a figure such as ``train/loss`` or ``eval/lfw/accuracy``.

    It is "" if the figure is not known.
    """
    group, _, last = name.rpartition("/")
    if group == "train":
        return _TRAINING.get(last, "")
    known = (text for pattern, text in _EVALUATION if re.fullmatch(pattern, last))
    return next(known, "") if group.startswith("eval/") else ""
