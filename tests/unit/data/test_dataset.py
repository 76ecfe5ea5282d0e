"""Tests of the data sets and of the batches of equal length."""

import numpy as np
import pytest
import soundfile as sf
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.epoch_loop import EpochCounter

from lmac_sb.data.audio import Preprocessor, read_audio
from lmac_sb.data.cache import AudioCache
from lmac_sb.data.dataset import (
    Changes,
    EqualLengthBatches,
    MultilabelEncoder,
    check_labels,
    make_dataset,
)
from lmac_sb.data.decode import Recording
from lmac_sb.data.manifest import to_lines
from lmac_sb.data.noise import NoiseMixer
from lmac_sb.data.scenes import make_scenes
from lmac_sb.training.experiment import Sounds, make_datasets
from lmac_sb.utils.errors import LMACError

RATE = 16000


def lengths(n_clips):
    """Clips of three lengths, in mixed order."""
    return [(5, 9, 7)[(i * i) % 3] for i in range(n_clips)]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n_clips", [1, 2, 7, 16, 23])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 40])
def test_each_clip_once(n_clips, batch_size, shuffle):
    """An epoch has each clip once, in batches of one length."""
    sizes = lengths(n_clips)
    sampler = EqualLengthBatches(sizes, batch_size, shuffle, seed=1)
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(
            range(n_clips)
        )
        assert all(len({sizes[i] for i in batch}) == 1 for batch in batches)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert len(batches) == len(sampler)


def test_no_batch_too_many():
    """Only the last batch of each length may be short."""
    sizes = [5] * 7 + [9] * 4
    found = sorted(
        len(b) for b in EqualLengthBatches(sizes, 3, shuffle=True, seed=1)
    )
    assert found == [1, 1, 3, 3, 3]


def test_order_of_epoch():
    """The order depends on seed and epoch, and on no global state."""

    def order(seed, epoch):
        sampler = EqualLengthBatches(lengths(30), 4, True, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    first = order(1, 1)
    torch.manual_seed(99)
    np.random.seed(99)
    assert order(1, 1) == first
    assert order(1, 2) != first
    assert order(2, 1) != first


def test_order_does_not_depend_on_epochs_before():
    """A resumed run without epoch 1 has the same epoch 2."""
    through = EqualLengthBatches(lengths(30), 4, True, 1)
    through.set_epoch(1)
    list(through)
    through.set_epoch(2)
    resumed = EqualLengthBatches(lengths(30), 4, True, 1)
    resumed.set_epoch(2)
    assert list(through) == list(resumed)


def test_no_shuffle_keeps_the_order():
    """Validation sees the clips in the order of the manifest."""
    sampler = EqualLengthBatches([5] * 5, 2, shuffle=False, seed=1)
    sampler.set_epoch(3)
    assert list(sampler) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("n_clips", [1, 6, 13, 24])
def test_processes_share_batches(n_clips, world_size, shuffle):
    """Together the processes see the batches of one process alone."""
    sizes = lengths(n_clips)

    def batches(size, **process):
        sampler = EqualLengthBatches(sizes, size, shuffle, seed=4, **process)
        sampler.set_epoch(2)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    alone = batches(2 * world_size)
    shares = [
        batches(2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {len(alone)}
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        assert {i for part in parts for i in part} == set(whole)
        assert all(1 <= len(part) <= 2 for part in parts)
        # A clip is repeated only by a process that has no other.
        n_repeats = sum(len(part) for part in parts) - len(whole)
        assert n_repeats == max(0, world_size - len(whole))


def test_process_without_a_share_repeats():
    """Each process takes part in each step, so it gets some clip."""
    shares = [
        list(EqualLengthBatches([5], 2, rank=rank, world_size=3))
        for rank in range(3)
    ]
    assert shares == [[[0]], [[0]], [[0]]]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_checked(batch_size):
    """A batch must have at least one clip."""
    with pytest.raises(LMACError, match=f"batch_size: {batch_size}"):
        EqualLengthBatches([5], batch_size)


def encoder(*classes):
    """Label encoder of these classes."""
    labels = CategoricalEncoder()
    labels.update_from_iterable(classes)
    labels.expect_len(len(classes))
    return labels


def manifest_of(folder, clips, name="train"):
    """Write a manifest from ids and entries with at least `wav`."""
    entries = {}
    for clip_id, entry in clips.items():
        info = sf.info(entry["wav"])
        entries[clip_id] = {
            "class_string": "dog",
            "num_samples": info.frames,
            "sample_rate": info.samplerate,
            **{key: str(value) for key, value in entry.items()},
        }
    path = folder / f"{name}.jsonl"
    path.write_text(to_lines(entries), encoding="utf-8")
    return path


@pytest.fixture
def recordings(tmp_path):
    """Manifest of clips at odd rates and of odd lengths."""
    rng = np.random.default_rng(0)
    clips = {}
    for rate in (8000, 11025, 16000, 22050, 44100, 48000):
        for n_samples in (rate // 2, rate // 2 + 1, rate // 2 + 7, 7919):
            path = tmp_path / f"{rate}-{n_samples}.wav"
            # The negative peak is the larger one.
            wav = rng.uniform(-0.6, 0.3, n_samples)
            sf.write(path, wav, rate, subtype="FLOAT")
            clips[path.stem] = {"wav": path}
    return manifest_of(tmp_path, clips)


@pytest.mark.parametrize("signal_length_s", [None, 0.3, 1.3])
def test_n_samples_is_the_real_length(recordings, signal_length_s):
    """Batches rely on lengths that are known before any file is read."""
    dataset = make_dataset(
        recordings, Preprocessor(RATE, signal_length_s), encoder("dog")
    )
    assert len(dataset) == 24
    for place, expected in enumerate(dataset.n_samples):
        item = dataset[place]
        assert item["sig"].shape == (expected,), item["id"]
        assert torch.equal(item["clean"], item["sig"])
        assert item["sig"].abs().max().item() == pytest.approx(1, abs=1e-6)
        assert "event" not in item


def test_labels(recordings):
    """The classes' indices come from the classifier's encoder."""
    dataset = make_dataset(
        recordings, Preprocessor(RATE), encoder("ant", "cat", "dog")
    )
    assert dataset[0]["class_string_encoded"].tolist() == [2]


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory):
    """Noise in the layout of WHAM!."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for split in ("tr", "cv", "tt"):
        (folder / split).mkdir()
        for index in range(3):
            wav = rng.normal(0, 0.1, 3 * RATE)
            sf.write(folder / split / f"{index}.wav", wav, RATE)
    return folder


def noisy(manifest, noise_folder, epoch):
    """Data set with noise at 3 dB."""
    mixer = NoiseMixer(noise_folder, "tr", RATE, snr_db=3.0, seed=5)
    return make_dataset(
        manifest,
        Preprocessor(RATE),
        encoder("dog"),
        Changes(mixer, epoch=epoch),
    )


def test_noise_is_fixed_without_epoch(recordings, noise_folder):
    """Validation and test hear the same mixture each time."""
    first = noisy(recordings, noise_folder, None)
    again = noisy(recordings, noise_folder, None)
    for place in (0, 7):
        assert torch.equal(first[place]["sig"], first[place]["sig"])
        assert torch.equal(first[place]["sig"], again[place]["sig"])


def test_noise_changes_with_epoch(recordings, noise_folder):
    """Training hears new noise each epoch, the same in a repeated run."""
    now = 1
    dataset = noisy(recordings, noise_folder, lambda: now)
    first = dataset[0]["sig"]
    now = 2
    second = dataset[0]["sig"]
    now = 1
    assert not torch.allclose(first, second, atol=1e-2)
    assert torch.equal(dataset[0]["sig"], first)


def test_clean_is_at_its_gain_in_the_mixture(recordings, noise_folder):
    """Mixture minus clean is the noise, at the stated ratio."""
    quiet = make_dataset(recordings, Preprocessor(RATE), encoder("dog"))
    dataset = noisy(recordings, noise_folder, None)
    for place in (0, 5, 20):
        sig, clean = dataset[place]["sig"], dataset[place]["clean"]
        alone = quiet[place]["sig"]
        assert sig.abs().max().item() == pytest.approx(1, abs=1e-6)
        # The clean clip is the clip, scaled ...
        gain = float(clean.abs().max())
        assert 0 < gain < 1
        torch.testing.assert_close(clean, gain * alone, atol=1e-6, rtol=1e-5)
        # ... and the rest has 3 dB less power.
        ratio = clean.pow(2).mean() / (sig - clean).pow(2).mean()
        assert 10 * float(ratio.log10()) == pytest.approx(3, abs=0.01)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of one fold."""
    return make_scenes(
        tmp_path_factory.mktemp("data") / "scenes",
        clips_per_class=1,
        n_folds=1,
        duration_s=1.0,
    )


def scene_manifest(scenes, folder, stems=True):
    """Manifest of all scenes."""
    clips = {}
    for wav in sorted((scenes / "audio").iterdir()):
        clips[wav.stem] = {"wav": wav}
        if stems:
            clips[wav.stem]["stem"] = scenes / "stems" / wav.name
    return manifest_of(folder, clips)


@pytest.mark.parametrize("signal_length_s", [None, 0.8, 1.5])
def test_event_within_the_scene(scenes, tmp_path, signal_length_s):
    """Signal minus event is the rest of the scene, as in the files."""
    manifest = scene_manifest(scenes, tmp_path)
    dataset = make_dataset(
        manifest,
        Preprocessor(RATE, signal_length_s),
        encoder("dog"),
        events=True,
    )
    for item in dataset:
        mixture, _ = sf.read(scenes / "audio" / f"{item['id']}.wav")
        stem, _ = sf.read(scenes / "stems" / f"{item['id']}.wav")
        n_samples = round((signal_length_s or 1) * RATE)
        mixture, stem = (
            np.pad(x, (0, max(0, n_samples - len(x))))[:n_samples]
            for x in (mixture, stem)
        )
        gain = 1 / np.abs(mixture).max()
        np.testing.assert_allclose(
            (item["sig"] - item["event"]).numpy(),
            gain * (mixture - stem),
            atol=1e-5,
        )
        assert item["event"].abs().max() > 0


def test_event_within_a_noisy_scene(scenes, noise_folder, tmp_path):
    """The event has the gain that the clip has in the mixture."""
    mixer = NoiseMixer(noise_folder, "cv", RATE, snr_db=0.0, seed=5)
    dataset = make_dataset(
        scene_manifest(scenes, tmp_path),
        Preprocessor(RATE),
        encoder("dog"),
        Changes(mixer),
        events=True,
    )
    item = dataset[3]
    mixture, _ = sf.read(scenes / "audio" / f"{item['id']}.wav")
    stem, _ = sf.read(scenes / "stems" / f"{item['id']}.wav")
    gain = float(item["clean"].abs().max()) / np.abs(mixture).max()
    np.testing.assert_allclose(item["event"], gain * stem, atol=1e-5)
    assert not torch.allclose(item["sig"], item["clean"], atol=1e-2)


def test_events_have_the_level_that_peaks_tell(scenes, noise_folder, tmp_path):
    """The gain from file to clip, as it would be guessed from both."""
    mixer = NoiseMixer(noise_folder, "cv", RATE, snr_db=0.0, seed=5)
    for noise in (None, mixer):
        dataset = make_dataset(
            scene_manifest(scenes, tmp_path),
            Preprocessor(RATE),
            encoder("dog"),
            Changes(noise),
            events=True,
        )
        dataset.set_output_keys(["id", "clean", "gain", "event"])
        for item in dataset:
            raw = read_audio(scenes / "audio" / f"{item['id']}.wav", RATE)
            stem = read_audio(scenes / "stems" / f"{item['id']}.wav", RATE)
            guess = float(item["clean"].abs().max() / raw.abs().max())
            assert item["gain"] == pytest.approx(guess, rel=1e-6)
            torch.testing.assert_close(
                item["event"], guess * stem, rtol=1e-6, atol=1e-7
            )


@pytest.mark.parametrize("cached", [False, True])
def test_each_file_is_decoded_once(scenes, tmp_path, monkeypatch, cached):
    """Clip and stem, for an item with its event; the cached clip never."""
    decoded = []
    original = Recording._frames

    def count(recording, size):
        decoded.append(recording.path)
        return original(recording, size)

    monkeypatch.setattr(Recording, "_frames", count)
    preprocess = Preprocessor(RATE)
    if cached:
        preprocess = AudioCache(tmp_path / "cache", preprocess)
    manifest = scene_manifest(scenes, tmp_path)
    dataset = make_dataset(manifest, preprocess, encoder("dog"), events=True)
    clips = [str(path) for path in (scenes / "audio").iterdir()]
    stems = [str(path) for path in (scenes / "stems").iterdir()]
    first = list(dataset)
    assert sorted(decoded) == sorted(clips + stems)
    decoded.clear()
    for item, before in zip(dataset, first):
        for key in ("sig", "clean", "event"):
            assert torch.equal(item[key], before[key])
    assert sorted(decoded) == sorted(stems if cached else clips + stems)


@pytest.mark.parametrize("events, stems", [(False, True), (True, False)])
def test_no_event(scenes, tmp_path, events, stems):
    """Without stems, or unless asked for, items have no event."""
    dataset = make_dataset(
        scene_manifest(scenes, tmp_path, stems),
        Preprocessor(RATE),
        encoder("dog"),
        events=events,
    )
    assert set(dataset[0]) == {
        "id",
        "sig",
        "clean",
        "class_string",
        "class_string_encoded",
    }


def write_manifests(folder, **classes):
    """Manifests of which only the classes count."""
    for split in ("train", "valid", "test"):
        entries = {
            f"{split}{i}": {"class_string": name}
            for i, name in enumerate(classes.get(split, ["dog"]))
        }
        text = to_lines(entries)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_unknown_class(tmp_path, split):
    """The message names the classes on both sides."""
    write_manifests(tmp_path, **{split: ["dog", "whale"]})
    with pytest.raises(LMACError) as caught:
        check_labels(tmp_path, encoder("dog", "rain"), "my/model")
    message = str(caught.value)
    assert message.startswith("my/model: ")
    assert "knows dog, rain" in message
    assert "has whale;" in message


def test_known_classes(tmp_path):
    """Data with only some of the classes is accepted."""
    write_manifests(tmp_path)
    check_labels(tmp_path, encoder("dog", "rain"), "my/model")


def test_many_classes_in_one_short_line(tmp_path):
    """Fifty names would hide the message."""
    write_manifests(tmp_path)
    names = [f"class{i:02d}" for i in range(50)]
    with pytest.raises(LMACError, match="class09 and 40 more, but") as caught:
        check_labels(tmp_path, encoder(*names), "my/model")
    assert "class10" not in str(caught.value)


def test_shift(recordings):
    """The rotation depends only on seed, clip and epoch."""
    now = 1

    def dataset(shift_seed=3):
        return make_dataset(
            recordings,
            Preprocessor(RATE),
            encoder("dog"),
            Changes(epoch=lambda: now, shift_seed=shift_seed),
        )

    def shift_of(item, still):
        """Samples by which the clip was rotated."""
        n_samples = len(still)
        place = int(item["sig"].abs().argmax())
        shift = (place - int(still.abs().argmax())) % n_samples
        assert torch.equal(item["sig"], still.roll(shift))
        assert torch.equal(item["clean"], item["sig"])
        return shift / n_samples

    still = [item["sig"] for item in dataset(None)]
    first = [shift_of(i, s) for i, s in zip(dataset(), still)]
    again = [shift_of(dataset()[place], still[place]) for place in range(3)]
    assert first[:3] == again
    # Spread over the whole clip.
    assert len({round(8 * share) for share in first}) >= 5
    other = [shift_of(i, s) for i, s in zip(dataset(4), still)]
    assert other != first
    now = 2
    assert [shift_of(i, s) for i, s in zip(dataset(), still)] != first


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_are_not_forked(scenes, noise_folder, tmp_path, context):
    """They give what the process itself gives, as on a Mac."""
    counter = EpochCounter(3)
    next(iter(counter))
    sounds = Sounds(
        Preprocessor(RATE, 0.5),
        MultilabelEncoder(),
        noise_folder,
        noisy_splits=["train"],
        audio_cache=tmp_path / "cache",
    )
    names = {"dog+cat", "cow"}
    sounds.label_encoder.update_from_iterable(names)
    clips = sorted((scenes / "audio").iterdir())[:2]
    for split in ("train", "valid", "test"):
        entries = {}
        for clip, name in zip(clips, sorted(names)):
            stem = tmp_path / f"{name}.wav"
            wav, rate = sf.read(scenes / "stems" / clip.name)
            sf.write(stem, np.stack([wav] * name.count("+") + [wav], 1), rate)
            entries[clip.stem] = {
                "wav": str(clip),
                "stem": str(stem),
                "class_string": name,
                "num_samples": len(wav),
                "sample_rate": rate,
            }
        (tmp_path / f"{split}.jsonl").write_text(to_lines(entries))
    made = make_datasets(tmp_path, sounds, counter, seed=1, events=True)
    for split in ("train", "test"):
        loader = torch.utils.data.DataLoader(
            made[split],
            batch_size=2,
            num_workers=1,
            multiprocessing_context=context,
            collate_fn=PaddedBatch,
        )
        (found,) = loader
        expected = PaddedBatch([made[split][0], made[split][1]])
        assert found.id == expected.id
        for key in ("sig", "clean", "class_string_encoded", "event"):
            if key == "event" and split == "train":
                continue
            assert torch.equal(found[key].data, expected[key].data), key
