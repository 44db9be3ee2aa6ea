"""Checkpoints of networks trained apart, joined to one: nothing of them is lost, nothing that does not fit gets in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.cli import run_command
from sphereface.commands import join as command
from sphereface.config import parse_model
from sphereface.errors import UserError
from sphereface.models import BACKBONES, build_model, load_model
from sphereface.models.joining import join as models_join
from sphereface.models.spherenet import SphereNetOptions

IMAGES = torch.rand(5, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(path: Path, seed: int, *, depth: int = 4, **meta: object) -> Path:
    """A checkpoint as a run of that seed leaves it: 10 steps of 8 images in 3 seconds."""
    config = SphereNetOptions(depth=depth, widths=(4, 4, 4, 8), embedding_dim=16, input_size=(32, 24))
    torch.manual_seed(seed)
    weights = build_model(config).state_dict()
    about = {
        "config": {"model": config.to_dict(), "seed": seed, "train": {"lr": 0.1}, "loss": {"m": 4}, "name": path.stem},
        **{"run": path.stem, "step": 10, "total_steps": 10, "images_seen": 80, "seconds": 3.0},
        **{"class_names": ["a", "b"], "num_images": 20, "best": 0.9, "best_step": 5, "evaluated_step": 10},
        **meta,
    }
    save_checkpoint(path, {"meta": about, "model": weights, "seen_size": [16, 12 + seed]}, {"step": 10})
    return path


@pytest.fixture
def three(tmp_path):
    return [network(tmp_path / f"{name}.pt", seed) for seed, name in enumerate("abc")]


def join(*paths: Path, output: Path) -> dict:
    assert run_command("join", [*map(str, paths), "--output", str(output)]) == 0
    return load_checkpoint(output)


def test_the_cosine_is_the_mean_of_the_cosines(three, tmp_path):
    join(*three, output=tmp_path / "abc.pt")
    joined = load_model(tmp_path / "abc.pt")
    with torch.no_grad():
        together = joined.model(IMAGES).double().numpy()
        apart = [load_model(path).model(IMAGES).double().numpy() for path in three]
    assert together.shape == (5, 48)
    for i in range(5):
        for k in range(5):
            cosines = [x[i] @ x[k] / np.sqrt((x[i] @ x[i]) * (x[k] @ x[k])) for x in (*apart, together)]
            assert cosines[3] == pytest.approx(sum(cosines[:3]) / 3, abs=1e-5)


def test_what_the_checkpoint_says_of_itself(three, tmp_path):
    state = join(*three, output=tmp_path / "abc.pt")
    meta = state["meta"]
    assert meta["networks"] == [str(path) for path in three]
    assert meta["config"]["model"]["networks"] == 3
    assert (meta["step"], meta["total_steps"], meta["images_seen"], meta["seconds"]) == (30, 30, 240, 9.0)
    assert (meta["class_names"], meta["num_images"], meta["run"]) == (["a", "b"], 20, "abc")
    assert not ({"best", "best_step", "evaluated_step"} & meta.keys())  # of one network's run
    assert state["seen_size"] == [[16, 12], [16, 13], [16, 14]]
    assert json.loads((tmp_path / "abc.json").read_text())["of"] == meta["networks"]
    assert not (state.keys() - {"format", "id", "meta", "model", "seen_size"})
    assert "more_people" not in meta


@pytest.mark.parametrize(
    ("people", "more", "known"),
    [
        (["a", "c"], {}, ["a", "b", "c"]),
        (["a", "b"], {"more_people": ["d"]}, ["a", "b", "d"]),
        (["1", "2"], {"numbered": [""], "more_people": ["d"]}, ["a", "b", "d"]),  # numbers of a set without names
        (["web/1", "own/c"], {"numbered": ["web"]}, ["a", "b", "c"]),
    ],
)
def test_networks_of_different_people_keep_the_names_of_all(tmp_path, people, more, known):
    paths = network(tmp_path / "a.pt", 0), network(tmp_path / "b.pt", 1, class_names=people, **more)
    meta = join(*paths, output=tmp_path / "ab.pt")["meta"]
    assert meta["more_people"] == known
    again = join(tmp_path / "ab.pt", network(tmp_path / "c.pt", 2, class_names=["e"]), output=tmp_path / "abc.pt")
    assert again["meta"]["more_people"] == [*known, "e"]


def test_what_is_joined_already_brings_each_of_its_networks(three, tmp_path):
    at_once = join(*three, output=tmp_path / "abc.pt")
    join(three[1], three[2], output=tmp_path / "bc.pt")
    in_two = join(three[0], tmp_path / "bc.pt", output=tmp_path / "a-bc.pt")
    for key in ("networks", "step", "images_seen"):
        assert in_two["meta"][key] == at_once["meta"][key]
    assert in_two["meta"]["config"]["model"] == at_once["meta"]["config"]["model"]
    assert in_two["seen_size"] == at_once["seen_size"]
    assert in_two["model"].keys() == at_once["model"].keys()
    assert all(torch.equal(in_two["model"][name], value) for name, value in at_once["model"].items())


def test_averaged_weights_are_the_ones_that_are_joined(three, tmp_path):
    state = load_checkpoint(three[0])
    state["average"] = {name: value + 1 for name, value in state["model"].items()}
    save_checkpoint(three[0], {k: v for k, v in state.items() if k not in ("format", "id")}, {})
    joined = join(*three, output=tmp_path / "abc.pt")["model"]
    assert torch.equal(joined["networks.0.fc5.weight"], state["average"]["fc5.weight"])
    assert not torch.equal(joined["networks.0.fc5.weight"], state["model"]["fc5.weight"])


def test_other_images_and_settings_are_told_and_not_claimed(three, tmp_path, capsys):
    config = load_checkpoint(three[0])["meta"]["config"]
    other = network(tmp_path / "d.pt", 3, num_images=30, config={**config, "seed": 3, "train": {"lr": 0.5}})
    meta = join(three[0], other, output=tmp_path / "ad.pt")["meta"]
    assert meta["class_names"] == ["a", "b"]
    assert "num_images" not in meta
    assert meta["config"].keys() == {"model", "loss", "name"}  # what holds for both
    told = capsys.readouterr().out
    assert f"note: {other} differs from {three[0]}: train.lr: 0.1 → 0.5 · images: 20 → 30\n" in told
    assert "trained twice" not in told


def test_other_people_are_told_though_they_are_as_many(three, tmp_path, capsys):
    other = network(tmp_path / "d.pt", 3, class_names=["a", "z"])
    assert "class_names" not in join(three[0], other, output=tmp_path / "ad.pt")["meta"]
    assert f"{other} differs from {three[0]}: other people, or unknown people\n" in capsys.readouterr().out


def test_a_seed_trained_two_times_is_told(three, tmp_path, capsys):
    config = {**load_checkpoint(three[1])["meta"]["config"], "name": "again"}
    again = network(tmp_path / "d.pt", 9, config=config)  # by the clock, weights differ though the seed does not
    join(*three, again, output=tmp_path / "x.pt")
    told = [line for line in capsys.readouterr().out.splitlines() if "trained twice" in line]
    same = f"note: {again} has the same seed and settings as {three[1]}: possibly one network, trained twice"
    assert told == [same]


def test_the_card_of_networks_of_unlike_data_names_no_data(three, tmp_path):
    config = load_checkpoint(three[0])["meta"]["config"]
    paths = [network(tmp_path / f"{n}.pt", n, config={**config, "data": {"train": f"set{n}"}}) for n in (4, 5)]
    join(*paths, output=tmp_path / "x.pt")
    assert (
        run_command("export", [str(tmp_path / "x.pt"), "--format", "torchscript", "--output", str(tmp_path / "x.ts")])
        == 0
    )
    card = (tmp_path / "x.ts.md").read_text()
    assert "An ensemble of 2 `spherenet` networks" in card
    assert "set4" not in card
    join(*(network(tmp_path / f"{n}.pt", n, config={**config, "data": {"train": "one"}}) for n in (6, 7)),
         output=tmp_path / "y.pt")  # fmt: skip
    assert (
        run_command("export", [str(tmp_path / "y.pt"), "--format", "torchscript", "--output", str(tmp_path / "y.ts")])
        == 0
    )
    assert "`one`" in (tmp_path / "y.ts.md").read_text()


def test_imported_networks_have_no_steps_to_add(three, tmp_path):
    config = {"model": load_checkpoint(three[0])["meta"]["config"]["model"]}
    torch.manual_seed(9)
    weights = build_model(parse_model(config["model"], BACKBONES, [])).state_dict()
    save_checkpoint(tmp_path / "imported.pt", {"meta": {"config": config, "run": "theirs"}, "model": weights}, {})
    state = join(three[0], tmp_path / "imported.pt", output=tmp_path / "both.pt")
    assert not ({"step", "total_steps", "images_seen", "seconds", "num_images"} & state["meta"].keys())
    assert state["seen_size"] == [[16, 12], [32, 24]]
    assert load_model(tmp_path / "both.pt").model(IMAGES).shape == (5, 32)


def test_what_does_not_fit_is_refused_and_nothing_written(three, tmp_path):
    deep = network(tmp_path / "deep.pt", 5, depth=10)
    state = load_checkpoint(three[2])
    del state["model"]["fc5.bias"]
    short = tmp_path / "short.pt"
    save_checkpoint(short, {key: state[key] for key in ("meta", "model")}, {})
    empty = tmp_path / "empty.pt"
    save_checkpoint(empty, {"meta": {}}, {})
    output = tmp_path / "out.pt"
    cases = {
        (three[0], deep): r"deep.pt: another architecture than .*a.pt \(model.depth: 4 → 10\) · allowed",
        (three[0], three[1], three[0]): r"a.pt: holds the same network as that file · give each network once",
        (three[0],): r"networks to join: got 1 · allowed: 2 to 100",
        (three[0], short): r"short.pt: another architecture: fc5.bias is missing",
        (three[0], empty): r"empty.pt: has no 'config' entry, so it is not a training checkpoint",
        (three[0], tmp_path / "none.pt"): r"none.pt: no such checkpoint file",
    }
    for paths, message in cases.items():
        with pytest.raises(UserError, match=message):
            join(*paths, output=output)
    copy = tmp_path / "copy.pt"
    copy.write_bytes(three[0].read_bytes())
    with pytest.raises(UserError, match=r"copy.pt: holds the same network as .*a.pt ·"):
        join(three[0], copy, output=output)
    assert not output.exists()


def altered(path: Path, output: Path, change) -> Path:
    state = load_checkpoint(path)
    change(state)
    save_checkpoint(output, {key: state[key] for key in ("meta", "model", "seen_size") if key in state}, {})
    return output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["meta"].update(networks=["a"]), r"meta.networks: got \['a'\] · allowed: the names of its 2 files"),
        (lambda s: s["meta"].update(networks=None), "meta.networks: got None · allowed: a list of texts"),
        (
            lambda s: s.update(seen_size=[[16, 12]]),
            r"seen_size: got \[\[16, 12\]\] · allowed: one for each of its 2 networks",
        ),
        (lambda s: s.update(seen_size=[16, 12]), r"seen_size: got \[16, 12\] · allowed: height and width of each"),
        (lambda s: s["meta"]["config"]["model"].update(networks=3), "networks.2.fc5.bias is missing in the file"),
        (lambda s: s["meta"]["config"]["model"].update(networks=1), "another architecture: fc5.bias is missing"),
        (lambda s: s.update(model=[1, 2]), "its weights are not tensors with names"),
        (lambda s: s["model"].update({"networks.0.fc5.bias": 3}), "its weights are not tensors with names"),
        (lambda s: s.update(meta="x"), "meta: got 'x' · allowed: a mapping"),
        (lambda s: s["model"].update({"networks.2.fc5.bias": torch.zeros(16)}), "networks.2.fc5.bias is"),
    ],
)
def test_a_damaged_joined_file_is_refused_in_one_line(three, tmp_path, change, message):
    join(three[0], three[1], output=tmp_path / "ab.pt")
    damaged = altered(tmp_path / "ab.pt", tmp_path / "damaged.pt", change)
    with pytest.raises(UserError, match=rf"damaged.pt: .*{message}"):
        join(damaged, three[2], output=tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("seen", [[16, 12], [[16, 12]], 16])
def test_sizes_that_do_not_fit_are_refused_by_whatever_loads_the_network(three, tmp_path, seen):
    join(three[0], three[1], output=tmp_path / "ab.pt")
    damaged = altered(tmp_path / "ab.pt", tmp_path / "damaged.pt", lambda s: s.update(seen_size=seen))
    with pytest.raises(UserError, match=r"damaged.pt: seen_size: got"):
        load_model(damaged)
    if seen != [16, 12]:
        single = altered(three[0], tmp_path / "single.pt", lambda s: s.update(seen_size=seen))
        with pytest.raises(UserError, match=r"single.pt: seen_size: got"):
            load_model(single)


def test_what_a_checkpoint_leaves_at_its_default_is_no_difference(three, tmp_path):
    bare = altered(three[0], tmp_path / "bare.pt", lambda s: s["meta"]["config"]["model"].pop("norm"))
    meta = join(bare, three[1], output=tmp_path / "out.pt")["meta"]
    assert meta["config"]["model"]["norm"] == "none"


def test_a_step_that_is_missing_is_not_added(three, tmp_path):
    odd = altered(three[0], tmp_path / "odd.pt", lambda s: s["meta"].pop("step"))
    meta = join(odd, three[1], output=tmp_path / "out.pt")["meta"]
    assert "step" not in meta
    assert meta["images_seen"] == 160


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pt", r"--output: .*a.pt exists already"),
        ("kept.pt", r"--output: .*kept.json exists already"),
        ("x.bin", r"--output: got .*x.bin · allowed: a name that ends in .pt"),
        ("a.pt/x.pt", "cannot be written"),
        ("x" * 300 + ".pt", "cannot be written"),
    ],
)
def test_where_the_output_may_be(three, tmp_path, name, message):
    (tmp_path / "kept.json").write_text("mine")
    before = three[0].read_bytes()
    with pytest.raises(UserError, match=message):
        join(*three, output=tmp_path / name)
    assert three[0].read_bytes() == before
    assert (tmp_path / "kept.json").read_text() == "mine"


HOLD = """
import sys
from pathlib import Path
from sphereface.files import lock_file
held = lock_file(Path(sys.argv[1]))
print(1, flush=True)
input()
"""


def test_the_second_of_two_that_join_to_one_file_ends_in_one_line(three, tmp_path):
    output = tmp_path / "new" / "abc.pt"
    output.parent.mkdir()
    holder = [sys.executable, "-c", HOLD, str(output.with_name(".abc.lck"))]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(UserError, match=r"^--output: another process is writing .*abc.pt · wait for it"):
            join(*three, output=output)
        other.communicate("\n")
    join(*three, output=output)
    assert sorted(path.name for path in output.parent.iterdir()) == ["abc.json", "abc.pt"]


def test_a_file_that_came_while_networks_were_read_is_kept(three, tmp_path, monkeypatch):
    output = tmp_path / "abc.pt"

    def slow(states, paths):
        output.write_bytes(b"mine")
        return models_join(states, paths)

    monkeypatch.setattr(command, "join", slow)
    with pytest.raises(UserError, match=r"--output: .*abc.pt exists already"):
        join(*three, output=output)
    assert output.read_bytes() == b"mine"


def test_a_name_as_long_as_a_file_system_allows(three, tmp_path):
    join(*three, output=tmp_path / ("x" * 250 + ".pt"))  # 255 bytes, with its .json


def template(*, right: float = 0.0) -> dict:
    return {"size": [32, 24], "points": [[4.0 + right, 5.0], [20.0, 5.0], [12.0, 12.0], [6.0, 20.0], [18.0, 20.0]]}


@pytest.mark.parametrize(("right", "joins"), [(0.0, True), (0.004, True), (-0.004, True), (0.2, False), (-9.0, False)])
def test_networks_of_crops_of_two_templates_are_refused(tmp_path, capsys, right, joins):
    one = network(tmp_path / "a.pt", 0, template=template())
    two = network(tmp_path / "b.pt", 1, template=template(right=right))
    if joins:
        assert join(one, two, output=tmp_path / "ab.pt")["meta"]["template"] == template()
        assert "template" not in capsys.readouterr().out
        return
    message = (
        r"b.pt: its crops have another template than those of .*a.pt \(meta.template: 4.0,5.0 .* and "
        rf"{4 + right:.1f},5.0 .*\) · allowed: networks of one template, "
    )
    with pytest.raises(UserError, match=message):
        run_command("join", [str(one), str(two), "--output", str(tmp_path / "ab.pt")])
    assert not (tmp_path / "ab.pt").exists()


@pytest.mark.parametrize("first", [True, False])
def test_the_template_that_one_network_alone_records_is_kept_and_said(tmp_path, capsys, first):
    one = network(tmp_path / "a.pt", 0, **({"template": template()} if first else {}))
    two = network(tmp_path / "b.pt", 1, **({} if first else {"template": template()}))
    assert join(one, two, output=tmp_path / "ab.pt")["meta"]["template"] == template()
    said = "only one of them records the template of its crops; photographs are aligned to that template"
    assert f"note: {two} differs from {one}: {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value", [7, {"size": [1, 2]}, {"size": [1, 2], "points": [[1, 2, 3]]}, {"size": 3, "points": []}]
)
def test_a_template_that_is_none_is_one_line(tmp_path, value):
    one, two = network(tmp_path / "a.pt", 0, template=value), network(tmp_path / "b.pt", 1)
    with pytest.raises(UserError, match="a.pt: meta.template: got "):
        run_command("join", [str(one), str(two), "--output", str(tmp_path / "ab.pt")])
