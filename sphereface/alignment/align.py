"""Align a folder of photographs: every picture with landmarks to one crop of the same name, in parallel.

A run can be killed at any time and started again: each crop is written whole or not at all, whole crops are
kept, and crops of other settings are never mixed in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
from tqdm import tqdm

from ..data.images import IMAGE_SUFFIXES, BadImage, decode
from ..errors import UserError
from .landmarks import LandmarkTable
from .report import (
    REPORT_NAME,
    AlignReport,
    Outcome,
    Settings,
    Status,
    earlier_settings,
    write_or_explain,
)
from .similarity import SPHEREFACE_SIZE, BadLandmarks, Image, Points, Size, align
from .workers import run_in_chunks


@dataclass(frozen=True)
class CropSpec:
    """What a crop looks like.

    Args:
        size: (height, width) in pixels, a key of ``similarity.TEMPLATES``.
        origin: what the template's numbers call the first pixel, 0 or 1.
        quality: of the JPEG, 1 to 100.
    """

    size: Size = SPHEREFACE_SIZE
    origin: int = 0
    quality: int = 95


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to align: its name relative to the folder, and its (5, 2) landmarks.

    The landmarks travel with the task, so that the table of all is held once, not in every worker.
    """

    name: str
    points: Points


def align_folder(
    source: Path,
    destination: Path,
    landmarks: LandmarkTable,
    spec: CropSpec = CropSpec(),
    *,
    workers: int = 0,
    progress: bool = False,
) -> AlignReport:
    """Align every picture below ``source`` into ``destination``; the report is written there too.

    ``source/a/b.png`` becomes ``destination/a/b.jpg``. Whole crops of an earlier run, settings alike, stay.

    Args:
        source: folder of pictures, of any depth.
        destination: folder for the crops, outside ``source``; made if absent.
        landmarks: names relative to ``source``.
        spec: size, template origin, quality.
        workers: processes; 0 aligns in this one.
        progress: show a bar on stderr.

    Raises:
        UserError: nothing could be aligned, ``destination`` holds other crops, or it cannot be written.
    """
    _check_folders(source, destination)
    names = list_pictures(source)
    tasks, failures = match(names, landmarks)
    report = AlignReport(_settings(spec, landmarks))
    _check_destination(destination, report.settings, tasks)
    for failure in failures:
        report.add(failure)
    report.save(destination, finished=False)  # a killed run has left its settings

    work = partial(make_crops, source=source, destination=destination, spec=spec)
    with tqdm(total=len(tasks), unit="picture", disable=not progress) as bar:
        for outcome in run_in_chunks(work, tasks, workers):
            report.add(outcome)
            bar.update()

    path = report.save(destination, finished=True)
    if not report.aligned + report.kept:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in report.failed_by_reason().items())
        raise UserError(f"{source}: none of {len(names)} pictures could be aligned ({reasons}) · see {path}")
    return report


def list_pictures(folder: Path) -> list[str]:
    """Find the pictures below ``folder``, told by suffix.

    Returns:
        Their names relative to it, with forward slashes, sorted.

    Raises:
        UserError: there are none.
    """
    names = []
    for parent, _, files in os.walk(folder):
        pictures = [file for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES]
        names += [(Path(parent) / file).relative_to(folder).as_posix() for file in pictures]
    if not names:
        raise UserError(f"{folder}: no pictures below it · allowed: {' '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(names)


def crop_name(name: str) -> str:
    """Return the crop's name for a picture's: the same, ending in .jpg."""
    return str(PurePosixPath(name).with_suffix(".jpg"))


def match(names: Sequence[str], landmarks: LandmarkTable) -> tuple[list[Task], list[Outcome]]:
    """Bring pictures and landmarks together.

    Returns:
        The pictures that can be tried, in order, and the failures known already: no landmarks, no picture for
        landmarks, two pictures that would become the same crop.
    """
    tasks: list[Task] = []
    failures: list[Outcome] = []
    taken: set[str] = set()
    for name in names:
        points, crop = landmarks.points.get(name), crop_name(name)
        if points is None:
            failures.append(Outcome(name, Status.NO_LANDMARKS))
        elif crop in taken:
            failures.append(Outcome(name, Status.NAME_TAKEN, f"another picture became {crop}"))
        else:
            taken.add(crop)
            tasks.append(Task(name, points))
    present = set(names)
    failures += [Outcome(name, Status.NO_PICTURE) for name in landmarks.points if name not in present]
    return tasks, failures


def make_crops(tasks: Sequence[Task], *, source: Path, destination: Path, spec: CropSpec) -> list[Outcome]:
    """Align some pictures one after the other; the work of one process."""
    return [make_crop(task, source, destination, spec) for task in tasks]


def make_crop(task: Task, source: Path, destination: Path, spec: CropSpec) -> Outcome:
    """Align one picture and write its crop, unless a whole one is there.

    Raises:
        UserError: the crop cannot be written.
    """
    path = destination / crop_name(task.name)
    if _is_whole_crop(path, spec.size):
        return Outcome(task.name, Status.KEPT)
    try:
        image = decode((source / task.name).read_bytes())
        crop = align(image, task.points, size=spec.size, origin=spec.origin)
    except OSError as error:
        return Outcome(task.name, Status.UNREADABLE, error.strerror or str(error))
    except (BadImage, cv2.error) as error:  # some OpenCV cannot warp what is over 32,767 pixels wide
        return Outcome(task.name, Status.UNREADABLE, str(error))
    except BadLandmarks as error:
        return Outcome(task.name, Status.BAD_LANDMARKS, str(error))
    write_or_explain(path, _encode(crop, spec.quality))
    return Outcome(task.name, Status.ALIGNED)


def _encode(crop: Image, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data.tobytes())


def _is_whole_crop(path: Path, size: Size) -> bool:
    try:
        return decode(path.read_bytes()).shape[:2] == size
    except (OSError, BadImage):
        return False


def _settings(spec: CropSpec, landmarks: LandmarkTable) -> Settings:
    """Everything that a crop's pixels depend on besides its picture."""
    return {
        "size": f"{spec.size[0]}x{spec.size[1]}",
        "template_origin": spec.origin,
        "quality": spec.quality,
        "landmarks_sha256": landmarks.digest,
    }


def _check_folders(source: Path, destination: Path) -> None:
    if not source.is_dir():
        raise UserError(f"{source}: not a folder · allowed: the folder of pictures")
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination}: a file · allowed: a folder for the crops")
    if destination.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{destination}: inside {source} · give one elsewhere: crops would be taken for pictures")


def _check_destination(destination: Path, settings: Settings, tasks: Sequence[Task]) -> None:
    """Refuse to mix these crops with those of other settings, or of unknown ones."""
    earlier = earlier_settings(destination)
    if earlier is None:
        crops = (destination / crop_name(task.name) for task in tasks)
        strange = next((crop for crop in crops if crop.exists()), None)
        if strange is not None:
            raise UserError(f"{strange}: there already, and no {REPORT_NAME} tells how made · give an empty folder")
    elif earlier != settings:
        changed = [
            f"{key} {earlier.get(key)}, now {value}" for key, value in settings.items() if earlier.get(key) != value
        ]
        raise UserError(f"{destination}: holds crops of {'; '.join(changed)} · give another folder, or delete this one")
