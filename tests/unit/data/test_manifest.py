"""Tests of manifests that are read clip by clip."""

import json
import multiprocessing
import pickle
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
from lmac_sb.data.manifest import Manifest, read_entries
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

TEXTS = {
    "plain": json.dumps(ENTRIES),
    "indented": json.dumps(ENTRIES, indent=2) + "\n",
    "tight": json.dumps(ENTRIES, separators=(",", ":")),
    "utf-8": json.dumps(ENTRIES, ensure_ascii=False),
    "spaced": " \r\n\t" + json.dumps(ENTRIES, separators=(" ,\n", " :\t")),
    "empty": " { } ",
}


def write(tmp_path, text):
    """Write a manifest, and return its path."""
    path = tmp_path / "train.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("chunk", [1, 2, 7, 61, 1 << 18])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_as_json_reads_it(tmp_path, monkeypatch, text, chunk):
    """Entries equal those of json, for any size of chunks."""
    monkeypatch.setattr(manifests, "_CHUNK", chunk)
    path = write(tmp_path, text)
    expected = json.loads(text)
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
    """Ids behave like the list that SpeechBrain uses."""
    manifest = Manifest(write(tmp_path, TEXTS["plain"]))
    ids = list(ENTRIES)
    assert manifest.ids[-1] == "last"
    assert manifest.ids[1:6:2] == ids[1:6:2]
    assert manifest.ids[::-1] == ids[::-1]
    for place in (7, -8):
        with pytest.raises(IndexError):
            manifest.ids[place]


def test_unknown_id(tmp_path):
    """An unknown id raises KeyError, as in a dict."""
    manifest = Manifest(write(tmp_path, TEXTS["plain"]))
    assert "1-1" in manifest and "1-2" not in manifest
    with pytest.raises(KeyError, match="1-2"):
        manifest["1-2"]


def test_ids_with_one_number(tmp_path, monkeypatch):
    """Ids are distinguished even if they share a checksum."""
    monkeypatch.setattr(manifests, "_number", lambda clip_id: 7)
    manifest = Manifest(write(tmp_path, TEXTS["plain"]))
    assert dict(manifest) == ENTRIES
    assert "other" not in manifest


def test_sent_to_another_process(tmp_path):
    """A pickled manifest does not hold the file's content."""
    manifest = Manifest(write(tmp_path, TEXTS["plain"]))
    sent = pickle.dumps(manifest)
    assert len(sent) < 2000
    assert dict(pickle.loads(sent)) == ENTRIES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "[]",
        '"a"',
        "{",
        '{"a": {}',
        '{"a": {},',
        '{"a": {},}',
        '{"a" {}}',
        '{"a": {} "b": {}}',
        "{a: {}}",
        "{1: {}}",
        '{"a": {"b": 1,}}',
        '{"a": {}} {"b": {}}',
        '{"a": {}}}',
        '{"a": [}]}',
        b'{"a": {"b": "\xff"}}',
        b'\xef\xbb\xbf{"a": {}}',
        b"\x00" * 50,
        '{"a": ' + '{"a":' * 100_000,
    ],
)
@pytest.mark.parametrize("read", [Manifest, lambda p: list(read_entries(p))])
def test_no_manifest(tmp_path, text, read):
    """What json refuses is refused, with the name of the file."""
    path = write(tmp_path, text)
    with pytest.raises(LMACError, match="train.json: not JSON"):
        read(path)


@pytest.mark.parametrize("value", ["1", "null", '"x"', "[{}]"])
def test_entry_that_is_no_object(tmp_path, value):
    """The message names the clip."""
    path = write(tmp_path, f'{{"a": {{}}, "b": {value}}}')
    with pytest.raises(LMACError, match="clip 'b' is .*, an object is needed"):
        Manifest(path)


def test_id_that_stands_twice(tmp_path):
    """A repeated id is refused: the second would replace the first."""
    path = write(tmp_path, '{"a": {"x": 1}, "b": {}, "a": {"x": 2}}')
    with pytest.raises(LMACError, match="clip 'a' stands there twice"):
        Manifest(path)


def test_missing_file(tmp_path):
    """The message names the missing file."""
    with pytest.raises(LMACError, match="nowhere.json: cannot be read"):
        Manifest(tmp_path / "nowhere.json")


def test_changed_file(tmp_path):
    """A changed file is refused, since stored offsets would be wrong."""
    path = write(tmp_path, TEXTS["plain"])
    manifest = Manifest(path)
    write(tmp_path, TEXTS["plain"].replace('"fold": 1', '"fold": 2'))
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
        with open(tmp_path / f"{split}.json", "w", encoding="utf-8") as file:
            for i in range(n_clips):
                entry = {
                    "wav": str(wav),
                    "class_string": f"class {i % 50}",
                    "fold": 1,
                    "duration": 0.1,
                    "num_samples": 1600,
                    "sample_rate": 16000,
                }
                start = ",\n" if i else "{\n"
                file.write(f'{start}"{split}-{i}": {json.dumps(entry)}')
            file.write("}\n")
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
    data_identity({s: corpus / f"{s}.json" for s in splits}, corpus)
    train = datasets["train"]
    batches = EqualLengthBatches(train.n_samples, 16, shuffle=True, seed=1)
    loader = make_dataloader(train, batch_sampler=batches)
    ids = {c for batch, _ in zip(loader, range(50)) for c in batch.id}
    assert (len(train), len(loader)) == (N_CLIPS, N_CLIPS // 16)
    assert len(ids) == 800


def parse(corpus):
    """Read a manifest as SpeechBrain does."""
    DynamicItemDataset.from_json(corpus / "train.json")


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
