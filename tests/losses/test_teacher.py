"""The losses that compare a student with its teacher, against plain loops over samples, pairs and triples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sphereface.config_sections import TEACHER_LOSSES, TeacherConfig
from sphereface.losses.teacher import LEAST_IMAGES, OF_EMBEDDINGS, OF_PROJECTION, QUEUE, TeacherHead, over_queue

N, D, T = 7, 5, 4


def huber(a: float, b: float) -> float:
    distance = abs(a - b)
    return 0.5 * distance**2 if distance < 1 else distance - 0.5


def unit(row):
    return row / math.sqrt(float((row * row).sum()))


def cos(a, b) -> float:
    return float(unit(a) @ unit(b))


def loop_cosine(x, t):
    return sum(1 - cos(a, b) for a, b in zip(x, t, strict=True)) / len(x)


def loop_l2(x, t):
    return sum(0.5 * float(((a - b) ** 2).sum()) for a, b in zip(x, t, strict=True)) / len(x)


def distances(rows):
    found = {}
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            if i != j:
                found[i, j] = math.sqrt(float(((unit(a) - unit(b)) ** 2).sum()))
    mean = sum(found.values()) / len(found)
    return {pair: distance / mean for pair, distance in found.items()}


def loop_rkd_distance(x, t):
    ours, theirs = distances(x), distances(t)
    return sum(huber(ours[pair], theirs[pair]) for pair in ours) / len(ours)


def angle(rows, i, j, k) -> float:
    a, b, c = (unit(rows[n]) for n in (i, j, k))
    if i == j or k == j:
        return 0.0
    return float(unit(a - b) @ unit(c - b))


def loop_rkd_angle(x, t):
    number = range(len(x))
    triples = [(i, j, k) for i in number for j in number for k in number]
    return sum(huber(angle(x, *triple), angle(t, *triple)) for triple in triples) / len(triples)


def loop_similarity(x, t):
    total = 0.0
    for i in range(len(x)):
        ours, theirs = (unit(np.array([cos(rows[i], other) for other in rows])) for rows in (x, t))
        total += float(((ours - theirs) ** 2).sum())
    return total / len(x) ** 2


def loop_correlation(x, t):
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x))]
    return sum((cos(x[i], x[j]) - cos(t[i], t[j])) ** 2 for i, j in pairs) / len(pairs)


LOOPS = {
    "cosine": loop_cosine,
    "l2": loop_l2,
    "rkd-distance": loop_rkd_distance,
    "rkd-angle": loop_rkd_angle,
    "similarity": loop_similarity,
    "correlation": loop_correlation,
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loss_is_that_of_its_paper(name):
    projected = name in OF_PROJECTION
    x, t = drawn(N, T if projected else D), drawn(N, T, seed=1)
    found = ({**OF_PROJECTION, **OF_EMBEDDINGS})[name](x, t)
    assert float(found) == pytest.approx(LOOPS[name](x.numpy(), t.numpy()), rel=1e-5)


@pytest.mark.parametrize("name", LOOPS)
def test_its_gradient_is_that_of_finite_differences(name):
    x, t = drawn(N, T, seed=2).requires_grad_(), drawn(N, T, seed=3)
    assert torch.autograd.gradcheck(lambda rows: ({**OF_PROJECTION, **OF_EMBEDDINGS})[name](rows, t), (x,))


@pytest.mark.parametrize("name", ["rkd-distance", "rkd-angle", "similarity", "correlation"])
def test_a_rotated_and_scaled_teacher_is_copied_at_no_cost(name):
    t = drawn(N, T, seed=4)
    rotation = torch.linalg.qr(drawn(D, D, seed=5))[0][:T]  # (T, D), orthonormal rows
    assert float(OF_EMBEDDINGS[name](3.0 * t @ rotation, t)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", LOOPS)
def test_one_image_alone_gives_a_finite_loss_and_gradient(name):
    x, t = drawn(1, T, seed=6).requires_grad_(), drawn(1, T, seed=7)
    loss = ({**OF_PROJECTION, **OF_EMBEDDINGS})[name](x, t)
    loss.backward()
    assert bool(x.grad.isfinite().all())
    assert (name in OF_PROJECTION) != (abs(loss.item()) < 1e-12)


@pytest.mark.parametrize("name", LEAST_IMAGES)
def test_with_the_fewest_images_a_loss_is_not_zero(name):
    for count in range(1, LEAST_IMAGES[name] + 1):
        loss = float(OF_EMBEDDINGS[name](drawn(count, D, seed=6), drawn(count, T, seed=7)))
        assert (loss > 1e-9) == (count == LEAST_IMAGES[name])


@pytest.mark.parametrize("name", LOOPS)
def test_two_images_alike_to_the_bit_give_finite_gradients(name):
    x = drawn(N, T, seed=6)
    x[1] = x[0]
    x.requires_grad_()
    ({**OF_PROJECTION, **OF_EMBEDDINGS})[name](x, x.detach().clone()).backward()
    assert bool(x.grad.isfinite().all())


def test_angles_are_the_same_when_computed_some_at_a_time(monkeypatch):
    x, t = drawn(N, D), drawn(N, T, seed=1)
    whole = OF_EMBEDDINGS["rkd-angle"](x, t)
    monkeypatch.setattr("sphereface.losses.teacher._MOST_ANGLES", 2 * N**2)
    assert float(OF_EMBEDDINGS["rkd-angle"](x, t)) == pytest.approx(float(whole), rel=1e-12)


def test_the_queue_loss_is_a_cross_entropy_over_the_filled_places_and_ones_own():
    x, t = drawn(N, T, seed=7), drawn(N, T, seed=8)
    queue = torch.zeros(6, T, dtype=torch.float64)
    queue[:4] = torch.nn.functional.normalize(drawn(4, T, seed=9))
    total = 0.0
    for own, taught in zip(x.numpy(), t.numpy(), strict=True):
        places = [unit(taught), *queue[:4].numpy()]
        ours = [math.exp(cos(own, place) / 0.2) for place in places]
        theirs = [math.exp(cos(taught, place) / 0.05) for place in places]
        total -= sum(q / sum(theirs) * math.log(p / sum(ours)) for p, q in zip(ours, theirs, strict=True))
    assert float(over_queue(x, t, queue, (0.2, 0.05))) == pytest.approx(total / N, rel=1e-9)


def head(**loss: float) -> TeacherHead:
    options = TeacherConfig(
        embeddings="x", losses={name.replace("_", "-"): w for name, w in loss.items()}, queue_size=10
    )
    return TeacherHead(D, T, options, seed=3)


def test_a_head_adds_its_losses_with_their_weights():
    x, t = drawn(N, D).float(), drawn(N, T, seed=1).float()
    both = head(cosine=2.0, correlation=5.0)
    projected = x @ both.weight.detach().T
    wanted = 2 * loop_cosine(projected.numpy(), t.numpy()) + 5 * loop_correlation(x.numpy(), t.numpy())
    assert float(both(x, t).detach()) == pytest.approx(wanted, rel=1e-5)


def test_l2_projects_directions():
    """As cosine does: with a batch norm before them, lengths of 20 made P and the loss grow without bound."""
    x, t = drawn(N, D).float(), drawn(N, T, seed=1).float()
    one = head(l2=2.0)
    projected = torch.stack([row / row.norm() for row in x]) @ one.weight.detach().T
    assert float(one(x, t).detach()) == pytest.approx(2 * loop_l2(projected.numpy(), t.numpy()), rel=1e-5)
    assert float(one(20 * x, t).detach()) == pytest.approx(float(one(x, t).detach()), rel=1e-5)


def test_l2_learns_from_long_embeddings():
    """Gradient descent with a usual rate fits P, where embeddings of length 20 have nearly one direction."""
    x = 20 * torch.nn.functional.normalize(drawn(64, D).float() + 5)
    t = 0.5 * drawn(64, T, seed=1).float()
    one = head(l2=1.0)
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = one(x, t)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_the_queue_keeps_the_newest_of_training_and_nothing_of_evaluation():
    queued = head(queue=1.0)
    batches = [drawn(N, T, seed=seed).float() for seed in (1, 2)]
    for batch in batches:
        queued(drawn(N, D).float(), batch)
    queued.eval()(drawn(N, D).float(), drawn(N, T, seed=5).float())
    wanted = torch.nn.functional.normalize(torch.cat([batches[1], batches[0]]))[:10]
    assert torch.equal(queued.queue, wanted)
    assert queued.queue.untyped_storage().nbytes() == 4 * 10 * T  # a checkpoint saves the storage whole
    queued.train()(drawn(12, D).float(), drawn(12, T, seed=6).float())  # more than it has places
    assert torch.equal(queued.queue, torch.nn.functional.normalize(drawn(12, T, seed=6).float())[:10])


def test_a_projection_and_a_queue_are_there_where_a_loss_uses_them():
    assert head(correlation=1.0).weight is None
    assert head(correlation=1.0).queue is None
    assert head(l2=1.0).weight.shape == (T, D)
    assert head(queue=1.0).queue.shape == (10, T)


def test_it_is_computed_in_float32_under_autocast():
    plain, x, t = head(cosine=1.0, rkd_angle=1.0), drawn(N, D).float(), drawn(N, T, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        low = plain(x, t)
    assert low.dtype is torch.float32
    assert torch.equal(low, plain(x, t))


def test_the_configuration_knows_every_loss():
    assert set(TEACHER_LOSSES) == {*OF_PROJECTION, *OF_EMBEDDINGS, QUEUE}
