"""Configuration: shipped files, overrides, and what each mistake is told."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
import yaml

from sphereface.config import Config, config_from_dict, differences, load_config
from sphereface.config_files import find_config
from sphereface.errors import ConfigError, UserError
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.places import Places
from sphereface.yaml_text import dump_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))


def load(text: str, tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "test.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(str(path), overrides, losses=MARGINS, backbones=BACKBONES)


def problems_of(text: str, tmp_path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, *overrides)
    return caught.value.problems


GOOD = "data: {train: crops}\ntrain: {steps: 10}\n"


def test_the_home_folder_may_start_any_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a\\1")
    text = """
        runs_dir: ~/runs
        data: {train: [~/a, b~/c, d/~/e, ~f/g], root: ~/h}
        train: {steps: 10}
        eval: {sets: {one: ~/p, two: "pairs:~/p,q,~/r.txt", three: {images: ~/i, pairs: j/~}}}
    """
    home = "/home/a\\1"
    config = load(text, tmp_path, "train.init_from=~/w.pt")
    assert config.runs_dir == f"{home}/runs"
    assert config.data.train == (f"{home}/a", "b~/c", "d/~/e", "~f/g")
    assert (config.data.root, config.train.init_from) == (f"{home}/h", f"{home}/w.pt")
    assert config.evaluation_sets()["one"].paths == (Path(home, "p"),)
    assert config.evaluation_sets()["two"] == Places("pairs", (Path(home, "p"), Path("q"), Path(home, "r.txt")))
    assert config.evaluation_sets()["three"].paths == (Path(home, "i"), Path("j/~"))


def test_the_extended_file_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text(GOOD + "seed: 9\n", encoding="utf-8")
    assert load("extends: ~/base.yaml\n", tmp_path).seed == 9


def test_no_key_sets_a_derived_field(tmp_path):
    (problem,) = problems_of(f"{GOOD}stages: []\n", tmp_path)
    assert problem.startswith("stages: unknown key")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_file_is_valid(path):
    config = load_config(path.name, losses=MARGINS, backbones=BACKBONES)
    assert config.name == path.stem
    assert "shared" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_key_of_a_shipped_file_carries_a_comment(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        is_section = re.fullmatch(r"\w+:\s*", line)
        is_entry_of_sets = re.match(r"    \S", line)
        is_name = re.match(r"name:", line) and path.name != "sphere20.yaml"
        names_the_loss_or_model = re.match(r"  name:", line)
        if (
            ":" in line
            and not line.lstrip().startswith("#")
            and not (is_section or is_entry_of_sets or is_name or names_the_loss_or_model)
        ):
            assert "#" in line, line


def test_sphere20_is_the_paper_number_for_number():
    c = load_config("sphere20.yaml", losses=MARGINS, backbones=BACKBONES)
    assert (c.model.depth, c.model.embedding_dim, c.model.input_size, c.model.norm) == (
        20,
        512,
        (112, 96),
        "none",
    )
    assert (c.train.batch_size, c.train.steps, c.train.milestones) == (512, 28000, (16000, 24000))
    assert (c.train.lr, c.train.mu, c.train.weight_decay, c.train.lr_decay) == (0.1, 0.9, 5e-4, 0.1)
    assert (c.train.momentum, c.train.schedule, c.train.warmup_steps) == ("caffe", "step", 0)
    assert (c.loss.name, c.loss.m, c.loss.gradient) == ("a-softmax", 4, "caffe")
    assert (c.loss.lambda_base, c.loss.lambda_gamma, c.loss.lambda_power, c.loss.lambda_min) == (
        1000,
        0.12,
        1,
        5,
    )
    assert (c.data.mirror, c.data.crop_shift) == (True, 0)
    assert c.data.exclude == ("0166921", "1056413", "1193098")


def test_sphere20_spells_out_every_key():
    given = yaml.safe_load((CONFIGS / "sphere20.yaml").read_text(encoding="utf-8"))
    resolved = load_config("sphere20.yaml", losses=MARGINS, backbones=BACKBONES).to_dict()
    for section, values in resolved.items():
        if isinstance(values, dict):
            assert set(given[section]) == set(values), section
        else:
            assert section in given


def test_the_long_run_is_the_hour_with_more_networks():
    hour, long = (load_config(name, losses=MARGINS, backbones=BACKBONES) for name in ("faces-60min", "faces-long"))
    assert differences(hour.to_dict(), long.to_dict()) == [
        "name: 'faces-60min' → 'faces-long'",
        "model.networks: 2 → 10",
        "train.max_minutes: 29.5 → 47.0",
        "checkpoint.keep: 3 → 1",
    ]
    assert 2 * hour.train.max_minutes <= 60
    assert 10 * long.train.max_minutes <= 8 * 60


def test_depths_differ_from_sphere20_in_name_and_depth_alone():
    base = load_config("sphere20.yaml", losses=MARGINS, backbones=BACKBONES)
    for depth in (4, 10, 36, 64):
        other = load_config(f"sphere{depth}", losses=MARGINS, backbones=BACKBONES)
        assert other.model == dataclasses.replace(base.model, depth=depth)
        assert (other.train, other.data, other.loss) == (base.train, base.data, base.loss)


def test_resolved_config_reads_back_as_itself(tmp_path):
    config = load(GOOD, tmp_path, "eval.sets.mine={images: a, pairs: b}")
    again = config_from_dict(
        yaml.safe_load(yaml.safe_dump(config.to_dict())), source="again", losses=MARGINS, backbones=BACKBONES
    )
    assert again.to_dict() == config.to_dict()


def test_set_overrides_yaml_and_yaml_overrides_defaults(tmp_path):
    config = load(GOOD + "seed: 3\n", tmp_path, "train.steps=20", "train.lr=1e-3", "model.input_size=[64, 48]")
    assert (config.seed, config.train.steps, config.train.lr) == (3, 20, 0.001)
    assert config.model.input_size == (64, 48)


def test_a_number_that_pyyaml_reads_as_text(tmp_path):
    assert load(GOOD, tmp_path, "train.weight_decay=1e-4").train.weight_decay == 1e-4
    assert load("train: {steps: 1e3}\ndata: {train: x}", tmp_path).train.steps == 1000


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("seed=010", None, "seed", 10),
        ("train.steps=1e3", "train", "steps", 1000),
        ("train.lr=.5", "train", "lr", 0.5),
        ("train.lr='0.05'", "train", "lr", 0.05),
        ("train.milestones=[010, 1e3]", "train", "milestones", (10, 1000)),
        ("train.lr_mult={model: 1e-1, head: 010}", "train", "lr_mult", {"model": 0.1, "head": 10.0}),
        ("train.lr_mult.model=1e-1", "train", "lr_mult", {"model": 0.1}),
        (
            "data.exclude=[0045, 45, 1_0, yes, 0x1F, '1.50']",
            "data",
            "exclude",
            ("0045", "45", "1_0", "yes", "0x1F", "1.50"),
        ),
        ("data.train=2024", "data", "train", "2024"),
        ("data.train=[010, 7]", "data", "train", ("010", "7")),
        ("name=2024-13-45", None, "name", "2024-13-45"),
        ("eval.sets={1: crops, yes: x}", "eval", "sets", {"1": "crops", "yes": "x"}),
    ],
)
def test_numbers_and_names_are_read_as_people_mean_them(tmp_path, override, section, key, value):
    """PyYAML's own loader takes 1e-1 for a text, 010 for 8, 0045 for 37, 1_0 for 10 and yes for true."""
    config = load(GOOD, tmp_path, override)
    found = getattr(config if section is None else getattr(config, section), key)
    assert (found, type(found)) == (value, type(value))
    path = tmp_path / "again.yaml"
    path.write_text(dump_yaml(config.to_dict()), encoding="utf-8")
    assert load_config(str(path), losses=MARGINS, backbones=BACKBONES).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("data.exclude=[1.50]", r"data.exclude: got \[1.5\] · allowed: a list of texts · put a name .* into quotes"),
        ("data.exclude=[null]", r"data.exclude: got \[None\] · .* into quotes"),
        ("data.exclude=null", r"data.exclude: got None · allowed: a list of texts$"),
        ("name=true", "name: got True · allowed: a text · put a name"),
        ("seed=0x10", "seed: got '0x10' · allowed: an integer from 0"),
        ("seed=1_0", "seed: got '1_0' · allowed: an integer from 0"),
        ("seed=1:30", "seed: got '1:30' · allowed: an integer from 0"),
        ("seed=-1", "seed: got -1 · allowed: an integer from 0 to 4294967295$"),
        ("name=''", "name: got '' · allowed: the name of a folder, which is created in runs_dir"),
        ("name=../x", "name: got '../x' · allowed: the name of a folder"),
        ("name=/x", "name: got '/x' · allowed: the name of a folder"),
        ('name="a\\nb"', r"name: got 'a\\nb' · allowed: the name of a folder"),
        ("name=" + "n" * 300, "name: got 'nnn"),
        ("data.mirror=yes", "data.mirror: got 'yes' · allowed: true or false"),
        ("train.steps=1" + "0" * 400, r"train.steps: got 10+\.\.\.0+ · allowed: an integer of at least 1 or null"),
        ("train.lr=1e999", "train.lr: got inf · allowed: a number above 0"),
        ("train.lr_mult={head: fast}", "train.lr_mult.head: got 'fast' · allowed: a number of at least 0"),
        ("train.lr_mult={head: -1}", "train.lr_mult.head: got -1 · allowed: a number of at least 0"),
        ("train.lr_mult=[1]", r"train.lr_mult: got \[1\] · allowed: a mapping of names to numbers"),
        ('data.train="a\\0b"', r"data.train: got 'a\\x00b' · allowed: a text or a list of texts$"),
        ("model.units=[" + "1, " * 5000 + "1]", r"model.units: got \[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, \.\.\.\] · allowed"),
        ("loss.name=[[[[[[a]]]]]]", r"loss.name: got \[\[\[\[\.\.\.\]"),
        ("train.stages=" + "[" * 50 + "]" * 50, r"train.stages\[0\]|got \[\["),
    ],
)
def test_a_value_of_another_type_is_one_short_line(tmp_path, override, problem):
    with pytest.raises(ConfigError, match=problem) as raised:
        load(GOOD, tmp_path, override)
    assert len(str(raised.value).removeprefix(str(tmp_path))) < 500


def test_keys_that_are_no_texts_are_refused():
    values = {"data": {"train": "x"}, "train": {"steps": 1}, "eval": {"sets": {1: "crops"}}}
    with pytest.raises(ConfigError, match="eval.sets: got the key 1 · allowed: texts as keys"):
        config_from_dict(values, source="x", losses=MARGINS, backbones=BACKBONES)


def test_many_problems_are_ten_lines(tmp_path):
    with pytest.raises(ConfigError) as raised:
        load(GOOD + "".join(f"key{n}{'x' * 900}: 1\n" for n in range(40)), tmp_path)
    assert str(raised.value).count("\n") == 11
    assert len(str(raised.value)) < 10 * 300
    assert str(raised.value).endswith("… and 30 more")


ONE_STAGE = "train: {steps: 10, stages: [{until: 0.5, loss: {m: 1}}]}\n"


def test_options_of_a_stage_stay_with_the_loss_that_they_were_written_for(tmp_path):
    """A stage's ``m: 1`` is a multiplier in a-softmax, and a radian in arcface."""
    text = "data: {train: crops}\nloss: {name: a-softmax, m: 4}\n" + ONE_STAGE
    refused = (
        r"loss.name: got 'arcface', but train.stages\[0\].loss {'m': 1} was written for 'a-softmax' · give that stage "
        r"a loss with a name, or set train.stages=\[\]"
    )
    for override in ("loss.name=arcface", "loss={name: arcface}", "loss={name: arcface, m: 0.4}"):
        with pytest.raises(UserError, match=f"^--set: {refused}"):
            load(text, tmp_path, override)
    assert load(text, tmp_path, "loss.m=3").stages[0].loss.m == 1
    assert load(text, tmp_path, "loss.name=arcface", "train.stages=[]").loss.name == "arcface"
    new = load(text, tmp_path, "train.stages=[{until: 0.2, loss: {m: 0.1}}]", "loss.name=arcface")
    assert (new.stages[0].loss.name, new.stages[0].loss.m) == ("arcface", 0.1)
    named = text.replace("{m: 1}", "{name: a-softmax, m: 1}")
    assert load(named, tmp_path, "loss.name=arcface").stages[0].loss.name == "a-softmax"
    small = text.replace("loss: {m: 1}", "input_size: [56, 48]")
    assert load(small, tmp_path, "loss.name=arcface").stages[0].loss.name == "arcface"
    with pytest.raises(UserError, match="^--set: loss.name: got 'arcface', but"):  # a-softmax is the default
        load("data: {train: crops}\n" + ONE_STAGE, tmp_path, "loss.name=arcface")

    (tmp_path / "base.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"test.yaml: {refused}"):
        load("extends: base.yaml\nloss: {name: arcface}\n", tmp_path)
    own = "extends: base.yaml\nloss: {name: arcface}\ntrain: {stages: [{until: 0.1, loss: {m: 0.2}}]}\n"
    assert load(own, tmp_path).stages[0].loss.m == 0.2


@pytest.mark.parametrize("parent", ["fifo", "folder", "none.yaml", "[a]", "{a: b}", "3", "'a\0b'", "n" * 300])
def test_extends_of_what_is_no_configuration_is_one_line(tmp_path, monkeypatch, parent):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError) as raised:
        load(f"extends: {parent}\n" + GOOD, tmp_path)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("parent", ["test.yaml", "./test.yaml", "link.yaml", "a/../a/up.yaml"])
def test_extends_in_a_circle_by_another_name(tmp_path, parent):
    (tmp_path / "link.yaml").symlink_to("test.yaml")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up.yaml").write_text("extends: ../a/../test.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="extends: forms a cycle: .*test.yaml") as raised:
        load(f"extends: {parent}\n" + GOOD, tmp_path)
    assert str(raised.value).count("→") <= 2  # it is seen at once


def test_a_long_chain_of_files_ends(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="extends: forms a cycle") as raised:
        load("extends: 0.yaml\n" + GOOD, tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    with pytest.raises(UserError, match=r"test.yaml: not readable as YAML: more than 262,144 bytes"):
        load("# " + "x" * (1 << 18), tmp_path)


def test_a_name_that_no_file_can_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--config: no file 'nnn.*\.\.\.nnn"):
        find_config("n" * 300)


def test_an_unknown_key_suggests_the_nearest(tmp_path):
    (problem,) = problems_of("data: {train: x}\ntrain: {steps: 1, learning_rate: 0.1, wieght_decay: 0}", tmp_path)[:1]
    assert problem.startswith("train.learning_rate: unknown key · known: batch_size, ")
    assert "train.wieght_decay: unknown key · did you mean 'weight_decay'?" in problems_of(
        "data: {train: x}\ntrain: {steps: 1, wieght_decay: 0}", tmp_path
    )


def test_every_key_of_a_mapping_is_known(tmp_path):
    """Also those that its own options class does not read."""
    (top,) = problems_of(GOOD + "zzzz: 1\n", tmp_path)
    listed_keys = top.removeprefix("zzzz: unknown key · known: ").split(", ")
    sections = {field.name for field in dataclasses.fields(Config)} - {"stages"}
    assert sorted(listed_keys) == sorted(sections | {"extends"})
    for wrong, right in (("modle", "model"), ("lss", "loss"), ("extend", "extends")):
        assert f"{wrong}: unknown key · did you mean {right!r}?" in problems_of(f"{GOOD}{wrong}: {{}}\n", tmp_path)
    for section in ("loss", "model"):
        assert f"{section}.nam: unknown key · did you mean 'name'?" in problems_of(GOOD, tmp_path, f"{section}.nam=x")
        (line,) = problems_of(GOOD, tmp_path, f"{section}.zzzz=x")
        assert " · known: name, " in line
    (line,) = problems_of(GOOD, tmp_path, "train.stages=[{until: 0.5, loss: {nam: x}}]")
    assert line == "train.stages[0].loss.nam: unknown key · did you mean 'name'?"


@pytest.mark.parametrize("parent", ["none.yaml", "spere20", "closed/x"])
def test_a_bad_extends_names_the_file_that_has_it(tmp_path, monkeypatch, parent):
    stat = Path.stat

    def closed(path, **options):
        if str(path) == "closed/x":
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", closed)
    (tmp_path / "below.yaml").write_text(f"extends: {parent}\n", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load("extends: below.yaml\n" + GOOD, tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}/below.yaml: extends: ")
    assert "--config" not in str(raised.value)
    with pytest.raises(UserError, match=r"^--set extends: allowed: in a file only · name that file in --config"):
        load(GOOD, tmp_path, "extends=sphere20")


@pytest.mark.parametrize(
    ("key", "low", "most"),
    [
        ("data.workers", 0, 256), ("train.batch_size", 1, 2**20), ("eval.batch_size", 1, 2**20),
        ("train.steps", None, 2**53), ("train.warmup_steps", None, 2**53), ("model.embedding_dim", None, 2**53),
    ],
)  # fmt: skip
def test_sizes_are_bounded(tmp_path, key, low, most):
    """What is larger starts thousands of processes, is no size for torch, or gives a checkpoint that is refused."""
    load(GOOD, tmp_path, f"{key}={most}")
    (line,) = problems_of(GOOD, tmp_path, f"{key}={most + 1}")
    assert line.startswith(f"{key}: got {most + 1} · allowed: an integer ")
    assert low is None or line.endswith(f" from {low} to {most}")


def test_every_problem_is_reported_at_once(tmp_path):
    text = """
model: {depth: 18, embedding_dim: 0}
loss: {name: a-softmax, m: 1.7, gradient: exakt}
train: {batch_size: many, lr: -1, momentum: true}
eval: {select: nowhere}
dataa: 3
"""
    found = problems_of(text, tmp_path)
    for expected in (
        "model.depth: got 18 · allowed: one of 4, 10, 20, 36, 64",
        "model.embedding_dim: got 0 · allowed: an integer of at least 2",
        "loss.m: got 1.7 · allowed: an integer from 1 to 4",
        "loss.gradient: got 'exakt' · allowed: one of exact, caffe",
        "train.batch_size: got 'many' · allowed: an integer from 1 to 1048576",
        "train.lr: got -1 · allowed: a number above 0",
        "train.momentum: got True · allowed: one of caffe, torch",
        "dataa: unknown key · did you mean 'data'?",
        "data.train: missing · allowed: a text or a list of texts",
    ):
        assert expected in found


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.steps=null"], "train.steps, train.epochs: got neither"),
        (["train.epochs=3"], "train.steps, train.epochs: got both"),
        (["train.milestones=[20, 10]"], r"train.milestones: got \[20, 10\] · allowed: increasing"),
        (
            ["train.schedule=cosine", "train.milestones=[5]"],
            "train.milestones: got milestones with schedule cosine",
        ),
        (["model.input_size=[112]"], r"model.input_size: got \[112\] · allowed: \[height, width\]"),
        (["model.widths=[8, 8]"], "four stage widths"),
        (["eval.sets={a: {images: x}}"], "eval.sets.a.pairs: missing"),
        (["eval.select=b", "eval.sets={bb: x}"], "eval.select: got 'b'"),
        (["loss.name=arcfce"], "loss.name: got 'arcfce'"),
        (["loss=4"], "loss: got 4"),
        (["train=4"], "train: got 4 · allowed: a mapping"),
        (["train.lr=.nan"], "train.lr: got '.nan' · allowed: a number above 0"),
        (["train.steps=.inf"], "train.steps: got '.inf' · allowed: an integer"),
        (["train.batch_size=1", "model.norm=batch"], "train.batch_size: got 1 with batch normalisation in the model"),
        (["data.train=5.5"], "data.train: got 5.5 · allowed: a text or a list of texts · put a name .* into quotes$"),
        (["data.train=[a, 5.5]"], r"data.train: got \['a', 5.5\] · allowed: a text or a list of texts · put a name"),
        (
            ["data.train=[]"],
            "data.train: missing or empty · allowed: a folder of identities, a .rec, a list, a .zip, .tar, .parquet",
        ),
        (["data.train=[a, '']"], "data.train: missing or empty · allowed: a folder of identities"),
        (["data.train=''"], "data.train: missing or empty · allowed: a folder of identities"),
        (["train.init_from=''"], "train.init_from: got '' · allowed: a path, or null for none"),
        (["data.root=''"], "data.root: got '' · allowed: a path, or null for none"),
        (["data.exclude_file=' '"], "data.exclude_file: got ' ' · allowed: a path, or null for none"),
        (["runs_dir=''"], "runs_dir: got '' · allowed: a path"),
        (
            ["train.teacher.onnx=''", "train.teacher.losses={cosine: 1}"],
            "train.teacher.onnx: got '' · allowed: a path, or null for none",
        ),
        (["data.mirror=1"], "data.mirror: got 1 · allowed: true or false"),
    ],
)
def test_contradictions(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(GOOD, tmp_path, *overrides)


def test_a_bad_type_does_not_hide_a_contradiction(tmp_path):
    found = problems_of(
        GOOD, tmp_path, "train.lr=-1", "eval.select=nope", "train.milestones=[3, 1]", "model.widths=[1]"
    )
    assert {problem.partition(":")[0] for problem in found} == {
        *("train.lr", "eval.select", "train.milestones", "model.widths")
    }


def test_a_bad_value_is_reported_once(tmp_path):
    (problem,) = problems_of(GOOD, tmp_path, "train.steps=many")
    assert problem == "train.steps: got 'many' · allowed: an integer of at least 1 or null"


SECTIONS = """
data: {train: FACES, mirror: false}
train: {steps: 5, batch_size: 8, muon: {lr: 0.5, weight_decay: 0.25}, lr_mult: {head: 2}}
eval: {batch_size: 3, sets: {a: A}, select: a}
"""


def test_a_mapping_that_is_set_leaves_the_keys_it_does_not_have(tmp_path):
    sections = ("train={steps: 9, muon: {lr: 0.125}}", "eval={every_steps: 7}", "data={workers: 1}")
    config = load(SECTIONS, tmp_path, *sections)
    train = config.train
    assert (train.steps, train.batch_size, train.muon.lr, train.muon.weight_decay) == (9, 8, 0.125, 0.25)
    assert (config.eval.every_steps, config.eval.batch_size, dict(config.eval.sets)) == (7, 3, {"a": "A"})
    assert (config.data.mirror, config.data.workers) == (False, 1)


def test_sets_are_replaced_and_an_empty_mapping_empties(tmp_path):
    assert load(SECTIONS, tmp_path, "eval={sets: {b: B}, select: b}").eval.sets == {"b": "B"}
    assert load(SECTIONS, tmp_path, "train.lr_mult={}").train.lr_mult == {}
    assert load(SECTIONS, tmp_path, "eval.sets={}", "eval.select=null").eval.sets == {}


def test_one_training_set_or_several(tmp_path):
    assert load(GOOD, tmp_path, "data.train=a").data.train == "a"
    several = load(GOOD, tmp_path, "data.train=[a, b.rec]")
    assert several.data.train == ("a", "b.rec")
    assert several.to_dict()["data"]["train"] == ["a", "b.rec"]


def test_a_key_that_stands_twice(tmp_path):
    with pytest.raises(UserError, match=r"test.yaml: .* the key 'seed' occurs twice, again in line 4"):
        load("seed: 1\n" + GOOD + "seed: 2\n", tmp_path)


def test_extends_in_a_circle(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: test.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="extends: forms a cycle: .*test.yaml"):
        load("extends: a.yaml\n" + GOOD, tmp_path)


def test_differences_name_the_whole_key():
    before = {"a": 1, "b": {"c": 2, "d": 3}, "e": 5}
    after = {"a": 1, "b": {"c": 4, "d": 3}, "f": 6}
    assert differences(before, after) == ["b.c: 2 → 4", "e: 5 → None", "f: None → 6"]


def test_a_bare_folder_is_a_pair_set(tmp_path):
    sets = load(GOOD, tmp_path, "eval.sets.mine=data/mine").evaluation_sets()
    assert sets["mine"] == Places(None, (Path("data/mine"),))


def test_a_bin_file_is_a_pair_set(tmp_path):
    sets = load(GOOD, tmp_path, "eval.sets.cfp=faces/cfp_fp.bin").evaluation_sets()
    assert sets["cfp"] == Places(None, (Path("faces/cfp_fp.bin"),))


def test_sets_have_the_grammar_of_the_command_line(tmp_path):
    """A mapping is a list of pairs; a text names places, and a protocol before a colon."""
    given = (
        "eval.sets={a: {images: crops, pairs: p.txt, dev_train: t.txt}, b: 'ijb:meta/ijbc', c: 'crops,list.txt,p.txt'}"
    )
    sets = load(GOOD, tmp_path, given).evaluation_sets()
    assert sets == {
        "a": Places("pairs", (Path("crops"), Path("p.txt"), Path("t.txt"))),
        "b": Places("ijb", (Path("meta/ijbc"),)),
        "c": Places(None, (Path("crops"), Path("list.txt"), Path("p.txt"))),
    }


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        ("{a/b: crops}", "eval.sets.a/b: got the name 'a/b' · allowed: a text .*without slashes"),
        ("{a: 'crops,,x'}", "eval.sets.a: got 'crops,,x' · allowed: .* without empty places"),
        ("{a: {images: crops}}", "eval.sets.a.pairs: missing"),
    ],
)
def test_sets_that_cannot_be_are_refused_before_training(tmp_path, sets, problem):
    with pytest.raises(ConfigError, match=problem):
        load(GOOD, tmp_path, f"eval.sets={sets}")


def test_another_loss_takes_no_options_of_the_old_one(tmp_path):
    text = GOOD + "loss: {name: a-softmax, m: 3}\n"
    assert load(text, tmp_path, "loss.name=modified-softmax").loss.name == "modified-softmax"
    assert load(text, tmp_path, "loss.m=2", "loss.name=a-softmax").loss.m == 2


def test_extends_merges_sections_but_replaces_verification_sets(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD + "eval: {every_steps: 7, sets: {a: x}}\n", encoding="utf-8")
    config = load("extends: base.yaml\nseed: 5\neval: {sets: {b: y}}\n", tmp_path)
    assert (config.seed, config.eval.every_steps, config.train.steps) == (5, 7, 10)
    assert list(config.eval.sets) == ["b"]


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "!!python/object/apply:os.system ['true']"])
def test_files_that_are_no_mapping_end_in_one_line(tmp_path, text):
    with pytest.raises(UserError, match="test.yaml: "):
        load(text, tmp_path)


@pytest.mark.parametrize("override", ["train.lr", "=3", "train..lr=3"])
def test_a_malformed_set(tmp_path, override):
    with pytest.raises(UserError, match=r"--set: got .* allowed: key.sub=value"):
        load(GOOD, tmp_path, override)


def test_find_config_by_bare_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("sphere20.yaml").name == "sphere20.yaml"
    assert find_config("sphere20").is_file()
    with pytest.raises(UserError, match=r"did you mean 'sphere20.yaml'"):
        find_config("spere20.yaml")


@pytest.mark.parametrize("section", ["model", "loss"])
@pytest.mark.parametrize("name", ["[iresnet]", "{a: 1}", "null", "3"])
def test_a_name_that_is_no_text_is_a_problem_and_no_traceback(tmp_path, section, name):
    assert any(f"{section}.name: got" in line for line in problems_of(GOOD, tmp_path, f"{section}.name={name}"))


def test_the_last_choice_of_a_backbone_counts(tmp_path):
    config = load(GOOD, tmp_path, "model={name: ir, depth: 101}", "model.name=iresnet")
    assert (config.model.name, config.model.depth) == ("iresnet", 50)
    config = load(GOOD, tmp_path, "model.depth=18", "model.name=iresnet")
    assert (config.model.name, config.model.depth) == ("iresnet", 18)


def test_an_override_does_not_replace_a_text_by_a_mapping(tmp_path):
    with pytest.raises(UserError, match="--set model.depth: model is 'iresnet' · allowed there: a mapping"):
        load(GOOD, tmp_path, "model=iresnet", "model.depth=10")


def test_options_of_another_backbone_go_with_its_name(tmp_path):
    (tmp_path / "below.yaml").write_text(GOOD + "model: {name: spherenet, widths: [4, 4, 4, 4]}\n", encoding="utf-8")
    config = load("extends: below.yaml\nmodel: {name: mobilefacenet}\n", tmp_path)
    assert config.model.name == "mobilefacenet"
    config = load("extends: below.yaml\nmodel: {depth: 10}\n", tmp_path)
    assert (config.model.depth, config.model.widths) == (10, (4, 4, 4, 4))


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("{name: iresnet, depth: 20}", "model.depth: got 20 · allowed: one of 18, 34, 50, 100, 200"),
        ("{name: mobilefacenet, siz: mbf}", "model.siz: unknown key · did you mean 'size'?"),
        ("{input_mean: [1, 2]}", r"model.input_mean: got \[1.0, 2.0\] · allowed: one number, or three"),
        ("{input_order: gbr}", "model.input_order: got 'gbr' · allowed: one of bgr, rgb"),
        ("{units: [1, 2]}", r"model.units: got \[1, 2\] · allowed: four numbers"),
    ],
)
def test_the_class_of_the_name_checks_its_keys(tmp_path, model, problem):
    (line,) = problems_of(GOOD, tmp_path, f"model={model}")
    assert re.search(problem, line)


@pytest.mark.parametrize("override", ["loss={m: 1}", "loss={}", "model={embedding_dim: 64}"])
def test_a_section_without_a_name_does_not_choose_another_loss_or_backbone(tmp_path, override):
    named = "loss: {name: cosface, m: 0.3}\nmodel: {name: mobilefacenet}\ntrain: {steps: 1}\ndata: {train: x}\n"
    section = override.partition("=")[0]
    with pytest.raises(UserError, match=f"^--set {section}: got .* without a name, in place of '[a-z]+' · add name"):
        load(named, tmp_path, override)
    plain = "train: {steps: 1}\ndata: {train: x}\n"
    assert load(plain, tmp_path, override).loss.name == "a-softmax"  # nothing is replaced
    assert load(named, tmp_path, "loss.name=a-softmax", "loss={m: 3}").loss.m == 3


def test_a_closed_folder_is_not_said_to_be_empty(monkeypatch):
    def closed(self, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(UserError, match=r"^--config: closed/x\.yaml: cannot be read \(Permission denied\)$"):
        find_config("closed/x.yaml")


@pytest.mark.parametrize(
    "section", ["loss", "model", "data", "train", "eval", "log", "checkpoint", "data: {augment", "train: {decay"]
)
def test_a_section_without_keys_keeps_what_it_extends(tmp_path, section):
    base = (
        "seed: 3\nloss: {name: arcface, m: 0.3}\nmodel: {name: iresnet, depth: 34}\nlog: {every_steps: 7}\n"
        "data: {train: crops, mirror: false, augment: {jpeg: {p: 0.5}}}\ncheckpoint: {keep: 5}\n"
        "train: {steps: 10, lr: 0.3, decay: {biases: true}}\neval: {every_steps: 9, sets: {a: b}}\n"
    )
    (tmp_path / "base.yaml").write_text(base, encoding="utf-8")
    own = f"extends: base.yaml\n{section}:{' }' * ('{' in section)}\n"
    assert load(own, tmp_path) == load(base, tmp_path)


@pytest.mark.parametrize("key", ["train.init_from", "data.exclude_file", "train.max_minutes", "train.clip_grad_norm"])
def test_no_value_is_not_null(tmp_path, key):
    """A script with an unset variable would train from random weights, or on the people it is verified on."""
    for text in ("", "  ", "# none"):
        with pytest.raises(UserError, match=f"--set {key}: got no value · allowed: a value, or null for none"):
            load(GOOD, tmp_path, f"{key}={text}")
    for text in ("null", " ~", "Null", "null # none"):
        assert load(GOOD, tmp_path, f"{key}={text}") == load(GOOD, tmp_path)


@pytest.mark.parametrize("override", ["loss=", "loss=null", "data=", "train=", "eval=~", "train.decay=", "eval.sets="])
def test_nothing_in_place_of_a_section_is_refused(tmp_path, override):
    own = GOOD + "loss: {name: arcface}\neval: {sets: {a: b}}\n"
    own = own.replace("steps: 10", "steps: 10, decay: {biases: true}")
    with pytest.raises(
        UserError, match=rf"--set {override.partition('=')[0]}: got nothing in place of .* · allowed: a m"
    ):
        load(own, tmp_path, override)
