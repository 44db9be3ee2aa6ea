"""Align a folder of photographs in parallel: each image with landmarks becomes a crop of that name.

A killed run can be started again. Each crop is written whole or not at all. The next run keeps
whole crops and never mixes in crops of other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from ..data.images import IMAGE_SUFFIXES
from ..data.walking import Walked, walk_images
from ..errors import UserError, shown_key
from .crop import Cropper, CropSpec, Finder, Task, crop_name, crop_names
from .crop_folder import check_destination, check_folders, check_source, sample_of, writer_lock
from .earlier_report import EarlierRun, earlier_run
from .exif_turns import warn_of_exif
from .found_landmarks import FoundLandmarks
from .landmarks import LandmarkTable, can_hold, likely_images, named_as
from .orders import refuse_wrong_landmarks
from .report import REPORT_NAME, AlignReport, Earlier, Outcome, Settings, Status
from .second_look import compare_with_detector
from .similarity import Points
from .workers import run_in_chunks

CHUNK = 32  # images per chunk of a worker: a crop takes about 1 ms, and so does its transfer
DETECTION_CHUNK = 4  # detection takes tens of milliseconds an image
DEFAULT_SPEC = CropSpec()


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
    report.source, report.sample = str(source.resolve()), sample_of(source, walked.names)
    with writer_lock(destination):
        report.warnings += check_destination(destination, report.settings, walked.names)
        work = Cropper(source, destination, spec, landmarks.finder, landmarks.centre)
        check_source(work, walked.names)
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
    earlier = earlier_run(folder)
    without_crop = crop_names(earlier.without_crop if earlier else ())
    keeper = FoundLandmarks(folder, work.is_current, names, work.source) if finds else None
    with closing(keeper) if keeper else nullcontext() as found:
        known, edited = (found.known, {**found.edited, **found.missing}) if found else ({}, {})
        made = found.made.__contains__ if found else _made_by_table(earlier, landmarks.table)
        tasks, failures = match(names, landmarks, known, edited, made)
        for failure in failures:
            report.add(failure)
        if found:
            report.corrected = found.stamps
            report.warnings += found.warnings()
        report.without_crop = without_crop
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
    absent = without_crop - crop_names(task.name for task in tasks)  # an image may return
    report.without_crop = absent | crop_names(report.earlier_crops.get(Earlier.NOT_KNOWN, []))
    report.save(folder, finished=True)
    if found:
        found.forget()


def _made_by_table(earlier: EarlierRun | None, table: LandmarkTable | None) -> Callable[[str], bool | None]:
    """Return the function that says whether an earlier run by the same table made a crop.

    A finished run made those of all landmarks, without its failures. It is None if that is unknown.
    A run that made no crop may have had another table.
    """
    made: dict[str, bool] = {}
    if earlier and earlier.finished and not earlier.made_none:
        names = {*(table.points if table else ()), *earlier.fallbacks}
        made = dict.fromkeys(crop_names(names) - crop_names(earlier.failed), True)
    if earlier:
        made |= dict.fromkeys(crop_names(earlier.without_crop), False)
    return made.get


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
            told = [
                refuse_wrong_landmarks(points, source, table.source, table.scores),
                warn_of_exif(points, source, table.source),
            ]
            warnings += told if any(told) else [compare_with_detector(points, source, table.source)]
    return [warning for warning in warnings if warning]


def match(
    names: Sequence[str],
    landmarks: Landmarks,
    found: Mapping[str, Points],
    edited: Mapping[str, Points],
    made: Callable[[str], bool | None] = lambda _: None,
) -> tuple[list[Task], list[Outcome]]:
    """Pair images with their landmarks.

    Args:
        names: names of the images.
        landmarks: where the landmarks come from.
        found: landmarks that a detector found in earlier runs.
        edited: landmarks that somebody corrected since.
        made: name of a crop → whether an earlier run made it; None: unknown.

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
            tasks.append(Task(name, points, other.get(name), name in edited, made(crop)))
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
