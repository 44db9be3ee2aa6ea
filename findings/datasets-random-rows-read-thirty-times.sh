#!/usr/bin/env bash
# Random rows of a datasets file on a disk read about thirty times their bytes.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, numpy 2.4.6, Python 3.11, x86-64 Linux 6. Seen on 2026-11-30.
# One would guess: a training loop that takes random images out of an Arrow file reads each image from the disk, and
#   little else: 5.5 kB, which lie on two or three pages of 4 kB.
# What happens: datasets maps the file into memory, and gives the system no advice of random access. Linux takes the
#   first look at a page for the beginning of a scan, and reads 128 kB and more around it, one image after the other.
#   Reading the same file by position reads 10 kB an image. (lmdb does the same by default, and its documentation names
#   the switch, readahead=False.)
# Who is hurt: who trains in random order on a set larger than the memory. Face sets have 5 to 42 million images of a
#   few kB: 42 million x 170 kB are 7 TB an epoch instead of 0.4. It looks as if the disk were slow.
# Way out: read by position (os.pread); or give madvise(MADV_WILLNEED) for all images of a batch before the first is
#   looked at, which also lets the disk fetch them at once; or an iterable set, if its order is random enough.
# Output seen: datasets: 271 kB from the disk for an image of 5.5 kB, by position: 9.7 kB
# Exit status: 0 as long as this is so, 1 when it changes or the folder for temporary files is not on a disk.
set -euo pipefail
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 2> /dev/null
cat > "$work/see.py" <<'EOF'
import os
import sys

import datasets
import numpy as np
import pyarrow as pa

path, count, size = sys.argv[1], 50_000, 5_500
rng = np.random.default_rng(0)
with pa.OSFile(path, "wb") as out, pa.ipc.new_stream(out, pa.schema([("image", pa.binary())])) as writer:
    for _ in range(count // 1000):
        images = [rng.bytes(size) for _ in range(1000)]
        writer.write_batch(pa.record_batch([pa.array(images)], names=["image"]))
faces = datasets.Dataset.from_file(path)
file = os.open(path, os.O_RDONLY)
rows = rng.choice(count, 1000, replace=False).tolist()


def kilobytes(read):
    """Read each row from a file that the system has forgotten; return kB from the disk for each."""
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    counted = lambda: int(dict(line.split(": ") for line in open("/proc/self/io"))["read_bytes"])
    before = counted()
    assert all(len(read(row)) == size for row in rows)
    return (counted() - before) / len(rows) / 1000


by_position = kilobytes(lambda row: os.pread(file, size, row * (os.fstat(file).st_size // count)))
by_datasets = kilobytes(lambda row: faces[row]["image"])
print(f"datasets: {by_datasets:.0f} kB from the disk for an image of 5.5 kB, by position: {by_position:.1f} kB")
if by_position == 0:
    sys.exit("this folder is not on a disk: set TMPDIR")
sys.exit(0 if by_datasets > 8 * by_position else "changed: datasets reads little more than the images")
EOF
HF_HUB_OFFLINE=1 HF_HOME="$work" "$work/venv/bin/python" "$work/see.py" "$work/faces.arrow"
