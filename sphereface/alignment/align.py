"""Align a folder of photographs in parallel: each image with landmarks becomes a crop of that name.

A killed run can be started again. Each crop is written whole or not at all. The next run keeps
whole crops and never mixes in crops of other settings.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from ..data.images import IMAGE_SUFFIXES
from ..data.walking import Walked, walk_images
from ..errors import UserError, count_of, printable, shown_key
from ..files import locked
from .crop import Cropper, CropSpec, Finder, Task, crop_name
from .found_landmarks import LANDMARKS_NAME, FoundLandmarks, content_digest
from .landmarks import LandmarkTable, can_hold, likely_images, named_as
from .orders import refuse_wrong_landmarks, warn_of_exif
from .report import REPORT_NAME, AlignReport, Outcome, Settings, Status, earlier_run, earlier_settings, explained
from .similarity import Points
from .workers import run_in_chunks

log = logging.getLogger(__name__)

LOCK_NAME = ".align.lock"
CHUNK = 32  # images per chunk of a worker: a crop takes about 1 ms, and so does its transfer
DETECTION_CHUNK = 4  # detection takes tens of milliseconds an image
DEFAULT_SPEC = CropSpec()
_SAMPLED = 16  # images whose content the report keeps


@dataclass(frozen=True)
class Landmarks:
    """Where the five points of an image come from; one of ``table`` and ``finder`` is set.

    Args:
        table: landmarks by image name, relative to the folder of images.
        finder: a detector, and which face to use if there are several.
        centre: crop the centre of an image that has no landmarks, or useless ones.
        other: landmarks for such images.
    """

    table: LandmarkTable | None = None
    finder: Finder | None = None
    centre: bool = False
    other: LandmarkTable | None = None


def align_folder(
    source: Path,
    destination: Path,
    landmarks: LandmarkTable | Landmarks,
    spec: CropSpec = DEFAULT_SPEC,
    *,
    workers: int = 0,
    progress: bool = False,
) -> AlignReport:
    """Align every image below ``source`` into ``destination``, and write the report there.

    ``source/a/b.png`` becomes ``destination/a/b.jpg``. Whole crops of an earlier run with the same
    settings are kept. With a detector, the landmarks of all crops are written to
    ``destination/landmarks.txt``.

    Args:
        source: folder of images, of any depth.
        destination: folder for the crops, outside ``source``; created if absent.
        landmarks: the landmarks of the images, or how to find them.
        spec: size, template, quality.
        workers: number of processes; 0 aligns in this one.
        progress: show a progress bar on stderr.

    Raises:
        UserError: most landmarks of a table do not fit their images, no image could be aligned,
            ``destination`` holds other crops, another process aligns into it, or it cannot be
            written. Only a failed write and "no image could be aligned" can occur after the first
            crop.
    """
    if isinstance(landmarks, LandmarkTable):
        landmarks = Landmarks(table=landmarks)
    check_folders(source, destination)
    walked = list_images(source)
    table, other = (each and named_as(each, walked.names, source) for each in (landmarks.table, landmarks.other))
    landmarks = replace(landmarks, table=table, other=other)
    warnings = [*_check_tables(walked.names, landmarks, source), *filter(None, [walked.without_images()])]
    report = AlignReport(_settings(spec, landmarks), not_read=walked.not_read(), warnings=warnings)
    report.source, report.sample = str(source.resolve()), _sample(source, walked.names)
    with writer_lock(destination):
        report.warnings += _check_destination(destination, report.settings, walked.names)
        work = Cropper(source, destination, spec, landmarks.finder, landmarks.centre)
        _check_source(work, walked.names)
        _align_all(work, walked.names, landmarks, report, workers=workers, progress=progress)
    if not report.crops:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in report.failed_by_reason().items())
        path = destination / REPORT_NAME
        meant = next((each for each in report.failures if each.reason == Status.NO_IMAGE.value and each.detail), None)
        advice = f"the landmarks name {shown_key(meant.file)}: {meant.detail} · " if meant else ""
        raise UserError(
            f"{source}: none of {len(walked.names)} images could be aligned ({reasons}) · {advice}see {path}"
        )
    return report


def _align_all(
    work: Cropper, names: Sequence[str], landmarks: Landmarks, report: AlignReport, *, workers: int, progress: bool
) -> None:
    """Make all crops; write the report, and the landmarks of a detector, beside them."""
    folder = work.destination
    finds = landmarks.finder is not None
    keeper = FoundLandmarks(folder, work.is_current, names, work.source) if finds else None
    with closing(keeper) if keeper else nullcontext() as found:
        known, edited = (found.known, {**found.edited, **found.missing}) if found else ({}, {})
        tasks, failures = match(names, landmarks, known, edited)
        for failure in failures:
            report.add(failure)
        if found:
            report.corrected = found.stamps
            report.warnings += found.warnings()
        report.save(folder, finished=False)  # so that the next run knows the settings if this one is killed
        chunk = DETECTION_CHUNK if found else CHUNK
        with tqdm(total=len(tasks), unit="image", disable=not progress) as bar:
            for outcome in run_in_chunks(work, tasks, workers, chunk=chunk):
                report.add(found.add(outcome) if found else outcome)
                bar.update()
    if found:
        corrected = found.corrected()
        report.corrected = {**found.stamps, **corrected}  # right beside the earlier landmarks and beside the new
        report.save(folder, finished=False)
        report.warnings += found.write_landmarks()
        report.corrected = corrected
    report.save(folder, finished=True)
    if found:
        found.forget()


def list_images(folder: Path) -> Walked:
    """Find the images below ``folder`` by their suffix, and count the files that are not read.

    Raises:
        UserError: there are no images, or a folder cannot be read.
    """
    walked = walk_images(folder)
    if not walked.names:
        not_read = f" ({walked.not_read()})" if walked.skipped else ""
        raise UserError(f"{folder}: contains no images{not_read} · allowed: {' '.join(sorted(IMAGE_SUFFIXES))}")
    return walked


def _check_tables(names: Sequence[str], landmarks: Landmarks, source: Path) -> list[str]:
    """Refuse tables of landmarks in a wrong order, and return the warnings."""
    warnings = []
    for table in (landmarks.table, landmarks.other):
        if table is not None:
            points = {name: table.points[name] for name in names if name in table.points}
            warnings += [
                refuse_wrong_landmarks(points, source, table.source),
                warn_of_exif(points, source, table.source),
            ]
    return [warning for warning in warnings if warning]


def match(
    names: Sequence[str], landmarks: Landmarks, found: Mapping[str, Points], edited: Mapping[str, Points]
) -> tuple[list[Task], list[Outcome]]:
    """Pair images with their landmarks.

    Args:
        names: names of the images.
        landmarks: where the landmarks come from.
        found: landmarks that a detector found in earlier runs.
        edited: landmarks that somebody corrected since.

    Returns:
        The images that can be tried, in order, and the failures that are already known: no
        landmarks, no image for landmarks, two images with the same crop name, a name that no
        landmark file can hold.
    """
    tasks: list[Task] = []
    failures: list[Outcome] = []
    taken: set[str] = set()
    given = landmarks.table.points if landmarks.table else edited
    other = landmarks.other.points if landmarks.other else {}
    helped = landmarks.finder is not None or landmarks.centre
    for name in names:
        points, crop = given.get(name, found.get(name)), crop_name(name)
        if points is None and not helped and name not in other:
            failures.append(Outcome(name, Status.NO_LANDMARKS))
        elif landmarks.finder and not can_hold(name):
            failures.append(Outcome(name, Status.UNWRITABLE_NAME, "rename it"))
        elif crop in taken:
            failures.append(Outcome(name, Status.NAME_TAKEN, f"another image became {crop}"))
        else:
            taken.add(crop)
            tasks.append(Task(name, points, other.get(name), name in edited))
    present = set(names)
    missing = [name for name in given if name not in present]
    likely = likely_images(missing, names)
    failures += [
        Outcome(name, Status.NO_IMAGE, f"did you mean {likely[name]}?" if name in likely else "") for name in missing
    ]
    return tasks, failures


def _settings(spec: CropSpec, landmarks: Landmarks) -> Settings:
    """Return everything besides the image that a crop's pixels depend on."""
    size = f"{spec.size[0]}x{spec.size[1]}"
    settings: dict[str, str | int] = {"size": size, "template_origin": spec.origin, "quality": spec.quality}
    if spec.target is not None:
        settings["template"] = " ".join(f"{x:g},{y:g}" for x, y in spec.target)
    if landmarks.table:
        settings["landmarks_sha256"] = landmarks.table.digest
    if landmarks.finder:
        settings |= {"detector": landmarks.finder.detector.name, "pick": landmarks.finder.pick}
        if landmarks.finder.skip_several:
            settings["on_several"] = "skip"
    if landmarks.centre:
        settings["on_failure"] = "centre"
    if landmarks.other:
        settings["on_failure"] = f"landmarks {landmarks.other.digest}"
    return settings


def check_folders(source: Path, destination: Path) -> None:
    """Check the folder of images and the folder for their crops.

    Raises:
        UserError: ``source`` is not a folder, or ``destination`` is a file or inside ``source``.
    """
    if not source.is_dir():
        raise UserError(f"{source}: not a folder · allowed: the folder of images")
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination}: a file · allowed: a folder for the crops")
    if destination.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{destination}: inside {source} · give a folder elsewhere, or crops would count as images")


def _sample(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of a few images, by which a later run knows the set in another place."""
    digests = {name: content_digest(source / name) for name in names[:: -(-len(names) // _SAMPLED)]}
    return {name: digest for name, digest in digests.items() if digest}


def _check_source(work: Cropper, names: Sequence[str]) -> None:
    """Refuse photographs that would replace the crops of others; in the same folder, warn.

    One that contains some images of the earlier run is accepted. Only ``names`` are read, since a
    report of a stranger may name any file.
    """
    source, destination = work.source, work.destination
    earlier, present = earlier_run(destination), set(names)
    if not (earlier and earlier.sample):
        return
    common = [name for name in earlier.sample if name in present]
    if any(content_digest(source / name) == earlier.sample[name] for name in common):
        return
    if earlier.source == str(source.resolve()):  # perhaps another memory card at the same place
        old = [name for name in names if (destination / crop_name(name)).exists() and not work.is_current(name)]
        if old and len(common) > 1:  # one image may have been edited
            log.warning(
                "%s: none of %d images has the content that %s records, so the crops of %s replaced, e.g. %s · if they "
                "are other photographs, stop this run, and give another folder for their crops",
                *(printable(str(source)), len(common), destination / REPORT_NAME),
                *(count_of(len(old), "image are", "images are"), printable(crop_name(old[0]))),
            )
    elif walk_images(destination).names:
        raise UserError(
            f"{destination}: holds crops of {printable(earlier.source)}, none of whose images is in {source} under its "
            "name · allowed: the same folder, also in another place, with more or fewer images · give another folder "
            "for the crops, or put all photographs into one folder"
        )


def _check_destination(destination: Path, settings: Settings, names: Sequence[str]) -> list[str]:
    """Refuse to mix these crops with others, or to write outside the folder.

    Returns:
        A warning about images there that are crops of none of ``names``, if there are any.
    """
    root = destination.resolve()
    crops = {crop_name(name) for name in names}
    for parent in set(map(os.path.dirname, crops)):  # strings, for speed
        if not (destination / parent).resolve().is_relative_to(root):
            raise UserError(f"{destination / parent}: a link to another folder · delete it, or give another folder")
    earlier = earlier_settings(destination)
    if earlier is None:
        ours = [LANDMARKS_NAME] * ("detector" in settings) + [crop_name(name) for name in names]
        strange = next((path for path in map(destination.joinpath, ours) if path.exists()), None)
        if strange is not None:
            raise UserError(
                f"{strange}: exists, but without an {REPORT_NAME}, so its settings are unknown · give an empty folder"
            )
    elif earlier != settings:
        values = {key: (earlier.get(key, "none"), settings.get(key, "none")) for key in {**settings, **earlier}}
        changed = [f"{key} {was}, now {now}" for key, (was, now) in values.items() if was != now]
        raise UserError(
            f"{destination}: holds crops of other settings ({'; '.join(changed)}) · "
            "give another folder, or delete this one"
        )
    left = [name for name in walk_images(destination).names if name not in crops]
    if not left:
        return []
    return [
        f"{len(left):,} images in {destination} are not crops of any source image, e.g. {min(left)} · "
        "they were kept; delete the ones that you do not need"
    ]


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of crops, which is created if absent.

    The lock of a killed process ends with it.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: not a regular file · delete it")
    with ExitStack() as stack:
        with explained(path):
            alone = stack.enter_context(locked(path))
        if not alone:
            raise UserError(f"{folder}: another align writes into it · wait for it, or give another folder")
        yield
