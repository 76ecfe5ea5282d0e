"""Tests of train_multilabel.py with both of its yaml files, and in a bench."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage

from lmac_sb.bench.classifiers import CLASSIFIERS, Classifier
from lmac_sb.bench.data import DATA, Data
from lmac_sb.bench.run import Options, run_bench
from lmac_sb.data.manifest import read_entries
from lmac_sb.data.scenes import CLASSES
from lmac_sb.inference.export import load_interpreter
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.lmac.losses import LMACLoss, others_apart
from lmac_sb.models.question import Question
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.utils.errors import LMACError

METHODS = (
    *("lmac", "lmac+1", "lmac_binary", "optimised", "saliency"),
    *("input_x_gradient", "smoothgrad", "integrated_gradients"),
    *("guided_backprop", "gradcam", "guided_gradcam", "gradient_shap"),
    *("deeplift_shap", "occlusion", "ones", "random", "loudest"),
    *("loudest_frames", "ideal"),
)


@pytest.fixture(scope="module")
def sigmoid(once, recipe, pairs):
    """Run folder of a hardly trained classifier."""

    def make(folder):
        done = recipe.main(
            "train_multilabel",
            "classifier_multilabel.yaml",
            data_folder=pairs,
            output_folder=folder,
            number_of_epochs=12,
            mask_share=0,
        )
        assert done.code == 0, done.err

    return once("sigmoid", make)


@pytest.fixture(scope="module")
def small(pairs, sigmoid):
    """Overrides that make each run small."""
    return {
        "data_folder": pairs,
        "classifier_folder": sigmoid / "model",
        "number_of_epochs": 1,
        "batch_size": 8,
        "save_clips": 1,
        "interpret_period": 1,
        "decoder_width": 8,
    }


@pytest.fixture(scope="module")
def run(once, recipe, small):
    """Folder of a finished run."""

    def make(folder):
        done = recipe.main(
            "train_multilabel",
            "lmac_multilabel.yaml",
            output_folder=folder,
            **small,
        )
        assert done.code == 0, done.err
        (folder / "console.txt").write_text(done.out, encoding="utf-8")

    return once("multilabel", make)


def read_csv(path):
    """Rows of a csv file."""
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_classifier_says_what_it_decides(sigmoid):
    config = json.loads((sigmoid / "model" / "config.json").read_text())
    assert config["multilabel"] is True
    assert set(config["results"]["test"]) == {"accuracy", "F1", "loss"}
    labels = (sigmoid / "model" / "label_encoder.txt").read_text()
    assert all(f"'{name}'" in labels for name in CLASSES)


def test_one_row_for_each_class_that_is_decided(
    recipe, pairs, sigmoid, run, helpers
):
    """The rows are for the classes that the classifier decides for."""
    from hyperpyyaml import load_hyperpyyaml

    text = (run / "hyperparams.yaml").read_text("utf-8")
    hparams = load_hyperpyyaml(text)
    for name in ("embedding_model", "classifier"):
        weights = torch.load(sigmoid / "model" / f"{name}.ckpt")
        hparams[name].load_state_dict(weights)
    manifest = dict(read_entries(run / "manifests" / "test.jsonl"))
    names = sorted(CLASSES)
    expected = set()
    for clip, entry in manifest.items():
        wav, _ = hparams["preprocess"](entry["wav"])
        logits = hparams["explainer"].analyze(wav[None]).logits[0]
        for c in (logits.sigmoid() >= 0.5).nonzero()[:, 0].tolist():
            expected.add((f"{clip}-{c}", entry["class_string"], names[c]))
    rows = helpers.read_rows(run)
    assert {(r["id"], r["label"], r["decision"]) for r in rows} == expected
    methods = [row["method"] for row in rows if row["id"] == rows[0]["id"]]
    assert methods[:3] == ["lmac", "lmac_binary", "ones"]
    assert len(rows) == len(expected) * len(methods)


def test_events_of_a_clip_change_places(run, helpers):
    """The event of one class is among the others for the other class."""
    ones = [row for row in helpers.read_rows(run) if row["method"] == "ones"]
    pairs = {}
    for row in ones:
        if row["decision"] in row["label"].split("+"):
            pairs.setdefault(row["id"].rsplit("-", 1)[0], []).append(row)
    both = [rows for rows in pairs.values() if len(rows) == 2]
    assert both
    for one, other in both:
        assert one["event_mass"] == pytest.approx(other["other_mass"])
        assert other["event_mass"] == pytest.approx(one["other_mass"])
    for row in ones:
        assert row["other_auc"] == pytest.approx(0.5, nan_ok=True)


def test_table_by_class(run, helpers):
    """The table has means for each class, and for all classes."""
    rows = [r for r in helpers.read_rows(run) if r["method"] == "lmac"]
    found = {
        (row["class"], row["figure"]): row
        for row in read_csv(run / "classes.csv")
    }
    classes = sorted({row["decision"] for row in rows})
    assert {name for name, _ in found} == {*classes, "all classes"}
    for name in (*classes, "all classes"):
        mine = [r for r in rows if name in (r["decision"], "all classes")]
        for figure in ("event_mass", "other_mass", "AD"):
            values = [r[figure] for r in mine if r[figure] == r[figure]]
            cell = found[name, figure]
            assert int(cell["n"]) == len(values)
            if values:
                mean = sum(values) / len(values)
                assert float(cell["mean"]) == pytest.approx(mean)
        right = [r["decision"] in r["label"].split("+") for r in mine]
        expected = sum(right) / len(right)
        assert float(found[name, "right"]["mean"]) == pytest.approx(expected)
    table = (run / "classes.md").read_text("utf-8")
    console = (run / "console.txt").read_text("utf-8")
    assert table in console
    explained = {row["id"].rsplit("-", 1)[0] for row in rows}
    n_silent = 10 - len(explained)
    assert f"{n_silent} of 10 clips have no decision" in console


def test_sounds_are_those_of_a_class(run, helpers):
    """Each explained class gets a folder, with its sigmoid as probability."""
    folders = sorted((run / "interpretations" / "test").iterdir())
    assert folders
    rows = {r["id"]: r for r in helpers.read_rows(run) if r["method"] == "lmac"}
    for folder in folders:
        content = json.loads((folder / "explanation.json").read_text("utf-8"))
        row = rows[folder.name]
        assert content["decision"] == row["decision"]
        assert content["classes"] == [row["decision"], f"no {row['decision']}"]
        assert 0.5 <= content["p"][0] == pytest.approx(1 - content["p"][1])
        assert content["metrics"]["AD"] == pytest.approx(row["AD"], abs=1e-3)


@pytest.fixture(scope="module")
def grid(recipe, run, sigmoid, tmp_path_factory):
    """Folder of an evaluation of that run."""
    folder = tmp_path_factory.mktemp("grid") / "run"
    done = recipe.main(
        "eval",
        "eval.yaml",
        interpreter=run,
        output_folder=folder,
        methods=f"[{', '.join(METHODS)}]",
        settings="[clean]",
        shares="[0.1]",
        optimised_steps=1,
        n_clips=2,
        judge_folder=sigmoid / "model",
    )
    assert done.code == 0, done.out + done.err
    return folder


def test_the_grid_is_of_each_class_that_is_decided(run, grid, helpers):
    """The rows of lmac are those of the training's test, and so on."""
    rows = read_csv(grid / "results.csv")
    assert not [row for row in rows if row["error"]]
    before = {
        row["id"]: row
        for row in helpers.read_rows(run)
        if row["method"] == "lmac"
    }
    clips = {row["id"].rsplit("-", 1)[0] for row in rows}
    assert len(clips) == 2
    wanted = {key for key in before if key.rsplit("-", 1)[0] in clips}
    for method in METHODS:
        found = {
            row["id"]: row
            for row in rows
            if (row["method"], row["keep"]) == (method, "own")
        }
        assert found.keys() == wanted, method
        if method == "lmac":
            for clip, row in found.items():
                for name, value in before[clip].items():
                    if name in ("label", "decision"):
                        assert row[name] == value
                    elif name in ("AD", "event_mass", "other_mass", "right"):
                        assert float(row[name] or "nan") == pytest.approx(
                            float(value), abs=5e-3, nan_ok=True
                        )


def test_methods_of_the_grid_explain_the_class(grid):
    """Each class of a clip has a mask of its own, at one area."""
    rows = read_csv(grid / "results.csv")
    # The second classifier is the explained one here.
    for row in rows:
        if row["method"] == "lmac" and row["keep"] == "own":
            heard = float(row["heard FF"])
            assert float(row["other FF"]) == pytest.approx(heard, abs=1e-3)
    areas = {}
    for row in rows:
        # Whole frames have an area that is near it.
        frames = row["method"] == "loudest_frames"
        if row["keep"] == "area of lmac" and not frames:
            areas.setdefault(row["id"], set()).add(round(float(row["area"]), 4))
    assert areas and all(len(found) == 1 for found in areas.values())
    ideal = [row for row in rows if row["method"] == "ideal"]
    right = [row for row in ideal if row["right"] == "1"]
    assert right
    for row in right:
        assert float(row["event_mass"]) == pytest.approx(1)
        # Where the background cancels a part of each, both are above the rest.
        assert float(row["other_mass"]) < 0.05
    for row in ideal:
        if row["right"] == "0":
            assert row["event_mass"] in ("", "nan")
    clips = {}
    for row in rows:
        if row["method"] == "saliency":
            clip = row["id"].rsplit("-", 1)[0]
            clips.setdefault((clip, row["keep"]), set()).add(row["SPS"])
    assert any(len(found) > 1 for found in clips.values())


def test_the_same_again(recipe, small, run, helpers, tmp_path):
    """The classes that training draws depend only on the seed."""
    done = recipe.main(
        "train_multilabel",
        "lmac_multilabel.yaml",
        output_folder=tmp_path,
        **small,
    )
    assert done.code == 0, done.err
    # As text, since NaN, for a class without rows, equals nothing.
    found, expected = (
        (folder / "results.csv").read_bytes() for folder in (tmp_path, run)
    )
    assert found == expected
    weights = [
        torch.load(best_checkpoint(folder / "save", "loss").paramfiles[name])
        for folder in (tmp_path, run)
        for name in ("decoder",)
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_the_wrong_kind_of_classifier(
    recipe, pairs, sigmoid, small, classifier, tmp_path
):
    """A softmax classifier is refused for sigmoids, and the reverse."""
    for script, yaml, model, kind in (
        ("train_lmac", "lmac.yaml", sigmoid, "one class among all"),
        (
            "train_multilabel",
            "lmac_multilabel.yaml",
            classifier,
            "each class on its own",
        ),
    ):
        done = recipe.main(
            script,
            yaml,
            data_folder=pairs,
            output_folder=tmp_path / "run",
            classifier_folder=model / "model",
        )
        assert done.code == 1
        assert f"expected one that decides {kind}" in done.err
        assert not list(tmp_path.rglob("experiment.json"))


def test_a_classifier_that_decides_nothing(
    recipe, sigmoid, small, tmp_path_factory, tmp_path
):
    """Without a decision there is an error, not an empty table."""
    model = tmp_path / "model"
    model.mkdir()
    for path in (sigmoid / "model").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    head = torch.load(model / "classifier.ckpt")
    head["bias"] -= 1000
    torch.save(head, model / "classifier.ckpt")
    done = recipe.main(
        "train_multilabel",
        "lmac_multilabel.yaml",
        output_folder=tmp_path / "run",
        **{**small, "classifier_folder": model},
    )
    assert done.code == 1
    assert "decides for no class in any valid clip" in done.err


def test_sanity_checks(recipe, pairs, run, tmp_path):
    """It is asked about two classes of each clip; ROAR wants one a clip."""
    chosen = {
        "interpreter": run,
        "data_folder": pairs,
        "swap_methods": "[lmac]",
        "channels": "[4, 4, 8]",
        "emb_dim": 8,
    }
    folder = tmp_path / "swap"
    done = recipe.main(
        "sanity",
        "sanity.yaml",
        output_folder=folder,
        checks="[swap]",
        **chosen,
    )
    assert done.code == 0, done.err
    rows = read_csv(folder / "swap.csv")
    assert len(rows) == 10 * 2
    assert all(0 <= float(row["event_mass"]) <= 1 for row in rows)
    folder = tmp_path / "roar"
    done = recipe.main(
        "sanity",
        "sanity.yaml",
        output_folder=folder,
        checks="[roar]",
        **chosen,
    )
    assert done.code != 0
    assert "checks: roar trains classifiers of one class a clip" in done.err
    assert not (folder / "roar.csv").exists()


BENCH = Options(
    data=("pairs",),
    methods=("lmac", "lmac+1", "gradcam", "loudest", "ideal"),
    clips=2,
    seeds=1,
    draws=1,
    epochs=1,
)


# The noise is drawn for each class by its number.
VARY = ("seconds", "mask change", "decision change")


@pytest.fixture
def trained(pairs, sigmoid, run, tmp_path, monkeypatch):
    """Models of a bench; the explained classifier is its own judge."""
    monkeypatch.setitem(
        DATA, "pairs", Data(lambda made, real: pairs, several=True)
    )
    models = tmp_path / "models"
    places = {
        "multilabel/classifier-1234": sigmoid,
        "multilabel/lmac-1234": run,
        "judge/classifier-2234": sigmoid,
    }
    for place, folder in places.items():
        (models / "pairs" / place).parent.mkdir(parents=True, exist_ok=True)
        (models / "pairs" / place).symlink_to(folder)
    return models


def test_several_classes_in_a_bench(trained, grid, tmp_path):
    """The same clips, classes and figures as in the grid of eval.py."""
    out = tmp_path / "bench"
    found = run_bench(out, BENCH, trained)
    expected = [
        row
        for row in read_csv(grid / "results.csv")
        if (row["method"], row["keep"]) == ("lmac", "own")
    ]
    (cell,) = found["cells"]
    assert cell["classifier"] == "multilabel" and cell["several"]
    assert (cell["clips"], cell["explained"]) == (2, len(expected))
    right = sum(row["right"] == "1" for row in expected)
    assert cell["accuracy"] == pytest.approx(right / len(expected))
    (note,) = found["notes"]
    assert note.startswith("pairs, cnn, transformer, conv2d, waveform, yamnet")
    assert note.endswith(
        "the clips have several classes, a classifier has to decide for each"
    )
    figures = {
        (line["method"], line["measure"]): line["mean"]
        for line in found["figures"]
        if line["keep"] == "own"
    }
    for name in ("AI", "AD", "FF", "event_mass", "other_mass", "other FF"):
        values = [float(row[name]) for row in expected if row[name]]
        values = [value for value in values if value == value]
        assert figures["lmac", name] == pytest.approx(
            sum(values) / len(values), rel=1e-4, abs=1e-5
        ), name
    assert figures["ideal", "event_auc"] == pytest.approx(1)
    text = (out / "bench.md").read_text("utf-8")
    assert f"{len(expected)} classes are decided for in them" in text


def test_a_bench_takes_classes_in_any_order(
    trained, run, tmp_path, monkeypatch
):
    """A classifier of others has them as it will, and others as well."""

    def load(setup):
        """The same one, with its classes the other way round, and one more."""
        interpreter = load_interpreter(run)
        last = interpreter.explainer.classifier.classifier
        for values in (last.weight, last.bias):
            more = values[:1] if values.dim() > 1 else values.new_tensor([-9])
            values.data = torch.cat([values, more]).flip(0)
        last.out_features += 1
        interpreter.classes = ["zither", *sorted(CLASSES, reverse=True)]
        return {"lmac": interpreter}

    monkeypatch.setitem(CLASSIFIERS, "other", Classifier(load, several=True))
    how = BENCH._replace(methods=("lmac", "loudest"))
    found = {
        name: run_bench(
            tmp_path / name, how._replace(classifiers=(name,)), trained
        )
        for name in ("multilabel", "other")
    }
    one, other = (
        {
            (line["method"], line["keep"], line["measure"]): line["mean"]
            for line in some["figures"]
            if line["measure"] not in VARY
        }
        for some in found.values()
    )
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


def test_a_bench_refuses_one_that_decides_for_one(
    trained, lmac_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(
        CLASSIFIERS,
        "one",
        Classifier(
            lambda x: {"lmac": load_interpreter(lmac_run)}, several=True
        ),
    )
    how = BENCH._replace(classifiers=("one",))
    with pytest.raises(LMACError, match="classifier one decides for one class"):
        run_bench(tmp_path / "bench", how, trained)


@pytest.mark.parametrize("stage", ["TRAIN", "VALID"])
@pytest.mark.parametrize("grow_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("step", [0, 3, 8])
def test_weights_grow(recipe, stage, grow_share, step):
    """In training, those of the variation and of the others, from zero."""
    brain_class = recipe.script("multilabel_brain").MultilabelBrain
    brain = object.__new__(brain_class)
    weights = {"l_in_w": 3.0, "l_out_w": 2.0, "reg_w_l1": 4.0, "reg_w_tv": 7.0}
    loss = LMACLoss(**weights, l_out_type="probability")
    vars(brain).update(
        hparams=SimpleNamespace(lmac_loss=loss),
        others_w=5.0,
        grow_share=grow_share,
        optimizer_step=step,
        steps_per_epoch=3,
        number_of_epochs=3,
        records={},
        assess=lambda *_: None,
    )
    torch.manual_seed(0)
    mask = torch.rand(2, 6, 5)
    logits, logits_in, logits_out = 3 * torch.randn(3, 2, 4)
    target = torch.tensor([1, 2])
    rows = SimpleNamespace(id=["a", "b"], right=target > 0, target=target)
    binary = Explanation(
        waveform=None,
        residual=None,
        mask=mask,
        magnitude=mask,
        decision=target,
        logits=logits,
        logits_in=logits_in,
        logits_out=logits_out,
        question=Question(target, multilabel=True),
    )
    found = brain.compute_objectives((rows, None, binary), None, Stage[stage])
    asked = binary.asked()
    _, terms = loss(mask, asked.logits_in, asked.logits_out, asked.decision)
    others = logits.sigmoid() > 0.5
    others[[0, 1], target] = False
    apart = others_apart(logits_in, logits_out, others)
    # Nine steps: after the first, a tenth of the training is done.
    grown = 1.0
    if stage == "TRAIN" and grow_share:
        grown = min(1.0, (step + 1) / 10 / grow_share)
    expected = (
        3 * terms["l_in"]
        + 2 * terms["l_out"]
        + 4 * terms["l1"]
        + grown * (7 * terms["tv"] + 5 * apart)
    )
    assert torch.allclose(found, expected.mean(), rtol=1e-6)
