"""The model card: each part of it for what is known, and no other."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sphereface.export.card import Exported, Quantised, card
from sphereface.export.formats import Export
from sphereface.export.graph import InputFormat
from sphereface.input_spec import InputSpec

SHA = "ab" * 32
REPORT = {
    "checkpoint_sha256": SHA, "name": "lfw", "pairs": "/data/pairs.txt", "num_images": 13233, "accuracy": 0.9653,
    "standard_error": 0.0034, "auc": 0.99123, "eer": 0.0345, "tar_at_far": [{"far": 0.001, "tar": 0.5}], "other": 1,
}  # fmt: skip
PROTOCOL = (
    "Unless its row says otherwise, an evaluation joins the embeddings of image and mirror image, centres them, and "
    "computes in fp32."
)


def card_of(folder: Path, *, dtype="float32", mirror="none", size=(112, 96), meta=None, **more) -> str:
    model = SimpleNamespace(input_spec=InputSpec(*size, "rgb"), embedding_dim=8)
    export = Export(model, InputFormat(dtype=dtype), mirror)
    given = {"file_format": "onnx", "difference": 1.5e-6, **more}
    checkpoint = folder / "best.pt"
    return card(Exported(folder / "best.onnx", given.pop("file_format"), export, checkpoint, SHA, meta or {}, **given))


def evaluated(folder: Path, **changes) -> None:
    (folder / "eval-lfw").mkdir()
    (folder / "eval-lfw/verification.json").write_text(json.dumps({**REPORT, **changes}))


def test_what_is_not_known_is_said(tmp_path):
    text = card_of(tmp_path)
    assert text.startswith("# best.onnx\n\nA `spherenet` network for face recognition: it turns an aligned face crop")
    assert f"Exported from `best.pt`, step unknown, SHA-256 `{SHA}`.\n\n## Input and output\n\n- `images`: (B, " in text
    assert (
        "\n\n## Training data\n\nNot recorded.\n\n## Recipe\n\n```yaml\n{}\n```\n\n## Evaluation\n\nThere is no" in text
    )
    assert "so its accuracy is unknown. `sphereface eval --ckpt best.pt` evaluates it.\n\n## Intended use\n\n" in text
    assert text.endswith("and most public face datasets allow research only.\n")
    assert "{" not in text.replace("```yaml\n{}", "")


@pytest.mark.parametrize(
    ("train", "names"), [("/data/casia", "`casia`"), (["/data/casia", "/data/own.zip"], "`casia`, `own.zip`")]
)
def test_the_card_names_every_training_set(tmp_path, train, names):
    meta = {"config": {"data": {"train": train}}, "class_names": ["a", "b"], "num_images": 8}
    assert f"\n\n{names}, 8 images of 2 people.\n" in card_of(tmp_path, meta=meta)


def test_a_row_for_each_evaluation_of_this_checkpoint(tmp_path):
    evaluated(tmp_path)
    head = "| pairs | images | accuracy (± standard error) | AUC | EER | TAR at FAR |\n|---|---|---|---|---|---|\n"
    row = "| lfw, pairs.txt | 13,233 | 96.53 ± 0.34 % | 0.9912 | 3.45% | 50.00% at 0.001 |\n\n"
    assert f"{head}{row}{PROTOCOL}\n\n## Intended use" in card_of(tmp_path)


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"accuracy": None}, "| lfw, pairs.txt, not centred | 13,233 | none (no folds) |"),
        ({"standard_error": None}, "| 96.53 % |"),
        ({"auc": None}, "| not resolvable | 3.45% |"),
        ({"eer": None}, "| 0.9912 | not resolvable |"),
        ({"tar_at_far": [{"far": 0.1, "tar": None}]}, "| 3.45% | not resolvable |"),
        ({"tar_at_far": [{"far": 0.1, "tar": 1}, {"far": 0.01, "tar": 0.5}]}, "| 100.00% at 0.1, 50.00% at 0.01 |"),
        ({"mirror": "join", "flip": True, "subtract_mean": True, "precision": "fp32"}, "\n| lfw, pairs.txt | 13,233 |"),
        (
            {"mirror": "none", "flip": False, "subtract_mean": False},
            "| lfw, pairs.txt, no mirror image, not centred | ",
        ),
        ({"flip": False}, "| lfw, pairs.txt, no mirror image | "),
        ({"mirror": "add", "flip": True}, "| lfw, pairs.txt, mirror image added | "),
        ({"precision": "bf16"}, "| lfw, pairs.txt, bf16 | "),
        ({"name": "a|b"}, "| a¦b, pairs.txt |"),
        ({"name": "a\nb {{ e }}"}, r"| 'a\nb {{ e }}', pairs.txt |"),
    ],
)
def test_figures_that_are_missing_and_names_that_would_break_the_table(tmp_path, changes, cells):
    evaluated(tmp_path, **changes)
    assert cells in card_of(tmp_path)


def test_evaluations_that_are_not_of_pairs_have_a_line_each(tmp_path):
    for folder, changes in (
        ("eval/rfw", {"name": "rfw", "headline": "mean accuracy of groups 93.20 %"}),
        ("eval/all|", {"name": "a|b", "headline": "TAR at FAR 1e-4 50.00 %"}),
        ("eval/old", {"name": "old"}),  # of an earlier version
        ("eval/other", {"name": "other", "headline": "x", "checkpoint_sha256": "cd" * 32}),
        ("eval/bad", {"name": 3, "headline": "x"}),
    ):
        (tmp_path / folder).mkdir(parents=True)
        values = {"checkpoint_sha256": SHA, "num_undefined_embeddings": 0, **changes}
        (tmp_path / folder / "groups.json").write_text(json.dumps(values))
    (tmp_path / "eval/suite.json").write_text(json.dumps({"checkpoint_sha256": SHA, "name": "suite"}))
    (tmp_path / "eval/broken.json").write_text("{")
    lines = (
        "Evaluations of other kinds; the `table.txt` in its folder has the rule of each:\n\n"
        "- a¦b (`eval/all¦`): TAR at FAR 1e-4 50.00 %\n- old (`eval/old`): see groups.json\n"
        "- rfw (`eval/rfw`): mean accuracy of groups 93.20 %\n"
    )
    assert f"## Evaluation\n\n{lines}\n## Intended use" in card_of(tmp_path)
    assert f"{lines}\nThese figures are for the 32-bit network." in card_of(tmp_path, dtype="float16")
    evaluated(tmp_path)
    assert f"|\n\n{PROTOCOL}\n\n{lines}\n## Intended use" in card_of(tmp_path)


@pytest.mark.parametrize("changes", [{"checkpoint_sha256": "cd" * 32}, {"accuracy": "high"}, {"tar_at_far": None}])
def test_a_report_of_another_checkpoint_or_a_damaged_one_is_left_out(tmp_path, changes):
    evaluated(tmp_path, **changes)
    assert "There is no evaluation beside this checkpoint" in card_of(tmp_path)


def test_figures_of_the_whole_network_are_not_those_of_a_copy_in_lower_precision(tmp_path):
    evaluated(tmp_path)
    sentence = "These figures are for the 32-bit network. The copy in lower precision was not evaluated."
    int8 = Quantised(tmp_path / "best-int8.onnx", np.array([0.999, 0.98765, 0.9963]))
    assert sentence not in card_of(tmp_path)
    assert f"|\n\n{PROTOCOL}\n\n{sentence}\n\n## Intended use" in card_of(tmp_path, dtype="float16")
    text = card_of(tmp_path, quantised=int8)
    assert sentence in text
    assert "\n\n`best-int8.onnx` is the same network in 8-bit integers (QDQ format)." in text
    assert "On 3 calibration crops, its smallest cosine with the 32-bit network is 0.988, the median 0.996." in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mirror": "none"}, "\nThe file embeds the crop alone."),
        ({"mirror": "add"}, "\nThe file adds the embeddings of the crop and of its mirror image."),
        ({"mirror": "join"}, "\nThe file joins the embeddings of the crop and of its mirror image, as"),
        ({"mirror": "join"}, "- `embedding`: (B, 16) float32, not normalised.\n"),
        ({}, "- Channel order: feed BGR; the network was trained on RGB. The graph converts BGR to RGB.\n"),
        ({}, "- ONNX opset 17, IR version 8.\n- Largest difference from PyTorch in float32: 1.5e-06 of"),
        (
            {"file_format": "torchscript", "difference": None},
            "- Weights and arithmetic: float32.\n\nCrops are 112 high",
        ),
        ({"file_format": "safetensors"}, "Weights only: the network reads (B, 3, 112, 96) float32 ="),
        ({"size": (112, 112)}, "to ArcFace's template (`sphereface align --size 112x112`)"),
        ({"size": (64, 64)}, "aligned by five landmarks to the template of the training crops."),
        (
            {"meta": {"init_from": {"file": "arcface.pt", "sha256": SHA}}},
            f"\n\nTraining started from `arcface.pt` (SHA-256 `{SHA}`). The images on which that network "
            "was trained before are not counted here.\n\n## Recipe",
        ),
        (
            {"meta": {"config": {"train": {"init_from": "/home/ann/x.pt"}}}},
            "\n\nTraining started from another network. The images on which that network was trained before are not "
            "counted here.\n",
        ),
        (
            {"meta": {"taught_by": {"file": "t.pt", "sha256": SHA, "data": "`web`, 300 images of 30 people"}}},
            f"\n\nIt learned from the embeddings of a teacher, `t.pt` (SHA-256 `{SHA}`). The teacher was trained on "
            "`web`, 300 images of 30 people.\n\n## Recipe",
        ),
        (
            {"meta": {"teacher": SHA, "config": {"train": {"teacher": {"onnx": "/home/ann/t.onnx"}}}}},
            f"\n\nIt learned from the embeddings of a teacher, `t.onnx` (SHA-256 `{SHA}`). On which images the "
            "teacher was trained is not recorded.\n\n## Recipe",
        ),
        (
            {"meta": {"config": {"train": {"teacher": {"losses": {"l2": 1.0}}}}}},  # exported by an earlier version
            "\n\nIt learned from the embeddings of a teacher. On which images the teacher was trained is not recorded.",
        ),
        ({"meta": {"config": {"train": {"teacher": {"losses": {}, "onnx": None}}}}}, "Not recorded.\n\n## Recipe"),
        ({"meta": {"config": {"model": {"name": "ir", "networks": 3}}}}, "An ensemble of 3 `ir` networks for face"),
        ({"meta": {"num_identities": 4000, "num_images": 50000}}, "\n50,000 images of 4,000 people.\n"),
        ({"licence": "CC {{ 1 + 1 }} <b>"}, "## Licence\n\nCC {{ 1 + 1 }} <b>\n"),
    ],
)
def test_what_is_known_is_said(tmp_path, settings, words):
    assert words in card_of(tmp_path, **settings)
