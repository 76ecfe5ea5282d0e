"""The bench from end to end, on tiny scenes."""

import csv
import json
import shutil
import sys
import time

import pytest

from lmac_sb.bench.classifiers import CLASSIFIERS
from lmac_sb.bench.data import DATA, Data
from lmac_sb.bench.run import Options, run_bench
from lmac_sb.cli.main import main
from lmac_sb.pages.bench import write_bench_page
from lmac_sb.utils.errors import LMACError

METHODS = ("lmac", "lmac+1", "gradcam", "loudest", "ones", "ideal")
HOW = Options(("tiny",), ("cnn",), METHODS, clips=4, seeds=1, draws=1, epochs=1)
TIMES = ("seconds",)  # that differ from run to run


@pytest.fixture
def tiny_data(scenes, monkeypatch):
    """Tiny scenes as a data set of the bench."""
    monkeypatch.setitem(DATA, "tiny", Data(lambda made, real: scenes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, classifier, lmac_run):
    """A folder of trained models, in which the judge is missing."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(classifier, folder / "tiny" / "cnn" / "classifier-1234")
    shutil.copytree(lmac_run, folder / "tiny" / "cnn" / "lmac-1234")
    return folder


def read(path):
    """Rows of a csv file."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    """What is the same in each run."""
    return [row for row in rows if row["measure"] not in TIMES]


@pytest.fixture(scope="module")
def finished(scenes, trained, tmp_path_factory):
    """A finished bench, which no test changes."""
    out = tmp_path_factory.mktemp("bench") / "bench"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATA, "tiny", Data(lambda made, real: scenes))
        return out, run_bench(out, HOW, trained)


@pytest.fixture
def done(finished, tiny_data):
    """The same, where its data set is known."""
    return finished


def test_what_is_left(done):
    out, found = done
    (cell,) = found["cells"]
    assert (cell["clips"], cell["tested"]) == (4, 10)
    assert cell["folds"] == {"train": [1, 2, 3], "valid": [4], "test": [5]}
    assert found["notes"] == []
    rows = read(out / "bench.csv")
    assert list(rows[0]) == [
        *("data", "classifier", "method", "keep", "measure"),
        *("mean", "low", "high", "n"),
    ]
    assert {row["method"] for row in rows} == set(METHODS)
    measures = {row["measure"] for row in rows}
    assert {"AI", "event_auc", "heard AD", "other AD", "mask change"} < measures
    assert {"seconds", "passes", "kept_event_auc"} < measures
    ideal = {x["measure"]: x["mean"] for x in rows if x["method"] == "ideal"}
    assert float(ideal["event_auc"]) == 1
    minus = {row["minus"] for row in read(out / "differences.csv")}
    assert minus == {"lmac", "loudest"}
    text = (out / "bench.md").read_text("utf-8")
    assert "## Where L-MAC loses" in text and "## tiny, cnn" in text
    plots = {path.name for path in (out / "plots").iterdir()}
    assert plots == {"tiny_cnn.png", "tiny_cnn.svg"}
    page = write_bench_page(out).read_text("utf-8")
    assert '"data": "tiny"' in page
    # What was lost is what the differences say.
    for line in found["losses"]:
        assert line in found["differences"] and line["minus"] == "lmac"


def test_figures_are_those_of_eval(done, recipe, lmac_run, scenes, tmp_path):
    """The same models, clips and methods, by the script of the recipe."""
    out, _ = done
    options = {
        "interpreter": lmac_run,
        "data_folder": scenes,
        "output_folder": tmp_path / "eval",
        "methods": f"[{', '.join(METHODS)}]",
        "settings": "[clean]",
        "shares": "[]",
        "n_clips": 4,
        "optimised_steps": 1,
    }
    ran = recipe.main("eval", "eval.yaml", **options)
    assert ran.code == 0, ran.err
    expected = {
        (row["method"], row["keep"], row["metric"]): row
        for row in read(tmp_path / "eval" / "summary.csv")
        if row["subset"] == "all"
    }
    compared = 0
    for row in without_times(read(out / "bench.csv")):
        keep = row["keep"].replace("equal area", "area of lmac")
        other = expected.get((row["method"], keep, row["measure"]))
        if other is None or not row["mean"]:
            continue
        compared += 1
        for key in ("mean", "low", "high"):
            assert float(row[key]) == pytest.approx(
                float(other[key]), rel=1e-4, abs=1e-5
            ), row
    assert compared > 100


def test_another_bench_in_the_same_folder(done, trained):
    out, _ = done
    before = (out / "bench.csv").read_bytes()
    with pytest.raises(LMACError, match="clips: there 4, here 5"):
        run_bench(out, HOW._replace(clips=5), trained)
    assert (out / "bench.csv").read_bytes() == before


def test_a_second_call_computes_nothing(done, trained, monkeypatch):
    out, _ = done
    before = (out / "bench.csv").read_bytes()
    monkeypatch.setattr(
        "lmac_sb.evaluation.runner.Grid._batch",
        lambda *args: pytest.fail("computed again"),
    )
    run_bench(out, HOW, trained)
    assert (out / "bench.csv").read_bytes() == before


def test_a_bench_without_results_is_forgotten(
    tiny_data, tmp_path, monkeypatch, trained
):
    """What failed on wrong data or classifiers does not block its folder."""
    out = tmp_path / "bench"
    monkeypatch.setitem(DATA, "gone", Data(lambda made, real: made / "gone"))
    with pytest.raises(LMACError, match="gone: no such folder"):
        run_bench(out, HOW._replace(data=("tiny", "gone")), trained)
    monkeypatch.setitem(CLASSIFIERS, "none", lambda setup: {})
    how = HOW._replace(methods=("ones",), clips=2)
    with pytest.raises(LMACError, match="none: gave no interpreter"):
        run_bench(out, how._replace(classifiers=("none",)), trained)
    assert run_bench(out, how, trained)["cells"][0]["clips"] == 2
    with pytest.raises(LMACError, match="clips: there 2, here 3"):
        run_bench(out, how._replace(clips=3), trained)


def test_models_that_were_replaced(done, trained, whole, tmp_path):
    """Rows of other models are not mixed with those that are there."""
    out, _ = done
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    shutil.rmtree(other / "tiny" / "cnn" / "lmac-1234")
    shutil.copytree(whole, other / "tiny" / "cnn" / "lmac-1234")
    with pytest.raises(LMACError, match="holds another job: models"):
        run_bench(out, HOW, other)


def test_models_that_have_heard_the_test(tiny_data, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    manifests = other / "tiny" / "cnn" / "lmac-1234" / "manifests"
    (manifests / "train.jsonl").write_bytes(
        (manifests / "test.jsonl").read_bytes()
    )
    with pytest.raises(LMACError, match="trained or chosen on 10 clips"):
        run_bench(tmp_path / "bench", HOW, other)
    (manifests / "train.jsonl").unlink()
    with pytest.raises(LMACError, match="train.jsonl: no such file"):
        run_bench(tmp_path / "bench", HOW, other)


@pytest.mark.parametrize(("epochs", "now"), [(7, 7), (None, 20)])
def test_models_of_other_settings(
    tiny_data, trained, tmp_path, capsys, epochs, now
):
    """They are taken, and what differs is said."""
    how = HOW._replace(epochs=epochs, methods=("lmac", "ones"))
    run_bench(tmp_path / "bench", how, trained)
    (line,) = [
        x
        for x in capsys.readouterr().out.splitlines()
        if x.startswith("taken as it is: ") and "classifier-1234" in x
    ]
    assert line.endswith(f"number_of_epochs 12 in place of {now}")


def test_models_that_are_damaged(tiny_data, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    for path in (other / "tiny" / "cnn").rglob("decoder.ckpt"):
        path.write_bytes(b"damaged")
    with pytest.raises(LMACError, match="lmac-1234"):
        run_bench(tmp_path / "bench", HOW, other)


def test_models_of_other_classes(trained, tmp_path, monkeypatch, scenes):
    """One clear message, that names the folder and both classes."""
    renamed = tmp_path / "renamed"
    shutil.copytree(scenes, renamed)
    table = renamed / "meta" / "esc50.csv"
    text = table.read_text("utf-8").replace("bounce", "jump")
    table.write_text(text, encoding="utf-8")
    monkeypatch.setitem(DATA, "tiny", Data(lambda made, real: renamed))
    with pytest.raises(LMACError, match="knows bounce, .* has jump"):
        run_bench(tmp_path / "bench", HOW, trained)


def test_data_that_is_not_there(tmp_path, monkeypatch, tiny_data):
    monkeypatch.delenv("LMAC_SB_DATA", raising=False)
    with pytest.raises(LMACError, match="esc10: no folder of real sounds"):
        run_bench(tmp_path / "one", HOW._replace(data=("esc10",)))
    with pytest.raises(LMACError, match="fsdd: no such folder"):
        run_bench(
            tmp_path / "two", HOW._replace(data=("digits",)), real=tmp_path
        )


def test_what_is_missing_is_said(tmp_path, monkeypatch, tiny_data, trained):
    """Of data that nobody asked for by name, as of classifiers."""
    monkeypatch.delenv("LMAC_SB_DATA", raising=False)
    for name in set(DATA) - {"tiny", "esc10"}:
        monkeypatch.delitem(DATA, name)
    how = HOW._replace(
        data=None, classifiers=("cnn", "yamnet"), methods=("lmac", "ones")
    )
    found = run_bench(tmp_path / "bench", how, trained)
    assert [x.split(":")[0] for x in found["notes"]] == [
        *("esc10", "tiny, yamnet")
    ]
    assert "- esc10: " in (tmp_path / "bench" / "bench.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips", "0"], "--clips: 0, expected a whole number from 1"),
        (["--seeds", "0"], "--seeds: 0, expected"),
        (["--draws", "-1"], "--draws: -1, expected"),
        (["--methods", "lmac,,ones"], "has an empty name"),
        (["--methods", "ones,ones"], "'ones' is given twice"),
        (["--methods", "loudset"], "did you mean 'loudest'?"),
        (["--classifiers", "cnm"], "did you mean 'cnn'?"),
        (["--data", "scnes"], "did you mean 'scenes'?"),
        (["--processes", "0"], "--processes: 0, expected"),
    ],
)
def test_bad_words(tmp_path, capsys, words, said):
    out = tmp_path / "bench"
    try:
        code = main(["bench", "--out", str(out), *words])
    except SystemExit as stop:
        code = stop.code
    assert code in (1, 2)
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_killed_bench_goes_on(scenes, trained, recipe, tmp_path, done):
    """By the same command, to the same figures but for times."""
    finished, _ = done
    (tmp_path / "mine.py").write_text(
        "import time\n"
        "from helper import neg\n"
        "from lmac_sb.bench.data import Data\n"
        f"tiny = Data(lambda made, real: {str(scenes)!r})\n"
        "def slow(explainer, analysis, target):\n"
        "    time.sleep(0.5)\n"
        "    return analysis.magnitude\n",
        encoding="utf-8",
    )
    helper = tmp_path / "helper.py"
    helper.write_text(
        "def neg(explainer, analysis, target):\n"
        "    return -1 - analysis.magnitude\n",
        encoding="utf-8",
    )
    models = tmp_path / "models"
    shutil.copytree(trained / "tiny", models / "mine_tiny")
    out = tmp_path / "killed"
    command = ["-m", "lmac_sb", "bench", "--out", str(out)]
    command += ["--data", "mine:tiny", "--classifiers", "cnn", "--clips", "4"]
    command += ["--methods", f"{','.join(METHODS)},mine:slow,mine:neg"]
    command += ["--seeds", "1", "--draws", "1", "--epochs", "1"]
    command += ["--trained", str(models)]
    process = recipe.copy(command, tmp_path)
    rows = out / "steps" / "cells" / "mine_tiny__cnn" / "rows"
    end = time.monotonic() + 120
    while not list(rows.glob("part-*.parquet")) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (out / "bench.json").exists()
    ran = recipe.command(command, tmp_path)
    assert ran.code == 0, ran.err
    assert (out / "bench.html").is_file()
    found = [
        {**row, "data": "tiny"}
        for row in without_times(read(out / "bench.csv"))
        if not row["method"].startswith("mine:")
    ]
    assert found == without_times(read(finished / "bench.csv"))
    said = "`mine:neg`: no score above zero on 4 clips"
    assert f"mine:tiny, cnn: {said}\n" in ran.out
    assert f" {said}." in (out / "bench.md").read_text("utf-8")
    # Nothing but what was there, and what was asked for.
    names = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert names == {"mine.py", "helper.py", "models", "killed"}
    # A helper of the module is its code as well.
    helper.write_text(f"{helper.read_text()}# other\n", encoding="utf-8")
    ran = recipe.command(command, tmp_path)
    assert ran.code == 1
    assert "holds another job: code.helper: there" in ran.err


def test_a_classifier_of_a_third_party(
    tiny_data, tmp_path, monkeypatch, trained, interpreter_of_scenes
):
    """One entry and one function."""
    monkeypatch.setitem(
        CLASSIFIERS, "mine", lambda setup: {"lmac": interpreter_of_scenes}
    )
    how = HOW._replace(classifiers=("mine",), methods=("lmac", "ones"))
    found = run_bench(tmp_path / "bench", how, trained)
    assert found["cells"][0]["classifier"] == "mine"
    facts = json.loads((tmp_path / "bench" / "bench.json").read_text("utf-8"))
    assert facts["figures"] == found["figures"]


def test_masks_of_decoders_of_two_seeds_are_compared(
    tiny_data, trained, tmp_path
):
    """Those of all methods that a decoder begins, and of no others."""
    methods = ("lmac", "lmac_look", "lmac+1", "optimised+1", "loudest")
    how = HOW._replace(methods=methods, clips=2, seeds=2)
    run_bench(tmp_path / "bench", how, trained)
    rows = read(tmp_path / "bench" / "bench.csv")
    agreeing = {x["method"] for x in rows if x["measure"] == "agreement"}
    assert agreeing == {"lmac", "lmac_look", "lmac+1"}


def test_a_network_without_a_decoder(tiny_data, trained, tmp_path):
    """It is explained by steps of its own, at whose area all are compared."""
    methods = ("lmac", "optimised+1", "loudest")
    how = HOW._replace(classifiers=("waveform",), methods=methods, clips=2)
    found = run_bench(tmp_path / "bench", how, trained)
    (cell,) = found["cells"]
    assert (cell["reference"], cell["left_out"]) == ("optimised+20", ["lmac"])
    rows = read(tmp_path / "bench" / "bench.csv")
    assert {x["method"] for x in rows} == {"optimised+20", *methods[1:]}
    minus = {x["minus"] for x in read(tmp_path / "bench" / "differences.csv")}
    assert "loudest" in minus


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda setup: {}["key"], "their:s: KeyError: 'key'"),
        (lambda setup: {}, "their:s: gave no interpreter"),
        (lambda setup: {"lmac": 3}, "their:s: gave .*expected a dict"),
        (lambda setup: sys.exit(3), "their:s: SystemExit: 3"),
    ],
)
def test_a_classifier_that_fails(tiny_data, tmp_path, monkeypatch, gives, said):
    monkeypatch.setitem(CLASSIFIERS, "their:s", gives)
    how = HOW._replace(classifiers=("their:s",))
    with pytest.raises(LMACError, match=said):
        run_bench(tmp_path / "bench", how)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda made, real: 1 / 0, "their:s: ZeroDivisionError"),
        (lambda made, real: None, "their:s: gave None, expected a folder"),
        (lambda made, real: sys.exit(3), "their:s: SystemExit: 3"),
        (lambda made, real: made, "their:s: .*their_s: no such folder"),
        (lambda made, real: str(made), "expected the one of its clips"),
    ],
)
def test_data_that_fails(tmp_path, monkeypatch, gives, said):
    monkeypatch.setitem(DATA, "their:s", Data(gives))
    with pytest.raises(LMACError, match=said):
        run_bench(tmp_path / "bench", HOW._replace(data=("their:s",)))


@pytest.mark.parametrize(
    "folds",
    [
        {"train": [1], "valid": [2]},
        {"train": 1, "valid": 2, "test": 3},
        {"train": [], "valid": [2], "test": [3]},
        {"train": ["1"], "valid": [2], "test": [3]},
        [1, 2, 3],
    ],
)
def test_folds_of_another_form(tmp_path, monkeypatch, scenes, folds):
    data = Data(lambda made, real: scenes, folds)
    monkeypatch.setitem(DATA, "their:s", data)
    with pytest.raises(LMACError, match="their:s: folds: .* for train, valid"):
        run_bench(tmp_path / "bench", HOW._replace(data=("their:s",)))


def test_data_of_one_class(tmp_path, monkeypatch, scenes):
    """There is nothing to decide."""
    one = tmp_path / "one"
    shutil.copytree(scenes, one)
    table = one / "meta" / "esc50.csv"
    with open(table, encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    monkeypatch.setitem(DATA, "their:s", Data(lambda made, real: one))
    place = head.index("category")
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [head, *(row[:place] + ["x"] + row[place + 1 :] for row in rows)]
        )
    with pytest.raises(LMACError, match="their:s: found one class, x"):
        run_bench(tmp_path / "bench", HOW._replace(data=("their:s",)))


def test_a_classifier_that_gives_nan(
    tiny_data, tmp_path, monkeypatch, interpreter_of_scenes
):
    for value in interpreter_of_scenes.explainer.classifier.parameters():
        value.data.fill_(float("nan"))
    monkeypatch.setitem(
        CLASSIFIERS, "mine", lambda setup: {"lmac": interpreter_of_scenes}
    )
    how = HOW._replace(classifiers=("mine",), methods=("lmac", "ones"))
    with pytest.raises(LMACError, match="tiny, mine: the classifier gives NaN"):
        run_bench(tmp_path / "bench", how)


@pytest.fixture
def interpreter_of_scenes(lmac_run):
    """That of a run."""
    from lmac_sb.inference.export import load_interpreter

    return load_interpreter(lmac_run)
