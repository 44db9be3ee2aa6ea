"""model.networks: each is what it would be alone, bit for bit; joined, their cosine is the mean of theirs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.cli import main, run_command
from sphereface.errors import Stopped, UserError
from sphereface.models import Ensemble, load_model
from sphereface.training.dry_run import dry_run
from sphereface.training.ensemble import single_runs
from sphereface.training.run import run_training
from sphereface.training.run_folder import RunFolder
from sphereface.training.same_run import saved_config
from sphereface.training.trainer import Trainer

from ..images import make_training_set
from .runs import load, train, write_tiny

SMALL = ["train.stages=[{until: 0.99, input_size: [16, 16]}]"]  # to the end: checkpoints say so
TWO = ["model.networks=2", "seed=5"]


def folders(config_file: Path) -> list[Path]:
    return sorted((Path(load(config_file).runs_dir) / "tiny").iterdir())


def networks_of(checkpoint: Path) -> list[dict[str, torch.Tensor]]:
    weights = load_checkpoint(checkpoint)["model"]
    count = 1 + max(int(name.split(".")[1]) for name in weights)
    starts = [f"networks.{k}." for k in range(count)]
    return [{n.removeprefix(s): value for n, value in weights.items() if n.startswith(s)} for s in starts]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def dying_after(monkeypatch, updates: int) -> None:
    """The process ends once so many updates have been made, whatever the network."""
    left, step = [updates], Trainer.train_step

    def dying_step(self, batch):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return step(self, batch)

    monkeypatch.setattr(Trainer, "train_step", dying_step)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, faces) -> Callable[..., tuple[Path, list[Path]]]:
    """Checkpoints that no test changes: of two networks trained together, and of each alone."""

    @cache
    def with_options(*more: str) -> tuple[Path, list[Path]]:
        config_file = write_tiny(tmp_path_factory.mktemp("ensemble"), faces)
        joined = run_training(str(config_file), [*TWO, *more])
        return joined, [train(config_file, f"seed={seed}", *more) / "best.pt" for seed in (500, 501)]

    return with_options


@pytest.mark.parametrize("more", [[], ["train.ema=0.5"], ["train.stages=[{until: 0.5, loss: {m: 1}}]"], SMALL])
def test_each_network_is_what_it_would_be_alone(trained, more):
    joined, paths = trained(*more)
    together, alone = networks_of(joined), map(load_checkpoint, paths)
    assert [same(a, b.get("average", b["model"])) for a, b in zip(together, alone, strict=True)] == [True, True]
    assert not same(*together)


@pytest.mark.parametrize("more", [[], SMALL])
def test_the_joined_embedding_has_the_mean_of_their_cosines(trained, more):
    joined, paths = trained(*more)
    joined, alone = load_model(joined), [load_model(path).model for path in paths]
    assert [getattr(model, "seen_size", (32, 32)) for model in alone] == [(16, 16) if more else (32, 32)] * 2
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        both, each = joined.model(images), [model(images).double() for model in alone]
    assert both.shape == (6, joined.model.embedding_dim) == (6, 16)
    assert torch.allclose(both[:, :8].double().norm(dim=1), torch.ones(6, dtype=torch.float64))
    for i in range(6):
        for k in range(6):
            mean = np.mean([float(e[i] @ e[k] / (e[i].norm() * e[k].norm())) for e in each])
            assert float(F.cosine_similarity(both[i], both[k], dim=0)) == pytest.approx(mean, abs=1e-5)


def test_what_the_joined_run_writes(config_file, capsys):
    settings = (*TWO, "log.sinks=[jsonl, tensorboard]")
    joined = run_training(str(config_file), settings)
    state, run = load_checkpoint(joined), joined.parent
    assert joined.name == "best.pt"
    assert len(folders(config_file)) == 3
    meta = state["meta"]
    assert meta["config"] == load(config_file, *settings).to_dict()
    assert [Path(path).parent for path in meta["networks"]] == [path for path in folders(config_file) if path != run]
    steps = [load_checkpoint(Path(path))["meta"]["step"] for path in meta["networks"]]
    assert (meta["step"], meta["images_seen"], meta["total_steps"]) == (sum(steps), 8 * sum(steps), 24)
    assert (meta["class_names"], meta["num_images"]) == ([f"id{k:02d}" for k in range(5)], 35)
    assert RunFolder(run).about()["status"] == "finished"
    figures = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["eval/mine/accuracy"] for line in figures[1:]] == [pytest.approx(0.5, abs=0.5)]
    assert figures[0]["train/minutes"] == meta["seconds"] / 60 > 0
    assert list(run.glob("events.*"))
    told = capsys.readouterr().err
    for line in ("network 1 of 2, seed 500\n", "network 2 of 2, seed 501\n", f"done: 2 networks joined: {joined}\n"):
        assert line in told
    assert f"step {meta['step']} · mine accuracy" in (run / "train.log").read_text()


def test_without_a_set_that_selects_the_last_are_joined(config_file):
    joined = run_training(str(config_file), [*TWO, "eval.select=null", "eval.sets={}"])
    assert joined.name == "last.pt"
    assert not (joined.parent / "best.pt").exists()
    assert load_checkpoint(joined)["meta"]["step"] == 24


@pytest.mark.parametrize(("updates", "left"), [(7, 18), (12, 12), (17, 8)])  # saved at 4, 6, 8, 12 of each
def test_a_killed_run_goes_on_where_it_was_and_trains_nothing_twice(config_file, trained, monkeypatch, updates, left):
    whole = networks_of(trained()[0])
    with monkeypatch.context() as dying:
        dying_after(dying, updates)
        with pytest.raises(KeyboardInterrupt):
            run_training(str(config_file), TWO)
    made, step = [], Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, batch: made.append(1) or step(self, batch))
    joined = run_training(str(config_file), TWO, resume="auto")
    assert all(same(a, b) for a, b in zip(networks_of(joined), whole, strict=True))
    assert len(made) == left
    assert len(folders(config_file)) == 3


def test_finished_networks_are_taken_by_more_of_them_and_nothing_is_done_twice(config_file):
    two = run_training(str(config_file), ["model.networks=2", "seed=3"])
    assert run_training(str(config_file), ["model.networks=2", "seed=3"], resume="auto") == two
    assert len(folders(config_file)) == 3
    three = run_training(str(config_file), ["model.networks=3", "seed=3"], resume="auto")
    assert len(folders(config_file)) == 5  # the third, and the three joined
    assert [same(a, b) for a, b in zip(networks_of(three), networks_of(two), strict=False)] == [True, True]
    again = run_training(str(config_file), ["model.networks=2", "seed=3"])  # no resume: all anew
    assert again != two
    assert len(folders(config_file)) == 8
    assert run_training(str(config_file), ["model.networks=2", "seed=3"], resume="auto") == again


def test_fewer_networks_join_what_is_finished_and_leave_the_rest(config_file, monkeypatch):
    with monkeypatch.context() as dying:
        dying_after(dying, 31)  # two are finished, the third is in its midst
        with pytest.raises(KeyboardInterrupt):
            run_training(str(config_file), ["model.networks=4", "seed=3"])
    unfinished = folders(config_file)[2]
    with monkeypatch.context() as trained:
        trained.delattr(Trainer, "train_step")
        two = run_training(str(config_file), ["model.networks=2", "seed=3"], resume="auto")
    assert [Path(path).parent for path in load_checkpoint(two)["meta"]["networks"]] == folders(config_file)[:2]
    assert RunFolder(unfinished).about()["status"] == "stopped"
    four = run_training(str(config_file), ["model.networks=4", "seed=3"], resume="auto")
    assert [Path(path).parent for path in load_checkpoint(four)["meta"]["networks"]][2] == unfinished


def test_a_joined_file_is_nothing_to_resume_from(config_file, trained, tmp_path):
    joined, (one, _) = trained()
    state = load_checkpoint(joined)
    del state["meta"]["class_names"]  # as where networks of other images were joined
    path = shutil.copytree(one.parent, tmp_path / "run") / "joined.pt"
    save_checkpoint(path, {key: state[key] for key in ("meta", "model", "seen_size")}, {})
    with pytest.raises(UserError, match=r"joined.pt: has no 'head' entry, so no training can resume from it"):
        run_training(str(config_file), ["seed=500"], resume=str(path))


def test_no_two_seeds_share_a_network_and_more_networks_are_those_of_fewer(config_file):
    def seeds(seed: int, count: int) -> list[int]:
        return [single.seed for single in single_runs(load(config_file, f"model.networks={count}", f"seed={seed}"))]

    assert seeds(3, 2) == [300, 301]
    assert seeds(3, 4)[:2] == seeds(3, 2)
    assert len({s for seed in range(5) for s in seeds(seed, 100)}) == 500


def test_seeds_stay_within_their_range(config_file):
    singles = single_runs(load(config_file, "model.networks=3", f"seed={2**32 - 1}"))
    assert [0 <= single.seed < 2**32 for single in singles] == [True] * 3
    assert len({single.seed for single in singles}) == 3


def test_a_finished_run_whose_checkpoint_is_gone_is_trained_again(config_file, capsys):
    two = run_training(str(config_file), TWO)
    whole = networks_of(two)
    first = Path(load_checkpoint(two)["meta"]["networks"][0])
    first.unlink()
    two.unlink()
    capsys.readouterr()
    joined = run_training(str(config_file), TWO, resume="auto")
    said = capsys.readouterr().err
    for path in (first, two):
        assert f"resume auto: {path.parent} is finished, but its best.pt is missing, so its work is repeated" in said
    assert said.count("is missing") == 2
    assert joined != two
    assert all(same(a, b) for a, b in zip(networks_of(joined), whole, strict=True))


def test_a_network_that_another_set_chose_is_told(config_file, faces, tmp_path, monkeypatch, capsys):
    pairs = shutil.copytree(faces / "pairs", tmp_path / "pairs")
    own = [*TWO, f"eval.sets={{mine: {pairs}}}", "train.steps=4", "eval.every_steps=2"]
    with monkeypatch.context() as dying:
        dying_after(dying, 4)
        with pytest.raises(KeyboardInterrupt):
            run_training(str(config_file), own)
    (first,) = folders(config_file)[:1]
    told = f"eval.select: {first}/best.pt was chosen by another set: "
    capsys.readouterr()
    listed = (pairs / "pairs.txt").read_text().splitlines(keepends=True)
    (pairs / "pairs.txt").write_text("".join([listed[0], *listed[1:][::-1]]))
    joined = run_training(str(config_file), own, resume="auto")
    said = capsys.readouterr().err
    assert said.count("was chosen by another set") == said.count(told) == 1
    (pairs / "pairs.txt").write_text("".join(listed))
    assert run_training(str(config_file), own, resume="auto") == joined
    said = capsys.readouterr().err
    assert said.count("was chosen by another set") == 1
    assert told not in said
    assert f"eval.sets.mine: {joined} was not evaluated on this set · evaluate it: sphereface eval " in said


def test_a_network_that_began_at_another_file_is_told(config_file, trained, tmp_path, monkeypatch, capsys):
    start = shutil.copy(trained()[1][0], tmp_path / "pre.pt")
    own = [*TWO, f"train.init_from={start}", "train.steps=4", "eval.every_steps=2"]
    with monkeypatch.context() as dying:
        dying_after(dying, 4)
        with pytest.raises(KeyboardInterrupt):
            run_training(str(config_file), own)
    one = folders(config_file)[0]
    shutil.copy(trained()[1][1], start)
    capsys.readouterr()
    run_training(str(config_file), own, resume="auto")
    told = f"train.init_from: {start} is another file than when the run of {one}/best.pt began"
    assert capsys.readouterr().err.count(told) == 1


def test_finished_networks_of_other_settings_are_told(config_file, monkeypatch, capsys):
    short = [*TWO, "train.steps=2", "train.milestones=[]", "eval.every_steps=2"]
    run_training(str(config_file), [*short, "train.lr=0.01"])
    first = folders(config_file)[0]
    assert saved_config(first).seed == 500
    capsys.readouterr()
    line = (
        "resume auto: no finished network of this configuration, training all of them · the nearest finished one, "
        f"{first}, has other settings: train.lr: 0.01 → 0.05 · to use finished networks: stop, and repeat the command"
    )
    with monkeypatch.context() as dying:
        dying_after(dying, 1)
        with pytest.raises(KeyboardInterrupt):
            run_training(str(config_file), short, resume="auto")
    assert capsys.readouterr().err.count(line) == 1
    run_training(str(config_file), short, resume="auto")  # resumes the first network
    for more in (short, [*short, "model.networks=3"], [*short, "log.every_steps=2"]):  # the last two are used
        run_training(str(config_file), more, resume="auto")
    assert "no finished network of this configuration" not in capsys.readouterr().err
    run_training(str(config_file), [*short, "name=other"], resume="auto")
    shutil.rmtree(min((config_file.parent / "runs" / "other").iterdir()))  # the second network is kept
    run_training(str(config_file), [*short, "name=other"], resume="auto")
    assert "no finished network of this configuration" not in capsys.readouterr().err


def test_a_set_that_a_finished_ensemble_does_not_know_is_told(config_file, faces, tmp_path, capsys):
    own = [*TWO, "train.steps=2", "eval.every_steps=2"]
    joined = run_training(str(config_file), own)
    assert load_checkpoint(joined)["meta"]["digests"].keys() == {"mine"}
    more = f"eval.sets={{mine: {faces / 'pairs'}, b c: {faces / 'pairs'}}}"
    for settings, count in ((own, 0), ([*own, more], 1)):
        capsys.readouterr()
        assert run_training(str(config_file), settings, resume="auto") == joined
        said = capsys.readouterr().err
        command = f"sphereface eval --ckpt {joined} --sets 'b c={faces / 'pairs'}'\n"
        line = f"eval.sets.b c: {joined} was not evaluated on this set · evaluate it: {command}"
        assert (said.count("was not evaluated"), said.count(line)) == (count, count)


def test_one_network_that_is_finished_is_trained_again(config_file):
    first = run_training(str(config_file))
    assert run_training(str(config_file), resume="auto").parent != first.parent


def test_finished_networks_of_other_images_are_refused(config_file, tmp_path, capsys):
    images = make_training_set(tmp_path / "more", 5, 7, size=(32, 32))
    listed = tmp_path / "left-out.txt"
    listed.write_text("id00\n")
    own = [*TWO, f"data.train={images}", f"data.exclude_file={listed}"]
    joined = run_training(str(config_file), own)
    assert run_training(str(config_file), own, resume="auto") == joined
    before = folders(config_file)
    listed.write_text("id00\nid01\n")
    with pytest.raises(UserError, match=r"best.pt: trained on 28 images of 4 identities, data.train now has 21 of 3"):
        run_training(str(config_file), own, resume="auto")
    assert folders(config_file) == before
    images.rename(tmp_path / "moved")  # not needed any more
    capsys.readouterr()
    assert run_training(str(config_file), own, resume="auto") == joined
    assert "the finished networks are not compared with the training data: data.train: got " in capsys.readouterr().err


def test_finished_networks_of_another_teacher_are_told(config_file, trained, tmp_path, capsys):
    teacher = shutil.copy(trained()[1][0], tmp_path / "teacher.pt")
    own = [*TWO, f"train.teacher.checkpoint={teacher}", "train.teacher.losses={cosine: 1}", "train.lr=0.005"]
    joined = run_training(str(config_file), own)
    for other, count in ((trained()[1][0], 0), (trained()[1][1], 2)):
        shutil.copy(other, teacher)
        capsys.readouterr()
        assert run_training(str(config_file), own, resume="auto") == joined
        told = f"train.teacher.checkpoint: {teacher} is another file than when "
        assert capsys.readouterr().err.count(told) == count


def test_networks_of_other_images_are_refused_before_another_is_trained(config_file, tmp_path, monkeypatch):
    values = [f"data.train={make_training_set(tmp_path / 'more', 5, 7, size=(32, 32))}"]
    run_training(str(config_file), ["model.networks=2", *values])
    make_training_set(tmp_path / "more", 6, 7, size=(32, 32))
    before = folders(config_file)
    monkeypatch.delattr(Trainer, "train_step")
    with pytest.raises(UserError, match=r"best.pt: trained on 35 images of 5 identities, data.train now has 42 of 6"):
        run_training(str(config_file), ["model.networks=3", *values], resume="auto")
    assert folders(config_file) == before


def test_finished_networks_of_different_images_are_not_joined(config_file, tmp_path):
    values = [f"data.train={make_training_set(tmp_path / 'more', 5, 7, size=(32, 32))}"]
    run_training(str(config_file), ["seed=0", *values])
    make_training_set(tmp_path / "more", 6, 7, size=(32, 32))
    run_training(str(config_file), ["seed=1", *values])
    before = folders(config_file)
    with pytest.raises(UserError, match=r"best.pt: trained on 35 images of 5 identities, data.train now has 42 of 6"):
        run_training(str(config_file), ["model.networks=2", *values], resume="auto")
    assert folders(config_file) == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_in_the_last_evaluation_is_a_stop_and_leaves_no_second_folder(config_file, trained, monkeypatch, name):
    with monkeypatch.context() as signalled:
        forward = Ensemble.forward

        def struck(self, images):
            os.kill(os.getpid(), getattr(signal, name))
            return forward(self, images)

        signalled.setattr(Ensemble, "forward", struck)
        with pytest.raises(Stopped, match=f"stopped by {name} in the last evaluation") as stopped:
            run_training(str(config_file), TWO)
    assert stopped.value.exit_code == 75
    before = folders(config_file)
    assert [RunFolder(folder).about()["status"] for folder in before] == ["finished", "finished", "stopped"]
    joined = run_training(str(config_file), TWO, resume="auto")
    assert folders(config_file) == before
    assert joined.parent == before[2]
    assert all(same(a, b) for a, b in zip(networks_of(joined), networks_of(trained()[0]), strict=True))


def test_a_signal_between_two_networks_is_a_stop(config_file, monkeypatch):
    opened = RunFolder.write_status

    def struck(self, status, **figures):
        opened(self, status, **figures)
        if status == "finished":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "write_status", struck)
    with pytest.raises(Stopped, match="stopped by SIGTERM between two networks") as stopped:
        run_training(str(config_file), TWO)
    assert stopped.value.exit_code == 75
    assert len(folders(config_file)) == 1


def test_a_full_disk_says_what_is_missing(config_file, monkeypatch):
    save = RunFolder.save

    def full(self, state, **options):
        if "networks" in options["summary"]:
            raise OSError(28, "No space left on device")
        return save(self, state, **options)

    monkeypatch.setattr(RunFolder, "save", full)
    with pytest.raises(
        UserError, match=r"not written \(No space left on device\): a checkpoint takes .* --resume auto"
    ):
        run_training(str(config_file), TWO)


def test_networks_side_by_side_start_no_other_training(config_file, trained, tmp_path):
    joined, _ = trained()
    said = "holds an ensemble of 2 networks · allowed: the checkpoint of one network"
    with pytest.raises(UserError, match=f"{said} · give one of them: .*best.pt, .*best.pt"):
        run_training(str(config_file), [f"train.init_from={joined}"])
    exported = tmp_path / "small.pt"
    assert main(["export", str(joined), "--format", "checkpoint", "--output", str(exported)]) == 0
    with pytest.raises(UserError, match=f"{said}$"):
        run_training(str(config_file), [f"train.init_from={exported}"])


def test_the_joined_checkpoint_is_exported_and_says_what_it_is(trained, tmp_path):
    joined, _ = trained()
    output = tmp_path / "joined.torchscript"
    assert (
        run_command("export", [str(joined), "--format", "torchscript", "--layout", "nchw", "--output", str(output)])
        == 0
    )
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        wanted = load_model(joined).model((pixels.float() - 127.5) / 128)
        assert torch.allclose(torch.jit.load(output)(pixels), wanted, atol=1e-6)
    assert "An ensemble of 2 `spherenet` networks" in output.with_name(output.name + ".md").read_text()


def test_a_path_to_resume_is_refused(config_file):
    with pytest.raises(UserError, match=r"--resume: got 'runs/x' with model.networks 2 · allowed: auto"):
        run_training(str(config_file), TWO, resume="runs/x")


def test_dry_run_says_how_many(config_file):
    told = dry_run(str(config_file), ["model.networks=4"])
    assert "4 networks, each 12 steps of 8 images" in told
    assert "networks: 4" in told


def test_images_of_another_size_are_refused():
    model = Ensemble([load_network() for _ in range(2)])
    with pytest.raises(UserError, match="network input"):
        model(torch.zeros(1, 3, 40, 40))


def load_network():
    from sphereface.models import SphereNet

    return SphereNet(4, widths=(4, 4, 4, 4), embedding_dim=8, input_size=(32, 32))
