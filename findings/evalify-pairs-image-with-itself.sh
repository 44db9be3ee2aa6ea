#!/bin/bash
# evalify with same_class_samples=N compares images with themselves and counts these as genuine pairs: TAR is too high.
#
# Versions: evalify 1.0.0, numpy 2.2.6, pandas 2.3.3, scikit-learn 1.7.2, Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: N chooses N images of each person and makes all pairs of two different images ("nC2 pairs").
# What happens: it draws the N images with replacement (rng.choice without replace=False). An image that is drawn twice
#   makes a pair with itself, whose similarity is 1. Other pairs occur more than once. The default, "full", is right.
# Who is hurt: everybody who sets N to save time on a large validation set. TAR is too high and EER too low, most of all
#   at a low FAR: embeddings that are pure noise reach a TAR of 0.22 at FAR 0.001. evalify gives no warning.
# Way out: same_class_samples="full" on labels and embeddings that the caller has sampled already; or drop the rows of
#   experiment.df with emb_a == emb_b, and the repeated rows, before computing a metric.
# Output seen (250 random embeddings, 50 people with 5 images each):
#   same_class_samples full genuine pairs 500, of an image with itself   0, distinct 500, TAR at FAR 0.001 0.000
#   same_class_samples 5    genuine pairs 500, of an image with itself 111, distinct 257, TAR at FAR 0.001 0.222
#   same_class_samples 3    genuine pairs 150, of an image with itself  18, distinct 133, TAR at FAR 0.001 0.120
#   same_class_samples 2    genuine pairs  50, of an image with itself  11, distinct  50, TAR at FAR 0.001 0.220
#   same_class_samples 5, rows dropped: TAR at FAR 0.001 0.000
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q evalify==1.0.0 numpy==2.2.6 pandas==2.3.3 scikit-learn==1.7.2
cat > "$W/run.py" <<'P'
import sys
import numpy as np
from evalify import Experiment
labels = np.repeat(np.arange(50), 5)
embeddings = np.random.default_rng(0).normal(size=(len(labels), 32))  # noise: nothing to recognise
found = {}
for same in ("full", 5, 3, 2):
    experiment = Experiment(same_class_samples=same, different_class_samples=("full", "full"), seed=0)
    pairs = experiment.run(embeddings, labels)
    genuine = pairs[pairs.target == 1]
    itself = int((genuine.emb_a == genuine.emb_b).sum())
    different = len(set(zip(genuine[["emb_a", "emb_b"]].min(axis=1), genuine[["emb_a", "emb_b"]].max(axis=1))))
    tar = experiment.tar_at_far(0.001)["cosine_similarity"][0.001]
    print(f"same_class_samples {same!s:4} genuine pairs {len(genuine):3}, of an image with itself {itself:3}, "
          f"distinct {different:3}, TAR at FAR 0.001 {tar:.3f}")
    found[same] = itself, tar
    if same == 5:
        ends = np.sort(pairs[["emb_a", "emb_b"]].to_numpy(), axis=1)
        repeated = pairs.assign(a=ends[:, 0], b=ends[:, 1]).duplicated(["a", "b"])
        experiment.df = pairs[(pairs.emb_a != pairs.emb_b) & ~repeated]
        dropped = experiment.tar_at_far(0.001)["cosine_similarity"][0.001]
print(f"same_class_samples 5, rows dropped: TAR at FAR 0.001 {dropped:.3f}")
sys.exit(not (found["full"][0] == 0 and found["full"][1] < 0.01 and found[5][0] > 50 and found[5][1] > 0.1 and dropped < 0.02))
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
