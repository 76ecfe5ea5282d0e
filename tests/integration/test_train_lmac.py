"""Tests of train_lmac.py with lmac.yaml and lmac_ft.yaml."""

import json
import math
import shutil

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data.manifest import read_entries
from lmac_sb.data.scenes import CLASSES
from lmac_sb.inference.export import export_run, load_interpreter
from lmac_sb.metrics.registry import METRICS
from lmac_sb.training.checkpoints import best_checkpoint

METHODS = [
    "lmac",
    "lmac_binary",
    "ones",
    "random",
    "loudest",
    "loudest_frames",
]


def logged(folder, name):
    """Values of a figure in the log's epochs, such as `valid AI`."""
    return [
        float(line.split(f"{name}: ")[1].split(",")[0].split(" ")[0])
        for line in (folder / "train_log.txt").read_text().splitlines()
        if f"{name}: " in line
    ]


def test_results_by_clip(lmac_run, helpers):
    """The results have each test clip and method, with values in range."""
    rows = helpers.read_rows(lmac_run)
    manifest = dict(read_entries(lmac_run / "manifests" / "test.jsonl"))
    assert [(row["id"], row["method"]) for row in rows] == [
        (clip, method) for clip in sorted(manifest) for method in METHODS
    ]
    assert {(row["setting"], row["keep"]) for row in rows} == {("clean", "own")}
    assert len(manifest) == 10
    assert {row["label"] for row in rows} == set(CLASSES)
    assert {row["decision"] for row in rows} <= set(CLASSES)
    for row in rows:
        assert set(row) == set(helpers.COLUMNS)
        assert row["right"] == (row["decision"] == row["label"])
        assert row["error"] == ""
        assert row["AI"] in (0, 100) and row["Fid-In"] in (0, 1)
        for name in ("AD", "AG"):
            assert 0 <= row[name] <= 100
        for name in ("area", "event_mass", "event_auc"):
            assert 0 <= row[name] <= 1


def test_ones_explain_nothing(lmac_run, helpers):
    """A mask of ones keeps the logits, up to the order of the sums."""
    for row in helpers.read_rows(lmac_run):
        if row["method"] == "ones":
            assert row["AI"] == 0
            assert row["AD"] == pytest.approx(0, abs=1e-3)
            assert row["AG"] == pytest.approx(0, abs=1e-3)
            assert row["Fid-In"] == 1
            assert row["area"] == 1
            assert row["SPS"] == pytest.approx(0, abs=1e-9)


def test_trivial_masks_have_the_same_area(lmac_run, helpers):
    """Trivial masks have the area of L-MAC's, except for rounding."""
    table = {(r["id"], r["method"]): r for r in helpers.read_rows(lmac_run)}
    for (clip, method), row in table.items():
        if method in ("random", "loudest"):
            area = table[clip, "lmac"]["area"]
            assert row["area"] == pytest.approx(area, abs=1e-4)


def test_summary(lmac_run, helpers):
    """results.json holds the means of results.csv and their provenance."""
    rows = helpers.read_rows(lmac_run)
    results = json.loads((lmac_run / "results.json").read_text())
    assert list(results["summary"]) == METHODS
    for method in METHODS:
        for name in helpers.KNOWN:
            values = [r[name] for r in rows if r["method"] == method]
            values = [value for value in values if not math.isnan(value)]
            found = results["summary"][method][name]
            assert found["mean"] == pytest.approx(sum(values) / len(values))
            assert found["low"] <= found["mean"] <= found["high"]
    assert results["provenance"]["test_folds"] == [5]
    assert results["provenance"]["seed"] == 1234


def test_best_checkpoint_is_tested(lmac_run):
    """The tested checkpoint is the one with the smallest validation loss."""
    losses = logged(lmac_run, "valid loss")
    assert len(losses) == 2
    best = best_checkpoint(lmac_run / "save", "loss")
    assert losses[int(best.meta["epoch"]) - 1] == min(losses)
    results = json.loads((lmac_run / "results.json").read_text())
    assert results["provenance"]["epoch"] == best.meta["epoch"]
    for value in best.meta.values():
        assert type(value) in (int, float, bool)


def test_what_is_usual_is_measured(lmac_run, tmp_path):
    """From the run, and in what is exported of it, a far sound is told."""
    folder = export_run(lmac_run, tmp_path / "bundle")
    assert (folder / "familiarity.safetensors").is_file()
    wavs = torch.zeros(1, 16000)
    wavs[0, 8000] = 1
    said = [
        load_interpreter(source).far_notes([*wavs])
        for source in (lmac_run, folder)
    ]
    assert said[0] == said[1]
    known = load_interpreter(folder).hparams.familiarity
    assert known.means.shape == (10, known.means.shape[1])
    assert known.means.abs().sum(1).min() > 0 and 1 <= known.limit < 100


def test_log_has_all_figures(lmac_run, helpers):
    """The log holds terms and metrics of validation and test."""
    text = (lmac_run / "train_log.txt").read_text()
    for name in ("loss", "l_in", "l_out", "l1", "tv", *helpers.KNOWN):
        assert len(logged(lmac_run, f"valid {name}")) == 2, name
        assert f"test {name}: " in text
    assert "train loss" in text


def test_console_is_short(lmac_run):
    """The console has a line for each epoch and the test, and the table."""
    lines = (lmac_run / "console.txt").read_text().splitlines()
    lines = [line for line in lines if "mask has collapsed" not in line]
    assert len(lines) == 2 + 1 + (2 + len(METHODS)) + 2
    assert [line.split(" | ")[0] for line in lines[:2]] == [
        "epoch 1",
        "epoch 2",
    ]
    assert lines[2].split(" | ")[1].startswith("test: ")
    assert lines[-1].endswith(str(lmac_run / "interpretations" / "test"))
    assert max(len(line) for line in lines) < 250


@pytest.mark.parametrize("part", ["epoch_001", "epoch_002", "test"])
def test_interpretations(lmac_run, part):
    """Each clip gets a folder with mono sounds of its length and a picture."""
    folders = list((lmac_run / "interpretations" / part).iterdir())
    assert len(folders) == 1
    sounds = {}
    for name in ("original", "interpretation", "residual"):
        sounds[name], rate = sf.read(folders[0] / f"{name}.wav")
        assert rate == 16000
        assert sounds[name].shape == (16000,)
    assert (folders[0] / "spectra.png").read_bytes()[:4] == b"\x89PNG"
    # With linear masks both parts add up, except for 16-bit rounding.
    np.testing.assert_allclose(
        sounds["interpretation"] + sounds["residual"],
        sounds["original"],
        atol=2e-4,
    )


@pytest.fixture(scope="module")
def finetuned(once, recipe, tiny, scenes, lmac_run, helpers):
    """Run folder of the fine-tuning of `lmac_run`."""

    def make(folder):
        before = helpers.digest(lmac_run)
        done = recipe.main(
            "train_lmac",
            "lmac_ft.yaml",
            pretrained_interpreter=lmac_run,
            output_folder=folder,
            wham_folder=scenes / "noise",
            crosscor_th=0.1,
            g_w=4,
            **{**tiny, "number_of_epochs": 1, "lr": 1e-9},
        )
        assert done.code == 0, done.err
        # Fine-tuning must not change the first stage's folder.
        assert helpers.digest(lmac_run) == before

    return once("finetuned", make)


def test_finetuning_trains(finetuned):
    """Fine-tuning makes more than zero steps, in its own folder."""
    checkpoint = best_checkpoint(finetuned / "save", "loss")
    brain = (checkpoint.path / "brain.ckpt").read_text()
    assert "optimizer_step: 4" in brain
    assert len(logged(finetuned, "train loss")) == 1


def test_finetuning_starts_from_the_best_decoder(finetuned, lmac_run):
    """With steps of 1e-9 the weights stay those of the best checkpoint."""
    start, found = (
        torch.load(best_checkpoint(run / "save", "loss").paramfiles["decoder"])
        for run in (lmac_run, finetuned)
    )
    moved = 0.0
    for name, value in start.items():
        torch.testing.assert_close(found[name], value, atol=1e-7, rtol=1e-5)
        moved += float((found[name] - value).abs().sum())
    assert moved > 0


def test_share_of_gated_clips_is_logged(finetuned):
    """The log has the share of gated clips in training and validation."""
    for stage in ("train", "valid"):
        (gated,) = logged(finetuned, f"{stage} gated")
        (accuracy,) = logged(finetuned, f"{stage} accuracy")
        (guide,) = logged(finetuned, f"{stage} guide")
        assert 0 <= gated <= accuracy
        assert guide > 0
    assert logged(finetuned, "train gated")[0] > 0


def test_finetuning_in_the_same_folder(recipe, tiny, lmac_run, helpers):
    """The run is refused, and the first stage stays intact."""
    before = helpers.digest(lmac_run)
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        pretrained_interpreter=lmac_run,
        output_folder=lmac_run,
        wham_folder="null",
        **tiny,
    )
    assert done.code == 1
    assert "output_folder" in done.err and str(lmac_run) in done.err
    assert helpers.digest(lmac_run) == before


def test_finetuning_from_another_decoder(
    recipe, tiny, scenes, finetuned, tmp_path
):
    """Checkpoints in the folder do not replace the pretrained decoder."""
    weights = best_checkpoint(finetuned / "save", "loss").paramfiles["decoder"]
    state = torch.load(weights)
    state = {name: value * 1.01 for name, value in state.items()}
    torch.save(state, tmp_path / "decoder.ckpt")
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        pretrained_interpreter=tmp_path / "decoder.ckpt",
        output_folder=finetuned,
        wham_folder=scenes / "noise",
        crosscor_th=0.1,
        **{**tiny, "lr": 1e-9},
    )
    assert done.code == 1
    assert f"the run in {finetuned} has another starting_decoder" in done.err


def test_finetuning_without_a_decoder(recipe, tiny, tmp_path):
    """The message shows how to name a decoder."""
    done = recipe.main(
        "train_lmac", "lmac_ft.yaml", output_folder=tmp_path, **tiny
    )
    assert done.code == 1
    assert "--pretrained_interpreter results/lmac/1234" in done.err


def test_finetuning_from_a_folder_without_a_run(recipe, tiny, tmp_path):
    """The message names the folder and what it lacks."""
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        output_folder=tmp_path / "ft",
        pretrained_interpreter=tmp_path,
        **tiny,
    )
    assert done.code == 1
    assert f"{tmp_path} holds no intact checkpoint" in done.err


def test_classifier_stays_as_it_was(
    recipe, tiny, classifier, helpers, monkeypatch, tmp_path
):
    """Training changes no bit of the classifier, not even its buffers."""
    script = recipe.script("train_lmac")
    before, seen = {}, []
    fit, objectives = script.LMACBrain.fit, script.LMACBrain.compute_objectives

    def state(brain):
        return {
            key: value.clone()
            for key, value in brain.explainer.classifier.state_dict().items()
        }

    def watched_fit(brain, *args, **kwargs):
        before.update(state(brain))
        fit(brain, *args, **kwargs)
        after = state(brain)
        assert before.keys() == after.keys() and before
        assert all(torch.equal(before[key], after[key]) for key in before)

    def watched_objectives(brain, predictions, batch, stage):
        assert not brain.explainer.classifier.training
        labels = batch.class_string_encoded.data[:, 0]
        analysis, explanation = predictions
        calls = []
        loss = brain.hparams.lmac_loss

        def watched_loss(mask, logits_in, logits_out, decision, *more):
            calls.append(decision)
            return loss(mask, logits_in, logits_out, decision, *more)

        brain.hparams.lmac_loss = watched_loss
        try:
            found = objectives(brain, predictions, batch, stage)
        finally:
            brain.hparams.lmac_loss = loss
        assert torch.equal(calls[0], analysis.logits.argmax(1))
        seen.extend((calls[0] == labels).tolist())
        return found

    monkeypatch.setattr(script.LMACBrain, "fit", watched_fit)
    monkeypatch.setattr(
        script.LMACBrain, "compute_objectives", watched_objectives
    )
    files = helpers.digest(classifier)
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path,
        **{**tiny, "number_of_epochs": 1, "save_clips": 0},
    )
    assert done.code == 0, done.err
    assert before and set(seen) == {True, False}
    assert helpers.digest(classifier) == files


def test_read_only_data_folder(
    recipe, tiny, scenes, helpers, tmp_path, monkeypatch
):
    """Manifests go to the output folder; the data folder is only read."""
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    before = helpers.digest(data)
    times = {p: p.stat().st_mtime_ns for p in [data, *data.rglob("*")]}
    for path in times:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = recipe.main(
            "train_lmac",
            "lmac.yaml",
            output_folder=tmp_path / "run",
            **{
                **tiny,
                "data_folder": data,
                "number_of_epochs": 1,
                "save_clips": 0,
            },
        )
    finally:
        for path in times:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.code == 0, done.err
    assert helpers.digest(data) == before
    # Even if the test runs as root, nothing has changed.
    assert {p: p.stat().st_mtime_ns for p in [data, *data.rglob("*")]} == times
    assert (tmp_path / "run" / "manifests" / "train.jsonl").is_file()
    assert not (tmp_path / "run" / "interpretations").exists()


FORMATS = [
    ("wav", 16000, 1, 1.0),
    ("flac", 44100, 2, 2.0),
    ("ogg", 44100, 1, 0.7),
    ("wav", 8000, 2, 0.1),
    ("wav", 22050, 1, 0.5),
    ("flac", 11025, 1, 0.33),
]


@pytest.fixture(scope="module")
def mixed_data(tmp_path_factory):
    """Two classes of clips with various lengths, rates and formats."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    rng = np.random.default_rng(0)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for place, (suffix, rate, channels, seconds) in enumerate(FORMATS):
            target = place % 2
            n_samples = round(seconds * rate)
            times = np.arange(n_samples)[:, None] / rate
            wav = 0.1 * rng.standard_normal((n_samples, channels))
            wav += 0.4 * np.sin(2 * np.pi * (400 + 1500 * target) * times)
            name = f"{fold}-{place}-A-{target}"
            sf.write(folder / "audio" / f"{name}.{suffix}", wav, rate)
            # The released csv says wav, whatever the files are.
            kind = ("low", "high")[target]
            rows.append(f"{name}.wav,{fold},{target},{kind},True,{place},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_clips_of_any_length(recipe, tiny, mixed_data, tmp_path, helpers):
    """Both scripts work with clips of different lengths."""
    common = {"data_folder": mixed_data, "n_classes": 2}
    done = recipe.main(
        "train_classifier",
        "classifier_conv.yaml",
        output_folder=tmp_path / "classifier",
        number_of_epochs=1,
        batch_size=4,
        **common,
    )
    assert done.code == 0, done.err
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{
            **tiny,
            **common,
            "classifier_folder": tmp_path / "classifier" / "model",
            "number_of_epochs": 1,
            "save_clips": 6,
        },
    )
    assert done.code == 0, done.err
    rows = helpers.read_rows(tmp_path / "run")
    assert len(rows) == 6 * len(METHODS)
    for row in rows:
        assert not any(math.isnan(row[name]) for name in METRICS if name in row)
    # These are not scenes, so no event is known.
    assert "event_auc" not in rows[0]
    for place, (_, _, _, seconds) in enumerate(FORMATS):
        folder = tmp_path / "run" / "interpretations" / "test"
        info = sf.info(
            folder / f"5-{place}-A-{place % 2}" / "interpretation.wav"
        )
        assert (info.frames, info.channels) == (round(seconds * 16000), 1)


def test_explanation_does_not_depend_on_batch_mates(
    recipe, tiny, lmac_run, helpers, tmp_path
):
    """A test with batches of one clip gives the same values."""
    shutil.copytree(lmac_run, tmp_path / "run")
    helpers.pretend(tmp_path / "run", batch_size=1)
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "batch_size": 1, "save_clips": 0},
    )
    assert done.code == 0, done.err
    assert "epochs are already done" in done.out
    rows = helpers.read_rows(tmp_path / "run")
    for one, many in zip(rows, helpers.read_rows(lmac_run)):
        assert one["id"] == many["id"] and one["method"] == many["method"]
        for name in helpers.KNOWN:
            # A bin at the edge of a threshold may fall to the other side.
            assert one[name] == pytest.approx(many[name], rel=1e-3, abs=1e-3)


def test_missing_classifier_is_trained_first(
    recipe, tiny, scenes, helpers, monkeypatch, tmp_path
):
    """It is trained in the same process, which then continues."""
    steps = recipe.script("training_steps")
    monkeypatch.setattr(
        steps, "SHARED", (*steps.SHARED, "number_of_epochs", "batch_size")
    )
    monkeypatch.setattr(
        recipe.script("preparation"),
        "make_scenes",
        lambda folder, **contents: None,
    )
    options = {
        **tiny,
        "data_folder": "null",
        "scenes_folder": scenes,
        "classifier_folder": tmp_path / "classifier" / "model",
    }
    first, again = (tmp_path / name for name in ("first", "again"))
    done = recipe.main(
        "train_lmac", "lmac.yaml", output_folder=first, **options
    )
    assert done.code == 0, done.err
    assert "no classifier in" in done.out
    # The classifier's epochs are in its own log, and files get no bars.
    assert done.out.count("epoch 1 | lr") == 1
    assert "\r" not in done.out + done.err
    assert (tmp_path / "classifier" / "train_classifier.py").is_file()
    log = (first / "log.txt").read_text(encoding="utf-8")
    assert "error" not in log.lower()
    done = recipe.main(
        "train_lmac", "lmac.yaml", output_folder=again, **options
    )
    assert done.code == 0, done.err
    assert "no classifier in" not in done.out
    helpers.same(first, again)


def test_wrong_number_of_classes_is_told_before_any_training(
    recipe, tiny, scenes, monkeypatch, tmp_path
):
    """The wrong number of classes is an error before any training."""
    monkeypatch.setattr(
        recipe.script("preparation"),
        "make_scenes",
        lambda folder, **contents: None,
    )
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{
            **tiny,
            "data_folder": "null",
            "scenes_folder": scenes,
            "classifier_folder": tmp_path / "classifier" / "model",
            "n_classes": 50,
        },
    )
    assert done.code == 1
    assert (
        "n_classes: found 50, expected the 10 classes of the data" in done.err
    )
    assert "epoch 1" not in done.out


def test_pairs_of_clips(recipe):
    """A paired clip has the next one in it as loud, and one of both classes."""
    in_pairs = recipe.script("lmac_brain").in_pairs
    wavs = torch.randn(40, 50) * torch.linspace(0.1, 3, 40)[:, None]
    wavs[7] = 0
    decision = torch.arange(40)
    sounds, target = in_pairs(wavs, decision, 0.5)
    added, drawn = sounds - wavs, set()
    for clip in range(40):
        if added[clip].any():
            gain = wavs[clip].norm() / wavs[clip - 1].norm()
            expected = gain * wavs[clip - 1]
            assert torch.allclose(added[clip], expected, atol=1e-5), clip
            drawn.add(int(target[clip]) == clip)
            assert int(target[clip]) in (clip, (clip - 1) % 40)
    assert drawn == {True, False}
    assert 5 < added.any(1).sum() < 35
    # All else stays as it is, as does all of it without pairs.
    alone = ~added.any(1)
    assert alone[7] and alone[8]  # nobody hears a pair with silence
    assert torch.equal(target[alone], decision[alone])
    sounds, target = in_pairs(wavs, decision, 0.0)
    assert torch.equal(sounds, wavs) and torch.equal(target, decision)


def test_training_on_pairs(recipe, tiny, lmac_run, helpers, tmp_path):
    """It trains another decoder, and tests single clips as ever."""
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        pair_share=1,
        **tiny,
    )
    assert done.code == 0, done.err
    for name in ("train loss", "valid loss"):
        values = logged(tmp_path / "run", name)
        assert values != logged(lmac_run, name)
        assert all(map(math.isfinite, values))
    before, after = (
        [row["id"] for row in helpers.read_rows(folder)]
        for folder in (lmac_run, tmp_path / "run")
    )
    assert before == after
