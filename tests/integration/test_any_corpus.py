"""Training from shards and data sets equals training from files."""

import csv
import io
import json
import shutil
import tarfile

import datasets
import pytest
import torch

from lmac_sb.training.checkpoints import best_checkpoint

datasets.disable_progress_bars()
FIELDS = ("filename", "fold", "target", "category")


@pytest.fixture(scope="module")
def files(scenes, tmp_path_factory):
    """The scenes, listed in the order in which corpora are."""
    folder = tmp_path_factory.mktemp("files") / "data"
    shutil.copytree(scenes, folder)
    table = folder / "meta" / "esc50.csv"
    with open(table) as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["filename"])
    with open(table, "w") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def rows_of(files):
    """Key, row, sound and event of each clip."""
    with open(files / "meta" / "esc50.csv") as file:
        for row in csv.DictReader(file):
            name = row["filename"]
            parts = (files / part / name for part in ("audio", "stems"))
            yield name[: -len(".wav")], row, *(x.read_bytes() for x in parts)


def write_shards(files, folder):
    """Shards with the folds in them, clips in another order than files."""
    folder.mkdir()
    for number in (0, 1):
        with tarfile.open(folder / f"{number:03d}.tar", "w") as archive:
            for key, row, wav, stem in list(rows_of(files))[number::2][::-1]:
                info = {"fold": int(row["fold"]), "category": row["category"]}
                for ending, content in (
                    ("wav", wav),
                    ("stem.wav", stem),
                    ("json", json.dumps(info).encode()),
                ):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def write_saved(files, folder):
    """As `save_to_disk`; its events are not in it."""
    _data_set(files).save_to_disk(folder)
    return folder


def write_parquet(files, folder):
    """As on the hub, in several groups."""
    folder.mkdir()
    path = folder / "train-00000-of-00001.parquet"
    _data_set(files).to_parquet(path, batch_size=16)
    return folder


def write_folders(files, folder):
    """Folds with folders of classes."""
    for key, row, wav, _ in rows_of(files):
        path = folder / f"fold{row['fold']}" / row["category"] / f"{key}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav)
    return folder


def _data_set(files):
    rows = list(rows_of(files))
    names = sorted({row["category"] for _, row, _, _ in rows})
    features = datasets.Features(
        {
            "audio": {
                "bytes": datasets.Value("binary"),
                "path": datasets.Value("string"),
            },
            "label": datasets.ClassLabel(names=names),
            "fold": datasets.Value("int32"),
        }
    )
    columns = {
        "audio": [
            {"bytes": wav, "path": f"{key}.wav"} for key, _, wav, _ in rows
        ],
        "label": [names.index(row["category"]) for _, row, _, _ in rows],
        "fold": [int(row["fold"]) for _, row, _, _ in rows],
    }
    found = datasets.Dataset.from_dict(columns, features=features)
    return found.cast_column("audio", datasets.Audio())


KINDS = {
    "shards": write_shards,
    "saved": write_saved,
    "parquet": write_parquet,
    "folders": write_folders,
}


def train(recipe, data, folder, **more):
    """A classifier that is hardly trained."""
    done = recipe.main(
        "train_classifier",
        "classifier_conv.yaml",
        **{
            "data_folder": data,
            "output_folder": folder,
            "number_of_epochs": 1,
            "batch_size": 8,
            **more,
        },
    )
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def trained(recipe, files, tmp_path_factory):
    """From files."""
    cache = tmp_path_factory.mktemp("cache")
    run = tmp_path_factory.mktemp("run") / "files"
    return train(recipe, files, run, audio_cache=cache), cache


def same_weights(one, two, name="embedding_model"):
    found, wanted = (
        torch.load(best_checkpoint(folder / "save", "loss").paramfiles[name])
        for folder in (one, two)
    )
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_same_classifier(recipe, files, trained, helpers, tmp_path, kind):
    """The same batches, weights, identity and cache, whatever holds them."""
    reference, cache = trained
    data = KINDS[kind](files, tmp_path / "data")
    before = helpers.digest(cache)
    run = train(recipe, data, tmp_path / "run", audio_cache=cache)
    same_weights(run, reference)
    found, wanted = (
        json.loads((folder / "experiment.json").read_text())["data"]["sha256"]
        for folder in (run, reference)
    )
    if kind == "shards":  # the others have no events
        assert found == wanted
    assert helpers.digest(cache) == before


def test_a_run_goes_on_from_shards(recipe, files, trained, tmp_path):
    """What was begun on files, as the clips are the same."""
    shards = write_shards(files, tmp_path / "data")
    runs = []
    shards = shards / "{000..001}.tar"
    for name, data in ("files", files), ("shards", shards):
        runs.append(shutil.copytree(trained[0], tmp_path / name))
        train(recipe, data, runs[-1], number_of_epochs=2)
        log = (runs[-1] / "train_log.txt").read_text()
        assert log.count("epoch: 1, lr") == 1 and "epoch: 2, lr" in log
    same_weights(*runs)


def test_same_explainer(recipe, files, tiny, helpers, tmp_path):
    """L-MAC with its events and loaded by workers."""
    shards = write_shards(files, tmp_path / "data")
    runs = []
    for name, data, n_workers in ("files", files, 0), ("shards", shards, 2):
        done = recipe.main(
            "train_lmac",
            "lmac.yaml",
            output_folder=tmp_path / name,
            **{
                **tiny,
                "data_folder": data,
                "number_of_epochs": 1,
                "save_clips": 0,
                "dataloader_options": f"{{num_workers: {n_workers}}}",
            },
        )
        assert done.code == 0, done.err
        runs.append(tmp_path / name)
    assert helpers.read_rows(runs[0]) == helpers.read_rows(runs[1])
    same_weights(*runs, name="decoder")


def test_truncated_shards(recipe, files, tmp_path):
    """Refused, unless clips may be left out."""
    shards = write_shards(files, tmp_path / "data")
    path = shards / "001.tar"
    with tarfile.open(path) as archive:
        place = archive.getmembers()[30].offset_data + 100
    path.write_bytes(path.read_bytes()[:place])
    options = {
        "data_folder": shards,
        "output_folder": tmp_path / "run",
        "number_of_epochs": 1,
    }
    done = recipe.main("train_classifier", "classifier_conv.yaml", **options)
    assert done.code == 1 and "Traceback" not in done.err
    assert f"error: {path}: truncated" in done.err
    assert "skip_bad_clips: True" in done.err
    assert not (tmp_path / "run" / "manifests").exists()
