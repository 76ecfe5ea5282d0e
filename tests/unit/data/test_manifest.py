"""Tests of manifests that are read clip by clip."""

import json
import multiprocessing
import pickle
import re
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.data import manifest as manifests
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.dataset import EqualLengthBatches, check_labels
from lmac_sb.data.manifest import Manifest, read_entries, to_lines
from lmac_sb.training.experiment import Sounds, make_datasets
from lmac_sb.training.identity import data_identity
from lmac_sb.utils.errors import LMACError

ENTRIES = {
    "1-1": {"wav": "a b.wav", "fold": 1, "duration": 5.0, "stem": None},
    'quote " { } \\ , : [': {"a": ['}, "x": {', "\\", '\\"'], "b": {"c": {}}},
    "Käfer ŵ 虫 😀 \x7f\x80\u2028": {"class_string": "Grüße 😀 \n\t"},
    "": {},
    "numbers": {"a": -1.5e-7, "b": 10**30, "c": True, "d": None},
    "long": {"wav": "x" * 3000, "list": list(range(300))},
    "last": {"fold": 5},
}

LINES = [json.dumps({"id": name, **entry}) for name, entry in ENTRIES.items()]
TEXTS = {
    "written here": to_lines(ENTRIES),
    "no end of the last line": "\n".join(LINES),
    "of another system": "\r\n".join(LINES),
    "spaced": "".join(f" \t{line}  \n" for line in LINES),
    "utf-8": "\n".join(
        json.dumps({**entry, "id": name}, ensure_ascii=False)
        for name, entry in ENTRIES.items()
    ),
    "empty": "",
}


def write(tmp_path, text):
    """A manifest's path."""
    path = tmp_path / "train.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_entries_and_their_places(tmp_path, text):
    """Whoever wrote it, all ways to read it give the same."""
    path = write(tmp_path, text)
    expected = ENTRIES if text else {}
    assert list(read_entries(path)) == list(expected.items())
    visited = {}
    manifest = Manifest(path, visited.__setitem__)
    assert visited == expected
    assert len(manifest) == len(expected)
    assert dict(manifest) == expected
    assert list(manifest.ids) == list(manifest) == list(expected)
    for place, item in enumerate(expected.items()):
        assert manifest.at(place) == item


def test_ids_are_a_sequence(tmp_path):
    """As the list that SpeechBrain has in their place."""
    manifest = Manifest(write(tmp_path, TEXTS["written here"]))
    ids = list(ENTRIES)
    assert manifest.ids[-1] == "last"
    assert manifest.ids[1:6:2] == ids[1:6:2]
    assert manifest.ids[::-1] == ids[::-1]
    for place in (7, -8):
        with pytest.raises(IndexError):
            manifest.ids[place]


def test_unknown_id(tmp_path):
    """As a dict."""
    manifest = Manifest(write(tmp_path, TEXTS["written here"]))
    assert "1-1" in manifest and "1-2" not in manifest
    with pytest.raises(KeyError, match="1-2"):
        manifest["1-2"]


def test_ids_with_one_number(tmp_path, monkeypatch):
    """Ids are distinguished even if they share a checksum."""
    monkeypatch.setattr(manifests, "hash64", lambda clip_id: 7)
    manifest = Manifest(write(tmp_path, TEXTS["written here"]))
    assert dict(manifest) == ENTRIES
    assert "other" not in manifest


def test_sent_to_another_process(tmp_path):
    """Without the file's content."""
    manifest = Manifest(write(tmp_path, TEXTS["written here"]))
    sent = pickle.dumps(manifest)
    assert len(sent) < 2000
    assert dict(pickle.loads(sent)) == ENTRIES


GOOD = '{"id": "a", "fold": 1}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "not JSON"),
        ("  ", "not JSON"),
        ("{", "not JSON"),
        (GOOD[:-1], "not JSON"),
        (GOOD[:-4], "not JSON"),
        (GOOD + GOOD, "not JSON"),
        (GOOD + ",", "not JSON"),
        ('{"id": "b", "fold": 1,}', "not JSON"),
        ("{id: 1}", "not JSON"),
        (b'{"id": "\xff"}', "not JSON"),
        (b'\xef\xbb\xbf{"id": "b"}', "not JSON"),
        ('{"id": "b"}'.encode("utf-16-le"), "not JSON"),
        (b"\x00" * 50, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", r"found \[\]"),
        ('"id"', "found 'id'"),
        ("null", "found None"),
        ("{}", "found {}"),
        ('{"fold": 1}', "found {'fold': 1}"),
        ('{"id": 1}', "found {'id': 1}"),
        ('{"id": null}', "found {'id': None}"),
        ('{"b": {"fold": 1}}', "found {'b': {'fold': 1}}"),
    ],
)
@pytest.mark.parametrize("read", [Manifest, lambda p: list(read_entries(p))])
def test_broken_line(tmp_path, line, problem, read):
    """File and line are named in one line, wherever it stands."""
    line = line if isinstance(line, bytes) else line.encode()
    for place in (0, 2):
        lines = [GOOD.replace("a", f"a{i}").encode() for i in range(4)]
        lines[place] = line
        path = write(tmp_path, b"\n".join(lines) + b"\n")
        with pytest.raises(LMACError) as caught:
            read(path)
        message = str(caught.value)
        start = f"train.jsonl: line {place + 1}: {problem}"
        assert re.search(f"{start}.*; a manifest has one JSON object", message)
        assert "\n" not in message


OLD = {"a": {"fold": 1}, "b": {"fold": 2}}


@pytest.mark.parametrize("indent", [None, 2])
def test_manifest_of_an_older_release(tmp_path, indent):
    """One JSON object in all: by its own name, and by the new one."""
    old = tmp_path / "train.json"
    old.write_text(json.dumps(OLD, indent=indent))
    with pytest.raises(LMACError, match=r"train.json: line 1: .*one JSON obj"):
        Manifest(old)
    with pytest.raises(LMACError) as caught:
        Manifest(tmp_path / "train.jsonl")
    assert "train.jsonl: cannot be read" in str(caught.value)
    assert "train.json there is of an older release" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_id_that_stands_twice(tmp_path):
    """The second would replace the first without a word."""
    lines = [{"id": "a", "x": 1}, {"id": "b"}, {"id": "a", "x": 2}]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)))
    match = "clip 'a' appears twice, in lines 1 and 3"
    with pytest.raises(LMACError, match=match):
        Manifest(path)


def test_missing_file(tmp_path):
    """Named, as is a folder."""
    with pytest.raises(LMACError, match=f"{tmp_path.name}: cannot be read"):
        list(read_entries(tmp_path))
    with pytest.raises(LMACError, match="nowhere.jsonl: cannot be read"):
        Manifest(tmp_path / "nowhere.jsonl")


def test_changed_file(tmp_path):
    """Places in the old file mean nothing in the new one."""
    path = write(tmp_path, TEXTS["written here"])
    manifest = Manifest(path)
    write(tmp_path, TEXTS["written here"].replace('"fold": 1', '"fold": 2'))
    with pytest.raises(LMACError, match="was changed while it was in use"):
        manifest["1-1"]
    path.unlink()
    with pytest.raises(LMACError, match="cannot be read"):
        manifest["1-1"]


N_CLIPS = 100_000


@pytest.fixture
def corpus(tmp_path):
    """Manifests of a large corpus: all clips share one file."""
    wav = tmp_path / "x.wav"
    sf.write(wav, np.linspace(-0.5, 0.5, 1600), 16000)
    for split, n_clips in {"train": N_CLIPS, "valid": 2, "test": 2}.items():
        with open(tmp_path / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for i in range(n_clips):
                entry = {
                    "wav": str(wav),
                    "class_string": f"class {i % 50}",
                    "fold": 1,
                    "duration": 0.1,
                    "num_samples": 1600,
                    "sample_rate": 16000,
                }
                file.write(to_lines({f"{split}-{i}": entry}))
    return tmp_path


class FirstEpoch:
    """Stands for the epoch counter."""

    current = 1


def use(corpus):
    """Do everything that a run does with its manifests."""
    labels = CategoricalEncoder()
    labels.update_from_iterable(f"class {i}" for i in range(50))
    labels.expect_len(50)
    check_labels(corpus, labels, "model")
    sounds = Sounds(Preprocessor(16000), labels)
    datasets = make_datasets(corpus, sounds, FirstEpoch, seed=0)
    splits = ("train", "valid", "test")
    data_identity({s: corpus / f"{s}.jsonl" for s in splits}, corpus)
    train = datasets["train"]
    batches = EqualLengthBatches(train.n_samples, 16, shuffle=True, seed=1)
    loader = make_dataloader(train, batch_sampler=batches)
    ids = {c for batch, _ in zip(loader, range(50)) for c in batch.id}
    assert (len(train), len(loader)) == (N_CLIPS, N_CLIPS // 16)
    assert len(ids) == 800


def parse(corpus):
    """What SpeechBrain needs: all entries at once."""
    DynamicItemDataset(dict(read_entries(corpus / "train.jsonl")))


def run_limited(function, corpus):
    """Call a function with 20 MB of additional memory."""
    torch.set_num_threads(1)  # the stack of a thread counts as data
    status = Path("/proc/self/status").read_text().split("VmData:")[1]
    used = int(status.split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + 20 * 2**20, -1))
    function(corpus)


def with_little_memory(function, corpus):
    """Exit code of a new process; a fork would have freed memory."""
    process = multiprocessing.get_context("spawn").Process(
        target=run_limited, args=(function, corpus)
    )
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="Linux tells the memory"
)
def test_large_corpus(corpus, capfd):
    """A run with a shuffled epoch and all checks starts in 20 MB."""
    start = time.perf_counter()
    assert with_little_memory(use, corpus) == 0
    # Takes two seconds and the imports, if nothing else runs.
    assert time.perf_counter() - start < 100
    # The limit matters: the whole file at once does not fit.
    assert with_little_memory(parse, corpus) == 1
    assert "MemoryError" in capfd.readouterr().err
