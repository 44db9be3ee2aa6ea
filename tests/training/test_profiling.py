"""train.py --profile: a trace, a table, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch.profiler import profile

import train


def test_a_trace_that_viewers_open_and_a_table(config_file, capsys, tmp_path):
    assert train.main(["--config", str(config_file), "--profile", "2", "--device", "cpu"]) == 0
    folder = tmp_path / "runs" / "tiny-profile"
    assert sorted(path.name for path in folder.iterdir()) == ["steps.pt.trace.json", "table.txt"]
    table = (folder / "table.txt").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert table in printed
    assert str(folder / "steps.pt.trace.json") in printed
    events = json.loads((folder / "steps.pt.trace.json").read_text(encoding="utf-8"))["traceEvents"]
    durations = {
        name: [event["dur"] for event in events if event.get("name") == name and event.get("cat") == "user_annotation"]
        for name in ("step", "data", "forward", "backward", "optimiser")
    }
    assert {name: len(found) for name, found in durations.items()} == dict.fromkeys(durations, 2)
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
    for name, found in durations.items():  # the table's figures are the trace's
        assert float(lines[name][1]) == pytest.approx(sum(found) / 2 / 1000, rel=0.05, abs=0.02)
    rest = float(table.split("the rest")[1].split()[0])
    parts = sum(float(lines[name][1]) for name in ("data", "forward", "backward", "optimiser"))
    assert parts + rest == pytest.approx(float(lines["step"][1]), abs=0.1)
    assert "aten::convolution_backward" in table


@pytest.mark.parametrize("steps", ["0", "101"])
def test_a_number_of_steps_out_of_range_is_one_line(config_file, capsys, steps, tmp_path):
    assert train.main(["--config", str(config_file), "--profile", steps, "--device", "cpu"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: --profile: got {steps} · allowed: 1 to 100 steps"
    assert not (tmp_path / "runs").exists()


def test_a_trace_that_the_profiler_does_not_write_is_one_line_and_leaves_nothing(config_file, capsys, monkeypatch):
    def on_a_full_disk(_, path):
        """The profiler logs that, and leaves its own temporary file."""
        Path(f"{path}.tmp").write_bytes(b"{")

    monkeypatch.setattr(profile, "export_chrome_trace", on_a_full_disk)
    assert train.main(["--config", str(config_file), "--profile", "1", "--device", "cpu"]) == 2
    assert "cannot be written (the profiler could not write its trace; the disk may be full)" in capsys.readouterr().err
    assert list((config_file.parent / "runs" / "tiny-profile").iterdir()) == []


def test_a_loss_that_is_not_finite_is_one_line(config_file, capsys):
    command = ["--config", str(config_file), "--set", "train.lr=1e30", "--profile", "3", "--device", "cpu"]
    assert train.main(command) == 2
    assert "use a lower train.lr" in capsys.readouterr().err.splitlines()[-1]
