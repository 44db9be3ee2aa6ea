"""Protect a folder of crops from a second writer, and from crops of other images or settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..data.walking import walk_images
from ..errors import UserError, count_of, printable
from ..files import locked
from .crop import Cropper, crop_name
from .earlier_landmarks import LANDMARKS_NAME, PROGRESS_NAME, WRITTEN_NAME
from .earlier_report import earlier_run
from .found_landmarks import content_digest
from .report import REPORT_NAME, Settings, explained

log = logging.getLogger(__name__)

LOCK_NAME = ".align.lock"
_SAMPLED = 16  # images whose content the report keeps


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


def check_destination(destination: Path, settings: Settings, names: Sequence[str]) -> list[str]:
    """Refuse to mix these crops with others, or to write outside the folder.

    Returns:
        A warning about images there that are crops of none of ``names``, if there are any.

    Raises:
        UserError: the folder has a link to another one, crops without a report, or crops of other
            settings. A run that made no crop leaves none to mix with.
    """
    root = destination.resolve()
    crops = {crop_name(name) for name in names}
    for parent in set(map(os.path.dirname, crops)):  # strings, for speed
        if not (destination / parent).resolve().is_relative_to(root):
            raise UserError(f"{destination / parent}: a link to another folder · delete it, or give another folder")
    earlier = earlier_run(destination)
    if earlier is None:
        ours = [LANDMARKS_NAME] * ("detector" in settings) + [crop_name(name) for name in names]
        strange = next((path for path in map(destination.joinpath, ours) if path.exists()), None)
        if strange is not None:
            raise UserError(
                f"{strange}: exists, but without an {REPORT_NAME}, so its settings are unknown · give an empty folder"
            )
    elif earlier.settings != settings and not (earlier.made_none and _holds_nothing(destination)):
        old = earlier.settings
        values = {key: (old.get(key, "none"), settings.get(key, "none")) for key in {**settings, **old}}
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


def _holds_nothing(destination: Path) -> bool:
    """Return whether a folder has neither images nor landmarks of an earlier run."""
    files = (destination / name for name in (LANDMARKS_NAME, WRITTEN_NAME, PROGRESS_NAME))
    return not any(path.exists() and path.stat().st_size for path in files) and not walk_images(destination).names


def check_source(work: Cropper, names: Sequence[str]) -> None:
    """Refuse photographs that would replace the crops of others; in the same folder, warn.

    One that contains some images of the earlier run is accepted. Only ``names`` are read, since a
    report of a stranger may name any file.

    Raises:
        UserError: the folder has crops of photographs in another place, and none of the images
            compared is the same.
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


def sample_of(source: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of a few images, by which a later run knows the set in another place."""
    digests = {name: content_digest(source / name) for name in names[:: -(-len(names) // _SAMPLED)]}
    return {name: digest for name, digest in digests.items() if digest}
