"""docs/tutorial.ipynb runs from start to end and prints what its text states."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sphereface.data.orl import find_orl
from sphereface.errors import UserError

from .test_language import ANY_BANNED, MOST_COLUMNS, MOST_WORDS, paragraphs_of_page, sentences

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra: dev)")
NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
LARGEST = 150_000  # bytes, with the stored outputs


def load():
    return nbformat.read(NOTEBOOK, as_version=4)


def printed(notebook):
    """The text that the cells print to standard output."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


def check_output(text):
    """Two images of one person match, two people do not; the network learned; the export agrees."""
    assert re.search(r"^s31_0001 and s31_0009: cosine 0\.\d+, one person at FAR ", text, re.MULTILINE)
    assert re.search(r"^s31_0001 and s32_0001: cosine -?0\.\d+, two people at FAR ", text, re.MULTILINE)
    assert re.search(r"^ *1 +1\.0000 +orl/verify/s31/s31_0001\.png$", text, re.MULTILINE)
    accuracy = re.search(r"^ accuracy +([\d.]+) ± ", text, re.MULTILINE)
    assert float(accuracy[1]) > 75  # a guess gives 50
    difference = re.search(r"^largest difference from PyTorch: (\S+) ", text, re.MULTILINE)
    assert float(difference[1]) < 1e-4


def test_the_notebook_runs(tmp_path, monkeypatch):
    """In its own process; all its files go to a temporary folder."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra: dev)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra: dev)")
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra: export)")
    try:
        find_orl()
    except UserError as error:
        pytest.skip(str(error))
    notebook = load()
    folder, temporary = tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=None, resources=where, kernel_name="python3").execute()
    check_output(printed(notebook))
    assert list(folder.iterdir()) == []


def test_the_stored_outputs_are_those_of_a_run():
    notebook = load()
    check_output(printed(notebook))
    assert NOTEBOOK.stat().st_size < LARGEST
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not re.search(r"/home/|/root/|/tmp/|/work/|[A-Z]:\\", printed(notebook))


def test_the_text_of_the_notebook_is_plain():
    text = "\n\n".join(cell.source for cell in load().cells if cell.cell_type == "markdown")
    assert not ANY_BANNED.findall(re.sub(r"`[^`]*`", "", text))
    assert max(map(len, text.splitlines())) <= MOST_COLUMNS
    assert max(words for words, _ in sentences(paragraphs_of_page(text))) <= MOST_WORDS


def test_the_pages_that_the_notebook_links_to_are_there():
    text = "\n".join(cell.source for cell in load().cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^()\s]+)\)", text)
    assert len(links) >= 5
    assert all((NOTEBOOK.parent / link).is_file() for link in links)
