"""Every kind of evaluation set in ``eval.sets``: evaluated while training, shown, and able to choose the checkpoint."""

from __future__ import annotations

import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.make_pairs import main as make_pairs
from sphereface.checkpoint import load_checkpoint
from sphereface.errors import UserError
from sphereface.training.run_folder import RunFolder
from sphereface.training.trainer import Trainer

from ..images import make_training_set
from .runs import CPU, load, metrics_of, train


@pytest.fixture
def sets(faces, tmp_path):
    """The faces of the pairs as templates, as groups, with qualities, and as a gallery."""
    images = sorted(path.relative_to(faces / "pairs").as_posix() for path in (faces / "pairs").rglob("*.png"))
    people = sorted({image.split("/")[0] for image in images})
    of = {person: [image for image in images if image.startswith(f"{person}/")] for person in people}
    lines, pairs = [], []
    for number, person in enumerate(people):
        lines += [f"{image} {2 * number + k % 2}" for k, image in enumerate(of[person])]
        pairs.append(f"{2 * number} {2 * number + 1} 1")
        pairs.append(f"{2 * number} {2 * ((number + 1) % len(people))} 0")
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "template_pairs.txt").write_text("\n".join(pairs), encoding="utf-8")
    (tmp_path / "quality.txt").write_text("\n".join(f"{x} {k}" for k, x in enumerate(images)), encoding="utf-8")
    return {
        "t": f"{faces / 'pairs'},{tmp_path / 'list.txt'},{tmp_path / 'template_pairs.txt'}",
        "q": f"quality:{faces / 'pairs'},{faces / 'pairs' / 'pairs.txt'},{tmp_path / 'quality.txt'}",
        "a": f"all-pairs:{faces / 'pairs'}",
    }


def test_sets_of_every_kind_are_evaluated_and_shown(config_file, sets, caplog):
    caplog.set_level("INFO")
    given = "{" + ", ".join(f"{name}: '{place}'" for name, place in sets.items()) + "}"
    run = train(config_file, f"eval.sets={given}", "eval.select=t", "log.sinks=[jsonl, tensorboard]")
    steps = [6, 12]
    assert list(metrics_of(run, "eval/t/auc")) == steps  # too few impostors for a rate, and no folds
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    assert {"eval/t/roc", "eval/a/roc-all-pairs"} <= set(events.Tags()["images"])
    found = metrics_of(run, "eval/t/auc")
    assert load_checkpoint(run / "best.pt")["meta"]["best"] == max(found.values())
    assert "step 12 · t AUC " in caplog.text
    assert "step 12 · q saved by quality not defined" in caplog.text  # too few impostors for a threshold
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert not any("eval/q" in line for line in lines)
    assert not any("NaN" in line for line in lines)


def test_a_figure_that_is_not_defined_chooses_nothing(config_file, sets):
    run = train(config_file, f"eval.sets={{q: '{sets['q']}'}}", "eval.select=q")
    assert not (run / "best.pt").exists()
    assert load_checkpoint(run / "last.pt")["meta"]["best"] is None
    config = load(config_file, f"eval.sets={{q: '{sets['q']}'}}", "eval.select=q")
    assert RunFolder(run).result(config) == run / "last.pt"


def test_a_set_that_does_not_fit_ends_the_run_at_its_start(config_file, sets):
    with pytest.raises(UserError, match=r"eval\.sets\.x: .*none: cannot be read .* or train without it: "):
        train(config_file, "eval.sets={x: 'all-pairs:none'}", "eval.select=null")
    with pytest.raises(UserError) as refusal:
        train(config_file, "eval.sets={x: none}", "eval.select=x")
    words = str(refusal.value).rpartition("or train without it: ")[2].split()
    assert words[::2] == ["--set", "--set"]
    train(config_file, "train.steps=1", "train.milestones=[]", *words[1::2])
    with pytest.raises(UserError, match=r"eval\.sets\.x: x: got the kind 'tinyfaces' · did you mean 'tinyface'"):
        train(config_file, "eval.sets={x: 'tinyfaces:none'}", "eval.select=null")


def test_people_of_a_set_who_are_trained_on_are_named_at_the_start(config_file, faces, tmp_path, caplog):
    both = tmp_path / "both"
    for part in ("train", "pairs"):
        shutil.copytree(faces / part, both / part)
    person = next(folder for folder in sorted((both / "pairs").iterdir()) if folder.is_dir())
    shutil.copytree(person, both / "train" / person.name)
    sets = f"eval.sets.mine={both / 'pairs'}"
    Trainer(load(config_file, sets, f"data.train={both / 'train'}"), CPU)
    (line,) = [record.getMessage() for record in caplog.records if "in data.train, such as" in record.getMessage()]
    assert line.startswith(
        f"eval.sets.mine: 1 person has the name of an identity in data.train, such as '{person.name}'"
    )
    caplog.clear()
    Trainer(load(config_file, sets, f"data.train={faces / 'train'}"), CPU)
    assert "in data.train, such as" not in caplog.text


@pytest.mark.parametrize("key", ["teacher.checkpoint", "init_from"])
def test_people_of_a_set_whom_the_teacher_or_the_first_network_knows_are_named(
    config_file, faces, tmp_path, caplog, key
):
    both, person = tmp_path / "both", next(folder for folder in sorted((faces / "pairs").iterdir()) if folder.is_dir())
    shutil.copytree(faces / "train", both)
    shutil.copytree(person, both / person.name)
    short = ("train.steps=2", "train.milestones=[]")
    master = train(config_file, *short, "name=master", f"data.train={both}") / "last.pt"
    own = train(config_file, *short, "name=own") / "last.pt"  # of the student's training set
    more = ("train.teacher.losses={correlation: 1}",) if key == "teacher.checkpoint" else ()
    caplog.clear()
    run = train(config_file, f"train.{key}={master}", *more, *short)
    (line,) = [text for text in caplog.messages if "names of identities" in text or "name of an identity" in text]
    assert line == (
        f"eval.sets.mine: 1 person has the name of an identity in the training set of train.{key}, such as "
        f"'{person.name}': if they are the same people, its figures will be too good · evaluate other people"
    )
    meta = load_checkpoint(run / "last.pt")["meta"]
    assert meta["more_people"] == [person.name]
    caplog.clear()
    run = train(config_file, f"train.{key}={own}", *more, *short)
    assert "name of an identity" not in caplog.text
    assert not load_checkpoint(run / "last.pt")["meta"].get("more_people")
    caplog.clear()
    Trainer(load(config_file, f"train.{key}={master}", *more, *short, f"data.train={both}"), CPU)
    (line,) = [text for text in caplog.messages if "name of an identity" in text]
    assert "in data.train, such as" in line  # once


def test_a_set_made_of_a_numbered_list_that_is_trained_on_is_named_at_the_start(config_file, faces, tmp_path, caplog):
    paths = sorted((faces / "train").rglob("*.png"))
    listing, made = tmp_path / "list.txt", tmp_path / "made"
    listing.write_text("".join(f"{path} {i % 6}\n" for i, path in enumerate(paths)), encoding="utf-8")
    assert make_pairs([str(listing), str(made), "--folds", "2"]) == 0
    given = (f"eval.sets.mine={made}", f"data.train={listing}")
    Trainer(load(config_file, *given), CPU)
    (line,) = [text for text in caplog.messages if "images of data.train" in text]
    person = line.split("'")[1]
    assert person in (made / "people.txt").read_text(encoding="utf-8").split()
    assert line == (
        f"eval.sets.mine: contains images of data.train, such as one of identity '{person}': its figures will be too "
        "good · leave its people out by their names or numbers there: data.exclude_file, or make pairs of data.train"
    )
    caplog.clear()
    Trainer(load(config_file, *given, f"data.exclude_file={made / 'people.txt'}"), CPU)
    assert "images of data.train" not in caplog.text


def test_held_out_people_are_named_once_by_their_names_or_by_their_images(config_file, tmp_path, caplog):
    folder, made = make_training_set(tmp_path / "people", 8, 7, size=(32, 32)), tmp_path / "made"
    assert make_pairs([str(folder), str(made), "--folds", "2"]) == 0
    given = (f"eval.sets.mine={made}", f"data.train={folder}")
    Trainer(load(config_file, *given), CPU)
    (line,) = [text for text in caplog.messages if text.startswith("eval.sets.mine: ")]
    assert "have the names of identities in data.train" in line
    for path in list(folder.iterdir()):
        path.rename(folder / f"Smith_{path.name}")
    caplog.clear()
    Trainer(load(config_file, *given), CPU)
    (line,) = [text for text in caplog.messages if text.startswith("eval.sets.mine: ")]
    assert "contains images of data.train, such as one of identity 'Smith_" in line
