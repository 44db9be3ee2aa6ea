#!/bin/bash
# A sparse gradient that an autograd Function marks as coalesced arrives in .grad without the mark, unless it is held.
#
# Versions: torch 2.13.0 (CPU build; 2.14.1 does the same), Python 3.11, x86-64 Linux. Seen on 2026-11-29. Where pip
#   chooses a CUDA build, the installation takes longer.
# One would guess: is_coalesced=True in torch.sparse_coo_tensor ("the caller is responsible for providing tensor indices
#   that correspond to a coalesced tensor") holds for .grad too: .grad.values() works, and no optimiser sorts the rows.
# What happens: backward() takes the indices and the values out of the gradient and makes a new sparse tensor of them,
#   without the mark. It does so if nobody else holds the gradient. If a list or a variable holds it too, backward()
#   copies it, and the mark stays. So code that keeps the gradient for a debugger changes the result. A hook that sorts
#   the gradient of nn.Embedding(sparse=True) works in vain: the optimiser sorts again. torch.autograd.grad keeps the
#   mark. The documentation does not mention it (issue 105916 of PyTorch reports it), and torch gives no warning.
# Who is hurt: everybody who trains many identities with a sparse gradient of the class weights. SparseAdam and Adagrad
#   sort and copy rows that are sorted already, at each step. On a GPU, each sort waits for the device. .grad.values()
#   and .grad.indices() work in the debugger, and fail in the real run.
# Way out: coalesce once in a hook of weights.register_post_accumulate_grad_hook, and store the result in weights.grad.
#   That mark stays. Or take the gradient from torch.autograd.grad.
# Output seen (a table of 1,000 rows of 8 numbers, 100 rows chosen; each row once, in order):
#   backward                    coalesced False, values() fails, sorts in SparseAdam 1
#   backward, a list holds it   coalesced True , values() works, sorts in SparseAdam 0
#   Embedding, sorted in a hook coalesced False, values() fails, sorts in SparseAdam 1
#   post-accumulate hook        coalesced True , values() works, sorts in SparseAdam 0
#   autograd.grad               coalesced True , values() works, sorts in SparseAdam 0
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile torch==2.13.0 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import sys, warnings
import torch
from torch.nn.functional import embedding
from torch.utils._python_dispatch import TorchDispatchMode
warnings.simplefilter("ignore")  # torch says that it does not check the indices
class Sorts(TorchDispatchMode):
    count = 0
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "_coalesce." in str(function)
        return function(*args, **(kwargs or {}))
class Rows(torch.autograd.Function):  # weights[chosen], with a sparse gradient
    @staticmethod
    def forward(ctx, weights, chosen, owners):
        ctx.chosen, ctx.size, ctx.owners = chosen, weights.shape, owners
        return weights[chosen]
    @staticmethod
    def backward(ctx, grad):
        result = torch.sparse_coo_tensor(ctx.chosen[None], grad.contiguous(), ctx.size, is_coalesced=True)
        if ctx.owners is not None: ctx.owners.append(result)
        return result, None, None
def once(weights): weights.grad = weights.grad.coalesce()
chosen, right = torch.arange(0, 1000, 10), True
NAMES = "backward", "backward, a list holds it", "Embedding, sorted in a hook", "post-accumulate hook", "autograd.grad"
for name in NAMES:
    weights = torch.zeros(1000, 8, requires_grad=True)
    if "sorted" in name: weights.register_hook(lambda grad: grad.coalesce())
    if "post" in name: weights.register_post_accumulate_grad_hook(once)
    owners = [] if "list" in name else None
    rows = embedding(chosen, weights, sparse=True) if "Embedding" in name else Rows.apply(weights, chosen, owners)
    loss = (rows - 1).square().sum()
    if "autograd" in name: (weights.grad,) = torch.autograd.grad(loss, weights)
    else: loss.backward()
    try: values = weights.grad.values() is not None and "works"
    except RuntimeError: values = "fails"
    with Sorts() as sorts: torch.optim.SparseAdam([weights]).step()
    mark, lost = weights.grad.is_coalesced(), name in ("backward", "Embedding, sorted in a hook")
    print(f"{name:27} coalesced {mark!s:5}, values() {values}, sorts in SparseAdam {sorts.count}")
    right &= (mark, values, sorts.count) == ((False, "fails", 1) if lost else (True, "works", 0))
sys.exit(not right)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
