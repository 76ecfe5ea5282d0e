"""The log names a damaged checkpoint, and the one before it is used."""

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults


def truncate(path):
    """Cut the second half off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path):
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name, damage, fault",
    [
        ("decoder.ckpt", truncate, "/decoder.ckpt: truncated or changed"),
        (
            "optimizer.ckpt",
            Path.unlink,
            "/SHA256SUMS: names 'optimizer.ckpt', which does not exist",
        ),
        ("counter.ckpt", flip, "/counter.ckpt: truncated or changed"),
        ("SHA256SUMS", Path.unlink, ": incomplete"),
    ],
)
def test_newest_damaged(
    recipe, noisy, whole, helpers, tmp_path, name, damage, fault
):
    """The log says what is wrong, and the epoch is trained again."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest = helpers.last(run)
    damage(newest.path / name)
    done = recipe.main("train_lmac", "lmac.yaml", output_folder=run, **noisy)
    assert done.code == 0, done.err
    assert f"{newest.path}{fault}" in done.out
    epochs = [s.split(" |")[0] for s in done.out.splitlines() if " | lr" in s]
    assert epochs == ["epoch 3"]
    helpers.same(run, whole)


def test_all_damaged(recipe, noisy, whole, helpers, tmp_path):
    """The run starts again, and the log says why."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    folders = list((run / "save").glob("CKPT*"))
    for folder in folders:
        truncate(folder / "decoder.ckpt")
    done = recipe.main("train_lmac", "lmac.yaml", output_folder=run, **noisy)
    assert done.code == 0, done.err
    for folder in folders:
        assert f"{folder}/decoder.ckpt: truncated or changed" in done.out
    helpers.same(run, whole)
