"""An audit from end to end, of sounds whose answers are known."""

import json
import sys
from typing import NamedTuple

import pandas as pd
import pytest
import torch

from lmac_sb import LMACError, LMACInterpreter
from lmac_sb.audit import rows
from lmac_sb.audit.run import Options, run_audit
from lmac_sb.audit.tables import table_rows
from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.pages.audit import write_audit_page

RATE = 16000
FEW = Options(examples=4)
NONE = Options(examples=0)
CLASSES = ["high", "low", "noise"]


class Bands(torch.nn.Module):
    """Decides by the energy below 1 kHz, above 4 kHz, and in between."""

    def forward(self, wavs):
        window = torch.hann_window(512)
        stft = torch.stft(wavs, 512, window=window, return_complex=True)
        energy = (stft.abs() ** 2).mean(2)
        parts = (energy[:, 128:], energy[:, :32], energy[:, 40:120])
        sums = torch.stack([part.sum(1) for part in parts], 1)
        return 3 * torch.log(sums + 1e-4)


class Clip(NamedTuple):
    """A clip of a corpus in memory."""

    id: str
    place: str
    label: str
    columns: dict
    wav: object

    def read(self, rate):
        if self.wav is None:
            raise LMACError(f"{self.place}: cannot be read")
        return self.wav


class Corpus(list):
    """A corpus in memory."""

    def __init__(self, clips, name="sounds"):
        super().__init__(clips)
        self.name = name
        self.columns = list(clips[0].columns) if clips else []
        self.classes = sorted({x.label for x in clips if x.label})
        self.notes, self.lost = [], []
        self.label = lambda place: self[place].label
        self.identity = {"name": name, "ids": [x.id for x in clips]}


class Hum(torch.nn.Module):
    """Calls a clip a dog if there is a hum, whatever barks."""

    def forward(self, wavs):
        window = torch.hann_window(2048)
        stft = torch.stft(wavs, 2048, window=window, return_complex=True)
        hum = (stft.abs()[:, 5:12] ** 2).mean((1, 2))
        level = 2 * torch.log(hum + 1e-4)
        return torch.stack([level, torch.zeros_like(level)], 1)


@pytest.fixture(scope="module")
def interpreter():
    return LMACInterpreter.from_classifier(Bands(), RATE, CLASSES, steps=4)


def tone(hz, seed, seconds=0.5):
    """A tone in the second half, and faint noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(RATE * seconds)) / RATE
    wav = torch.sin(2 * torch.pi * hz * time) / 2
    wav[: len(wav) // 2] = 0
    return wav + 1e-3 * torch.randn(len(wav), generator=generator)


def clips(n=6, labels=True):
    """Tones; the last of the high ones is labelled low."""
    found = []
    for i in range(n):
        for name, hz in (("low", 300), ("high", 5000)):
            label = "low" if (i, name) == (n - 1, "high") else name
            site = "ab"[i % 2]
            found.append(
                Clip(
                    f"{name}/{i}.wav",
                    f"/data/secret/{name}/{i}.wav",
                    label if labels else None,
                    {"site": site, "file": f"{name}{i}"},
                    tone(hz + 10 * i, i),
                )
            )
    return found


@pytest.fixture(scope="module")
def out(interpreter, tmp_path_factory):
    """A finished audit, with one clip that cannot be read."""
    out = tmp_path_factory.mktemp("audit") / "out"
    bad = Clip("bad.wav", "/data/secret/bad.wav", "low", {"site": "a"}, None)
    run_audit(Corpus([*clips(), bad]), interpreter, out, FEW)
    return out


def test_all_that_is_promised_is_there(out):
    names = {str(x.relative_to(out)) for x in out.rglob("*") if x.is_file()}
    tables = ("clips", "classes", "groups", "alarms", "confusions")
    assert names >= {
        f"tables/{x}.{e}" for x in tables for e in ("csv", "parquet")
    }
    assert names >= {"plots/bands.png", "plots/times.svg", "plots/verdicts.svg"}
    assert names >= {"job.json", "audit.json", "rows/part-00000.parquet"}
    page = write_audit_page(out)
    assert "high" in page.read_text("utf-8")


def test_rows_are_a_clip_each_and_failed_ones_are_counted(out):
    frame = pd.read_parquet(out / "tables" / "clips.parquet")
    assert len(frame) == 13 and frame["id"].is_unique
    (error,) = frame["error"].dropna()
    assert error == "bad.wav: cannot be read"
    audit = json.loads((out / "audit.json").read_text())
    assert audit["corpus"]["n_failed"] == 1
    assert audit["failed"] == [{"id": "bad.wav", "error": error}]
    assert "secret" not in (out / "audit.json").read_text()
    csv = pd.read_csv(out / "tables" / "clips.csv")
    assert csv["id"].tolist() == frame["id"].tolist()
    assert csv["band_03"].tolist() == pytest.approx(
        frame["band_03"].tolist(), nan_ok=True
    )


def test_what_is_listened_to_is_found(out):
    audit = json.loads((out / "audit.json").read_text())
    found = {x["name"]: x for x in audit["classes"]}
    assert set(found) == {"high", "low"}
    bands = found["low"]["bands"]
    heard = sum(
        mean
        for mean, top in zip(bands["mean"], bands["edges_hz"][1:])
        if top < 1100
    )
    assert heard > 0.9
    assert sum(found["high"]["times"]["mean"][8:]) > 0.95
    assert (found["high"]["n"], found["high"]["n_wrong"]) == (6, 1)
    assert found["low"]["labelled"]["n_missed"] == 1
    (pair,) = audit["confusions"]
    assert (pair["label"], pair["decision"], pair["n"]) == ("low", "high", 1)
    assert "For high rather than low speaks: " in pair["text"]
    assert "kHz" in pair["groups"][0]["text"]


def test_examples_are_folders_to_hear(out):
    audit = json.loads((out / "audit.json").read_text())
    assert set(audit["examples"]) == {
        x.name for x in (out / "examples").iterdir()
    }
    for name, example in audit["examples"].items():
        info = read_clip(out / "examples" / name).info
        assert (info["id"], info["label"]) == (name, example["label"])
        assert info["decision"] == example["decision"]
    (name,) = audit["confusions"][0]["groups"][0]["examples"]
    info = read_clip(out / "examples" / name).info
    assert info["answer"]["name"] == "high rather than low"


def test_again_nothing_is_explained_twice(out, interpreter, monkeypatch):
    before = (out / "audit.json").read_bytes()
    bad = Clip("bad.wav", "/elsewhere/bad.wav", "low", {"site": "a"}, None)

    def refuse(*args, **how):
        raise AssertionError("explained again")

    monkeypatch.setattr(interpreter, "explain_sound", refuse)
    run_audit(Corpus([*clips(), bad]), interpreter, out, FEW)
    assert (out / "audit.json").read_bytes() == before


def test_other_options_are_refused(out, interpreter):
    bad = Clip("bad.wav", "/elsewhere/bad.wav", "low", {"site": "a"}, None)
    corpus = Corpus([*clips(), bad])
    with pytest.raises(LMACError, match="options.seed: there 0, here 3"):
        run_audit(corpus, interpreter, out, FEW._replace(seed=3))
    with pytest.raises(LMACError, match="items: there 13, here 12"):
        run_audit(Corpus(clips()), interpreter, out, FEW)


def test_a_seeded_draw(interpreter, tmp_path):
    corpus, ids = Corpus(clips()), []
    for seed in (0, 0, 1):
        out = tmp_path / str(len(ids))
        run_audit(corpus, interpreter, out, NONE._replace(limit=4, seed=seed))
        table = pd.read_csv(out / "tables" / "clips.csv")
        ids.append(table["id"].tolist())
    assert len(ids[0]) == 4 and ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        (Corpus(clips(1, labels=False)), "no labels: wrong decisions"),
        (Corpus(clips(1)[:1]), None),
        (Corpus(clips(1)[:2]), None),
        (Corpus([clip for clip in clips(3) if clip.label == "high"]), None),
        (
            Corpus([clips(1)[0]._replace(label="owl")]),
            "1 of 1 labels are no classes of the model, and count as unknown: "
            "'owl'; --classes-map",
        ),
    ],
)
def test_little_is_audited_too(corpus, said, interpreter, tmp_path, caplog):
    found = run_audit(corpus, interpreter, tmp_path / "out", NONE)
    write_audit_page(tmp_path / "out")
    assert found["classes"]
    if said is None:
        assert not any("label" in note for note in found["notes"])
    else:
        assert found["notes"][0].startswith(said)
        assert said in caplog.text
        assert not found["corpus"]["labels"]
        unknown = ["owl"] if "owl" in said else []
        assert found["corpus"]["unknown_labels"] == unknown
        assert found["classes"][0]["n_wrong"] is None


def bark(i, hum):
    """A burst in the middle, and perhaps a faint hum below it."""
    generator = torch.Generator().manual_seed(i)
    wav = 1e-3 * torch.randn(RATE, generator=generator)
    time = torch.arange(RATE) / RATE
    burst = torch.sin(2 * torch.pi * (1500 + 50 * i) * time) / 2
    wav[6000:8000] += burst[6000:8000]
    return wav + hum * 0.01 * torch.sin(2 * torch.pi * 60 * time)


@pytest.fixture(scope="module")
def barks():
    """Dogs have a hum, and cats have none."""
    return Corpus(
        [
            Clip(f"{label}{i}.wav", label, label, {}, bark(i, label == "dog"))
            for label in ("cat", "dog")
            for i in range(10)
        ]
    )


def test_a_planted_hum_raises_an_alarm_with_clips_to_hear(barks, tmp_path):
    model = LMACInterpreter.from_classifier(
        Hum(), RATE, ["dog", "cat"], steps=2
    )
    found = run_audit(barks, model, tmp_path / "out", FEW)
    bands = [x for x in found["alarms"] if x["kind"] == "band"]
    assert {x["class"] for x in bands} <= {"dog", "cat"} and bands
    low, high = bands[0]["band_hz"]
    assert low <= 60 <= high
    assert found["n_tests"] > 20 and bands[0]["q"] >= bands[0]["p"]
    (first, *_) = found["alarms"][0]["examples"]
    assert read_clip(tmp_path / "out" / "examples" / first)
    write_audit_page(tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "tables" / "alarms.csv")
    assert table["text"].tolist() == [x["text"] for x in found["alarms"]]
    assert table["to_hz"].notna().sum() == len(bands)
    for columns, some in table_rows(found).values():
        assert all([*row] == columns for row in some)


def test_labelled_events_take_the_place_of_loud_ones(
    barks, tmp_path, monkeypatch
):
    seen = []
    real = rows.evidence

    def watched(interpreter, wav, found, donors, region):
        seen.append(region)
        return real(interpreter, wav, found, donors, region)

    monkeypatch.setattr(rows, "evidence", watched)
    model = LMACInterpreter.from_classifier(
        Hum(), RATE, ["dog", "cat"], steps=2
    )
    given = ({"onset": "0.25", "offset": "0.5"}, {"onset": "x", "offset": "1"})
    more = ({"onset": "1", "offset": "0.5"}, {"onset": None, "offset": "1"}, {})
    chosen = [barks[i]._replace(columns=x) for i, x in enumerate(given + more)]
    run_audit(Corpus(chosen), model, tmp_path / "out", NONE)
    assert seen == [(0.25, 0.5), None, None, None, None]


def test_without_interventions_there_are_no_such_tests(barks, tmp_path):
    model = LMACInterpreter.from_classifier(
        Hum(), RATE, ["dog", "cat"], steps=2
    )
    options = NONE._replace(interventions=False)
    found = run_audit(barks, model, tmp_path / "out", options)
    assert (found["alarms"], found["n_tests"]) == ([], 0)
    tables = tmp_path / "out" / "tables"
    clips = pd.read_parquet(tables / "clips.parquet")
    assert "rest_decision" not in clips and "band_00" in clips
    # A table of nothing is one that programs can read.
    for read, ending in ((pd.read_csv, "csv"), (pd.read_parquet, "parquet")):
        alarms = read(tables / f"alarms.{ending}")
        assert alarms.empty and {"class", "text", "to_hz"} <= {*alarms}


def test_classes_that_do_not_exclude_each_other(tmp_path):
    model = LMACInterpreter.from_classifier(
        Bands(), RATE, CLASSES, multilabel=True, steps=2
    )
    found = run_audit(Corpus(clips(2)), model, tmp_path / "out", NONE)
    assert found["corpus"]["n_failed"] == 0
    assert sum(x["n"] for x in found["classes"]) == 4


def test_long_clips_are_audited_as_a_whole(interpreter, tmp_path):
    """Longer than a window of ten seconds."""
    long = clips(1)[1]._replace(wav=tone(5000, 0, seconds=22))
    found = run_audit(Corpus([long]), interpreter, tmp_path / "out", NONE)
    (decided,) = [x for x in found["classes"] if x["n"]]
    assert sum(decided["times"]["mean"][8:]) > 0.95
    clips_table = pd.read_csv(tmp_path / "out" / "tables" / "clips.csv")
    assert clips_table["seconds"].tolist() == [22.0]


def test_a_classes_map_says_which_label_is_which(interpreter, tmp_path):
    corpus = Corpus([clips(1)[0]._replace(label="hum")])
    options = NONE._replace(classes_map={"hum": "low"})
    found = run_audit(corpus, interpreter, tmp_path / "out", options)
    assert found["classes"][0]["n_wrong"] == 0


def test_no_clip_at_all(interpreter, tmp_path):
    with pytest.raises(LMACError, match="sounds: found no clips"):
        run_audit(Corpus([]), interpreter, tmp_path / "out")
    bad = [x._replace(wav=None) for x in clips(1)]
    with pytest.raises(LMACError, match="none of the 2 clips .*low/0.wav: can"):
        run_audit(Corpus(bad), interpreter, tmp_path / "out")


@pytest.mark.parametrize("name", ["pandas", "sklearn", "pyarrow"])
def test_a_missing_package_is_told_before_any_work(
    name, interpreter, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LMACError, match=rf"{name}: not installed.*\[corpus\]"):
        run_audit(Corpus(clips(1)), interpreter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_valid_text(interpreter, tmp_path):
    """Such as those of files in another encoding."""
    clip = clips(1)[0]._replace(id="caf\udce9.wav", label="caf\udce9")
    corpus = Corpus([clip], name="\udce9")
    run_audit(corpus, interpreter, tmp_path / "out", FEW)
    write_audit_page(tmp_path / "out")
    text = (tmp_path / "out" / "audit.json").read_text("utf-8")
    assert "\\\\udce9" in text
