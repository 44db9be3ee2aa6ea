#!/bin/bash
# The second run() of an evalify Experiment with a distance metric reports the numbers of the first run.
#
# Versions: evalify 1.0.0, numpy 2.2.6, pandas 2.3.3, scikit-learn 1.7.2, Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: after experiment.run(X2, y), tar_at_far describes X2, as the table that run() returns does.
# What happens: for a distance metric, predicted_as_similarity keeps the similarities of the first run in
#   cached_predicted_as_similarity, and run() never clears it. tar_at_far (also eer and threshold_at_fpr) then
#   describes the first embeddings. cosine_similarity is right. If the number of pairs differs, scikit-learn raises an
#   error; on one set of labels it is the same, and nothing is reported.
# Who is hurt: everybody who compares checkpoints or networks on one validation set in a loop with one Experiment: all
#   of them get the TAR of the first.
# Way out: make a new Experiment for each run, or call experiment.cached_predicted_as_similarity.clear() before run().
# Output seen (50 people with 5 images each; noise: random embeddings):
#   cosine_similarity  TAR at FAR 0.01: good 0.998, then noise 0.014, noise in a new Experiment 0.014, cleared 0.014
#   euclidean_distance TAR at FAR 0.01: good 1.000, then noise 1.000, noise in a new Experiment 0.014, cleared 0.014
#   cosine_distance    TAR at FAR 0.01: good 0.998, then noise 0.998, noise in a new Experiment 0.014, cleared 0.014
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q evalify==1.0.0 numpy==2.2.6 pandas==2.3.3 scikit-learn==1.7.2
cat > "$W/run.py" <<'P'
import sys
import numpy as np
from evalify import Experiment
rng, labels = np.random.default_rng(0), np.repeat(np.arange(50), 5)
good = rng.normal(size=(50, 32))[labels] + rng.normal(size=(len(labels), 32)) * 0.6
noise = rng.normal(size=(len(labels), 32))  # embeddings of a network that recognises nothing
def tar(experiment, embeddings, metric):
    experiment.run(embeddings, labels)
    return experiment.tar_at_far(0.01)[metric][0.01]
as_before = True
for metric in ("cosine_similarity", "euclidean_distance", "cosine_distance"):
    one = Experiment(metrics=metric, seed=0)
    first, second = tar(one, good, metric), tar(one, noise, metric)
    alone = tar(Experiment(metrics=metric, seed=0), noise, metric)
    one.cached_predicted_as_similarity.clear()
    cleared = tar(one, noise, metric)
    print(f"{metric:18} TAR at FAR 0.01: good {first:.3f}, then noise {second:.3f}, "
          f"noise in a new Experiment {alone:.3f}, cleared {cleared:.3f}")
    as_before &= first > 0.9 and alone == cleared < 0.1 and second == (alone if metric == "cosine_similarity" else first)
sys.exit(not as_before)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
