#!/bin/bash
# Three calibrations of bob.bio.base swap the axes of a histogram, and their likelihood ratios are wrong.
#
# Versions: bob.bio.base 8.1.1 (the newest release), numpy 1.26.4, scipy 1.14.1, scikit-learn 1.5.2 (the import
#   fails with 1.9.1), Python 3.11, x86-64 Linux. Seen on 2026-11-29.
# One would guess: predict_proba(score) is the logarithm (base 10) of a likelihood ratio: the density of the score among
#   genuine pairs, divided by its density among impostor pairs. The documentation of WeibullCalibration names "Likelihood
#   Ratios for Deep Neural Networks in Face Comparison", Journal of Forensic Sciences, 2020.
# What happens: fit() writes "impostors_X, impostors_Y = np.histogram(...)". np.histogram returns the heights of the bins
#   first, then their edges. So fit() looks for a density that has the position of a bin as its value at the height of
#   the bin. GammaCalibration stays at its start and gives 0, which is "neutral", to every score. WeibullCalibration
#   gives nearly 0, and BetaCalibration prefers "same person" for clear impostors. bob gives no warning.
# Who is hurt: everybody who reports the strength of a face comparison, or compares calibrations, with these classes, also
#   through CategoricalCalibration(fit_estimator=...). A small ratio looks like a careful answer.
# Known: we found no issue about it.
# Way out: fit the densities by maximum likelihood with scipy: weibull_min.fit(scores, floc=0), gamma.fit(scores, floc=0),
#   beta.fit(scores, floc=0, fscale=1). Compute Cllr for every calibration; 1 is the value of a ratio that is always 1.
# Output seen (20,000 genuine and 20,000 impostor scores from known densities; log10 of the ratio at five scores, and
#   Cllr; "counted" is the number of genuine pairs within 0.01 of the score, divided by the number of impostor pairs):
#          at score   0.10   0.30   0.50   0.70   0.80
#   Weibull library   -0.21  -0.19  -0.16  -0.12  -0.10  Cllr 0.971
#   Weibull exact     -3.75  -1.23   0.56   2.05   2.52  Cllr 0.225
#   Weibull way out   -3.78  -1.24   0.56   2.08   2.55  Cllr 0.225
#   Weibull counted    -inf  -1.23   0.60   1.95    inf
#   Gamma   library    0.00   0.00   0.00   0.00   0.00  Cllr 1.000
#   Gamma   exact    -11.69  -1.91   0.98   1.82   1.83  Cllr 0.199
#   Beta    library    0.36   0.66   0.71   0.62   0.50  Cllr 1.191
#   Beta    exact     -4.55  -1.25   0.66   2.43   3.48  Cllr 0.170
#   (and the rows "way out" and "counted" of Gamma and Beta, which agree with "exact")
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile bob.bio.base==8.1.1 numpy==1.26.4 scipy==1.14.1 \
  scikit-learn==1.5.2 2> /dev/null
cat > "$W/run.py" <<'P'
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")  # of dask, at the import
from bob.bio.base.pipelines import score_post_processor as bob
from scipy.stats import beta, gamma, weibull_min
rng, at, as_before = np.random.default_rng(0), np.array([0.1, 0.3, 0.5, 0.7, 0.8]), True
print("       at score", " ".join(f"{x:6.2f}" for x in at))
def cllr(genuine, impostor):  # of log10(LR), in bits
    return (np.log2(1 + 10.0 ** -genuine).mean() + np.log2(1 + 10.0**impostor).mean()) / 2
def counted(genuine, impostor):  # no density at all: the pairs near each score
    near = lambda scores: np.array([((scores > x - 0.01) & (scores < x + 0.01)).sum() for x in at])
    with np.errstate(divide="ignore"): return np.log10(near(genuine) / near(impostor))
for name, family, genuine, impostor, fixed in (
    ("Weibull", weibull_min, weibull_min(6, scale=0.7), weibull_min(1.8, scale=0.25), {"floc": 0}),
    ("Gamma", gamma, gamma(30, scale=0.02), gamma(3, scale=0.07), {"floc": 0}),
    ("Beta", beta, beta(8, 4), beta(2, 8), {"floc": 0, "fscale": 1}),
):
    g, i = genuine.rvs(20000, random_state=rng), impostor.rvs(20000, random_state=rng)
    library = getattr(bob, name + "Calibration")().fit(np.append(g, i), np.repeat([1, 0], 20000)).predict_proba
    exact = lambda x: genuine.logpdf(x) / np.log(10) - impostor.logpdf(x) / np.log(10)
    a, b = family(*family.fit(g, **fixed)), family(*family.fit(i, **fixed))
    likelihood = lambda x: (a.logpdf(x) - b.logpdf(x)) / np.log(10)
    off = {}
    for text, ratio in (("library", library), ("exact", exact), ("way out", likelihood)):
        off[text] = np.abs(ratio(at) - exact(at)).max(), cllr(ratio(g), ratio(i))
        print(f"{name:7} {text:7}", " ".join(f"{value:6.2f}" for value in ratio(at)), f" Cllr {off[text][1]:.3f}")
    print(f"{name:7} counted", " ".join(f"{value:6.2f}" for value in counted(g, i)))
    as_before &= bool(off["library"][0] > 2 and off["library"][1] > 0.9)
    as_before &= bool(off["way out"][0] < 0.5 and off["way out"][1] < 0.3)
sys.exit(not as_before)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
