#!/bin/bash
# PyEER reports an FNMR at "no false match" that no threshold reaches, and a low AUC, when impostors have the top score.
#
# Versions: pyeer 0.5.6, numpy 2.4.6, scikit-learn 1.9.1 (for the true AUC), Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: ZeroFMR is "the lowest FNMR at which no false matches occur", as its documentation says, and auc is
#   the area under the whole ROC curve, as roc_auc_score computes it.
# What happens: the curve has one point for each score that occurs, and no point for "reject every pair" (FMR 0, FNMR 1).
#   If an impostor pair has the highest score, the curve ends at an FMR above 0. ZeroFMR and FMR1000 then give the FNMR
#   of that last point, whatever its FMR is, and the AUC lacks the area from there to 0. PyEER gives no warning.
# Who is hurt: everybody who evaluates scores that saturate or are rounded: percentages, scores clipped to [0, 1] or
#   [0, 100], 8-bit scores, counts of votes. The reported error is too low. The report does not print the FMR it was
#   measured at.
# Way out: append the missing point to the curve of calculate_roc, and compute the numbers from the longer curve.
# Output seen (in brackets: a plain loop over all thresholds, and roc_auc_score):
#   whole numbers: ZeroFMR 0.8910 (1.0000), FMR1000 0.8910 (1.0000), AUC 0.9009 (0.9012)
#       FMR at the threshold of ZeroFMR 0.0062, at that of FMR1000 0.0062
#       with the missing point: ZeroFMR 1.0000, FMR1000 1.0000, AUC 0.9012
#   steps of 50: ZeroFMR 0.5170 (1.0000), FMR1000 0.5170 (1.0000), AUC 0.8088 (0.8217)
#       FMR at the threshold of ZeroFMR 0.0534, at that of FMR1000 0.0534
#       with the missing point: ZeroFMR 1.0000, FMR1000 1.0000, AUC 0.8217
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q pyeer==0.5.6 numpy==2.4.6 scikit-learn==1.9.1
cat > "$W/run.py" <<'P'
import sys
import numpy as np
from pyeer.eer_info import get_eer_stats
from pyeer.eer_stats import calculate_roc, calculate_roc_auc, get_fmr_op
from sklearn.metrics import roc_auc_score
rng = np.random.default_rng(0)
genuine, impostor = np.clip(rng.normal(75, 20, 2000), 0, 100), np.clip(rng.normal(30, 28, 20000), 0, 100)
def lowest_fnmr(g, i, fmr):
    thresholds = np.append(np.unique(np.concatenate([g, i])), np.inf)  # infinity: reject every pair
    return min((g < t).mean() for t in thresholds if (i >= t).mean() <= fmr)
as_before = True
for text, unit in (("whole numbers", 1), ("steps of 50", 50)):
    g, i = np.round(genuine / unit) * unit, np.round(impostor / unit) * unit
    stats, labels = get_eer_stats(g, i), np.repeat([1, 0], [len(g), len(i)])
    got = stats.fmr0, stats.fmr1000, stats.auc
    want = lowest_fnmr(g, i, 0), lowest_fnmr(g, i, 0.001), roc_auc_score(labels, np.concatenate([g, i]))
    _, fmr, fnmr = calculate_roc(g, i)
    fmr, fnmr = np.append(fmr, 0.0), np.append(fnmr, 1.0)
    longer = get_fmr_op(fmr, fnmr, 0)[1], get_fmr_op(fmr, fnmr, 0.001)[1], calculate_roc_auc(fmr, fnmr)
    at = [(i >= threshold).mean() for threshold in (stats.fmr0_th, stats.fmr1000_th)]
    names = "ZeroFMR", "FMR1000", "AUC"
    print(f"{text}:", ", ".join(f"{name} {a:.4f} ({b:.4f})" for name, a, b in zip(names, got, want)))
    print(f"    FMR at the threshold of ZeroFMR {at[0]:.4f}, at that of FMR1000 {at[1]:.4f}")
    print("    with the missing point:", ", ".join(f"{name} {a:.4f}" for name, a in zip(names, longer)))
    off = np.subtract(want, got)
    as_before &= bool(off[0] > 0.1 and off[1] > 0.1 and off[2] > 2e-4 and min(at) > 0.005 and np.allclose(longer, want))
sys.exit(not as_before)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
