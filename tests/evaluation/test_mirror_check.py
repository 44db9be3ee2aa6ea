"""The mirror rows of a table belong to its embeddings: zeros are refused, other images' rows are told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from eval_lfw import main
from sphereface.cli import main as console
from sphereface.errors import UserError
from sphereface.evaluation.embedding_table import EmbeddingTable

ORL = Path(__file__).parents[2] / "data/orl-112x96/verify"
NAMES = [f"p{k // 10:03d}/{k % 10}.png" for k in range(1000)]
ORDER = "the rows are hardly nearer to their own embeddings than those of other images: AUC "
NOT_FLIPPED = "rows are equal to those of embeddings: it seems that the images were not flipped"


def faces(num: int = 1000, *, person: float = 1.0, image: float = 1.0, mirror: float = 0.5, dim: int = 32):
    """Embeddings of ten images of each person, and those of their mirror images."""
    rng = np.random.default_rng(0)
    rows = person * rng.standard_normal((num // 10, dim)).repeat(10, axis=0) + image * rng.standard_normal((num, dim))
    return rows.astype(np.float32), (rows + mirror * rng.standard_normal((num, dim))).astype(np.float32)


def told(tmp_path, caplog, image, rows, mirror=None) -> list[str]:
    caplog.clear()
    path = tmp_path / "t.npz"
    np.savez(path, names=NAMES[: len(image)], embeddings=image, mirror=rows)
    with caplog.at_level(logging.WARNING):
        EmbeddingTable(path, mirror=mirror)
    return [line.removeprefix(f"{path}: mirror: ") for line in caplog.messages]


@pytest.mark.parametrize("half", ["embeddings", "mirror"])
def test_zeros_in_one_array_are_refused(tmp_path, caplog, half):
    """They are told by a loop over the rows; not finite rows are left to the evaluation."""
    arrays = dict(zip(("embeddings", "mirror"), faces(40), strict=True))
    arrays[half][25:30] = 0
    arrays["embeddings"][[2, 26]], arrays["mirror"][[3, 27]] = np.nan, np.inf
    arrays["embeddings"][4] = arrays["mirror"][4] = 0  # without a face: both are zero
    with pytest.raises(UserError) as raised:
        told(tmp_path, caplog, *arrays.values())
    wrong = [
        row for row, (a, b) in enumerate(zip(*arrays.values(), strict=True))
        if (not any(a)) != (not any(b)) and np.isfinite([*a, *b]).all()
    ]  # fmt: skip
    assert wrong == [25, 28, 29]
    assert str(raised.value) == (
        f"{tmp_path / 't.npz'}: 3 of 40 images have zeros in only one of the arrays embeddings and mirror, such as row "
        "25, p002/5.png · allowed: both embeddings, or zeros in both arrays · embed these images again, or leave out "
        "the mirror images (eval: --mirror none)"
    )
    assert told(tmp_path, caplog, *arrays.values(), mirror="none") == []
    for each in arrays.values():
        each[25:30] = 0
    assert told(tmp_path, caplog, *arrays.values()) == []


def test_rows_in_another_order_are_told(tmp_path, caplog):
    image, mirror = faces()
    (line,) = told(tmp_path, caplog, image, np.random.default_rng(1).permutation(mirror))
    head, _, rest = line.partition("AUC ")
    assert head + "AUC " == ORDER
    assert float(rest.split()[0]) == pytest.approx(0.5, abs=0.1)
    assert told(tmp_path, caplog, image, mirror[::-1], mirror="none") == []
    begin = np.concatenate([mirror[:750], mirror[750:][::-1]])  # from row 750 on
    (line,) = told(tmp_path, caplog, image, begin)
    assert " from row 875, p087/5.png, to row 999 " in line


def test_the_figure_is_that_of_own_and_other_rows(tmp_path, caplog):
    """By a loop over all pairs of a table that is one part."""
    image, mirror = faces(150)
    mirror = mirror[np.random.default_rng(2).permutation(150)]
    (line,) = told(tmp_path, caplog, image, mirror)
    wins = []
    for row, vector in enumerate(image.astype(np.float64)):
        scores = [vector @ other / np.linalg.norm(other) for other in mirror.astype(np.float64)]
        wins += [scores[row] > score for at, score in enumerate(scores) if at != row]
    assert line.startswith(f"{ORDER}{np.mean(wins):.3f} from row 0, p000/0.png, to row 149 (")


@pytest.mark.parametrize("shift", [1, -1, 2, 7])
@pytest.mark.parametrize("begin", [0, 600])
def test_rows_that_slipped_are_told(tmp_path, caplog, shift, begin):
    """Most images of a person stand beside each other, so a slipped row is nearer than most others."""
    image, mirror = faces()
    wrong = np.concatenate([mirror[:begin], np.roll(mirror[begin:], shift, axis=0)])
    (line,) = told(tmp_path, caplog, image, wrong)
    first = 0 if begin == 0 else 625
    assert f"from row {first}, p{first // 10:03d}/{first % 10}.png, to row {first + 124} are nearer to the" in line
    assert f" mirror row {abs(shift)} {'after' if shift > 0 else 'before'} their own · check " in line
    assert int(line.partition("%")[0]) >= 90


def test_a_forgotten_flip_is_told(tmp_path, caplog):
    image, mirror = faces()
    (line,) = told(tmp_path, caplog, image, image)
    assert line.startswith(f"1,000 of 1,000 compared {NOT_FLIPPED}")
    (line,) = told(tmp_path, caplog, image, np.concatenate([mirror[:600], image[600:]]))
    assert line.startswith(f"400 of 1,000 compared {NOT_FLIPPED}")
    assert len(told(tmp_path, caplog, image[:4], image[:4])) == 1


@pytest.mark.parametrize(
    "sizes",
    [
        {"mirror": 0.01},  # a symmetric network
        {"image": 0.05, "mirror": 0.03},  # images of a person are hardly apart, as the frames of a video
        {"person": 0.0},
        {"mirror": 8.0},  # a weak network: AUC 0.75
        {"num": 60},
        {"num": 20, "mirror": 100.0},  # too few
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_good_tables_are_silent(tmp_path, caplog, sizes, dtype):
    image, mirror = (rows.astype(dtype) for rows in faces(**sizes))
    assert told(tmp_path, caplog, image, mirror) == []
    image[::9], mirror[::7] = np.nan, np.inf
    assert told(tmp_path, caplog, image, mirror) == []


def test_tables_that_tell_nothing_are_silent(tmp_path, caplog):
    image, mirror = faces()
    assert told(tmp_path, caplog, image[[0] * 500], mirror[[0] * 500]) == []  # one image
    for value in (0, np.nan):
        assert told(tmp_path, caplog, np.full_like(image, value), np.full_like(image, value)) == []
    image[::3] = mirror[::3] = image[0]  # crops of one colour are their own mirror images
    assert told(tmp_path, caplog, image, mirror) == []


def test_a_table_of_real_faces(tmp_path, caplog, capsys):
    """What ``sphereface embed`` writes of the ORL faces is silent, and a wrong order is told by ``eval``."""
    if not ORL.is_dir():
        pytest.skip(f"the ORL faces are not in {ORL}")
    table, wrong = tmp_path / "t.npz", tmp_path / "wrong.npz"
    assert console(["embed", str(ORL), str(table), "--aligned", "--device", "cpu"]) == 0
    EmbeddingTable(table)
    assert caplog.messages == []
    with np.load(table) as file:
        arrays = dict(file)
    np.savez(wrong, **arrays | {"mirror": arrays["mirror"][::-1]})
    capsys.readouterr()
    main(["--embeddings", str(wrong), "--sets", f"orl={ORL}", "--output", str(tmp_path / "out")])
    assert [line.count(ORDER) for line in caplog.messages + capsys.readouterr().err.splitlines()].count(1) == 1
