"""Tests of the data preparation and of the download."""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data.manifest import read_entries
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes/ESC50/interpret"
sys.path.insert(0, str(RECIPE))

RATE = 8000
HEADER = "filename,fold,target,category"


def load_recipe():
    """The recipe's module, through the link next to the training scripts."""
    spec = importlib.util.spec_from_file_location(
        "esc50_prepare", RECIPE / "esc50_prepare.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prep = load_recipe()


def noise(seconds=0.2, seed=0):
    """A clip, [samples]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, round(seconds * RATE))


def make_data(folder, suffix="wav"):
    """Two clips (dog, rain) in each of five folds."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    lines = [HEADER]
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rain")):
            name = f"{fold}-{category}.{suffix}"
            sf.write(folder / "audio" / name, noise(seed=target), RATE)
            lines.append(f"{name},{fold},{target},{category}")
    write_table(folder, lines)
    return folder


def write_table(folder, lines):
    """Replace the csv."""
    table = folder / "meta" / "esc50.csv"
    table.write_text("\n".join(lines) + "\n")


def read_table(folder):
    """Lines of the csv."""
    return (folder / "meta" / "esc50.csv").read_text().splitlines()


@pytest.fixture
def data(tmp_path):
    """A small data folder."""
    return make_data(tmp_path / "data")


@pytest.fixture
def out(tmp_path):
    """A folder for manifests that does not exist yet."""
    return tmp_path / "out"


def tree(folder):
    """Each file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def splits(train, valid, test):
    """The folds of each split."""
    return {"train": train, "valid": valid, "test": test}


def load(paths):
    """The manifests' contents."""
    return {split: dict(read_entries(path)) for split, path in paths.items()}


def test_manifests(data, out):
    """Entries, their order and the splits are the csv's."""
    before = tree(data)
    paths = prep.prepare_esc50(data, out)
    assert tree(data) == before
    found = load(paths)
    assert list(found) == ["train", "valid", "test"]
    wanted = {"train": (1, 2, 3), "valid": (4,), "test": (5,)}
    for split, folds in wanted.items():
        assert list(found[split]) == [
            f"{fold}-{name}" for fold in folds for name in ("dog", "rain")
        ]
    assert found["valid"]["4-rain"] == {
        "wav": str(data / "audio" / "4-rain.wav"),
        "class_string": "rain",
        "fold": 4,
        "duration": 0.2,
        "num_samples": 1600,
        "sample_rate": RATE,
        "sha256": file_sha256(data / "audio" / "4-rain.wav"),
    }
    assert sorted(os.listdir(out)) == [
        "prepared.json",
        "skipped.json",
        "test.jsonl",
        "train.jsonl",
        "valid.jsonl",
    ]


@pytest.mark.parametrize("suffix", ["ogg", "flac"])
def test_other_suffix_than_the_csv_says(tmp_path, out, suffix):
    """Ogg and FLAC files are found for names in wav."""
    data = make_data(tmp_path / "data", suffix)
    write_table(
        data, [line.replace(suffix, "wav") for line in read_table(data)]
    )
    entry = load(prep.prepare_esc50(data, out))["test"]["5-dog"]
    assert entry["wav"] == str(data / "audio" / f"5-dog.{suffix}")


def test_stems(data, out):
    """A clip's entry has its stem, if there is one."""
    (data / "stems").mkdir()
    sf.write(data / "stems" / "4-dog.wav", noise(), RATE)
    found = load(prep.prepare_esc50(data, out))["valid"]
    assert found["4-dog"]["stem"] == str(data / "stems" / "4-dog.wav")
    assert "stem" not in found["4-rain"]
    sf.write(data / "stems" / "4-dog.wav", noise(0.3), RATE)
    with pytest.raises(LMACError, match="stems/4-dog.wav: 2400 samples"):
        prep.prepare_esc50(data, out)


def test_any_length_rate_and_channels(data, out):
    """Clips from 0.1 s, of any rate, mono or stereo, are fine."""
    path = data / "audio" / "5-dog.wav"
    for samples, rate in (((4410, 2), 44100), ((30000, 1), 96000)):
        rng = np.random.default_rng(0)
        sf.write(path, rng.uniform(-0.1, 0.1, samples), rate)
        entry = load(prep.prepare_esc50(data, out))["test"]["5-dog"]
        assert entry["num_samples"] == samples[0]
        assert entry["sample_rate"] == rate
        assert entry["duration"] == samples[0] / rate


def test_single_fold_as_int(data, out):
    """A fold may be given without a list."""
    found = load(prep.prepare_esc50(data, out, splits(2, 3, 1)))
    assert list(found["train"]) == ["2-dog", "2-rain"]
    assert list(found["test"]) == ["1-dog", "1-rain"]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (([1, 2], [2], [5]), "valid_fold_nums: fold 2 is already used in tr"),
        (([1, 5], [4], [5]), "test_fold_nums: fold 5 is already used in tr"),
        (([1], [4], [4]), "test_fold_nums: fold 4 is already used in valid"),
        (([1, 1], [4], [5]), "train_fold_nums: fold 1 is already used in tr"),
        (([1, 6], [4], [5]), "fold 6 does not occur.*folds 1, 2, 3, 4, 5"),
        (([1], [], [5]), "valid_fold_nums: is empty"),
        (([1], ["4"], [5]), "valid_fold_nums: found"),
        (([1], None, [5]), "valid_fold_nums: found None"),
        (([1], [4.0], [5]), "valid_fold_nums: found"),
        ((True, [4], [5]), "train_fold_nums: found"),
    ],
)
def test_bad_folds(data, out, folds, message):
    """Wrong folds stop the run, even if there are earlier manifests."""
    prep.prepare_esc50(data, out)
    before = tree(out)
    with pytest.raises(LMACError, match=message):
        prep.prepare_esc50(data, out, splits(*folds))
    assert tree(out) == before


def test_experiments_do_not_share_manifests(data, tmp_path):
    """A run with other folds does not change this run's manifests."""
    others = splits([2, 3, 4], 5, 1)
    first = load(prep.prepare_esc50(data, tmp_path / "a"))
    prep.prepare_esc50(data, tmp_path / "b", others)
    assert load(prep.prepare_esc50(data, tmp_path / "a")) == first
    again = load(prep.prepare_esc50(data, tmp_path / "a", others))
    assert list(again["test"]) == ["1-dog", "1-rain"]


def test_manifests_in_the_data_folder(data):
    """Manifests in the data folder are refused: it is only read."""
    for folder in (data, data / "deep" / "out"):
        before = tree(data)
        with pytest.raises(LMACError, match="lies in the data folder"):
            prep.prepare_esc50(data, folder)
        assert tree(data) == before


def test_manifest_folder_that_is_a_file(data, out):
    """The message names a folder that cannot be made."""
    out.write_text("a file")
    with pytest.raises(LMACError, match=f"manifest_folder {out}: cannot"):
        prep.prepare_esc50(data, out)


def test_folder_of_an_older_release(data, out):
    """Its manifests were one JSON object each; new ones come beside them."""
    paths = prep.prepare_esc50(data, out)
    found = load(paths)
    summary = json.loads((out / "prepared.json").read_text())
    for split, path in paths.items():
        text = json.dumps(found[split], indent=2) + "\n"
        os.unlink(path)
        (out / f"{split}.json").write_text(text)
        summary["sha256"][split] = hashlib.sha256(text.encode()).hexdigest()
    (out / "prepared.json").write_text(json.dumps(summary))
    assert load(prep.prepare_esc50(data, out)) == found
    assert (out / "train.json").exists()


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded from now on."""
    names = []
    decode = prep.decode_audio

    def spy(path):
        names.append(os.path.basename(path))
        return decode(path)

    monkeypatch.setattr(prep, "decode_audio", spy)
    return names


def test_nothing_is_decoded_twice(data, out, decoded):
    """A second call decodes nothing."""
    prep.prepare_esc50(data, out)
    assert len(decoded) == len(set(decoded)) == 10
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    prep.prepare_esc50(data, out)
    assert len(decoded) == 10
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def change_audio(data, out):
    """Other content in a clip."""
    sf.write(data / "audio" / "4-dog.wav", noise(0.3), RATE)


def change_csv(data, out):
    """Other classes in the csv."""
    text = "\n".join(read_table(data)).replace(",rain", ",sea")
    write_table(data, text.splitlines())


def change_manifest(data, out):
    """A manifest that somebody edited."""
    path = out / "valid.jsonl"
    path.write_text(path.read_text().replace("rain", "sea"))


def remove_manifest(data, out):
    """A manifest that is gone."""
    (out / "test.jsonl").unlink()


def break_summary(data, out):
    """A summary that is no JSON."""
    (out / "prepared.json").write_text("{")


@pytest.mark.parametrize(
    "change",
    [change_audio, change_csv, change_manifest, remove_manifest, break_summary],
)
def test_changes_are_seen(data, out, tmp_path, decoded, change):
    """After any change, the manifests are what a fresh run writes."""
    prep.prepare_esc50(data, out)
    change(data, out)
    del decoded[:]
    found = load(prep.prepare_esc50(data, out))
    assert len(decoded) == 10
    assert found == load(prep.prepare_esc50(data, tmp_path / "fresh"))


def test_moved_data(data, out, tmp_path):
    """Moved data is prepared again."""
    prep.prepare_esc50(data, out)
    moved = tmp_path / "moved"
    os.rename(data, moved)
    entry = load(prep.prepare_esc50(moved, out))["test"]["5-dog"]
    assert entry["wav"] == str(moved / "audio" / "5-dog.wav")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "esc50.csv: is empty"),
        ([HEADER], "esc50.csv: has a header but no clips"),
        (["filename,fold,target", "a.wav,1,0"], "has no column 'category'"),
        ([HEADER, "a.wav,1,0,dog", "b.wav,x,0,dog"], "line 3: fold is 'x'"),
        ([HEADER, "a.wav,1.5,0,dog"], "line 2: fold is '1.5'"),
        ([HEADER, "a.wav,-1,0,dog"], "line 2: fold is '-1'"),
        ([HEADER, "a.wav,1,0"], "line 2: expected 4 fields"),
        ([HEADER, "a.wav,1,0,dog,x"], "line 2: expected 4 fields"),
        ([HEADER, "a.wav,1,0,"], "line 2: category is empty"),
        (
            [HEADER, "a.wav,1,0,dog", "b.wav,1,0,dog", "a.wav,2,0,dog"],
            "line 4: filename 'a.wav' gives the clip 'a', as does line 2",
        ),
        ([HEADER, "a.wav,1,0,dog", "a.ogg,2,0,dog"], "line 3: .*clip 'a'"),
    ],
)
def test_bad_table(data, out, lines, message):
    """The message names the column or line of the fault."""
    write_table(data, lines)
    with pytest.raises(LMACError, match=message):
        prep.prepare_esc50(data, out)
    assert not out.exists()


def test_target_of_two_categories(data, out):
    """One of them is misspelt, and would be a class of its own."""
    lines = read_table(data)
    write_table(
        data,
        [
            line.replace("1-dog.wav,1,0,dog", "1-dog.wav,1,0,dgo")
            for line in lines
        ],
    )
    message = "line 4: target 0 is 'dog' here, but 'dgo' in line 2; expected"
    with pytest.raises(LMACError, match=message):
        prep.prepare_esc50(data, out)
    assert not out.exists()


def test_targets_that_number_no_classes(data, out):
    """Categories alone say what a clip is, so one target for all will do."""
    rows = [line.split(",") for line in read_table(data)[1:]]
    lines = [f"{name},{fold},0,{category}" for name, fold, _, category in rows]
    write_table(data, [HEADER, *lines])
    assert len(load(prep.prepare_esc50(data, out))["train"]) == 6


def test_table_that_is_no_text(data, out):
    """A binary file is refused."""
    (data / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(LMACError, match="esc50.csv: is not a csv file"):
        prep.prepare_esc50(data, out)


def test_table_with_byte_order_mark(data, out):
    """A csv with a byte order mark is accepted."""
    table = data / "meta" / "esc50.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(load(prep.prepare_esc50(data, out))["train"]) == 6


@pytest.mark.parametrize(
    "name",
    [
        "../x.wav",
        "../../x.wav",
        "/etc/passwd",
        "deep/x.wav",
        "..\\x.wav",
        "C:x.wav",
        "..",
        "...wav",
        ".wav",
        "",
    ],
)
def test_names_that_leave_the_folder(data, out, name):
    """Names with separators are refused: ids become names of folders."""
    sf.write(data / "x.wav", noise(), RATE)
    write_table(data, [*read_table(data), f"{name},1,0,dog"])
    with pytest.raises(LMACError, match="line 12: .*not the plain name"):
        prep.prepare_esc50(data, out, skip_bad_clips=True)


def spoil(data):
    """Spoil seven clips, each in another way; return reasons by name."""
    audio = data / "audio"
    (audio / "1-dog.wav").unlink()
    (audio / "1-rain.wav").write_bytes(b"no audio")
    sf.write(audio / "2-dog.wav", np.zeros(0), RATE)
    wav = noise().astype(np.float32)
    wav[5] = np.nan
    sf.write(audio / "2-rain.wav", wav, RATE, subtype="FLOAT")
    content = (audio / "3-dog.wav").read_bytes()
    (audio / "3-dog.wav").write_bytes(content[:-2])
    sf.write(audio / "4-dog.wav", noise(0.09), RATE)
    sf.write(audio / "5-dog.wav", np.zeros((RATE, 2)), RATE)
    return {
        "1-dog": "1-dog.wav: no such file",
        "1-rain": "1-rain.wav: cannot be read",
        "2-dog": "2-dog.wav: holds no samples",
        "2-rain": "2-rain.wav: holds NaN",
        "3-dog": "3-dog.wav: truncated",
        "4-dog": "4-dog.wav: 0.0900 s",
        "5-dog": "5-dog.wav: is silent",
    }


def test_bad_clips_stop_the_run(data, out):
    """One error lists every unusable clip with the reason."""
    reasons = spoil(data)
    with pytest.raises(LMACError, match="7 of 10 clips cannot") as error:
        prep.prepare_esc50(data, out)
    for reason in reasons.values():
        assert reason in str(error.value)
    assert str(error.value).endswith(
        "\nRepair them, or leave them out with `skip_bad_clips: True` (on the "
        "command line: --skip_bad_clips True)"
    )
    assert not out.exists()


def test_good_manifests_survive_bad_clips(data, out):
    """A wrong audio folder does not replace good manifests."""
    prep.prepare_esc50(data, out)
    before = tree(out)
    os.rename(data / "audio", data / "music")
    with pytest.raises(LMACError, match="audio: no such folder"):
        prep.prepare_esc50(data, out)
    (data / "audio").mkdir()
    with pytest.raises(LMACError, match="10 of 10 clips"):
        prep.prepare_esc50(data, out)
    with pytest.raises(LMACError, match="no usable clip is left for train"):
        prep.prepare_esc50(data, out, skip_bad_clips=True)
    assert tree(out) == before


def test_long_list_of_bad_clips(data, out):
    """At most ten clips are listed, the others counted."""
    lines = read_table(data) + [f"no{i}.wav,1,0,dog" for i in range(13)]
    write_table(data, lines)
    with pytest.raises(LMACError, match="and 3 more") as error:
        prep.prepare_esc50(data, out)
    assert str(error.value).count("no such file") == 10


def test_bad_clips_of_other_folds_do_not_matter(data, out):
    """Only the clips of the chosen folds are checked."""
    (data / "audio" / "1-dog.wav").unlink()
    with pytest.raises(LMACError, match="1 of 6 clips"):
        prep.prepare_esc50(data, out, splits([1], [4], [5]))
    prep.prepare_esc50(data, out, splits([2], [4], [5]))


def test_skip_bad_clips(data, out, caplog):
    """What is skipped is listed, in the log and in a file, every time."""
    reasons = spoil(data)
    write_table(data, [*read_table(data), "1-cat.wav,1,0,dog"])
    sf.write(data / "audio" / "1-cat.wav", noise(), RATE)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = load(prep.prepare_esc50(data, out, skip_bad_clips=True))
        assert list(found["train"]) == ["3-rain", "1-cat"]
        assert list(found["valid"]) == ["4-rain"]
        for reason in reasons.values():
            assert reason in caplog.text
    skipped = json.loads((out / "skipped.json").read_text())
    assert [item["id"] for item in skipped] == list(reasons)
    for item in skipped:
        assert reasons[item["id"]] in item["reason"]
    with pytest.raises(LMACError, match="7 of 11 clips"):
        prep.prepare_esc50(data, out)


def test_class_without_training_clip(data, out):
    """A class that training lacks is an error, also after skipping."""
    (data / "audio" / "1-dog.wav").unlink()
    with pytest.raises(LMACError, match="valid has classes .* folds: dog"):
        prep.prepare_esc50(data, out, splits(1, 4, 5), skip_bad_clips=True)
    assert not out.exists()


def test_interrupted_writing(data, out, monkeypatch):
    """A write that fails leaves the old manifest, and no temporary file."""
    prep.prepare_esc50(data, out)
    before = tree(out)

    def fail(source, target):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(LMACError, match="no space left"):
            prep.prepare_esc50(data, out, splits(1, 2, 3))
    assert tree(out) == before


def test_typo_downloads_nothing(tmp_path, out, monkeypatch):
    """A missing folder is an error that says how to download the data."""

    def fail(*args, **kwargs):
        raise AssertionError("a download was started")

    monkeypatch.setattr("pooch.create", fail)
    with pytest.raises(LMACError) as error:
        prep.prepare_esc50(tmp_path / "typo", out)
    assert f"{tmp_path}/typo/meta/esc50.csv: not found" in str(error.value)
    assert "download: True" in str(error.value)
    assert "--download True" in str(error.value)
    assert os.listdir(tmp_path) == []


def test_present_data_is_not_downloaded(data, out, monkeypatch):
    """`download` does nothing where the data are."""
    monkeypatch.setattr(prep, "download_esc50", None)
    prep.prepare_esc50(data, out, download=True)


def archive(members=None, folder="ESC-50-master/", links=()):
    """A zip as the release's: bytes."""
    content = io.BytesIO()
    if members is None:
        wav = io.BytesIO()
        sf.write(wav, noise(), RATE, format="WAV")
        lines = [HEADER]
        members = {}
        for fold in range(1, 6):
            lines.append(f"{fold}-dog.wav,{fold},0,dog")
            members[f"{folder}audio/{fold}-dog.wav"] = wav.getvalue()
        members[f"{folder}meta/esc50.csv"] = "\n".join(lines)
    with zipfile.ZipFile(content, "w") as file:
        for name, member in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o120777 if name in links else 0o644) << 16
            file.writestr(info, member)
    return content.getvalue()


class Server:
    """A server on 127.0.0.1 with faults that a test chooses.

    Arguments
    ---------
    content : bytes
        What it serves.
    breaks : list of int
        After how many bytes the first answers break off.
    sized : bool
        Whether it sends Content-Length, else chunks.
    status : int or None
        Status of every answer, without content.
    """

    def __init__(self, content, breaks=(), sized=True, status=None):
        self.content, self.breaks = content, list(breaks)
        self.sized, self.status = sized, status
        self.requests = 0

    def answer(self, handler):
        """Answer one request."""
        self.requests += 1
        body = self.content
        handler.send_response(self.status or 200)
        if self.sized:
            handler.send_header("Content-Length", str(len(body)))
        else:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        broken = bool(self.breaks)
        if broken:
            body = body[: self.breaks.pop(0)]
        if self.sized:
            handler.wfile.write(body)
        else:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            if not broken:
                handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True


@contextlib.contextmanager
def serve(server):
    """Run a server; gives the archive's address."""

    class Handler(BaseHTTPRequestHandler):
        """Hands each request to the server's object."""

        protocol_version = "HTTP/1.1"

        def do_GET(self):
            """Answer."""
            server.answer(self)

        def log_message(self, *args):
            """Stay silent."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/master.zip"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Attempts follow each other at once, past any proxy."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("folder", ["ESC-50-master/", ""])
@pytest.mark.parametrize("sized", [True, False])
def test_download(tmp_path, out, monkeypatch, folder, sized):
    """On request, the data is downloaded and prepared."""
    target = tmp_path / "new" / "ESC-50"
    server = Server(archive(folder=folder), sized=sized)
    with serve(server) as url:
        monkeypatch.setattr(prep, "ESC50_URL", url)
        found = load(prep.prepare_esc50(target, out, download=True))
    assert list(found["train"]) == ["1-dog", "2-dog", "3-dog"]
    assert server.requests == 1
    assert os.listdir(tmp_path / "new") == ["ESC-50"]
    assert {"audio", "meta"} == set(os.listdir(target))


def test_download_into_an_empty_folder(tmp_path):
    """An existing empty folder is filled."""
    (tmp_path / "data").mkdir()
    with serve(Server(archive())) as url:
        prep.download_esc50(tmp_path / "data", url)
    assert os.listdir(tmp_path) == ["data"]
    assert (tmp_path / "data" / "meta" / "esc50.csv").is_file()


@pytest.mark.parametrize("sized", [True, False])
def test_a_broken_connection(tmp_path, sized):
    """One that breaks off twice is tried a third time, from the start."""
    server = Server(archive(), breaks=[1000, 500], sized=sized)
    with serve(server) as url:
        prep.download_esc50(tmp_path / "data", url)
    assert server.requests == 3
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("sized", [True, False])
def test_a_connection_that_stays_broken(tmp_path, sized):
    """Told in one line, and nothing is left; the next call starts anew."""
    server = Server(archive(), breaks=[100] * prep.ATTEMPTS, sized=sized)
    with serve(server) as url:
        with pytest.raises(LMACError) as error:
            prep.download_esc50(tmp_path / "data", url)
        assert str(error.value).startswith(f"{url}: could not be downloaded")
        assert str(tmp_path / "data") in str(error.value)
        assert "\n" not in str(error.value)
        assert server.requests == prep.ATTEMPTS
        assert os.listdir(tmp_path) == []
        prep.download_esc50(tmp_path / "data", url)
    assert server.requests == prep.ATTEMPTS + 1
    assert os.listdir(tmp_path) == ["data"]


def test_download_without_pooch(tmp_path, monkeypatch):
    """Says how to get it."""
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        LMACError, match=r'run: pip install "lmac-sb\[download\]"'
    ):
        prep.download_esc50(tmp_path / "data", "http://127.0.0.1:9/x.zip")
    assert os.listdir(tmp_path) == []


def damaged():
    """An archive with a changed byte in a member."""
    content = bytearray(archive())
    content[200] ^= 0xFF
    return bytes(content)


INSIDE = "ESC-50-master/meta/esc50.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "not a zip"),
        (damaged(), "not usable: its member"),
        (archive({"readme.txt": "other data"}), "has no audio/ and meta/"),
        (archive({}), "has no audio/ and meta/"),
        (archive({INSIDE: "x"}), "has no audio/ and meta/"),
        (archive({INSIDE: "x", "../evil": "x"}), "'../evil' would leave"),
        (archive({"a/../../evil": "x"}), "would leave"),
        (archive({"/tmp/evil": "x"}), "would leave"),
        (archive({"..\\evil": "x"}), "would leave"),
        (archive({"C:/evil": "x"}), "would leave"),
        (archive({"link": "/etc"}, links=("link",)), "would leave"),
    ],
)
def test_wrong_archive(tmp_path, content, message):
    """An archive that is wrong or dangerous is removed, nothing is left."""
    target = tmp_path / "deep" / "er" / "data"
    with serve(Server(content)) as url:
        with pytest.raises(LMACError, match=message) as error:
            prep.download_esc50(target, url)
    assert url in str(error.value) and str(target) in str(error.value)
    assert os.listdir(tmp_path) == []


def test_archive_bomb(tmp_path, monkeypatch):
    """An archive that unpacks to too much is refused before unpacking."""
    monkeypatch.setattr(prep, "MAX_UNPACKED_BYTES", 10_000)
    content = archive({INSIDE: bytes(10_001)})
    assert len(content) < 1000
    with serve(Server(content)) as url:
        with pytest.raises(LMACError, match="unpacks to 10001 bytes"):
            prep.download_esc50(tmp_path / "data", url)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 5)])
def test_status(tmp_path, status, attempts):
    """Permanent errors are not retried, and nothing is left."""
    server = Server(b"", status=status)
    with serve(server) as url:
        with pytest.raises(LMACError, match=f"HTTP status {status}"):
            prep.download_esc50(tmp_path / "a" / "data", url)
    assert server.requests == attempts
    assert os.listdir(tmp_path) == []


def test_no_server(tmp_path):
    """The message names address and target."""
    with serve(Server(b"")) as url:
        pass
    with pytest.raises(LMACError, match=f"{url}: could not be down") as error:
        prep.download_esc50(tmp_path / "data", url)
    for told in ("no connection", "by hand", str(tmp_path / "data")):
        assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_folder_in_use(data):
    """Nothing is downloaded over other files."""
    (data / "meta" / "esc50.csv").unlink()
    before = tree(data)
    with pytest.raises(LMACError, match="is not an empty folder"):
        prep.download_esc50(data, "http://127.0.0.1:9/x.zip")
    assert tree(data) == before


def test_address_of_another_kind(tmp_path):
    """Only web addresses are downloaded."""
    with pytest.raises(LMACError, match="file:///etc: expected an address"):
        prep.download_esc50(tmp_path / "data", "file:///etc")


def test_real_data(real_data, out):
    """ESC-10 as Ogg: counts per fold and class, and the stored hashes."""
    paths = prep.prepare_esc50(real_data / "esc10", out, splits([1], [2], [3]))
    found = load(paths)
    summary = json.loads((out / "prepared.json").read_text())
    for split, fold in (("train", 1), ("valid", 2), ("test", 3)):
        clips = found[split].values()
        assert len(clips) == 80
        assert {clip["fold"] for clip in clips} == {fold}
        assert len({clip["class_string"] for clip in clips}) == 10
        assert all(3.5 < clip["duration"] < 7.3 for clip in clips)
        content = open(paths[split], "rb").read()
        assert summary["sha256"][split] == hashlib.sha256(content).hexdigest()
