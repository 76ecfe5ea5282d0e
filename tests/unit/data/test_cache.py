"""Tests of the cache of preprocessed audio."""

import multiprocessing
import os
import resource
import signal
import time

import numpy as np
import pytest
import soundfile as sf
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.epoch_loop import EpochCounter

from lmac_sb.data import audio, cache
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.cache import (
    AudioCache,
    cache_version,
    count_cache,
    prune_cache,
)
from lmac_sb.data.manifest import to_lines
from lmac_sb.training.experiment import Sounds, make_datasets
from lmac_sb.utils.errors import LMACError

RATE = 16000


class Counting(Preprocessor):
    """Counts what it decodes."""

    n_calls = 0

    def __call__(self, path):
        self.n_calls += 1
        return super().__call__(path)


@pytest.fixture
def clips(tmp_path):
    """Six clips, in three formats and at three rates."""
    folder = tmp_path / "audio"
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for suffix in ("wav", "flac", "ogg"):
        for rate in (8000, 44100):
            path = folder / f"{rate}.{suffix}"
            sf.write(path, rng.uniform(-0.6, 0.3, (rate // 2, 2)), rate)
            paths.append(path)
    return paths


def same(found, expected):
    """Whether samples and gain are equal to the last bit."""
    return torch.equal(found[0], expected[0]) and found[1] == expected[1]


def files_of(folder):
    """Files of the cache, those being written included."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("seconds", [None, 0.3, 1.3])
def test_same_samples_decoded_once(clips, tmp_path, seconds):
    """The cache gives the same bits, in this object and in the next."""
    expected = [Preprocessor(RATE, seconds)(path) for path in clips]
    preprocess = Counting(RATE, seconds)
    for _ in range(2):
        kept = AudioCache(tmp_path / "cache", preprocess)
        assert (kept.n_samples, kept.sample_rate) == (
            preprocess.n_samples,
            RATE,
        )
        for _ in range(2):
            for path, wav in zip(clips, expected):
                found = kept(path)
                assert found[0].dtype == torch.float32
                assert same(found, wav)
    assert preprocess.n_calls == len(clips)
    assert len(files_of(tmp_path / "cache")) == len(clips)


def test_changed_content_is_decoded(clips, tmp_path):
    """Changed content is decoded even with the same size and time stamp."""
    kept = AudioCache(tmp_path / "cache", Preprocessor(RATE))
    path, before = clips[0], os.stat(clips[0])
    first = kept(path)
    content = bytearray(path.read_bytes())
    content[-2000:] = bytes(2000)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    assert not torch.equal(kept(path)[0], first[0])
    assert same(kept(path), Preprocessor(RATE)(path))


def test_moved_content_is_found(clips, tmp_path):
    """Moved or copied data is not decoded again."""
    preprocess = Counting(RATE)
    kept = AudioCache(tmp_path / "cache", preprocess)
    first = kept(clips[0])
    clips[0].rename(tmp_path / "moved.wav")
    assert same(kept(tmp_path / "moved.wav"), first)
    assert preprocess.n_calls == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: Counting(8000),
        lambda patch: Counting(RATE, 0.4),
        lambda patch: patch.setattr(sf, "__libsndfile_version__", "0.0"),
        lambda patch: patch.setattr(cache.torchaudio, "__version__", "0.0"),
        lambda patch: patch.setattr(audio, "VERSION", audio.VERSION + 1),
    ],
)
def test_other_settings_are_other_files(clips, tmp_path, monkeypatch, change):
    """Files that were made with other settings are not read."""
    AudioCache(tmp_path / "cache", Preprocessor(RATE))(clips[1])
    preprocess = change(monkeypatch) or Counting(RATE)
    found = AudioCache(tmp_path / "cache", preprocess)(clips[1])
    assert preprocess.n_calls == 1
    assert same(found, preprocess(clips[1]))
    assert len(files_of(tmp_path / "cache")) == 2


def test_files_are_numpys(clips, tmp_path):
    """Anybody can open them."""
    expected, gain = AudioCache(tmp_path, Preprocessor(RATE))(clips[0])
    (path,) = tmp_path.glob(f"{cache_version()}/??/*.npy")
    record = np.load(path)
    assert np.array_equal(record["wav"], expected)
    assert record["gain"] == gain


def flip(place):
    """Flip one bit of a byte."""

    def spoil(content, other):
        content[place] ^= 4
        return content

    return spoil


SPOILT = {
    "empty": lambda content, other: b"",
    "half a header": lambda content, other: content[:30],
    "header only": lambda content, other: content[:128],
    "header and gain": lambda content, other: content[:136],
    "half": lambda content, other: content[: len(content) // 8 * 4],
    "a byte less": lambda content, other: content[:-1],
    "a sample less": lambda content, other: content[:-4],
    "zeros": lambda content, other: bytes(len(content)),
    "a zip": lambda content, other: b"PK\3\4" + content[4:],
    "another clip": lambda content, other: other,
    # Header, its end, gain, checksum, samples.
    **{f"bit of byte {n}": flip(n) for n in (0, 6, 8, *range(10, 95, 7))},
    **{f"bit of byte {n}": flip(n) for n in (128, 133, 136, 140, 999, -1)},
    "another order of bytes": lambda content, other: content.replace(
        b"'wav', '<f4'", b"'wav', '>f4'"
    ),
    "another order in the gain": lambda content, other: content.replace(
        b"'gain', '<f8'", b"'gain', '>f8'"
    ),
    "another name": lambda content, other: content.replace(b"wav", b"wov", 1),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_damaged_file_is_made_again(clips, tmp_path, caplog, spoil):
    """The log names a damaged file, and it is replaced."""
    preprocess = Counting(RATE)
    kept = AudioCache(tmp_path / "cache", preprocess)
    expected = Preprocessor(RATE)(clips[1])
    kept(clips[1])
    (path,) = files_of(tmp_path / "cache")
    whole = path.read_bytes()
    kept(clips[3])
    (other,) = set(files_of(tmp_path / "cache")) - {path}
    # In a new file, since the first is still mapped.
    path.unlink()
    path.write_bytes(spoil(bytearray(whole), other.read_bytes()))
    assert same(kept(clips[1]), expected)
    assert preprocess.n_calls == 3
    assert f"{path} is damaged" in caplog.text
    assert path.read_bytes() == whole


def test_no_bit_of_the_header_counts_for_nothing(clips, tmp_path):
    """Whatever numpy makes of it: never other samples, or another gain."""
    kept = AudioCache(tmp_path / "cache", Preprocessor(RATE, 0.1))
    expected = kept(clips[0])
    (path,) = files_of(tmp_path / "cache")
    whole = path.read_bytes()
    for place in range(whole.index(b"\n") + 1):
        for bit in range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.unlink()
            path.write_bytes(content)
            assert same(kept(clips[0]), expected)


def test_unreadable_file_is_made_again(clips, tmp_path, caplog):
    """A folder in the place of a file is replaced."""
    kept = AudioCache(tmp_path / "cache", Preprocessor(RATE))
    expected = Preprocessor(RATE)(clips[0])
    kept(clips[0])
    (path,) = files_of(tmp_path / "cache")
    path.unlink()
    path.mkdir()
    assert same(kept(clips[0]), expected)
    assert "is damaged" in caplog.text
    assert "cannot be written" in caplog.text


@pytest.fixture
def small_disk():
    """No file of this process can grow beyond a number of bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Clips of 8,000 samples: even where only the last bytes find no space.
@pytest.mark.parametrize("size", [0, 10_000, 4 * 8000, 4 * 8000 + 139])
def test_full_disk(clips, tmp_path, caplog, small_disk, size):
    """One warning, right samples, and nothing is left on the disk."""
    small_disk(size)
    kept = AudioCache(tmp_path / "cache", Preprocessor(RATE))
    for path in clips:
        assert same(kept(path), Preprocessor(RATE)(path))
    assert files_of(tmp_path / "cache") == []
    assert len(caplog.messages) == 1
    assert f"{tmp_path / 'cache'} cannot be written" in caplog.text


def test_a_caller_may_change_what_it_gets(clips, tmp_path):
    """Changing the returned samples does not change the cache."""
    kept = AudioCache(tmp_path / "cache", Preprocessor(RATE))
    expected = Preprocessor(RATE)(clips[0])
    kept(clips[0])
    kept(clips[0])[0].zero_()
    assert same(kept(clips[0]), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.wav", "no such audio file"), ("", "is a folder")],
)
def test_errors_are_those_without_a_cache(tmp_path, name, message):
    """The message names the file, and nothing is cached."""
    kept = AudioCache(tmp_path / "cache", Preprocessor(RATE))
    with pytest.raises(LMACError, match=message):
        kept(tmp_path / name)
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(LMACError, match="bad.wav: cannot be read as audio"):
        kept(bad)
    assert files_of(tmp_path / "cache") == []


def test_folder_that_cannot_be_one(tmp_path):
    """The key is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LMACError, match="audio_cache: .*file cannot be used"):
        AudioCache(tmp_path / "file", Preprocessor(RATE))


def write_old(path, hours):
    """A file that was last written to some hours ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1234")
    os.utime(path, (time.time() - 3600 * hours,) * 2)


def test_only_old_parts_are_swept(tmp_path):
    """Another process may be writing the young ones; others are foreign."""
    for name, hours in (("tmp_old_1234", 2), ("tmpyoung_12", 0.1)):
        write_old(tmp_path / "parts" / name, hours)
    write_old(tmp_path / "parts" / "tmpold_1234", 2)
    write_old(tmp_path / "parts" / "thesis.tex", 200)
    AudioCache(tmp_path, Preprocessor(RATE))
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["thesis.tex", "tmp_old_1234", "tmpyoung_12"]


@pytest.fixture
def mixed(clips, tmp_path, monkeypatch):
    """Cache with clips of three versions, at two rates, and with parts."""
    folder = tmp_path / "cache"
    for version, rate, n_clips in ((7, RATE, 2), (8, RATE, 4), (8, 8000, 1)):
        monkeypatch.setattr(audio, "VERSION", version)
        for path in clips[:n_clips]:
            AudioCache(folder, Preprocessor(rate))(path)
    for name in ("ab" + "0" * 62, "ab" + "1" * 62, "0f" * 32):
        write_old(folder / name[:2] / f"{name}.f32", 0)
    write_old(folder / "parts" / "tmpold_1234", 2)
    write_old(folder / "parts" / "tmpyoung_12", 0.1)
    return folder


def test_count(mixed):
    """Clips and bytes by version."""
    found = count_cache(mixed)
    (other,) = set(found) - {cache_version(), "before v1", "unfinished"}
    assert other.startswith("v7-") and cache_version().startswith("v8-")
    assert found["before v1"] == (3, 12)
    assert found["unfinished"] == (2, 8)
    for version, n_clips in ((other, 2), (cache_version(), 5)):
        sizes = [x.stat().st_size for x in files_of(mixed / version)]
        assert found[version] == (n_clips, sum(sizes))


def test_prune(mixed, clips):
    """What is used, or being written, stays, and is read as before."""
    used = files_of(mixed / cache_version())
    before = count_cache(mixed)
    deleted = prune_cache(mixed)
    young = mixed / "parts" / "tmpyoung_12"
    assert files_of(mixed) == sorted([*used, young])
    assert set(mixed.iterdir()) == {mixed / cache_version(), young.parent}
    assert deleted.pop("unfinished") == (1, 4)
    assert set(deleted) == set(before) - {cache_version(), "unfinished"}
    assert all(deleted[version] == before[version] for version in deleted)
    for rate, n_clips in ((RATE, 4), (8000, 1)):
        preprocess = Counting(rate)
        kept = AudioCache(mixed, preprocess)
        for path in clips[:n_clips]:
            kept(path)
        assert preprocess.n_calls == 0
    assert prune_cache(mixed) == {}


@pytest.mark.parametrize(
    "foreign",
    [
        "thesis.tex",
        "parts/thesis.tex",
        "parts/tmp_thesis.tex",
        "ab/thesis.f32",
        f"cd/ab{'0' * 62}.f32",
        f"v9-later/ab/ab{'0' * 62}.wav",
        f"v9-later/ab{'0' * 62}.npy",
        f"later/ab/ab{'0' * 62}.npy",
        f"deep/v9-later/ab/ab{'0' * 62}.npy",
    ],
)
@pytest.mark.parametrize("use", [count_cache, prune_cache])
def test_foreign_files_are_never_deleted(mixed, use, foreign):
    """Nor is anything else where there is one; it is named."""
    write_old(mixed / foreign, 2)
    before = files_of(mixed)
    with pytest.raises(LMACError, match=f"cache: holds .*{foreign[-12:]}"):
        use(mixed)
    assert files_of(mixed) == before


@pytest.mark.parametrize("use", [count_cache, prune_cache])
def test_links_are_foreign(mixed, tmp_path, use):
    """What they lead to may be anywhere."""
    (tmp_path / "thesis.tex").write_text("")
    link = mixed / "ab" / f"ab{'2' * 62}.f32"
    link.symlink_to(tmp_path / "thesis.tex")
    (tmp_path / "elsewhere" / "ab").mkdir(parents=True)
    other = tmp_path / "elsewhere" / "ab" / f"ab{'3' * 62}.npy"
    other.write_text("")
    (mixed / "v6-linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LMACError, match="holds '.*222.f32'"):
        use(mixed)
    link.unlink()
    use(mixed)
    assert other.exists()


@pytest.mark.parametrize("name", ["nowhere", "empty", "file", "results"])
@pytest.mark.parametrize("use", [count_cache, prune_cache])
def test_folder_that_is_no_cache(tmp_path, use, name):
    """It is named, and left alone."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_old(tmp_path / "results" / "results.csv", 2)
    with pytest.raises(LMACError, match=f"{name}: is not an audio cache"):
        use(tmp_path / name)
    assert files_of(tmp_path / "results") != []


def test_file_that_cannot_be_deleted(mixed, monkeypatch):
    """One message."""

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(mixed), "unlink", refuse)
    with pytest.raises(LMACError, match="cannot be pruned .*Permission"):
        prune_cache(mixed)


def in_child(function, *args):
    """Process that runs a function, as a worker of a data loader does."""

    def run():
        # Threads do not survive a fork.
        torch.set_num_threads(1)
        function(*args)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def build(folder, clips):
    """Fill the cache with the clips."""
    kept = AudioCache(folder, Preprocessor(RATE))
    for path in clips:
        kept(path)


def check_all(tmp_path, clips):
    """Every file that has a clip's name is whole and right."""
    named = list((tmp_path / "cache").glob("v*/??/*.npy"))
    preprocess = Counting(RATE)
    kept = AudioCache(tmp_path / "cache", preprocess)
    for path in clips:
        assert same(kept(path), Preprocessor(RATE)(path))
    assert preprocess.n_calls == len(clips) - len(named)
    return len(named)


def killed_before_it_is_named(folder, clips):
    """The file is complete, and has no name yet."""
    os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
    build(folder, clips)


def killed_within_the_write(folder, clips):
    """The kernel ends it when a file has 10,000 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, -1))
    build(folder, clips)


@pytest.mark.parametrize(
    ("killed", "by"),
    [
        (killed_before_it_is_named, signal.SIGKILL),
        (killed_within_the_write, signal.SIGXFSZ),
    ],
)
def test_killed_while_it_writes(clips, tmp_path, caplog, killed, by):
    """A killed process leaves no file with a final name."""
    process = in_child(killed, tmp_path / "cache", clips)
    process.join(60)
    assert process.exitcode == -by
    (part,) = files_of(tmp_path / "cache")
    assert part.parent.name == "parts" and part.stat().st_size > 0
    assert check_all(tmp_path, clips) == 0
    assert caplog.text == ""


def build_again_and_again(folder, clips):
    """Build, delete, build."""
    while True:
        build(folder, clips)
        for path in folder.glob("v*/??/*"):
            path.unlink()


@pytest.mark.parametrize("wait", [0.02, 0.05, 0.11])
def test_killed_at_any_moment(clips, tmp_path, caplog, wait):
    """A process that builds, deletes and builds again."""
    process = in_child(build_again_and_again, tmp_path / "cache", clips)
    while not (tmp_path / "cache" / "parts").exists():
        time.sleep(0.01)
    time.sleep(wait)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    check_all(tmp_path, clips)
    assert caplog.text == ""


def test_three_processes_at_once(clips, tmp_path, caplog):
    """Three processes fill one folder, and all reads are right."""
    for number in range(20):
        path = tmp_path / "audio" / f"{number}.wav"
        sf.write(path, np.linspace(-0.5, number / 20, 4000), 8000)
        clips.append(path)
    folder = tmp_path / "cache"
    processes = [in_child(build, folder, clips) for _ in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert not any((folder / "parts").iterdir())
    assert check_all(tmp_path, clips) == len(clips)
    assert caplog.text == ""


def test_data_sets_read_it(clips, tmp_path):
    """Data sets give the same items with and without a cache."""
    for split in ("train", "valid", "test"):
        entries = {
            path.name: {
                "wav": str(path),
                "class_string": "dog",
                "num_samples": sf.info(path).frames,
                "sample_rate": sf.info(path).samplerate,
            }
            for path in clips
        }
        text = to_lines(entries)
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    labels = CategoricalEncoder()
    labels.update_from_iterable(["dog"])
    labels.expect_len(1)
    preprocess = Counting(RATE)
    plain, cached, again = (
        make_datasets(
            tmp_path,
            Sounds(preprocess, labels, audio_cache=folder),
            EpochCounter(1),
            seed=5,
        )
        for folder in (None, tmp_path / "cache", tmp_path / "cache")
    )
    for split in ("train", "valid", "test"):
        assert list(plain[split].n_samples) == list(cached[split].n_samples)
        for one, two, three in zip(plain[split], cached[split], again[split]):
            assert one["id"] == two["id"] == three["id"]
            for key in ("sig", "clean"):
                assert torch.equal(one[key], two[key])
                assert torch.equal(one[key], three[key])
    # Without a cache: in each split. With it: once for all.
    assert preprocess.n_calls == (3 + 1) * len(clips)
