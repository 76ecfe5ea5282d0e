"""Tests of checkpoints, and of strict loading."""

import errno
import json
import logging
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.models import classifier_folder
from lmac_sb.models.classifier_folder import load_classifier, save_classifier
from lmac_sb.models.weights import load_strict
from lmac_sb.training import checkpoints
from lmac_sb.training.checkpoints import (
    SafeCheckpointer,
    best_checkpoint,
    plain,
)
from lmac_sb.utils.errors import LMACError

FILES = ("CKPT.yaml", "m.ckpt", "n.ckpt", "SHA256SUMS")


def checkpointer_of(folder):
    """A checkpointer of two small modules."""
    modules = {"m": torch.nn.Linear(3, 2), "n": torch.nn.Linear(2, 2)}
    return SafeCheckpointer(folder, modules), modules


def fill(module, value):
    """Set all weights to one value."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


@pytest.fixture
def two(tmp_path):
    """Folder with an older checkpoint of ones and a newer one of twos."""
    checkpointer, modules = checkpointer_of(tmp_path)
    for value, name in ((1, "older"), (2, "newer")):
        for module in modules.values():
            fill(module, value)
        checkpointer.save_checkpoint(
            {"loss": 3.0 - value, "unixtime": value}, name=name
        )
    return tmp_path


def truncate(path):
    """Cut the second half off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    """Cut everything off."""
    path.write_bytes(b"")


def flip(path):
    """Change the highest bit of one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def test_newest_is_recovered(two):
    """Without damage, the newest checkpoint is used."""
    checkpointer, modules = checkpointer_of(two)
    checkpointer.recover_if_possible()
    assert modules["m"].weight.eq(2).all()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, empty, flip, Path.unlink])
def test_damaged_checkpoint_is_passed_over(two, name, damage, caplog):
    """The checkpoint before it is used, and the log says why."""
    damage(two / "CKPT+newer" / name)
    checkpointer, modules = checkpointer_of(two)
    with caplog.at_level(logging.WARNING):
        found = checkpointer.recover_if_possible()
    assert found.path.name == "CKPT+older"
    for module in modules.values():
        assert module.weight.eq(1).all()
    warnings = [r.getMessage() for r in caplog.records if "CKPT+" in r.msg]
    assert len(warnings) == 1
    assert str(two / "CKPT+newer") in warnings[0]
    if name != "SHA256SUMS":
        assert name in warnings[0]


@pytest.mark.parametrize("key", [{}, {"min_key": "loss"}])
def test_damaged_checkpoint_is_not_the_best(two, key):
    """A damaged checkpoint is not used, even with the best loss."""
    truncate(two / "CKPT+newer" / "m.ckpt")
    found = checkpointer_of(two)[0].find_checkpoint(**key)
    assert found.meta["loss"] == 2.0


def test_damage_after_the_first_look(two):
    """A checkpoint is checked again if a file has changed."""
    checkpointer, _ = checkpointer_of(two)
    assert checkpointer.find_checkpoint().path.name == "CKPT+newer"
    truncate(two / "CKPT+newer" / "n.ckpt")
    assert checkpointer.find_checkpoint().path.name == "CKPT+older"


def test_all_damaged(two):
    """If all are damaged, there is no checkpoint."""
    for name in ("older", "newer"):
        truncate(two / f"CKPT+{name}" / "m.ckpt")
    assert checkpointer_of(two)[0].recover_if_possible() is None


def test_half_written_is_removed_at_the_next_save(two):
    """What a kill left is ignored, then removed; the rest is kept."""
    (two / "CKPT+newer" / "SHA256SUMS").unlink()
    checkpointer, _ = checkpointer_of(two)
    assert checkpointer.find_checkpoint().path.name == "CKPT+older"
    assert (two / "CKPT+newer").exists()
    checkpointer.save_checkpoint({"loss": 0.0}, name="third")
    assert sorted(path.name for path in two.iterdir()) == [
        "CKPT+older",
        "CKPT+third",
    ]


def test_kill_before_the_first_file(two):
    """An empty folder is no checkpoint either."""
    (two / "CKPT+empty").mkdir()
    checkpointer, _ = checkpointer_of(two)
    assert checkpointer.find_checkpoint().path.name == "CKPT+newer"
    checkpointer.save_checkpoint({"loss": 0.0}, name="third")
    assert not (two / "CKPT+empty").exists()


def test_other_folders_are_left_alone(two):
    """Other folders in the save folder stay."""
    (two / "classifier").mkdir()
    checkpointer, _ = checkpointer_of(two)
    checkpointer.save_and_keep_only({"loss": 0.0})
    assert (two / "classifier").is_dir()


def test_kill_while_saving(two, monkeypatch):
    """After a kill at any file, the earlier checkpoint is used."""

    def killed(module, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    checkpointer, modules = checkpointer_of(two)
    checkpointer.custom_save_hooks["n"] = killed
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint({"loss": 0.0}, name="third")
    checkpointer, modules = checkpointer_of(two)
    checkpointer.recover_if_possible()
    assert modules["n"].weight.eq(2).all()


@pytest.mark.parametrize(
    "value",
    [math.nan, torch.tensor(1.0), torch.tensor(math.nan), None, [1.0]],
)
def test_meta_is_plain(tmp_path, value):
    """NaN cannot be ordered, and tensors cannot be loaded safely."""
    checkpointer, _ = checkpointer_of(tmp_path)
    with pytest.raises(LMACError, match="'loss' is"):
        checkpointer.save_checkpoint({"loss": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [1, 0.5, math.inf, -math.inf, True, "x"])
def test_meta_comes_back(tmp_path, value):
    """Plain values are read back as they were."""
    checkpointer_of(tmp_path)[0].save_checkpoint({"value": value})
    found = checkpointer_of(tmp_path)[0].find_checkpoint()
    assert found.meta["value"] == value


def test_save_without_meta(tmp_path):
    """SpeechBrain's default call works."""
    checkpointer, modules = checkpointer_of(tmp_path)
    fill(modules["m"], 5)
    checkpointer.save_checkpoint()
    fill(modules["m"], 6)
    checkpointer.recover_if_possible()
    assert modules["m"].weight.eq(5).all()


def test_best_checkpoint(tmp_path):
    """The best intact checkpoint with the key is found."""
    checkpointer, _ = checkpointer_of(tmp_path)
    for name, loss in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        checkpointer.save_checkpoint({"loss": loss}, name=name)
    checkpointer.save_checkpoint({"other": 0.0}, name="d")
    assert best_checkpoint(tmp_path, "loss").meta["loss"] == 1.0
    assert best_checkpoint(tmp_path, "loss", largest=True).meta["loss"] == 3.0
    assert best_checkpoint(str(tmp_path), "AI") is None
    flip(tmp_path / "CKPT+b" / "m.ckpt")
    assert best_checkpoint(tmp_path, "loss").meta["loss"] == 2.0


def test_best_checkpoint_of_no_run(tmp_path):
    """Nothing is found, and no folder is made."""
    assert best_checkpoint(tmp_path / "nowhere", "loss") is None
    assert not (tmp_path / "nowhere").exists()


class Intruder:
    """Unpickles as a call that makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def fails(module, path, *parts):
    """`load_strict` refuses; its message names the file and these parts."""
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(LMACError) as caught:
        load_strict(module, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.fixture
def module():
    """Module that receives the weights."""
    return torch.nn.Linear(3, 2)


@pytest.fixture
def path(tmp_path):
    """Path of the weights."""
    return tmp_path / "w.ckpt"


def test_load_strict(module, path):
    """All weights arrive."""
    other = torch.nn.Linear(3, 2)
    torch.save(other.state_dict(), path)
    load_strict(module, path)
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


def test_load_missing(module, path):
    """The message names the missing file."""
    fails(module, path, "no such file", "expected weights")


def test_load_folder(module, tmp_path):
    """A folder is refused."""
    fails(module, tmp_path, "no such file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\x80",
        b"not weights\n",
        b"PK\x03\x04",
        b"\x80\x02}q\x00.",
        b"(lp0\n",
        b"{}",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "größer".encode("latin-1"),
    ],
)
def test_load_garbage(module, path, content):
    """Any other file gives the same short message."""
    path.write_bytes(content)
    fails(module, path)


def test_load_truncated(module, path):
    """A file that was cut anywhere is refused."""
    torch.save(module.state_dict(), path)
    content = path.read_bytes()
    for share in range(0, 100, 7):
        path.write_bytes(content[: len(content) * share // 100])
        fails(module, path)


def test_load_code(module, path, tmp_path):
    """A pickle with code is refused and its code does not run."""
    target = tmp_path / "intruded"
    torch.save(
        {**module.state_dict(), "weight": Intruder(target)},
        path,
    )
    fails(module, path, "not a file of weights only")
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the pickle of this test holds no code"


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"weight": 1.0}, {"weight": {"a": torch.ones(1)}}],
)
def test_load_no_state_dict(module, path, content):
    """A file that is not a state dict is refused."""
    torch.save(content, path)
    fails(module, path, "not a state dict of tensors")


def test_load_other_shape(module, path):
    """The message has the name and both shapes."""
    torch.save(torch.nn.Linear(4, 2).state_dict(), path)
    fails(module, path, "'weight'", "[2, 4]", "expected [2, 3]")


def test_load_missing_key(module, path):
    """A missing key is refused, since it would stay random."""
    torch.save(torch.nn.Linear(3, 2, bias=False).state_dict(), path)
    fails(module, path, "holds no 'bias'", "Linear")


def test_load_extra_key(module, path):
    """An extra key is refused."""
    torch.save({**module.state_dict(), "scale": torch.ones(1)}, path)
    fails(module, path, "'scale'", "Linear", "does not have")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_load_not_finite(module, path, value):
    """Weights that are not finite are refused."""
    state = module.state_dict()
    state["bias"] = torch.tensor([0.0, value])
    torch.save(state, path)
    fails(module, path, "'bias'", "NaN or infinite")


def encoder(*classes):
    """Label encoder of these classes."""
    labels = CategoricalEncoder()
    labels.update_from_iterable(classes)
    labels.expect_len(len(classes))
    return labels


def classifier_modules():
    """Modules under the names in the recipe."""
    return {
        "embedding_model": torch.nn.BatchNorm1d(3),
        "classifier": torch.nn.Linear(3, 2),
    }


@pytest.fixture
def saved(tmp_path):
    """A classifier's folder and its modules."""
    modules = classifier_modules()
    modules["embedding_model"](torch.randn(9, 3))
    folder = tmp_path / "model"
    save_classifier(folder, modules, encoder("dog", "rain"), {"a": [1, 2]})
    return folder, modules


def test_classifier_round_trip(saved, tmp_path):
    """Weights, buffers, classes and settings come back."""
    folder, modules = saved
    loaded, labels = classifier_modules(), CategoricalEncoder()
    config = load_classifier(folder, loaded, labels, tmp_path / "hub")
    assert config == {"a": [1, 2]}
    assert labels.ind2lab == {0: "dog", 1: "rain"}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(loaded[name].state_dict()[key], value)
    assert not (tmp_path / "hub").exists()
    with pytest.raises(KeyError):
        labels.encode_label("whale")


def test_classifier_replaces_the_former(saved):
    """No file of the former classifier stays."""
    folder, modules = saved
    (folder / "old.ckpt").write_bytes(b"old")
    save_classifier(folder, modules, encoder("cat"), {})
    assert sorted(path.name for path in folder.iterdir()) == [
        "classifier.ckpt",
        "config.json",
        "embedding_model.ckpt",
        "label_encoder.txt",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [1, 2])
def test_classifier_is_written_in_one_step(saved, monkeypatch, number):
    """A kill at any file leaves the former classifier whole."""
    folder, modules = saved
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    save, calls = torch.save, []

    def killed(*args):
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        save(*args)

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_classifier(folder, modules, encoder("cat"), {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    monkeypatch.undo()
    # What the kill left does not disturb the next call.
    save_classifier(folder, modules, encoder("cat"), {})
    assert json.loads((folder / "config.json").read_text()) == {}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from lmac_sb.models.classifier_folder import save_classifier

replace = os.replace

def killed(source, target):
    # The former folder has lost its name, the new one not got it yet.
    if Path(target).name == "model":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = killed
encoder = CategoricalEncoder()
encoder.update_from_iterable(["cat"])
save_classifier(sys.argv[1], {"m": torch.nn.Linear(1, 1)}, encoder, {})
"""


def test_classifier_survives_a_kill_between_two_names(saved, recipe, tmp_path):
    """The former one is found, and the next one replaces it as ever."""
    folder, modules = saved
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    done = recipe.command(["-c", KILLED_WRITER, folder])
    assert done.code == -signal.SIGKILL
    assert not folder.exists()
    config = load_classifier(
        str(folder), classifier_modules(), CategoricalEncoder(), tmp_path
    )
    assert config == {"a": [1, 2]}
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    save_classifier(folder, modules, encoder("cat"), {})
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def refused(source, tmp_path, *parts):
    """`load_classifier` refuses; its message has these parts."""
    with pytest.raises(LMACError) as caught:
        load_classifier(
            source,
            classifier_modules(),
            CategoricalEncoder(),
            tmp_path / "hub",
        )
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["embedding_model", "classifier"])
def test_classifier_without_weights(saved, tmp_path, name):
    """The missing file is named."""
    path = saved[0] / f"{name}.ckpt"
    path.unlink()
    refused(saved[0], tmp_path, str(path), "no such file")


def test_classifier_without_classes(saved, tmp_path):
    """The names of the classes are stored with the weights."""
    (saved[0] / "label_encoder.txt").unlink()
    refused(saved[0], tmp_path, str(saved[0]), "no label_encoder.txt")


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\xfe\x00"])
def test_classifier_with_a_broken_label_encoder(saved, tmp_path, content):
    """An encoder without classes would give no error until much later."""
    path = saved[0] / "label_encoder.txt"
    path.write_bytes(content)
    refused(saved[0], tmp_path, str(path))


def test_classifier_with_empty_label_encoder(saved, tmp_path):
    """A well-formed file without a class."""
    CategoricalEncoder().save(saved[0] / "label_encoder.txt")
    refused(saved[0], tmp_path, "label_encoder.txt")


def test_classifier_with_broken_config(saved, tmp_path):
    """The front end's settings cannot be checked then."""
    truncate(saved[0] / "config.json")
    refused(saved[0], tmp_path, str(saved[0] / "config.json"))


@pytest.mark.parametrize("source", ["nowhere", "./a", "/a/b", "a/b/c", "~/a"])
def test_classifier_folder_does_not_exist(tmp_path, monkeypatch, source):
    """A path is not treated as a hub id."""
    monkeypatch.setattr(classifier_folder, "fetch", None)
    monkeypatch.chdir(tmp_path)
    refused(source, tmp_path, f"classifier_folder: {source} does not exist")


def test_classifier_from_a_hub(saved, tmp_path, monkeypatch):
    """A hub id goes through fetch, with a folder for each source."""
    folder, modules = saved
    # Published repositories use this name.
    (folder / "label_encoder.txt").rename(folder / "label_encoder.ckpt")
    asked = []

    def fetch(name, source, savedir):
        asked.append((name, source, savedir))
        if not (folder / name).exists():
            raise FileNotFoundError(name)
        os.makedirs(savedir, exist_ok=True)
        return Path(shutil.copy(folder / name, savedir))

    monkeypatch.setattr(classifier_folder, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    for source in ("speechbrain/cnn14-esc50", "someone/cnn14-esc50"):
        loaded, labels = classifier_modules(), CategoricalEncoder()
        load_classifier(source, loaded, labels, tmp_path / "hub")
        for name, module in modules.items():
            for key, value in module.state_dict().items():
                assert torch.equal(loaded[name].state_dict()[key], value)
        assert labels.ind2lab == {0: "dog", 1: "rain"}
    assert {name for name, _, _ in asked} == {
        "embedding_model.ckpt",
        "classifier.ckpt",
        "label_encoder.txt",
        "label_encoder.ckpt",
    }
    folders = {source: savedir for _, source, savedir in asked}
    assert len(set(folders.values())) == len(folders) == 2
    assert all(str(tmp_path / "hub") in path for path in folders.values())


def test_hub_cannot_be_reached(tmp_path, monkeypatch):
    """The message says that it is neither a folder nor on a hub."""

    def fetch(name, source, savedir):
        raise OSError("no route")

    monkeypatch.setattr(classifier_folder, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    refused(
        "someone/model", tmp_path, "someone/model", "not a local folder", "hub"
    )


def test_plain():
    """Tensors become numbers, and NaN is removed."""
    found = plain(
        {
            "a": torch.tensor(1.5),
            "b": math.nan,
            "c": 2,
            "d": torch.tensor(math.nan),
            "e": math.inf,
        }
    )
    assert found == {"a": 1.5, "c": 2.0, "e": math.inf}
    assert all(type(value) is float for value in found.values())


def names(folder):
    """Checkpoints in a folder, by the end of their names."""
    return sorted(path.name.split("+")[-1] for path in folder.glob("CKPT+*"))


@pytest.mark.parametrize(
    "best, kept",
    [(0, ["a", "d", "e"]), (2, ["c", "d", "e"]), (4, ["d", "e"])],
)
def test_newest_two_stay(tmp_path, best, kept):
    """The newest two checkpoints are always kept."""
    checkpointer, _ = checkpointer_of(tmp_path)
    for place, name in enumerate("abcde"):
        checkpointer.save_and_keep_only(
            {"loss": float(place != best), "unixtime": place},
            name=name,
            min_keys=["loss"],
        )
    assert names(tmp_path) == kept


def test_kill_while_deleting(tmp_path, monkeypatch):
    """A kill while deleting leaves no valid checkpoint."""
    checkpointer, _ = checkpointer_of(tmp_path)
    for place, name in enumerate("ab"):
        checkpointer.save_checkpoint({"unixtime": place}, name=name)

    def killed(path):
        (path / "m.ckpt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_and_keep_only({"unixtime": 3}, name="c")
    monkeypatch.undo()
    assert names(tmp_path) == ["a", "b", "c"]
    checkpointer_of(tmp_path)[0].remove_unsealed()
    assert names(tmp_path) == ["b", "c"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected"),
    ],
)
def test_disk_is_full(two, error):
    """A full disk leaves the old checkpoints and no new one."""

    def full(module, path):
        Path(path).write_bytes(b"half")
        raise error

    checkpointer, _ = checkpointer_of(two)
    checkpointer.custom_save_hooks["n"] = full
    with pytest.raises(LMACError, match="cannot be written") as caught:
        checkpointer.save_checkpoint({"loss": 0.0}, name="third")
    assert str(two) in str(caught.value)
    assert "inline_container" not in str(caught.value)
    assert names(two) == ["newer", "older"]


def test_other_errors_of_saving_stay_as_they_are(two):
    """Other errors, such as a lost process, stay as they are."""

    def lost(module, path):
        raise RuntimeError("Connection closed by peer")

    checkpointer, _ = checkpointer_of(two)
    checkpointer.custom_save_hooks["n"] = lost
    with pytest.raises(RuntimeError, match="^Connection closed by peer$"):
        checkpointer.save_checkpoint({"loss": 0.0}, name="third")


def test_unreadable_checkpoint(two, monkeypatch, caplog):
    """A bad sector is damage like any other."""
    original = checkpoints.check_sums

    def unreadable(folder, complete):
        if folder.name == "CKPT+newer":
            raise OSError(errno.EIO, "Input/output error")
        return original(folder, complete)

    monkeypatch.setattr(checkpoints, "check_sums", unreadable)
    with caplog.at_level(logging.WARNING):
        found = checkpointer_of(two)[0].find_checkpoint()
    assert found.path.name == "CKPT+older"
    assert "CKPT+newer: cannot be read" in caplog.text


def test_classifier_on_a_full_disk(saved, monkeypatch):
    """The former classifier stays as it was."""
    folder, modules = saved
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(LMACError, match=f"{folder}: cannot be written"):
        save_classifier(folder, modules, encoder("cat"), {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
