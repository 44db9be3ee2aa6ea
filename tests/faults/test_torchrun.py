"""torchrun itself, on loopback: two agents as two machines, a killed worker, a signal to the agent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from sphereface.checkpoint import load_checkpoint

from ..images import make_training_set

ROOT = Path(__file__).parents[2]
STEPS = 60


def write_config(folder: Path, *, steps: int = STEPS) -> Path:
    values = {
        "name": "together",
        "runs_dir": str(folder / "runs"),
        "model": {"depth": 4, "widths": [4, 8, 8, 8], "embedding_dim": 8, "input_size": [32, 32], "norm": "batch"},
        "data": {"train": str(make_training_set(folder / "train", 4, 6, size=(32, 32))), "workers": 0},
        "train": {"batch_size": 8, "steps": steps, "lr": 0.01},
        "log": {"tensorboard": False, "every_steps": 1},
        "checkpoint": {"every_steps": 5},
    }
    path = folder / "together.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def torchrun(config: Path, *options: str, program: Path = ROOT / "train.py") -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1", *options,
               str(program), "--config", str(config), "--resume", "auto", "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    log = config.with_suffix(".log").open("a")
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def said(config: Path) -> str:
    return config.with_suffix(".log").read_text()


def only_run(config: Path) -> Path:
    (run,) = (config.parent / "runs" / "together").iterdir()
    return run


def workers_of(agent: subprocess.Popen) -> list[int]:
    """The processes that an agent started, by number."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = status.read_text().partition(" (")
            if int(rest.rpartition(") ")[2].split()[1]) == agent.pid:
                found.append(int(number))
        except OSError:
            continue
    return sorted(found)


def wait_for_checkpoint(config: Path, agent: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not list((config.parent / "runs").glob("together/*/step-*.json")):
        assert agent.poll() is None, said(config)
        assert time.monotonic() < deadline, said(config)
        time.sleep(0.02)


def weights(config: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(only_run(config) / "last.pt")
    assert state["meta"]["step"] == STEPS
    return {**state["model"], **{f"head.{name}": value for name, value in state["head"].items()}}


@pytest.fixture
def never_killed(tmp_path):
    folder = tmp_path / "whole"
    folder.mkdir()
    config = write_config(folder)
    assert torchrun(config, "--standalone", "--nproc-per-node", "2").wait(timeout=600) == 0, said(config)
    return weights(config)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_restarted_from_the_last_checkpoint(tmp_path, never_killed, victim):
    config = write_config(tmp_path)
    agent = torchrun(config, "--standalone", "--nproc-per-node", "2", "--max-restarts", "2")
    wait_for_checkpoint(config, agent)
    os.kill(workers_of(agent)[victim], signal.SIGKILL)
    assert agent.wait(timeout=600) == 0, said(config)
    assert said(config).count("resumed from") == 1
    assert_same(weights(config), never_killed)


CRASHES_AT_ITS_END = """
import os, signal, sys
import train
code = train.main()
if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    os.kill(os.getpid(), signal.SIGSEGV)  # as CUDA may while a process ends
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("standalone", [True, False])
def test_a_run_that_is_finished_is_not_trained_again_after_a_crash(tmp_path, standalone):
    config = write_config(tmp_path)
    options = ["--standalone"] if standalone else ["--master-port", str(free_port())]
    program = tmp_path / "program.py"
    program.write_text(CRASHES_AT_ITS_END, encoding="utf-8")
    for number in (1, 2):  # the same command again is another job, which trains again
        agent = torchrun(config, *options, "--nproc-per-node", "2", "--max-restarts", "2", program=program)
        assert agent.wait(timeout=600) == 0, said(config)
        assert len(list((tmp_path / "runs" / "together").iterdir())) == number
        assert said(config).count("the run is finished, nothing is left to train: ") == number


@pytest.mark.slow
def test_two_agents_as_two_machines_train_together(tmp_path, never_killed):
    config = write_config(tmp_path)
    port = free_port()
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two"]
    agents = [torchrun(config, *options, "--rdzv-endpoint", f"127.0.0.1:{port}") for _ in range(2)]
    assert [agent.wait(timeout=600) for agent in agents] == [0, 0], said(config)
    assert said(config).count("step 60 ") == 1  # one of the two logs
    assert_same(weights(config), never_killed)


@pytest.mark.slow
def test_a_signal_to_torchrun_leaves_with_everything_saved(tmp_path):
    config = write_config(tmp_path, steps=100000)
    agent = torchrun(config, "--standalone", "--nproc-per-node", "2")
    wait_for_checkpoint(config, agent)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=600) != 0
    meta = load_checkpoint(only_run(config) / "last.pt")["meta"]
    assert f"stopped by SIGTERM at step {meta['step']} " in said(config)
    assert said(config).count("stopped by SIGTERM") == 1
    steps = [int(line.split()[2]) for line in said(config).splitlines() if " · loss " in line]
    assert max(steps) == meta["step"]  # none was made that was not saved
