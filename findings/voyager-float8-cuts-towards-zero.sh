#!/bin/bash
# Voyager's Float8 cuts numbers towards zero, so a face has a cosine distance of 0.13 to itself, and a threshold rejects people.
#
# Versions: voyager 2.2.3 (Spotify), numpy 2.4.6, Python 3.11, x86-64 Linux. Seen on 2026-11-30.
# One would guess: StorageDataType.Float8 (fixed point from -1 to 1) rounds each number to the nearest of its steps of 1/127.
#   The errors then have either sign and cancel over 512 numbers: a cosine is right to about 0.004.
# What happens: each number is cut towards zero: 0.0157 * 127 = 1.994 is kept as 1. Numbers of an embedding of length 1 are near
#   0.04, which is 5 or 6 steps, so both vectors lose a tenth of their length. Space.Cosine does not normalise them after that,
#   so its distance is no longer 1 - cos: that of identical vectors is 0.13, and all similarities are 13 % too small. Squared
#   Euclidean distances shrink by as much, which accepts more. The order of the results is right, so tests of recall see nothing.
# Who is hurt: galleries with a threshold that was chosen on exact cosines or on Float32, and moved to Float8 to save memory.
#   Below, 1 - cos < 0.55 finds 97 % of the people, and 24 % with Float8.
# Way out: StorageDataType.E4M3, which takes as little memory and is right to 0.005. Or choose the threshold on the same index.
#   Or divide the distances by hand: read the vectors back with get_vector() and normalise them.
# Output seen (2,000 people, one photo each, another photo as probe, 512 numbers):
#               kept of 1.994 steps   identical   distance / (1 - cos) of the person   found   below 0.55
#   Float32                    1.99       0.000                                  1.00    1.00         0.97
#   E4M3                       1.98       0.004                                  1.00    1.00         0.97
#   Float8                     1.00       0.132                                  1.14    1.00         0.24
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile voyager==2.2.3 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import sys
import numpy as np
from voyager import Index, Space, StorageDataType
rng, people, size = np.random.default_rng(0), 2000, 512
unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4")
noise = lambda n: unit(rng.normal(size=(n, size)))
person = noise(people)
gallery, probe = unit(person + noise(people)), unit(person + noise(people))  # a cosine of 0.5 on average
exact, right = 1 - (gallery * probe).sum(1), True
print("            kept of 1.994 steps   identical   distance / (1 - cos) of the person   found   below 0.55")
for kind in ("Float32", "E4M3", "Float8"):
    storage = getattr(StorageDataType, kind)
    one = Index(Space.InnerProduct, 1, storage_data_type=storage)
    one.add_item(np.array([1.994 / 127], "f4"))
    index = Index(Space.Cosine, size, storage_data_type=storage)
    index.add_items(gallery, num_threads=1)
    itself = abs(np.median(index.query(gallery[:100], k=1)[1]))
    who, distance = (found[:, 0] for found in index.query(probe, k=1, query_ef=200))
    found = who == np.arange(people)
    below = np.mean(found & (distance < 0.55))
    kept, ratio = one.get_vector(0)[0] * 127, np.median((distance / exact)[found])
    print(f"{kind:8} {kept:22.2f} {itself:11.3f} {ratio:37.2f} {found.mean():7.2f} {below:12.2f}")
    cut = kind == "Float8"
    right &= (itself > 0.1) == cut and (ratio > 1.1) == cut and (below < 0.5) == cut and found.mean() > 0.95
sys.exit(not right)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
