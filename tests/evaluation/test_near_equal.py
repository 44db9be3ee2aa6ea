import cv2
import numpy as np

from sphereface.evaluation import near_equal as module
from sphereface.evaluation.near_equal import nearly_equal

from .folders import LFW, needs_lfw


def smooth(seed, height=112, width=96):
    """A face-like image: large soft patches."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write(folder, *images, quality=95):
    folder.mkdir(exist_ok=True)
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number}.jpg")
        cv2.imwrite(str(files[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return files


def test_a_photograph_compressed_anew_is_found_under_another_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 2)  # blocks meet
    files = [*write(tmp_path / "a", *(smooth(k) for k in range(5))), *write(tmp_path / "b", smooth(3), quality=40)]
    person = np.array([0, 0, 1, 1, 2, 3])
    ((value, left, right),) = nearly_equal(files, person)
    assert (left, right) == (3, 5)
    assert 0.97 < value < 1
    assert nearly_equal(files, np.array([0, 0, 1, 3, 2, 3])) == []  # one person: no error of the set


def test_an_image_of_one_colour_or_that_cannot_be_read_is_like_none(tmp_path):
    grey = np.full((112, 96, 3), 80, np.uint8)
    files = write(tmp_path / "a", grey, grey, smooth(1))
    files[2].write_bytes(b"no image")
    assert nearly_equal([*files, tmp_path / "none.jpg"], np.arange(4)) == []


@needs_lfw
def test_lfw_has_five():
    names = (
        *("Emmy_Rossum/Emmy_Rossum_0001", "Eva_Amurri/Eva_Amurri_0001", "Bart_Hendricks/Bart_Hendricks_0001"),
        *("Ricky_Ray/Ricky_Ray_0001", "Gabrielle_Rose/Gabrielle_Rose_0001", "Martha_Bowen/Martha_Bowen_0002"),
        *("Andrew_Caldecott/Andrew_Caldecott_0001", "Andrew_Gilligan/Andrew_Gilligan_0001"),
        *("Carlos_Beltran/Carlos_Beltran_0001", "Raul_Ibanez/Raul_Ibanez_0001"),
    )
    others = [f"{folder.name}/{folder.name}_0001" for folder in sorted(LFW.iterdir())[:300]]
    chosen = [*names, *(name for name in others if name not in names)]
    found = nearly_equal([LFW / f"{name}.jpg" for name in chosen], np.arange(len(chosen)))
    assert sorted((left, right) for _, left, right in found) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
