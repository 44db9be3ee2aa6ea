"""Commands that are printed to be copied: a shell reads the same words, also where a path has a space."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sphereface.cli import main
from sphereface.errors import UserError
from sphereface.evaluation.gallery_folder import read_list
from sphereface.gallery import check_exists

from .evaluation.checkpoints import write_checkpoint
from .evaluation.crops import noise, write_image


@pytest.fixture
def nets(tmp_path):
    for seed in (1, 2):
        write_checkpoint(tmp_path / "my nets" / f"{seed}.pt", seed=seed)
    return tmp_path / "my nets"


def test_verify_and_join(nets, capsys):
    a, b = (str(write_image(nets / f"{k}.png", noise(k))) for k in range(2))
    verify = ["verify", a, b, "--aligned", "--ckpt", str(nets / "1.pt")]
    assert main(verify) == 0
    command = shlex.split(capsys.readouterr().out.rpartition("make one: ")[2])
    assert command == ["sphereface", "eval", "--ckpt", str(nets / "1.pt"), "--calibrate"]
    assert main([*verify, "--far", "0.1"]) == 2
    assert shlex.split(capsys.readouterr().err.rpartition("make it: ")[2]) == command
    assert main(["join", str(nets / "1.pt"), str(nets / "2.pt"), "--output", str(nets / "j.pt")]) == 0
    command = shlex.split(capsys.readouterr().out.rpartition("evaluate it: ")[2])
    assert command == ["sphereface", "eval", "--ckpt", str(nets / "j.pt")]


@pytest.mark.parametrize("check", [check_exists, read_list])
def test_galleries(check):
    with pytest.raises(UserError) as refusal:
        check(Path("my gallery"))
    assert shlex.split(str(refusal.value).rpartition(" it: " if check is read_list else "make a gallery: ")[2]) == [
        *("sphereface", "embed", "DIR", "my gallery")
    ]
