"""Every parser, with mutated inputs: it returns, or says in one line what is wrong (see ``docs/reliability.md``)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import parsers  # noqa: F401 -- they register themselves
from .registry import PARSERS
from .worker import Failure

ROOT = Path(__file__).parents[2]
CASES = int(os.environ.get("SPHEREFACE_FUZZ_CASES", "4000"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

READS = re.compile(
    r"json\.loads?\(|yaml\.(safe_)?load\(|np\.load(txt)?\(|torch\.load\(\w|read_text\(|read_json\(|read_bytes\(|"
    r"mmap\.mmap\(\w|\.open\((\"rb\"|encoding|\)\.)|[ =]open\(|os\.open\((?!os\.devnull)|readNet|ZipFile\(|read_index\("
)
NO_PARSERS = {
    "alignment.like", "faces", "evaluation.near_equal", "evaluation.html_report", "export.quantise",
    "evaluation.embed", "evaluation.embed_source", "commands.found_crops",  # decode images, which `image` covers
    "search_index",  # files of faiss, which does not protect against forged ones: docs/use.md says so
    "losses.chunks", "device", "errors",  # the system's own files
    "data.orl",  # the demo's package, checked by SHA-256
    "data.pack_files", "files", "data.mapped", "evaluation.table_check",  # read what they wrote, or any bytes
    "plugins",  # hashes code that was imported
}  # fmt: skip


def run(*arguments: str, code: int | None = None) -> tuple[list[Failure], str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--json", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in ((0, 1) if code is None else (code,)), done.stdout[-2000:] + done.stderr[-2000:]
    return [Failure(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")], done.stdout


def told(failures: list[Failure]) -> str:
    return "\n".join(map(str, failures[:40]))


@pytest.mark.timeout(900)
def test_forty_cases_of_every_parser():
    failures, out = run("--cases", "40")
    assert not failures, told(failures)
    assert out.count(": 40 cases, 0 failed") > 45


@pytest.mark.slow
@pytest.mark.timeout(14_400)
def test_thousands_of_cases_of_every_parser():
    failures, _ = run("--cases", str(CASES), "--first", "40")
    assert not failures, told(failures)


def test_every_module_that_reads_files_has_a_parser():
    covered = {module for parser in PARSERS.values() for module in parser.reads}
    package = ROOT / "sphereface"
    reading = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if READS.search(path.read_text(encoding="utf-8"))
    }
    assert reading - covered - NO_PARSERS == set(), "register these in tests/fuzz/parsers, or say why not above"
    names = {".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    assert (covered | NO_PARSERS) - names == set(), "no such modules"


# ---------------------------------------------------------------- the harness itself

PLANTED = ("--registry", "tests.fuzz.planted", "--cases", "2", "--seconds", "0.5", "--megabytes", "32")


@pytest.fixture(scope="module")
def planted():
    failures, out = run(*PLANTED, code=1)
    # where the system is short of memory, 64 MiB of new pages may take more than 0.5 s
    filled, _ = run(*PLANTED[:4], "--seconds", "30", *PLANTED[6:], "fills", code=1)
    return [failure for failure in failures if failure.parser != "fills"] + filled, out


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("raises", r"KeyError: 'x'"),
        ("exits", r"SystemExit: 1"),
        ("asserts", r"AssertionError: a wrong value was believed"),
        ("hangs", r"more than 0\.5 s of processor time"),
        ("fills", r"6\d MiB of memory"),
        ("reserves", r".*MemoryError: .*"),
        ("crashes", r"crash: SIGSEGV"),
        ("leaves", r"the process ended with 3"),
        ("writes", r"did open .*/beside for writing"),
        ("changes", r"did open .*/input\.txt for writing"),
        ("removes", r"did os\.remove .*/input\.txt"),
        ("starts", r"did subprocess\.Popen .*"),
        ("long", r"a message of 4,001 characters: .*"),
        ("many-lines", r"a message of 13 lines"),
        ("line-break", r"a message with a line break: .*"),
        ("controls", r"a message with control characters: .*"),
    ],
)
def test_the_harness_finds_what_is_planted(planted, name, what):
    found = [failure for failure in planted[0] if failure.parser == name]
    assert [failure.seed for failure in found] == [0, 1]  # a crash does not end the run
    assert all(re.fullmatch(what, failure.what) for failure in found), told(found)


@pytest.mark.parametrize("name", ["none", "refuses"])
def test_the_harness_passes_what_behaves(planted, name):
    assert f"# {name}: 2 cases, 0 failed" in planted[1]


def test_a_case_is_the_same_in_every_process_and_can_be_kept(tmp_path):
    kept = []
    for number, seed in enumerate(("7", "7", "8")):
        folder = tmp_path / str(number)
        run("--registry", "tests.fuzz.planted", "raises", "--seed", seed, "--keep", str(folder), code=1)
        kept.append((folder / "input.txt").read_bytes())
    assert kept[0] == kept[1] != kept[2]
    assert kept[0] != b"one 1\ntwo 2\n"
