"""A user's mistake gives one message, no traceback and no partial file."""

import json
import shlex
import shutil

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.training.checkpoints import best_checkpoint


@pytest.fixture
def data(scenes, tmp_path):
    """A copy of the scenes to spoil."""
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)
    return folder


def clip(data, split_fold=1):
    """One clip of a fold."""
    return sorted((data / "audio").glob(f"{split_fold}-*.wav"))[0]


def refused(done, *parts):
    """The script exits with one message with these parts, no traceback."""
    assert done.code not in (0, None)
    assert done.err.count("error: ") == 1, done.err
    assert "Traceback" not in done.err + done.out
    message = done.err[done.err.index("error: ") :]
    for part in parts:
        assert str(part) in message, message


def nothing_left(folder):
    """No manifests, no results, no parts of files."""
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in left if ".part" in name or ".tmp" in name]
    assert not (folder / "manifests").exists() or not list(
        (folder / "manifests").iterdir()
    )
    assert not (folder / "results.csv").exists()
    assert not list(folder.glob("save/CKPT*"))


def no_column(data):
    """The csv lacks a column."""
    path = data / "meta" / "esc50.csv"
    path.write_text(path.read_text().replace("category", "kind", 1))
    return path, "'category'"


def no_csv(data):
    """The csv is missing."""
    path = data / "meta" / "esc50.csv"
    path.unlink()
    return path, "not found"


def empty_csv(data):
    """The csv is empty."""
    path = data / "meta" / "esc50.csv"
    path.write_text("")
    return path, "is empty"


def no_audio(data):
    """The folder of the clips is missing."""
    shutil.rmtree(data / "audio")
    return data / "audio", "no such folder"


def missing_clip(data):
    """A clip in the csv is missing."""
    clip(data).unlink()
    return clip(data, 1).parent.parent, "no such file"


def unreadable_clip(data):
    """A clip is not audio."""
    clip(data).write_text("no audio")
    return clip(data), "cannot be read"


def zero_bytes(data):
    """A clip's file is empty."""
    clip(data).write_bytes(b"")
    return clip(data), "cannot be read"


def no_samples(data):
    """A clip has only a header."""
    sf.write(clip(data), np.zeros(0), 16000)
    return clip(data), "no samples"


def short_clip(data):
    """A clip is too short to explain."""
    sf.write(clip(data), np.ones(100), 16000)
    return clip(data), "0.1 s"


def nan_clip(data):
    """A clip holds NaN."""
    wav = np.ones(16000)
    wav[5] = np.nan
    sf.write(clip(data), wav, 16000, subtype="FLOAT")
    return clip(data), "NaN"


def truncated_clip(data):
    """A clip is truncated."""
    content = clip(data).read_bytes()
    clip(data).write_bytes(content[: len(content) // 2])
    return clip(data), "truncated"


def silent_clip(data):
    """A clip is silent."""
    sf.write(clip(data), np.zeros(16000), 16000)
    return clip(data), "silent"


def cancelled_clip(data):
    """Channels of a clip cancel each other, up to a step of their samples."""
    rng = np.random.default_rng(0)
    left = rng.integers(-9999, 9999, 16000)
    right = rng.integers(-1, 2, 16000) - left
    sf.write(clip(data), np.stack([left, right], 1).astype(np.int16), 16000)
    return clip(data), "silent"


SPOILT_TABLES = [no_column, no_csv, empty_csv, no_audio]
SPOILT_CLIPS = [
    missing_clip,
    unreadable_clip,
    zero_bytes,
    no_samples,
    short_clip,
    nan_clip,
    truncated_clip,
    silent_clip,
    cancelled_clip,
]


@pytest.mark.parametrize(
    "spoil", SPOILT_TABLES + SPOILT_CLIPS, ids=lambda f: f.__name__
)
def test_spoilt_data(recipe, tiny, data, tmp_path, spoil):
    """The message names the file and what is wrong with it."""
    parts = spoil(data)
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "data_folder": data},
    )
    refused(done, *parts)
    nothing_left(tmp_path / "run")


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_no_data(recipe, tiny, tmp_path, make):
    """The message names the folder and what it must hold."""
    data = tmp_path / "data"
    if make:
        data.mkdir()
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "data_folder": data},
    )
    refused(done, data, "audio/", "meta/esc50.csv", "download: True")
    nothing_left(tmp_path / "run")
    assert data.exists() == make


@pytest.mark.parametrize(
    "folds, parts",
    [
        ({"valid_fold_nums": "[6]"}, ["valid_fold_nums: fold 6", "1, 2, 3"]),
        (
            {"test_fold_nums": "[4]"},
            ["test_fold_nums: fold 4", "valid_fold_nums"],
        ),
        (
            {"train_fold_nums": "[1, 2, 5]"},
            ["fold 5", "train_fold_nums", "test_fold_nums"],
        ),
        ({"train_fold_nums": "[]"}, ["train_fold_nums", "empty"]),
    ],
)
def test_folds(recipe, tiny, tmp_path, folds, parts):
    """Folds that do not exist or are used twice stop the run."""
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **tiny,
        **folds,
    )
    refused(done, *parts)
    nothing_left(tmp_path / "run")


def test_bad_clips_are_skipped_when_asked(recipe, tiny, data, tmp_path):
    """The run continues, and lists the unusable clips."""
    truncated = clip(data, 1)
    truncated_clip(data)
    silent = sorted((data / "audio").glob("2-*.wav"))[3]
    sf.write(silent, np.zeros(16000), 16000)
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        skip_bad_clips=True,
        **{
            **tiny,
            "data_folder": data,
            "number_of_epochs": 1,
            "save_clips": 0,
        },
    )
    assert done.code == 0, done.err
    assert "2 of 50 clips" in done.out
    skipped = json.loads(
        (tmp_path / "run" / "manifests" / "skipped.json").read_text()
    )
    assert [s["id"] for s in skipped] == [truncated.stem, silent.stem]
    for path, entry in zip((truncated, silent), skipped):
        assert str(path) in entry["reason"]
        assert str(path) in done.out


def test_class_without_training_clips(recipe, tiny, data, tmp_path):
    """A class that only the test folds have is refused."""
    path = data / "meta" / "esc50.csv"
    lines = path.read_text().splitlines()
    lines = [
        line.replace("trill", "whale") if line.startswith("5-") else line
        for line in lines
    ]
    path.write_text("\n".join(lines) + "\n")
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "data_folder": data},
    )
    refused(done, data, "test", "whale")


def test_classes_that_the_classifier_does_not_know(
    recipe, tiny, data, classifier, tmp_path
):
    """The message names the classes on both sides."""
    path = data / "meta" / "esc50.csv"
    path.write_text(path.read_text().replace("trill", "whale"))
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "data_folder": data},
    )
    refused(done, classifier / "model", "trill", "the data has whale")


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"n_classes": 50}, ["classifier.ckpt", "[10, 256]", "[50, 256]"]),
        ({"n_mels": 64}, ["embedding_model.ckpt", "[80]", "[64]"]),
        ({"n_fft": 512}, ["n_fft 1024", "n_fft 512"]),
        ({"hop_length": 10.0}, ["hop_length 11.6099", "hop_length 10.0"]),
        ({"sample_rate": 22050}, ["sample_rate 16000", "sample_rate 22050"]),
        (
            {"channels": "[4, 8, 16, 32, 64, 256]"},
            ["embedding_model.ckpt", "blocks.0"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_other_classifier(recipe, tiny, classifier, tmp_path, changes, parts):
    """Another number of classes, front end or width is refused."""
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, **changes},
    )
    refused(done, classifier / "model", *parts)
    assert not list((tmp_path / "run").glob("save/CKPT*"))


def test_damaged_classifier(recipe, tiny, classifier, tmp_path):
    """A truncated file of weights is refused."""
    shutil.copytree(classifier / "model", tmp_path / "model")
    path = tmp_path / "model" / "embedding_model.ckpt"
    path.write_bytes(path.read_bytes()[:5000])
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "classifier_folder": tmp_path / "model"},
    )
    refused(done, path, "not a file of weights only")


def test_decoder_of_another_width(recipe, tiny, lmac_run, tmp_path):
    """The message names the checkpoint, the difference and both shapes."""
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        output_folder=tmp_path / "run",
        pretrained_interpreter=lmac_run,
        wham_folder="null",
        decoder_width=8,
        **tiny,
    )
    path = best_checkpoint(lmac_run / "save", "loss").paramfiles["decoder"]
    refused(done, path, "has shape", "expected")


def test_decoder_file_that_is_none(recipe, tiny, tmp_path):
    """A file with other content is refused."""
    path = tmp_path / "decoder.ckpt"
    torch.save([1, 2], path)
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        output_folder=tmp_path / "run",
        pretrained_interpreter=path,
        wham_folder="null",
        **tiny,
    )
    refused(done, path, "not a state dict")


def test_no_noise(recipe, tiny, tmp_path):
    """A noise folder without the split is refused."""
    (tmp_path / "noise" / "tr").mkdir(parents=True)
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        wham_folder=tmp_path / "noise",
        **tiny,
    )
    refused(done, tmp_path / "noise" / "tr", "no noise files")


def test_unknown_split(recipe, tiny, scenes, tmp_path):
    """A misspelt split is refused, since it would silently get no noise."""
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        wham_folder=scenes / "noise",
        noisy_splits="[train, eval]",
        **tiny,
    )
    refused(done, "noisy_splits", "'eval'")


@pytest.mark.parametrize(
    "change, name",
    [({"seed": 7}, "seed"), ({"train_fold_nums": "[1, 2]"}, "train_fold_nums")],
)
def test_folder_of_another_experiment(
    recipe, tiny, lmac_run, helpers, tmp_path, change, name
):
    """Checkpoints of another experiment are not used, and stay."""
    shutil.copytree(lmac_run, tmp_path / "run")
    before = helpers.digest(tmp_path / "run" / "save")
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **tiny,
        **change,
    )
    refused(
        done,
        f"output_folder: the run in {tmp_path / 'run'} has {name} ",
    )
    assert helpers.digest(tmp_path / "run" / "save") == before


def test_failed_attempts_do_not_claim_their_folder(recipe, tiny, tmp_path):
    """After mistakes, the corrected command uses the same folder."""
    options = {**tiny, "output_folder": tmp_path / "run"}
    for change in (
        {"wham_folder": "no such folder"},
        {"n_classes": 50},
        {"valid_fold_nums": "[6]"},
    ):
        done = recipe.main("train_lmac", "lmac.yaml", **{**options, **change})
        refused(done)
        assert not (tmp_path / "run" / "experiment.json").exists(), change
    done = recipe.main(
        "train_lmac", "lmac.yaml", **{**options, "number_of_epochs": 1}
    )
    assert done.code == 0, done.err


def test_subprocess(recipe, tiny, tmp_path):
    """A subprocess has the same exit code and message, no traceback."""
    output = tmp_path / "run"
    done = recipe.process(
        "train_lmac",
        "lmac.yaml",
        start=recipe.python,
        output_folder=output,
        number_of_epoch=1,
    )
    assert done.code == 1
    assert done.err.splitlines() == [
        "error: command line: unknown key 'number_of_epoch'; "
        "did you mean 'number_of_epochs'?"
    ]
    assert not output.exists()


def test_no_data_in_a_subprocess(recipe, tmp_path):
    """The classifier's script reports missing data in the same way."""
    done = recipe.process(
        "train_classifier",
        "classifier_conv.yaml",
        output_folder=tmp_path / "run",
        data_folder=tmp_path / "nowhere",
    )
    refused(done, tmp_path / "nowhere")
    assert done.code == 1
    nothing_left(tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_command_for_a_classifier_of_another_name(recipe, data, tmp_path):
    """Its run gets a folder of its own; what is usual is not said."""
    model = tmp_path / "mine"
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        data_folder=data,
        classifier_folder=model,
        output_folder=tmp_path / "run",
    )
    refused(done)
    _, *options = done.err.strip().split(" --")
    assert options == [
        f"output_folder={model}_run",
        f"model_folder={model}",
        f"data_folder={data}",
        "noprogressbar",
    ]
    assert not (tmp_path / "run").exists()


def test_command_that_trains_the_classifier(recipe, data, tmp_path):
    """With the user's own data, the message has the exact command."""
    # A space in a path must not break the command.
    own = tmp_path / "my data"
    data.rename(own)
    model = tmp_path / "my classifier" / "model"
    options = {
        "data_folder": own,
        "classifier_folder": model,
        "output_folder": tmp_path / "run",
        "train_fold_nums": "[1, 2]",
        "valid_fold_nums": "[3]",
        "signal_length_s": 0.8,
        "number_of_epochs": 1,
        "save_clips": 0,
    }
    done = recipe.main("train_lmac", "lmac.yaml", **options)
    refused(done, f"classifier_folder: {model} does not exist")
    assert not (tmp_path / "run").exists()
    command = shlex.split(done.err.strip().split("first: ")[1])
    assert command[0] == "python"
    # Shorter, since only the sequence of steps is tested.
    done = recipe.command([*command[1:], "--number_of_epochs=1"])
    assert done.code == 0, done.err
    done = recipe.main("train_lmac", "lmac.yaml", **options)
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["provenance"]["test_folds"] == [5]
