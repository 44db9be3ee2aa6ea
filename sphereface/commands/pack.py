"""Run ``sphereface pack``; its options are in :mod:`.parsers.pack`."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..alignment.near_reports import report_near, warn_of_unfinished_crops
from ..alignment.report import REPORT_NAME
from ..data.packing import Encoding, pack
from ..data.sources import Source, open_path
from ..data.tar_packing import pack_tar
from ..errors import UserError, count_of
from .crop_report import report_to_copy
from .input_options import parse_size
from .printed_options import setting

log = logging.getLogger(__name__)

_MOST_MB = 1_000_000
_PACKED = frozenset({".rec", ".tar", ".zip", ".parquet", ".arrow", ".lmdb"})


def encoding_of(args: argparse.Namespace) -> Encoding | None:
    """Return the encoding that ``--quality`` and ``--size`` set; None copies the files."""
    if args.quality is None and args.size is None:
        return None
    quality = Encoding.quality if args.quality is None else args.quality
    if not 1 <= quality <= 100:
        raise UserError(f"--quality: got {quality} · allowed: 1 to 100")
    return Encoding(quality, parse_size("--size", args.size))


def _check_beside(destination: Path, more: Mapping[str, bytes]) -> None:
    """Refuse or tell where a report of ``sphereface align`` would count for crops of others."""
    near = report_near(destination)
    if near is not None and not more:
        raise UserError(
            f"DST: got {destination}, near {near}, which is of other crops, or of these in another size, and would "
            "count for these, too · give another folder"
        )
    taken = (destination.parent / REPORT_NAME).exists()
    others = [] if taken or not more else _packed_in(destination.parent, destination.stem)
    if others:
        log.warning(
            "%s: if you train on %s beside it, the %s of these crops counts for that set, too · a folder for each set "
            "avoids it",
            *(destination, others[0].name, REPORT_NAME),
        )


def _packed_in(folder: Path, stem: str) -> list[Path]:
    """Return the packed sets of a folder, without those of this name and its shards."""
    own = re.compile(rf"{re.escape(stem)}(-\d{{5,}}-of-\d{{5,}})?\.\w+")
    try:
        return sorted(
            path for path in folder.iterdir() if path.suffix.lower() in _PACKED and not own.fullmatch(path.name)
        )
    except OSError:  # there is no such folder yet, or packing explains why it cannot be used
        return []


def run(args: argparse.Namespace) -> int:
    """Pack the images, then print what was written."""
    encoding = encoding_of(args)
    if args.shard_mb is not None and not 1 <= args.shard_mb <= _MOST_MB:
        raise UserError(f"--shard-mb: got {args.shard_mb} · allowed: 1 to {_MOST_MB:,}")
    source = open_path(args.source, root=args.root, key="SRC")
    warn_of_unfinished_crops(args.source, args.root)
    if args.source.is_dir() and args.destination.resolve().is_relative_to(args.source.resolve()):
        raise UserError(
            f"DST: got {args.destination}, inside {args.source} · allowed: a path outside SRC; inside, SRC would be "
            "read in another form, or with its images twice"
        )
    resized = encoding is not None and encoding.size is not None
    more = {} if resized else report_to_copy(args.source, args.root)
    _check_beside(args.destination, more)
    files = _packed(source, args, encoding, more)
    size = sum(path.stat().st_size for path in files)
    place = str(files[0])
    if len(files) > 1:
        last = len(files) - 1
        place = place.replace("-00000-of-", f"-{{00000..{last:05d}}}-of-")
    print(
        f"{place}: {count_of(len(source), 'image', 'images')} of "
        f"{count_of(len(source.class_names), 'identity', 'identities')}, "
        f"{size / 2**20:,.1f} MiB · train on it: {setting('data.train', place)}"
    )
    return 0


def _packed(
    source: Source, args: argparse.Namespace, encoding: Encoding | None, more: Mapping[str, bytes]
) -> Sequence[Path]:
    """Pack to the form that the destination's suffix names; return the files with the images."""
    if args.destination.suffix == ".tar":
        most_bytes = None if args.shard_mb is None else args.shard_mb << 20
        return pack_tar(source, args.destination, encoding, most_bytes=most_bytes, more=more, progress=True)
    if args.shard_mb is not None:
        raise UserError(f"--shard-mb: got it with {args.destination.name} · allowed: a destination that ends in .tar")
    pack(source, args.destination, encoding, more=more, progress=True)
    return [args.destination]
