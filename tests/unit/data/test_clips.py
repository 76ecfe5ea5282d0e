"""Sounds out of whatever holds sounds."""

import os

import numpy as np
import pytest
import soundfile as sf
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from lmac_sb.data.clips import Clips, equal_batches
from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.streaming import read_signal
from lmac_sb.utils.errors import LMACError

RATE = 16000


def noise(seconds=0.5, rate=RATE):
    return torch.rand(round(seconds * rate)) - 0.5


@pytest.fixture
def folder(tmp_path):
    """Two sounds at two rates, one in a sub-folder, and other files."""
    (tmp_path / "sub").mkdir()
    sf.write(tmp_path / "a.wav", noise().numpy(), RATE)
    sf.write(tmp_path / "sub" / "b.flac", noise(rate=8000).numpy(), 8000)
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / ".hidden.wav").write_text("no sound")
    return tmp_path


class Tensors(torch.utils.data.Dataset):
    """A data set of (waveform, label)."""

    def __init__(self, label):
        self.label = label

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if i >= 3:
            raise IndexError
        return noise()[None], self.label


def test_a_folder(folder):
    clips = Clips(folder, RATE)
    assert clips.lengths == [8000, 8000]
    expected, _ = sf.read(folder / "a.wav", dtype="float32")
    torch.testing.assert_close(clips[0], torch.from_numpy(expected))


def test_files(folder):
    files = [folder / "sub" / "b.flac", str(folder / "a.wav")]
    assert Clips(files, RATE).lengths == [8000, 8000]
    assert len(Clips(folder / "a.wav", RATE)) == 1


@pytest.mark.parametrize(
    "sounds",
    [
        [noise(), noise()],
        torch.rand(2, 8000),
        [noise().numpy(), noise().numpy().astype(np.float64)],
        (noise() for _ in range(2)),
        [(noise(), 7), (noise(), 9)],
        [{"audio": {"array": noise().numpy(), "sampling_rate": RATE}}] * 2,
        [{"sig": noise(), "id": "a"}] * 2,
        torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.rand(2, 8000)), batch_size=2
        ),
    ],
)
def test_collections(sounds):
    assert Clips(sounds, RATE).lengths == [8000, 8000]


def test_speechbrains_data_set():
    data = {name: {"value": noise()} for name in "ab"}
    dataset = DynamicItemDataset(data)
    dataset.add_dynamic_item(lambda x: x, takes="value", provides="sig")
    dataset.set_output_keys(["id", "sig"])
    assert Clips(dataset, RATE).lengths == [8000, 8000]


def test_rates():
    assert Clips([(noise(rate=8000), 8000)], RATE).lengths == [8000]
    assert Clips([noise(rate=8000)], RATE, rate=8000).lengths == [8000]
    for rate in (np.int64(8000), np.array(8000), torch.tensor(8000)):
        assert Clips([(noise(rate=8000), rate)], RATE).lengths == [8000]
    # Labels are no rates.
    assert Clips(Tensors(label=3), RATE).lengths == [8000] * 3
    assert Clips(Tensors(label=32000), RATE).lengths == [4000] * 3


def test_a_list_of_samples_of_any_type():
    """It is no sound with a label."""
    for kind in (float, np.float32):
        samples = [kind(x) for x in noise().tolist()]
        assert Clips([samples], RATE).lengths == [8000]


def test_lengths():
    clip = torch.arange(8000.0) / 8000
    assert Clips([clip], RATE, n_samples=9000).lengths == [9000]
    assert Clips([clip], RATE, shortest=8500).lengths == [8500]
    (middle,) = Clips([clip], RATE, longest=4000)
    torch.testing.assert_close(middle, clip[2000:6000])


def test_a_table(folder):
    (folder / "labels.csv").write_text("file\na.wav\n")
    with pytest.raises(LMACError, match="sounds: found the table .*labels.csv"):
        Clips(folder / "labels.csv", RATE)
    assert len(Clips(open_corpus(folder / "labels.csv"), RATE)) == 1


def test_pipes_are_not_waited_for(folder):
    """They could not be read again; nor are they left out of a folder."""
    os.mkfifo(folder / "pipe.wav")
    for sounds in (folder, [folder / "pipe.wav"]):
        with pytest.raises(LMACError, match="pipe.wav: is a pipe or device"):
            Clips(sounds, 16000)


def test_some():
    clips = Clips([noise(), noise(0.3), noise(0.4)], RATE)
    part = clips.some([2, 0])
    assert part.lengths == [6400, 8000]
    assert torch.equal(part[0], clips[2])


def test_sounds_that_do_not_fit_are_read_again(folder, monkeypatch):
    monkeypatch.setattr("lmac_sb.data.clips._KEPT", 8000)
    clips = Clips(folder, RATE)
    assert list(clips.kept) == [0]
    assert torch.equal(clips[1], clips.some([1])[0])


@pytest.mark.parametrize(
    ("sounds", "message"),
    [
        ([], "found none in"),
        (3, "found 3, expected a folder"),
        (torch.rand(8000), "found one of shape"),
        ([torch.rand(8000), torch.full((8000,), torch.nan)], "item 1: sound:"),
        ([{"text": "a"}], "item 0: found a dict of text, expected one of sig"),
        (
            [{"audio": torch.rand(8000), "sampling_rate": "8k"}],
            "item 0: sample_rate: found '8k'",
        ),
        (
            [{"audio": torch.rand(8000), "sampling_rate": 8000.5}],
            "item 0: sample_rate: found 8000.5",
        ),
        ([torch.rand(100)], "item 0: sound: 0.0063 s long"),
        (["nowhere.wav"], "nowhere.wav: no such audio file"),
    ],
)
def test_what_holds_no_sound(sounds, message):
    with pytest.raises(LMACError, match=message):
        Clips(sounds, RATE)


def test_no_rate_is_ignored():
    with pytest.raises(LMACError, match="found 0, expected a whole number of"):
        Clips([torch.rand(8000)], RATE, rate=0)


def test_batches_hold_each_clip_once():
    lengths = [5, 9, 5, 8, 1]
    generator = torch.Generator().manual_seed(1)
    batches = equal_batches(lengths, 2, generator)
    assert sorted(sum(batches, [])) == [0, 1, 2, 3, 4]
    again = torch.Generator().manual_seed(1)
    assert equal_batches(lengths, 2, again) == batches
    for batch in equal_batches(lengths, 2):
        assert max(lengths[i] for i in batch) - lengths[batch[0]] <= 4


def test_clips_of_a_corpus(tmp_path):
    """As of shards."""
    sf.write(tmp_path / "a.wav", np.full(8000, 0.5), 8000)
    clips = Clips(open_corpus(tmp_path), 16000)
    assert torch.equal(clips[0], read_signal(tmp_path / "a.wav", 16000))
