"""A training step on the null CUDA: no waits, few launches, little memory. docs/gpu.md has the table."""

from __future__ import annotations

import itertools

SMALL = "model={depth: 4, widths: [4, 8, 8, 8], embedding_dim: 16}"
OPTIMIZERS = ("sgd", "adamw", "muon")
PRECISIONS = ("bf16", "fp32", "fp16")
HEADS = {
    "whole": {"loss": "a-softmax"},
    "exact": {"loss": "a-softmax, gradient: exact"},
    "chunked": {"loss": "a-softmax, chunk_size: 20"},
    "mhe": {"loss": "a-softmax, mhe: 1"},
    "sphereface2": {"loss": "sphereface2"},
    "adaface": {"loss": "adaface"},
    "sampled": {"loss": "cosface, sample_rate: 0.5"},
    "sharded": {"loss": "a-softmax", "processes": 2},
}
EXTRAS = {
    "batch norm, ema, clip": ["model.norm=batch", "train.ema=0.9", "train.clip_grad_norm=1"],
    "micro_batch": ["train.micro_batch=4"],
    "recompute": ["train.recompute=true"],
    "deterministic": ["deterministic=true"],
    "tf32": ["train.matmul=tf32"],
}
BEFORE = {"head": 12.56, "step": 20.03}
"""GiB at the peak at commit 1779539: C = 1,000,000, N = 1024, bf16."""


def small(name, overrides, loss="a-softmax", processes=1):
    overrides = [SMALL, f"loss={{name: {loss}}}", *overrides]
    return {"name": name, "overrides": overrides, "batch": 8, "classes": 41, "processes": processes}


def cases_of_waits():
    cases = [small(name, ["train.precision=bf16", *extra]) for name, extra in EXTRAS.items()]
    for optimizer, precision, (name, head) in itertools.product(OPTIMIZERS, PRECISIONS, HEADS.items()):
        if (optimizer, name) != ("adamw", "sampled"):  # refused
            options = [f"train.optimizer={optimizer}", f"train.precision={precision}"]
            cases.append(small(f"{optimizer} {precision} {name}", options, **head))
    return cases


BF16 = ["train.precision=bf16"]
WAITS = cases_of_waits()
LAUNCHES = [
    {"name": "sgd", "overrides": BF16},
    {"name": "muon", "overrides": [*BF16, "train.optimizer=muon"]},
    {"name": "deterministic", "overrides": [*BF16, "deterministic=true"]},
    {"name": "recompute", "overrides": [*BF16, "train.recompute=true"]},
    {"name": "compile", "overrides": [*BF16, "train.compile=true"]},
]
MILLION = [
    {"name": name, "part": part, "classes": 1_000_000, "batch": 1024, "overrides": [*BF16, *more]}
    for name, part, more in (
        ("head", "head", []),
        ("step", "step", []),
        ("sphereface2", "head", ["loss={name: sphereface2}"]),
    )
]


def failures(results):
    return {row["name"]: row["error"] for row in results if "error" in row}


def test_no_step_waits_for_the_device(counts):
    results = counts["waits"]
    assert failures(results) == {}
    assert {row["name"]: row["waits"] for row in results if row["waits"]} == {}


def test_launches_of_sphere_20(counts):
    results = counts["launches"]
    assert failures(results) == {}
    assert {row["name"]: row["waits"] for row in results if row["waits"]} == {}
    total = {row["name"]: row["launches"] + row["convolutions"] for row in results}
    assert total["sgd"] <= 245
    assert total["muon"] <= 365
    assert total["deterministic"] <= 245
    assert total["compile"] <= 225
    plain = 20 + 20 + 19 + 4 + 4  # forward, weights, maps, biases of four layers alone and their gradients
    assert {row["name"]: row["convolutions"] for row in results} == {
        **dict.fromkeys(total, plain),
        "recompute": plain + 16,
        "compile": plain - 8,  # the compiler's own kernels add the biases and sum their gradients
    }


def test_memory_at_a_million_classes(counts):
    results = counts["million"]
    assert failures(results) == {}
    peak = {row["name"]: row["peak_bytes"] / 2**30 for row in results}
    assert peak["head"] <= 0.5 * BEFORE["head"]
    assert peak["step"] <= 0.5 * BEFORE["step"]  # weights, gradients and momentum alone are 0.29 of it
    assert results[-1]["launches"] < 2000  # blocks by bytes: 37,000 when they had the size that a CPU wants
