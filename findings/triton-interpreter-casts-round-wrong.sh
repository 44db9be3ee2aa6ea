#!/bin/bash
# The interpreter of Triton truncates a cast to bfloat16, and a cast to float8 halves some numbers. The GPU rounds.
#
# Versions: triton 3.8.0, numpy 2.4.6, ml_dtypes 0.6.0 (the true values), Python 3.11, x86-64 Linux. Seen on 2026-11-29.
# One would guess: TRITON_INTERPRET=1 runs a kernel on the CPU with the numbers that the GPU computes. The documentation
#   of tl.cast names "rtne" (round to nearest, ties to even) and "rtz" (towards zero). The compiler uses "rtne" unless
#   the kernel asks for "rtz". The guide says that the interpreter has no bfloat16 arithmetic, and recommends tl.cast.
# What happens: the cast of float32 to bfloat16 drops the low 16 bits; "rtne" does the same as "rtz". Half of the
#   results are one step too close to zero. A cast to float8 loses the carry when the mantissa overflows and the stored
#   exponent is odd: a cosine of 0.49 becomes 0.25 (issue 8322 of Triton describes a part of this). The code that the
#   same Triton compiles for a GPU rounds to nearest (cvt.rn). The cast to float16 is right. Triton gives no warning.
# Who is hurt: everybody who tests a kernel without a GPU: a softmax loss in bfloat16, a gallery in float8. A right
#   kernel fails an exact comparison with PyTorch. A wide tolerance then hides real faults of the kernel. Truncated
#   values have a bias: bfloat16 embeddings from the interpreter are too short.
# Way out: let the kernel store float32 in the interpreter, and convert outside it. Or round finite numbers to bfloat16
#   with integers before the cast, as "HAND" does below. The cast is then exact, in the interpreter and on the GPU.
# Output seen (16,384 numbers in [-1, 1]; "bias" is the mean change of the absolute value):
#   GPU code: cvt.rn.bf16.f32 cvt.rn.f16.f32 cvt.rn.satfinite.e4m3x2.f32 cvt.rn.satfinite.e5m2x2.f32
#   fp16    default  not the nearest  0.0%, halved 0.0%, 0.49 becomes 0.4900, bias -0.000000
#   bf16    default  not the nearest 49.6%, halved 0.0%, 0.49 becomes 0.4883, bias -0.001293
#   fp8e4nv default  not the nearest  2.6%, halved 2.4%, 0.49 becomes 0.2500, bias -0.004165
#   fp8e5   default  not the nearest  4.1%, halved 4.0%, 0.49 becomes 0.2500, bias -0.007883
#   bf16    rtne     not the nearest 49.6%, halved 0.0%, 0.49 becomes 0.4883, bias -0.001293
#   bf16    rtz      not the nearest 49.6%, halved 0.0%, 0.49 becomes 0.4883, bias -0.001293
#   bf16    by hand  not the nearest  0.0%, halved 0.0%, 0.49 becomes 0.4902, bias -0.000012
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile triton==3.8.0 numpy==2.4.6 ml_dtypes==0.6.0 2> /dev/null
cat > "$W/run.py" <<'P'
import os, re, sys
import ml_dtypes, numpy as np, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
@triton.jit
def cast(source, target, N: tl.constexpr, KIND: tl.constexpr, MODE: tl.constexpr, HAND: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(source.to(tl.pointer_type(tl.float32)) + i)  # addresses as integers: this needs no PyTorch
    if HAND:
        bits = x.to(tl.uint32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    tl.store(target.to(tl.pointer_type(KIND)) + i, x.to(KIND, fp_downcast_rounding=MODE))
kinds = {tl.float16: np.float16, tl.bfloat16: ml_dtypes.bfloat16,
         tl.float8e4nv: ml_dtypes.float8_e4m3fn, tl.float8e5: ml_dtypes.float8_e5m2}
if os.environ.get("TRITON_INTERPRET") != "1":
    found = set()
    for kind in kinds:
        values = {"N": 1024, "KIND": kind, "MODE": None, "HAND": False}
        source = ASTSource(cast, {"source": "i64", "target": "i64"} | dict.fromkeys(values, "constexpr"), values)
        found |= set(re.findall(r"cvt\.r\S+", triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]))
    print("GPU code:", *sorted(found))
    sys.exit(not (len(found) == 4 and all(code.startswith("cvt.rn.") for code in found)))
x, right = np.random.default_rng(0).uniform(-1, 1, 1 << 14).astype(np.float32), True
x[0] = 0.49
bf16 = [(tl.bfloat16, "rtne", False), (tl.bfloat16, "rtz", False), (tl.bfloat16, None, True)]
for kind, mode, hand in [(k, None, False) for k in kinds] + bf16:
    out = np.zeros(x.size, kinds[kind])
    cast[(1,)](x.ctypes.data, out.ctypes.data, x.size, kind, mode, hand)
    got, true = out.astype(np.float32), x.astype(kinds[kind]).astype(np.float32)
    other, halved, bias = (got != true).mean(), (got / x < 0.6).mean(), (abs(got) - abs(x)).mean()
    print(f"{str(kind):7} {'by hand' if hand else mode or 'default':7}  not the nearest {other:5.1%}, "
          f"halved {halved:4.1%}, 0.49 becomes {got[0]:.4f}, bias {bias:9.6f}")
    if kind == tl.float16 or hand: right &= other == 0
    elif kind == tl.bfloat16: right &= 0.4 < other < 0.6 and np.array_equal(out.view("u2"), x.view("u4") >> 16)
    else: right &= halved > 0.02 and got[0] == 0.25 and true[0] == 0.5
sys.exit(not right)
P
cd "$W"; export TRITON_CACHE_DIR="$W/cache"
v/bin/python run.py; TRITON_INTERPRET=1 v/bin/python run.py
