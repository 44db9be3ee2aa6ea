"""The examples of docs/api.md do what they say."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import cv2
import pytest

from sphereface.alignment.mtcnn import find_weights
from sphereface.checkpoint import sha256_of
from sphereface.data.orl import find_orl
from sphereface.errors import UserError
from sphereface.evaluation.calibration import Calibration, Threshold, write_calibration

from .evaluation.checkpoints import write_checkpoint

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def prepare(folder: Path) -> None:
    """Put the files that the page names into a folder."""
    samples = pytest.importorskip("sklearn.datasets")
    try:
        orl = find_orl()
        find_weights()
    except UserError as error:
        pytest.skip(str(error))
    checkpoint = write_checkpoint(folder / "best.pt", input_size=(112, 96))
    for name, source in (("a.jpg", "s33/1.pgm"), ("b.jpg", "s33/5.pgm")):
        cv2.imwrite(str(folder / name), cv2.imread(str(orl / source)))
    flower = Path(samples.__file__).parent / "images" / "flower.jpg"
    shutil.copy(flower, folder / "flower.jpg")
    known = Calibration(sha256_of(checkpoint), True, "pairs.txt", 6.7, -2.3, 0.5, (Threshold(0.1, 0.35, 0.86, 450),))
    write_calibration(known, folder / "evaluated.calibration.json")


def test_every_example_gives_what_the_page_says(tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "docs/api.md", str(PAGE), 0)
    assert len(blocks) >= 6
    assert len(examples.examples) >= 20
    output: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(examples, out=output.append)
    assert results.failed == 0, "".join(output)
