"""Tests of finding a model folder and checking its sums."""

import shutil
from pathlib import Path

import pytest

from lmac_sb import LMACInterpreter
from lmac_sb.inference.bundle import find_bundle
from lmac_sb.utils.checksums import check_sums, file_sha256, write_sums
from lmac_sb.utils.errors import LMACError


@pytest.fixture
def folder(tmp_path):
    """A small folder with sums."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("hyperparams.yaml", "sub/a.wav"):
        (folder / name).write_text(name)
    write_sums(folder)
    return folder


def test_sums_are_needed(folder):
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(LMACError, match="SHA256SUMS: no such file"):
        find_bundle(folder)


def test_sums_must_vouch_for_the_yaml(folder):
    sums = folder / "SHA256SUMS"
    lines = sums.read_text().splitlines(True)
    sums.write_text("".join(x for x in lines if "yaml" not in x))
    with pytest.raises(LMACError, match="does not name hyperparams.yaml"):
        find_bundle(folder)


@pytest.mark.parametrize(
    "source", [Path("no/where"), "./no/where", "/no/where", "nowhere"]
)
def test_no_such_folder(source, monkeypatch):
    """A path is never treated as a hub id."""
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda _: pytest.fail("asked")
    )
    with pytest.raises(LMACError, match="no such folder"):
        find_bundle(source)


def test_hub(folder, monkeypatch):
    """An id is downloaded, and errors of the hub are shown."""
    import huggingface_hub

    asked = []

    def download(repository):
        asked.append(repository)
        if repository == "me/gone":
            raise OSError("404\nnot found")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_bundle("me/model") == folder
    with pytest.raises(LMACError, match="me/gone: not a local folder.*404 not"):
        find_bundle("me/gone")
    assert asked == ["me/model", "me/gone"]


def test_savedir_gets_a_copy(folder, tmp_path):
    """The copy has files, not links to the source."""
    savedir = tmp_path / "deep" / "saved"
    assert find_bundle(folder, savedir) == savedir
    shutil.rmtree(folder)
    assert check_sums(savedir) == ["hyperparams.yaml", "sub/a.wav"]
    assert not any(path.is_symlink() for path in savedir.rglob("*"))
    assert [path.name for path in savedir.parent.iterdir()] == ["saved"]


def test_savedir_is_one_models(folder, tmp_path):
    """A savedir of another model is refused."""
    savedir = tmp_path / "saved"
    find_bundle(folder, savedir)
    assert find_bundle(folder, savedir) == savedir
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "hyperparams.yaml").write_text("changed")
    write_sums(other)
    with pytest.raises(LMACError, match="does not hold the model"):
        find_bundle(other, savedir)
    (savedir / "sub" / "a.wav").write_text("damaged")
    with pytest.raises(LMACError, match="a.wav: truncated or changed"):
        find_bundle(folder, savedir)


def test_savedir_with_other_things(folder, tmp_path):
    """A savedir with other files is refused, and stays as it is."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("keep")
    with pytest.raises(LMACError, match="does not hold the model"):
        find_bundle(folder, tmp_path / "saved")
    assert (tmp_path / "saved" / "mine").read_text() == "keep"


def test_sums_are_checked_once(bundle, monkeypatch):
    """Checksums are computed once, since that takes long."""
    checked = []

    def counted(path):
        checked.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr("lmac_sb.utils.checksums.file_sha256", counted)
    LMACInterpreter.from_hparams(bundle)
    assert sorted(checked) == sorted(set(checked)) and len(checked) > 3
