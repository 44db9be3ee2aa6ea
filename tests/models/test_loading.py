"""Checkpoints whose words do not fit their weights: refused before anything is built."""

from __future__ import annotations

import zipfile

import pytest
import torch

from sphereface.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from sphereface.errors import UserError
from sphereface.models import load_model, loading

from ..evaluation.checkpoints import write_checkpoint


def altered(path, change):
    state = {key: value for key, value in load_checkpoint(path).items() if key not in ("format", "id")}
    change(state)
    save_checkpoint(path, state, {})
    return path


@pytest.mark.parametrize(
    "claim", [{"embedding_dim": 10**12}, {"input_size": [10**7, 10**7]}, {"widths": [1, 1, 1, 10**9]}]
)
def test_a_claimed_size_is_compared_and_not_allocated(tmp_path, claim):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s["meta"]["config"]["model"].update(claim))
    with pytest.raises(UserError, match="another architecture"):
        load_model(path)


@pytest.mark.parametrize("size", [[float("inf"), 3], [-3, 0], [10**6, 10**6], [33, 24], 7, ["a", "b"]])
def test_a_seen_size_that_cannot_be_is_refused(tmp_path, size):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s.update(seen_size=size))
    with pytest.raises(UserError, match="a.pt: seen_size: got"):
        load_model(path)


@pytest.mark.parametrize("name", [["spherenet"], {"a": 1}, None, "nothing"])
def test_a_name_that_is_none_is_one_line(tmp_path, name):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s["meta"]["config"]["model"].update(name=name))
    with pytest.raises(UserError, match="model.name: got"):
        load_model(path)


@pytest.mark.parametrize(
    ("dim", "line"),
    [
        (2**53, "a.pt: another architecture: fc5.bias is"),
        (2**63, "a.pt: model.embedding_dim: got 9223372036854775808 .* · integers go up to 9,007,199,254,740,992"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_line(tmp_path, dim, line):
    path = altered(
        write_checkpoint(tmp_path / "a.pt"), lambda s: s["meta"]["config"]["model"].update(embedding_dim=dim)
    )
    with pytest.raises(UserError, match=line):
        load_model(path)


def test_of_many_claimed_networks_one_is_built(tmp_path, monkeypatch):
    claim = {"networks": 100, "depth": 64}
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s["meta"]["config"]["model"].update(claim))
    build, built = loading.build_model, []
    monkeypatch.setattr(loading, "build_model", lambda options: built.append(options) or build(options))
    with pytest.raises(BadCheckpoint, match="another architecture"):
        load_model(path)
    assert len(built) == 1
    with pytest.raises(UserError, match="model.networks: got 1000000 · allowed"):
        load_model(altered(path, lambda s: s["meta"]["config"]["model"].update(networks=10**6)))


def test_weights_that_claim_more_numbers_than_are_stored_are_refused(tmp_path):
    def expand(state):
        state["meta"]["config"]["model"].update(embedding_dim=10**9)
        for name in ("fc5.weight", "fc5.bias"):
            shape = state["model"][name].shape
            state["model"][name] = torch.zeros(1).expand(10**9, *shape[1:])

    path = altered(write_checkpoint(tmp_path / "a.pt"), expand)
    assert path.stat().st_size < 10**5
    with pytest.raises(BadCheckpoint, match=r"a.pt: fc5.(weight|bias): claims more numbers than the file holds"):
        load_model(path)


def test_weights_that_share_their_numbers_are_refused(tmp_path):
    def share(state):
        block = torch.zeros(10**5)
        state["average"] = {f"{k}": block[: 10**5] for k in range(1000)}

    with pytest.raises(BadCheckpoint, match="claims more numbers than the file holds"):
        load_model(altered(write_checkpoint(tmp_path / "a.pt"), share))


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s.update(extra=torch.zeros(10**6)))
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "z.pt").stat().st_size < 10**5
    with pytest.raises(BadCheckpoint, match="z.pt: refused: its entries unpack to more than the file"):
        load_model(tmp_path / "z.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    def spoil(state):
        state["model"]["fc5.bias"] = state["model"]["fc5.bias"].double().fill_(value)  # 1e300: not in float32

    with pytest.raises(BadCheckpoint, match="a.pt: fc5.bias holds numbers that are not finite"):
        load_model(altered(write_checkpoint(tmp_path / "a.pt"), spoil))


@pytest.mark.parametrize("value", [torch.ones(16, dtype=torch.complex64), torch.ones(16).to_sparse()])
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, value):
    path = altered(write_checkpoint(tmp_path / "a.pt"), lambda s: s["model"].update({"fc5.bias": value}))
    with pytest.raises(BadCheckpoint, match="a.pt: fc5.bias: got a tensor of .* · allowed: plain numbers"):
        load_model(path)
