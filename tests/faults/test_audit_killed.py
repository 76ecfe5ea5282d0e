"""An audit that is killed at any step: the same command goes on."""

import multiprocessing
import os
import signal

import pandas as pd
import pytest
import soundfile as sf
import torch

from lmac_sb.audit import rows, run
from lmac_sb.data.corpus import open_corpus

pytestmark = pytest.mark.faults

OPTIONS = run.Options(examples=2)
# A copy of this process, which need not load the model again.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six sounds of three labels, and a file that is none."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for i, name in enumerate(["cat", "cow", "dog"] * 2):
        (folder / name).mkdir(exist_ok=True)
        wav = torch.randn(8000, generator=generator) / 8
        sf.write(folder / name / f"{i}.wav", wav.numpy(), 16000)
    (folder / "cat" / "bad.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def whole(folder, interpreter, tmp_path_factory):
    """What an audit leaves that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run.run_audit(open_corpus(folder), interpreter, out, OPTIONS)
    return content(out)


def content(out):
    """Every file; those of clips to hear, which tell the day, by their name."""
    return {
        str(path.relative_to(out)): None
        if "examples" in path.parts
        else path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def killed(module, name, after, *audit):
    """Audit, and be killed in a call of a function."""
    real, left = getattr(module, name), [after]

    def deadly(*args, **how):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **how)

    setattr(module, name, deadly)
    run.run_audit(*audit)


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        (rows, "evidence", 3),
        (rows, "describe", 7),  # in the second step: against the labels
        (run, "find_results", 0),
        (rows, "save_clip", 1),
        (run, "write_clips", 0),
        (run, "draw_audit", 0),
        (run, "write_json", 0),
    ],
)
def test_killed_audits_go_on(
    module, name, after, folder, whole, interpreter, tmp_path
):
    audit = (open_corpus(folder), interpreter, tmp_path / "out", OPTIONS)
    process = FORK.Process(target=killed, args=(module, name, after, *audit))
    process.start()
    process.join(200)
    assert process.exitcode == -signal.SIGKILL
    run.run_audit(*audit)
    found = content(tmp_path / "out")
    assert found.keys() == whole.keys()
    assert found == whole
    table = pd.read_csv(tmp_path / "out" / "tables" / "clips.csv")
    assert len(table) == 7 and table["id"].is_unique
