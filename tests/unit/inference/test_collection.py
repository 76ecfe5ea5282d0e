"""Tests of folders that several calls fill, with clips of any name."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from console import run

from lmac_sb.inference.clip_folder import folder_names, read_clip
from lmac_sb.inference.collection import (
    PARTS,
    Collection,
    Task,
    clip_folders,
)
from lmac_sb.pages.explained import open_explained
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import part_folder
from lmac_sb.utils.lock import hold

ROOT = Path(__file__).resolve().parents[3]
RATE = 16000
KEPT = "kept from an earlier call"


@pytest.fixture
def explain(model, tmp_path, capsys):
    """Run `lmac explain`; returns exit code, standard output and error."""

    def explain(*arguments, model=model):
        more = ("--model", model)
        if "--out" not in arguments:
            more += ("--out", tmp_path / "out")
        code = run("explain", *arguments, *more)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return explain


def write(path, seed=0):
    """Write half a second of noise; creates the folder."""
    wav = np.random.default_rng(seed).standard_normal(RATE // 2) / 8
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        sf.write(file, wav, RATE, "PCM_16", format="WAV")
    return os.fsdecode(path)


def names(folder):
    """What is in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def facts(folder):
    """Content of explanation.json."""
    return json.loads((folder / "explanation.json").read_text("utf-8"))


# ---------------------------------------------------------------- going on


def test_the_same_again_is_kept(explain, tmp_path):
    """Same file, content, model and options, however it is named."""
    file = write(tmp_path / "x.wav")
    _, first, _ = explain(file, "--json")
    before = (tmp_path / "out" / "x" / "explanation.json").stat()
    code, out, _ = explain(f"{tmp_path}/../{tmp_path.name}/x.wav")
    assert code == 0 and KEPT in out
    assert (tmp_path / "out" / "x" / "explanation.json").stat() == before
    _, second, _ = explain(file, "--json")
    rows = [json.loads(out)["results"][0] for out in (first, second)]
    assert [row.pop("kept") for row in rows] == [False, True]
    assert rows[0] == rows[1]
    assert names(tmp_path / "out") == ["x"]


@pytest.mark.parametrize(
    "more",
    [
        ("--target", "dog"),
        ("--against", "runner-up"),
        ("--threshold", "0.5"),
        ("--refine", "1"),
        ("--stable",),
        ("--format", "flac"),
        ("--targets", "all", "--min-p", "0.01"),
    ],
)
def test_other_options_are_another_explanation(explain, tmp_path, more):
    """It takes the place of the former, and back."""
    file = write(tmp_path / "x.wav")
    explain(file)
    for options in (more, ()):
        code, out, err = explain(file, *options)
        assert (code, err) == (0, "") and KEPT not in out
        assert KEPT in explain(file, *options)[1]
        assert names(tmp_path / "out") == ["x"]
    assert "explanation.json" in names(tmp_path / "out" / "x")


def test_another_model_is_another_explanation(explain, model, tmp_path):
    """By its weights, not by its name."""
    file = write(tmp_path / "x.wav")
    explain(file)
    copy = tmp_path / "copy" / model.name
    shutil.copytree(model, copy)
    assert KEPT in explain(file, model=copy)[1]
    changed = tmp_path / "changed" / model.name
    change_weights(model, changed)
    assert KEPT not in explain(file, model=changed)[1]


def change_weights(model, folder):
    """A copy of a model that differs a little."""
    from safetensors.torch import load_file, save_file

    from lmac_sb.utils.checksums import write_sums

    shutil.copytree(model, folder)
    path = folder / "classifier.safetensors"
    state = load_file(path)
    save_file({name: value + 0.01 for name, value in state.items()}, path)
    write_sums(folder)


@pytest.mark.parametrize(
    "name", ["explanation.json", "maps.npz", "original.wav", "residual.wav"]
)
def test_what_is_not_whole_is_made_again(explain, tmp_path, name):
    """In its own folder, and not beside it."""
    file = write(tmp_path / "x.wav")
    explain(file)
    path = tmp_path / "out" / "x" / name
    path.unlink()
    code, out, _ = explain(file)
    assert code == 0 and KEPT not in out
    assert names(tmp_path / "out") == ["x"]
    os.truncate(path, 100)
    explain(file)
    read_clip(tmp_path / "out" / "x")


def test_what_former_versions_left(explain, tmp_path):
    """Half a clip, with the path of its file or without its facts."""
    file = write(tmp_path / "x.wav")
    explain(file)
    folder = tmp_path / "out" / "x"
    content = facts(folder)
    for key in ("asked", "made"):
        del content[key]
    content["file"] = file
    text = json.dumps(content)
    (folder / "explanation.json").write_text(text, encoding="utf-8")
    explain(file)
    assert facts(folder)["file"] == "x.wav"
    (folder / "explanation.json").unlink()
    (folder / f".clip.{1 << 30}@host.0.part").mkdir()
    explain(file)
    assert names(tmp_path / "out") == ["x"]
    assert not [name for name in names(folder) if name[0] == "."]


def test_notes_in_the_folder_stay(explain, tmp_path):
    file = write(tmp_path / "x.wav")
    explain(file)
    folder = tmp_path / "out" / "x"
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "more" / "a").touch()
    explain(file, "--threshold", "0.5")
    assert (folder / "notes.txt").read_text() == "mine"
    assert names(folder / "more") == ["a"]


def test_fewer_classes_than_before(explain, tmp_path):
    """Those of the former call are gone."""
    file = write(tmp_path / "x.wav")
    explain(file, "--targets", "all", "--min-p", "0.01")
    folder = tmp_path / "out" / "x"
    before = [path.name for path in clip_folders(folder)]
    assert len(before) == 3
    third, second, _ = sorted(facts(folder / before[0])["p"])
    least = str((second + third) / 2)
    explain(file, "--targets", "all", "--min-p", least)
    after = [path.name for path in clip_folders(folder)]
    assert len(after) == 2 and names(folder) == after


def test_a_link_is_nobodys_folder(explain, tmp_path):
    """It is neither followed nor replaced."""
    file = write(tmp_path / "x.wav")
    explain(file)
    (tmp_path / "out" / "x").rename(tmp_path / "private")
    (tmp_path / "out" / "x").symlink_to(tmp_path / "private")
    before = facts(tmp_path / "private")
    explain(file, "--threshold", "0.5")
    assert names(tmp_path / "out") == ["x", "x_2"]
    assert facts(tmp_path / "private") == before


def test_a_place_that_another_process_claims(explain, tmp_path, monkeypatch):
    """The others come first; then it is waited for."""
    from lmac_sb.inference import many

    files = [write(tmp_path / f"{name}.wav", i) for i, name in enumerate("ab")]
    out = tmp_path / "out"
    # Its number may be that of a process that has nothing to do with it.
    for name, number in (("a", os.getppid()), ("b", os.getpid())):
        # In a folder of their own, however many clips there are.
        claim = out / PARTS / f".{name}.{number}@{part_host(out)}.0.part"
        claim.mkdir(parents=True)
    claim = out / PARTS / f".a.{os.getppid()}@{part_host(out)}.0.part"
    holding = hold(claim)
    holding.__enter__()

    def end(seconds):
        assert [name for name in names(out) if name[0] != "."] == ["b"]
        holding.__exit__(None, None, None)

    monkeypatch.setattr(many.time, "sleep", end)
    code, _, err = explain(*files)
    assert code == 0
    assert err == f"another process is at {out / 'a'}: waiting\n"
    assert [name for name in names(out) if name[0] != "."] == ["a", "b"]


def part_host(folder):
    """The number of this machine in temporary names."""
    folder.mkdir(exist_ok=True)
    with part_folder(folder / "x") as part:
        return re.fullmatch(r".*@(\w+)\.\w+\.part", part.name)[1]


# ------------------------------------------------------------------- names

ODD = [
    *(b"dog\xe9.wav", b"explanation.json.wav", b"maps.npz.wav"),
    *(b"report.html.wav", b"explanations.csv.wav", b"original.wav"),
    *(b"con.wav", b"NUL.txt.wav", b"unrefined.wav", b"x.former.wav"),
    *(b"x.wav", b"X.wav", b"x .wav", b"x..wav", b"...wav", b"x_2.wav"),
    *("\u00e9.wav".encode(), "e\u0301.wav".encode(), b"new\nline.wav"),
    *(b"a" * 251 + b".wav", b".x.1@a.b.part.wav", b"\xff\xfe.wav"),
]


def test_any_name_of_a_recording(explain, tmp_path, monkeypatch):
    """Each gets a folder, which is found again, and a place on the page."""
    # Whether a decoder takes the name is not what is asked here.
    files = [write(os.fsencode(tmp_path) + b"/in/" + name) for name in ODD]
    monkeypatch.setattr(
        "lmac_sb.inference.interpreter.read_signal",
        lambda path, rate: torch.zeros(RATE).bernoulli_(0.1),
    )
    monkeypatch.setattr(
        "lmac_sb.inference.interpreter.source_of", lambda path: (RATE, 1)
    )
    code, out, err = explain(*files)
    assert (code, err) == (0, "")
    out.encode("ascii", "strict" if out.isascii() else "replace")
    made = names(tmp_path / "out")
    assert len(made) == len(files)
    assert len({name.casefold() for name in made}) == len(files)
    for name in made:
        assert name == name.strip(" .") and len(os.fsencode(name)) <= 160
        assert not re.search(r"\.(json|html|csv|npz|wav|former|part)$", name)
        assert name.casefold().split(".")[0] not in ("con", "nul", "unrefined")
    code, out, _ = explain(*files)
    assert code == 0 and out.count(KEPT) == len(files)
    assert names(tmp_path / "out") == made
    assert run("report", tmp_path / "out") == 0
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert text.count('"id": ') == len(files)


def test_names_of_classes_are_no_names_of_files():
    odd = ["explanation.json", "original.wav", "Unrefined", "AUX", "..", ""]
    found = folder_names([*odd, "report.html", "a" * 300, "a" * 301])
    assert found[:6] == [
        *("explanation_json", "original_wav", "Unrefined_", "AUX_", "clip"),
        "clip_2",
    ]
    assert found[6] == "report_html"
    assert found[7] + "_2" == found[8]
    assert folder_names(["A"], ["a"]) == ["A_2"]


PRINTED = """
import sys
from lmac_sb.cli import main
sys.exit(main(["explain", "gone\\udce9\\u72ac.wav", *sys.argv[1:]]))
"""


def test_names_on_a_terminal_without_letters(model, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-c", PRINTED),
            *("--model", model, "--out", tmp_path / "out"),
        ],
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"1 of 1 files failed:\n  gone" in done.stdout


# ---------------------------------------------------------- one file alone


@pytest.mark.parametrize(
    "error",
    [
        TypeError("samplerate must be specified"),
        UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
        MemoryError(),
        RuntimeError("a\nb"),
        RecursionError("deep"),
        KeyError("x"),
        PermissionError(13, "Permission denied"),
        LMACError("target: not heard"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_is_of_its_file(explain, tmp_path, monkeypatch, error):
    files = [write(tmp_path / f"{name}.wav") for name in "abc"]
    from lmac_sb.inference import interpreter

    read = interpreter.read_signal

    def failing(path, rate):
        if Path(path).stem == "b":
            raise error
        return read(path, rate)

    monkeypatch.setattr(interpreter, "read_signal", failing)
    code, out, err = explain(*files)
    assert code == 0 and err.startswith("warning: 1 of 3 files failed")
    assert names(tmp_path / "out") == ["a", "c"]
    head, *tail = out.split("1 of 3 files failed:\n")[1].splitlines()
    assert head.startswith(f"  {files[1]}: ")
    assert tail == [f"next: lmac report {tmp_path / 'out'}"]
    assert explain(*files, "--strict")[0] == 1
    assert run("report", tmp_path / "out") == 0


def test_a_full_disk_stops(explain, tmp_path, monkeypatch):
    """One line names the file and its folder; the rest is not tried."""
    from lmac_sb.inference import many

    files = [write(tmp_path / f"{name}.wav") for name in "abc"]
    write_clip = many.write_clip

    def full(part, clip, name, **more):
        if name == "b":
            raise OSError(28, "No space left on device")
        write_clip(part, clip, name, **more)

    monkeypatch.setattr(many, "write_clip", full)
    code, out, err = explain(*files)
    assert code == 1
    assert err == (
        f"error: {files[1]}: [Errno 28] No space left on device: "
        f"'{tmp_path / 'out' / 'b'}'; free some space, then start again\n"
    )
    assert "1 of 2 files failed:" in out
    assert names(tmp_path / "out") == ["a"]


def test_a_folder_that_cannot_be_made(explain, tmp_path, monkeypatch):
    """On a read-only file system, say."""

    def refused(self, *arguments, **more):
        raise OSError(30, "Read-only file system", str(self))

    file = write(tmp_path / "x.wav")
    monkeypatch.setattr(Path, "mkdir", refused)
    code, out, err = explain(file)
    assert (code, out) == (1, "")
    assert err == (
        f"error: --out: {tmp_path / 'out'} cannot be made or written to (Read-"
        "only file system)\n"
    )


# --------------------------------------------------------- of another user


@pytest.fixture
def together(explain, model, shared):
    """Run `lmac explain` where another user may; two sounds are there."""
    copy = shared.folder / "model"
    shutil.copytree(model, copy)
    for path in (copy, *copy.iterdir()):
        path.chmod(0o755)
    files = [write(shared.folder / f"{x}.wav", i) for i, x in enumerate("ab")]

    def together(*arguments, out=shared.folder / "out"):
        return explain(*arguments, "--out", out, model=copy)

    together.files, together.out = files, shared.folder / "out"
    return together


def test_a_clip_that_another_user_may_not_read(together, shared):
    """It is no reason to leave out a file, nor is it touched."""
    for _ in range(2):  # Python itself may lie where others may not read
        together(*together.files)
    together.out.chmod(0o777)
    (together.out / "a").chmod(0o700)
    before = names(together.out / "a")
    with shared.by_another():
        for n_kept in (1, 2):
            code, out, err = together(*together.files)
            assert (code, err, out.count(KEPT)) == (0, "", n_kept)
    assert names(together.out) == ["a", "a_2", "b"]
    assert names(together.out / "a") == before


def test_a_clip_of_another_user_is_replaced(together, shared, caplog):
    """What cannot be deleted is told, and in nobody's way."""
    file, _ = together.files
    together(file)
    together.out.chmod(0o777)
    with shared.by_another():
        for steps in (1, 2):
            code, _, err = together(file, "--refine", steps)
            assert (code, err) == (0, "")
            assert facts(together.out / "a")["refine_steps"] == steps
    (left,) = {*names(together.out)} - {"a"}
    assert left.startswith(".a.") and left.endswith(".part")
    (told,) = (x for x in caplog.messages if str(together.out) in x)
    assert told.startswith(f"{together.out / left}: cannot be deleted")
    assert [clip.place for clip in open_explained(together.out)] == ["a"]


def test_a_clip_that_another_user_may_not_replace(together, shared):
    """One line says so, among the failures."""
    together(together.files[0])
    together.out.chmod(0o1777)
    with shared.by_another():
        code, out, _ = together(*together.files, "--refine", "1")
    assert code == 0 and "1 of 2 files failed:\n" in out
    place = together.out / "a"
    assert f"{place}: cannot be replaced (Operation not permitted)" in out
    assert names(together.out) == ["a", "b"]
    assert facts(place)["refine_steps"] == 0


def test_what_a_killed_process_of_another_user_left(together, shared):
    """It keeps off nobody."""
    file, _ = together.files
    together.out.mkdir()
    together.out.chmod(0o777)
    task = Task("c", "c", {"place": "", "sound": None}, {})
    with Collection(together.out).clip(task):
        assert (together.out / PARTS).stat().st_mode & 0o777 == 0o777
        (together.out / ".run-1").mkdir()
        (together.out / ".run-1" / "lives").touch()
        (together.out / "d.former").mkdir()
        with shared.by_another():
            code, _, err = together(file)
            assert (code, err) == (0, "")


def test_results_of_another_user(together, shared):
    """It is said that this user may not write there."""
    file, _ = together.files
    together(file)
    with shared.by_another():
        assert together(file) == (
            1,
            "",
            f"error: --out: {together.out} cannot be made or written to "
            "(Permission denied)\n",
        )


def test_sounds_of_another_user(together, shared):
    """The words are the same, whether they are given alone or with others."""
    file, _ = together.files
    closed = shared.folder / "closed"
    other = write(closed / "b.wav")
    together(file)
    together.out.chmod(0o777)
    closed.chmod(0)
    with shared.without_rights():
        for files, expected in (([other], 1), ([file, other], 0)):
            code, out, _ = together(*files)
            assert code == expected
            assert f"1 of {len(files)} files failed:\n" in out
            assert f"\n  {other}: cannot be read ([Errno 13] Perm" in f"\n{out}"
        code, out, _ = together(closed.parent)
        assert code == 0 and "failed" not in out
    closed.chmod(0o700)


# ------------------------------------------------------ what leaves the house


def inside(data):
    """Bytes of a file, unpacked as far as they are packed."""
    yield data
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode() + archive.read(name)
    for part in re.findall(rb"base64,([\w+/=]+)|\"([\w+/=]{40,})\"", data):
        yield base64.b64decode(max(part))


def test_nothing_of_the_maker_is_written(model, tmp_path, monkeypatch, capsys):
    """No path, user or host in anything that may be given away."""
    secret = ["telling_user", "telling_host", "telling_folder", str(tmp_path)]
    home = tmp_path / "telling_user" / "telling_folder"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "telling_user")
    monkeypatch.setattr("socket.gethostname", lambda: "telling_host")
    shutil.copytree(model, home / "model")
    files = [write(home / "in" / f"{name}.wav") for name in "ab"]
    (home / "in" / "bad.wav").write_text("no sound")
    out = home / "out"
    more = ("--model", home / "model", "--out", out)
    run("explain", *files, home / "in" / "bad.wav", *more, "--refine", "1")
    all_classes = ("--targets", "all", "--min-p", "0.01", "--format", "flac")
    run("explain", files[0], *more, *all_classes)
    (out / "broken").mkdir()
    assert run("report", out) == 0
    assert "left out" in capsys.readouterr().err
    (out / "report.html").rename(out / "embedded.html")
    assert run("report", out, "--link-sounds") == 0
    found = [path for path in out.rglob("*") if path.is_file()]
    assert len(found) > 20
    for path in found:
        assert not [x for x in secret if x in str(path.relative_to(out))]
        for data in inside(path.read_bytes()):
            for word in secret:
                assert word.encode() not in data, (path, word)
