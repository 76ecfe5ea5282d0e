"""Tests of the report page as a file; tests/browser opens it."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import stat
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
import torch
from PIL import Image

from lmac_sb.inference.clip_facts import is_right
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.pages import clip_data
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.report import write_report
from lmac_sb.utils.errors import LMACError

RATE, SAMPLES, BINS = 8000, 4000, 33
SOUNDS = ("original", "interpretation", "residual")
WINDOW = {"start": 0.0, "end": 0.5, "decision": "dog", "verdict": "silent"}
WINDOW |= dict.fromkeys(("p", "p_in", "p_out"), 0.5)
HOSTILE = "</script><script>alert(1)</script><!--\u2028'\"&amp;"


def write_clip(
    folder, name="a", mask=None, ending="wav", level=None, **changes
):
    """Write a clip in the report's format, independently."""
    path = folder / name
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    if mask is None:
        mask = rng.integers(256, size=(40, BINS), dtype=np.uint8)
    if level is None:
        level = np.arange(mask.size, dtype=np.uint8).reshape(mask.shape)
    np.savez_compressed(path / "maps.npz", mask=mask, level=level)
    tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / RATE)
    for sound, share in zip(SOUNDS, (0.5, 0.4, 0.1)):
        sf.write(path / f"{sound}.{ending}", share * tone, RATE, "PCM_16")
    facts = {
        "id": name,
        "file": f"/secret/place/{name}.wav",
        "label": "dog",
        "decision": "dog",
        "classes": ["dog", "cat", "hen", "cow", "pig"],
        "p": [0.6, 0.2, 0.1, 0.06, 0.04],
        "p_in": [0.7, 0.1, 0.1, 0.05, 0.05],
        "p_out": [0.1, 0.1, 0.1, 0.1, 0.6],
        "metrics": {"FF": 0.5, "AI": 100.0, "own": None},
        "sample_rate": RATE,
        "n_samples": SAMPLES,
        "hop_samples": 100,
        "n_bins": mask.shape[1],
        "gain": 1.0,
        "threshold": None,
        "refine_steps": 0,
        "verdict": "faithful",
        "stable": None,
        "agreement": {},
        **changes,
    }
    text = json.dumps(facts)
    (path / "explanation.json").write_text(text, encoding="utf-8")
    return path


class Page(HTMLParser):
    """The elements and blocks of data of a page."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tags, self.blocks, self.inline, self._block = [], {}, {}, None
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag in ("script", "style"):
            self._block = attrs.get("id", tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._block = None

    def handle_data(self, data):
        if self._block:
            self.inline[self._block] = self.inline.get(self._block, "") + data

    def data(self, name):
        """A block of data."""
        return json.loads(self.inline[name])

    def policy(self):
        """The page's own restrictions, by directive."""
        (content,) = (
            attrs["content"]
            for tag, attrs in self.tags
            if tag == "meta" and "http-equiv" in attrs
        )
        parts = (part.split() for part in content.split(";"))
        return {part[0]: part[1:] for part in parts}


def picture(base64_png):
    """Pixels 0 to 255 of a picture."""
    file = io.BytesIO(base64.b64decode(base64_png))
    return np.round(matplotlib.image.imread(file) * 255).astype(int)


def test_page_is_one_file_that_names_nothing_outside(tmp_path):
    write_clip(tmp_path)
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "report.html"]
    page = Page(path)
    addresses = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert addresses == ["data:,"]
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert "@import" not in page.text


def test_policy_allows_the_own_text_only(tmp_path):
    write_clip(tmp_path)
    page = Page(write_report(tmp_path))
    policy = page.policy()
    assert policy["default-src"] == ["'none'"]
    assert policy["img-src"] == policy["media-src"] == ["data:"]
    for kind in ("style", "script"):
        digest = hashlib.sha256(page.inline[kind].encode()).digest()
        expected = f"'sha256-{base64.b64encode(digest).decode()}'"
        assert policy[f"{kind}-src"] == [expected]
    assert "{{" not in page.text.replace(page.inline["script"], "")


def test_what_the_page_says_of_a_clip(tmp_path):
    mask = np.zeros((40, BINS), np.uint8)
    mask[10:20, 22:33] = 255
    level = np.full_like(mask, 255)
    write_clip(tmp_path, mask=mask, level=level, label="cow")
    index = Page(write_report(tmp_path)).data("index")
    assert index["title"] == tmp_path.name
    # Known metrics in their order, with their direction, then others.
    assert index["metrics"] == [["AI", 1], ["FF", 1], ["own", 0]]
    (clip,) = index["clips"]
    assert (clip["id"], clip["file"]) == ("a", "a.wav")
    assert (clip["decision"], clip["explained"]) == ("dog", "dog")
    assert clip["label"] == "cow"
    assert clip["probabilities"] == [0.6, 0.7, 0.1]
    # Three probable classes, the label, and the most probable one outside.
    assert [bar[0] for bar in clip["bars"]] == "dog cat hen cow pig".split()
    assert clip["bars"][4] == ["pig", 0.04, 0.05, 0.6]
    assert clip["metrics"] == {"FF": 0.5, "AI": 100.0, "own": None}
    assert (clip["seconds"], clip["kilohertz"]) == (0.5, 4.0)
    assert clip["area"] == pytest.approx(10 * 11 / (40 * BINS))
    # 80 % of ten frames of 12.5 ms, and of eleven bins of 4/33 kHz.
    t0, t1, f0, f1 = clip["spread"]
    assert (t0, t1) == (0.125, 0.2375)
    assert (f0, f1) == pytest.approx((23 * 4 / 33, 32 * 4 / 33))


def test_where_most_is_heard(tmp_path):
    """A mask over what is silent or quiet does not count."""
    mask, level = np.zeros((2, 40, BINS), np.uint8)
    mask[:30, :22] = 255
    level[10:20, 11:22] = 255
    level[20:30] = 1  # 80 dB below, which nobody sees
    write_clip(tmp_path, mask=mask, level=level)
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    kept = [
        [
            mask[t, f] * 10 ** (80 * (level[t, f] / 255 - 1) / 20)
            if level[t, f]
            else 0
            for f in range(BINS)
        ]
        for t in range(40)
    ]
    times, bins = [sum(row) for row in kept], [sum(x) for x in zip(*kept)]
    bounds = []
    for sums, size in ((times, 0.5), (bins, 4.0)):
        inside = [
            place
            for place in range(len(sums))
            if sum(sums[: place + 1]) >= 0.1 * sum(sums)
            and sum(sums[:place]) < 0.9 * sum(sums)
        ]
        ends = inside[0], inside[-1] + 1
        bounds += [end / len(sums) * size for end in ends]
    assert clip["spread"] == pytest.approx(bounds)
    assert 0.125 <= clip["spread"][0] < clip["spread"][1] <= 0.25
    assert clip["area"] == pytest.approx(30 * 22 / (40 * BINS))


def test_verdicts(tmp_path):
    """Of each clip, mask and window, with what each verdict means."""
    known = {
        "stable": False,
        "agreement": {"shift and noise": 0.5},
        "windows": [{**WINDOW, "more": 1}],
    }
    write_clip(tmp_path, "a", verdict="silent", **known)
    write_clip(tmp_path, "b")
    index = Page(write_report(tmp_path)).data("index")
    first, second = index["clips"]
    assert {key: first[key] for key in ("stable", "agreement")} == {
        key: known[key] for key in ("stable", "agreement")
    }
    assert first["windows"] == [WINDOW]
    assert [clip["verdict"] for clip in (first, second)] == [
        "silent",
        "faithful",
    ]
    assert second["stable"] is None
    names = [name for name, _ in index["verdicts"]]
    assert names[0] == "faithful"
    assert sorted(names) == sorted(VERDICTS)
    assert dict(index["verdicts"]) == VERDICTS


def test_few_bars_of_many_classes(tmp_path):
    n = 50
    flat = [1 / n] * n
    sure = [0.9] + [0.1 / (n - 1)] * (n - 1)
    write_clip(
        tmp_path,
        classes=[f"c{i}" for i in range(n)],
        decision="c0",
        label="c40",
        p=sure,
        p_in=sure,
        p_out=flat,
    )
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    assert [bar[0] for bar in clip["bars"]] == ["c0", "c1", "c2", "c40"]


def test_another_class_explained_than_decided(tmp_path):
    write_clip(tmp_path, decision="pig")
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    assert (clip["decision"], clip["explained"]) == ("dog", "pig")
    assert clip["probabilities"] == [0.04, 0.05, 0.6]


def test_unknown_values_and_an_empty_mask(tmp_path):
    mask = np.zeros((40, BINS), np.uint8)
    mask[0, 0] = 255  # where nothing sounds
    unknown = [None] * 5
    write_clip(tmp_path, mask=mask, p=unknown, p_in=unknown, p_out=unknown)
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    assert clip["decision"] == "dog"
    assert clip["probabilities"] == [None] * 3
    assert clip["spread"] is None


def test_pictures_are_small_and_upright(tmp_path):
    mask = np.zeros((40, BINS), np.uint8)
    mask[3, 5] = 255
    mask[39, 0] = 130
    write_clip(tmp_path, mask=mask)
    heavy = Page(write_report(tmp_path)).data("clip-0")
    pixels = picture(heavy["mask"])
    assert pixels.shape == (BINS, 40)
    assert pixels[BINS - 1 - 5, 3] == 252  # white in 64 steps
    assert pixels[BINS - 1, 39] == 32 * 4
    assert pixels.sum() == 252 + 128
    level = np.arange(40 * BINS).reshape(40, BINS).T[::-1] % 256
    assert np.abs(picture(heavy["level"]) / 252 - level / 255).max() < 0.008


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (512, 256), (3, 5)])
def test_pictures_keep_every_pixel(shape):
    """Grey, one byte a pixel, time to the right and low notes below."""
    rng = np.random.default_rng(0)
    values = clip_data._coarsen(rng.integers(256, size=shape, dtype=np.uint8))
    file = Image.open(io.BytesIO(clip_data._png(values)))
    assert (file.format, file.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(file), values.T[::-1])


def test_what_is_heard_of_a_mask_on_log1p(tmp_path):
    """Its own map is drawn and summed up; the area is still the mask's."""
    mask = np.full((40, BINS), 128, np.uint8)
    level = np.full((40, BINS), 200, np.uint8)
    kept = np.zeros((40, BINS), np.uint8)
    kept[20:, :11] = 64
    path = write_clip(tmp_path, mask=mask, level=level)
    page = Page(write_report(tmp_path))
    (linear,) = page.data("index")["clips"]
    np.savez_compressed(path / "maps.npz", mask=mask, level=level, kept=kept)
    page = Page(write_report(tmp_path))
    (clip,) = page.data("index")["clips"]
    assert clip["area"] == linear["area"] == pytest.approx(128 / 255)
    seconds, kilohertz = SAMPLES / RATE, RATE / 2000
    assert linear["spread"][1] - linear["spread"][0] > 0.7 * seconds
    start, end, low, high = clip["spread"]
    assert 0.5 * seconds <= start < end <= seconds
    assert 0 <= low < high <= kilohertz / 3
    drawn = picture(page.data("clip-0")["mask"])
    assert not drawn[:, :20].any() and not drawn[:-11].any()
    assert (drawn[-11:, 20:] == 64).all()


def test_large_maps_shrink_to_means(tmp_path):
    rng = np.random.default_rng(1)
    mask = rng.integers(256, size=(1300, 513), dtype=np.uint8)
    write_clip(tmp_path, mask=mask)
    pixels = picture(Page(write_report(tmp_path)).data("clip-0")["mask"])
    assert pixels.shape == (256, 512)
    for row, column in [(0, 0), (0, 511), (255, 0), (255, 511), (100, 300)]:
        k = 255 - row
        frames = slice(column * 1300 // 512, (column + 1) * 1300 // 512)
        bins = slice(k * 513 // 256, (k + 1) * 513 // 256)
        mean = mask[frames, bins].mean() / 255
        assert abs(pixels[row, column] / 252 - mean) < 0.012


def test_sounds_are_those_of_the_clip(tmp_path):
    path = write_clip(tmp_path, ending="flac")
    sounds = Page(write_report(tmp_path)).data("clip-0")["sounds"]
    for name, uri in zip(SOUNDS, sounds):
        head, body = uri.split(",")
        # Safari plays no Ogg, and MP3 lacks this rate.
        assert head == "data:audio/wav;base64"
        found, rate = sf.read(io.BytesIO(base64.b64decode(body)))
        expected, _ = sf.read(path / f"{name}.flac")
        assert (rate, found.shape) == (RATE, expected.shape)
        error = np.abs(found - expected)[200:-200].max()
        assert error < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("rate", [1, 4000, 8000, 22050, 44100, 96001, 192000])
def test_sounds_of_any_rate(rate):
    kind, encoded = clip_data._pack([np.zeros(rate, np.float32)] * 2, rate)
    expected = "mpeg" if rate in (22050, 44100) else "wav"
    assert kind == f"audio/{expected}"
    assert sf.info(io.BytesIO(encoded)).frames == rate * 2
    assert sf.info(io.BytesIO(encoded)).samplerate == rate


@pytest.mark.parametrize("n_samples", [1, 2, 100, 16000])
def test_packed_sounds_keep_their_length_and_shape(n_samples):
    """MP3 adds and cuts nothing."""
    wav = np.sin(np.arange(n_samples) / 9, dtype=np.float32) / 2
    kind, encoded = clip_data._pack([wav[:50], wav[50:]], 16000)
    found, _ = sf.read(io.BytesIO(encoded))
    assert kind == "audio/mpeg" and found.shape == wav.shape
    if n_samples > 1000:
        error = (found - wav)[200:-200]
        assert np.std(error) < 0.1 * np.std(wav)


def test_without_mp3_sounds_are_wav(monkeypatch):
    """Some builds of libsndfile lack it."""
    monkeypatch.setattr(sf, "available_formats", lambda: {"WAV": "WAV"})
    assert clip_data._pack([np.zeros(9, np.float32)], 16000)[0] == "audio/wav"


def test_each_metric_and_verdict_has_a_sentence(tmp_path):
    assert set(MEANINGS) == set(METRICS)
    assert all(re.fullmatch(r"[A-Z][^.].*\.", x) for x in MEANINGS.values())
    assert len(set(MEANINGS.values())) == len(MEANINGS)
    write_clip(tmp_path)
    index = Page(write_report(tmp_path)).data("index")
    assert index["meanings"] == {name: MEANINGS[name] for name in ("AI", "FF")}


def test_anchors_stay_whichever_clips_are_beside(tmp_path):
    """They are the folders' names, as an address spells them."""
    for name in ("b ü#?%41", "a", "c"):
        write_clip(tmp_path, name, id="same")
    # A name that is no text.
    (tmp_path / "c").rename(tmp_path / "dog\udce9")
    write_clip(tmp_path / "class", "a")
    index = Page(write_report(tmp_path)).data("index")
    found = {clip["anchor"] for clip in index["clips"]}
    assert found == {"b%20%C3%BC%23%3F%2541", "a", "dog%E9", "class/a"}
    shutil.rmtree(tmp_path / "a")
    index = Page(write_report(tmp_path)).data("index")
    assert {clip["anchor"] for clip in index["clips"]} == found - {"a"}


@pytest.mark.parametrize(
    ("decisions", "headline"),
    [
        ([], True),
        (["dog", "dog"], True),
        (["dog", "cat"], False),
        (["cat", "cat"], False),
    ],
)
def test_a_long_clip_may_have_no_one_class(tmp_path, decisions, headline):
    """Its windows must agree with their mean, which says dog."""
    windows = [{**WINDOW, "decision": name} for name in decisions]
    write_clip(tmp_path, **({"windows": windows} if windows else {}))
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    assert clip["headline"] is headline


def test_sounds_beside_the_page(tmp_path):
    path = write_clip(tmp_path, "a b:#?%ü")
    page = Page(write_report(tmp_path, embed=False))
    sounds = page.data("clip-0")["sounds"]
    assert sounds[0] == "./a%20b%3A%23%3F%25%C3%BC/original.wav"
    assert sounds[2].endswith("/residual.wav")
    assert page.policy()["media-src"] == ["'self'", "file:"]
    assert (tmp_path / "report.html").stat().st_size < 60_000
    assert path.exists()
    with pytest.raises(LMACError, match="expected a page in that folder"):
        write_report(tmp_path, tmp_path / "a" / "x.html", embed=False)


def test_clips_come_in_the_order_of_counting(tmp_path):
    for name in ("clip10", "clip9", "clip1"):
        write_clip(tmp_path, name)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "summary.json").write_text("{}")
    index = Page(write_report(tmp_path)).data("index")
    ids = [clip["id"] for clip in index["clips"]]
    assert ids == ["clip1", "clip9", "clip10"]


def test_names_stay_data(tmp_path):
    plain, hostile = tmp_path / "plain", tmp_path / "hostile"
    write_clip(plain)
    write_clip(
        hostile,
        id=HOSTILE,
        file=HOSTILE,
        label=HOSTILE,
        decision=HOSTILE,
        classes=[HOSTILE, "{{script}}", "<!--<script>", "</SCRIPT >", "-->"],
        metrics={HOSTILE: 1.0, "__proto__": 2.0},
        agreement={HOSTILE: 1.0, "__proto__": 2.0},
    )
    pages = [Page(write_report(folder)) for folder in (plain, hostile)]
    assert pages[0].tags == pages[1].tags
    clip = pages[1].data("index")["clips"][0]
    assert (clip["id"], clip["label"]) == (HOSTILE, HOSTILE)
    assert clip["bars"][0][0] == HOSTILE
    assert clip["bars"][1][0] == "{{script}}"
    # No character that could end the block, and only ASCII.
    assert not re.search("[<>&]|[^ -~]", pages[1].inline["index"])


def test_folder_names_stay_data(tmp_path):
    folder = tmp_path / "<b>&'\"ü"
    write_clip(folder)
    page = Page(write_report(folder))
    assert page.data("index")["title"] == folder.name
    assert "<b>" not in page.text


def test_folders_of_the_file_stay_private(tmp_path):
    write_clip(tmp_path)
    assert "secret" not in write_report(tmp_path).read_text("utf-8")


def test_page_elsewhere_is_readable_like_any_file(tmp_path):
    write_clip(tmp_path / "clips")
    out = write_report(tmp_path / "clips", tmp_path / "new" / "page.html")
    assert out == tmp_path / "new" / "page.html"
    other = tmp_path / "other"
    other.write_text("")
    mode = stat.S_IMODE(os.stat(other).st_mode)
    assert stat.S_IMODE(out.stat().st_mode) == mode


# ---------------------------------------------------- masks before and after


def write_pair(folder, name="a", **changes):
    """Write a refined clip that holds its unrefined one."""
    path = write_clip(folder, name, refine_steps=5)
    beside = {
        "id": "unrefined",
        "file": f"{name}.wav",
        "p_in": [0.3, 0.3, 0.2, 0.1, 0.1],
        "p_out": [0.1, 0.5, 0.1, 0.1, 0.2],
        "metrics": {"FF": 0.25, "other": 3.0},
        "refine_steps": 0,
        **changes,
    }
    mask = np.zeros((40, BINS), np.uint8)
    mask[:20] = 255
    write_clip(path, "unrefined", mask, **beside)
    return path


def test_two_masks_of_a_clip(tmp_path):
    """A clip of two masks has pictures and sounds of both."""
    write_pair(tmp_path, "a")
    write_clip(tmp_path, "b", refine_steps=5)
    write_clip(tmp_path, "c")
    page = Page(write_report(tmp_path))
    index = page.data("index")
    a, b, c = index["clips"]
    assert [clip["id"] for clip in index["clips"]] == ["a", "b", "c"]
    assert [clip["refine_steps"] for clip in (a, b, c)] == [5, 5, 0]
    assert "unrefined" not in {**b, **c}
    other = a["unrefined"]
    assert other["refine_steps"] == 0
    assert a["probabilities"] == [0.6, 0.7, 0.1]
    assert other["probabilities"] == [0.6, 0.3, 0.1]
    assert (a["metrics"]["FF"], other["metrics"]["FF"]) == (0.5, 0.25)
    assert other["area"] == 0.5
    assert ["other", 0] in index["metrics"]
    blocks = {name for name in page.inline if name.startswith("clip-")}
    assert blocks == {"clip-0", "clip-0-unrefined", "clip-1", "clip-2"}
    heavy = [page.data(name) for name in ("clip-0", "clip-0-unrefined")]
    assert picture(heavy[1]["mask"]).mean() == 126
    assert heavy[0]["mask"] != heavy[1]["mask"]
    assert heavy[0]["level"] == heavy[1]["level"]
    assert len(heavy[1]["sounds"]) == 3


def test_sounds_of_both_masks_beside_the_page(tmp_path):
    write_pair(tmp_path, "a ü")
    page = Page(write_report(tmp_path, embed=False))
    for block, place in (("clip-0", ""), ("clip-0-unrefined", "unrefined/")):
        assert page.data(block)["sounds"] == [
            f"./a%20%C3%BC/{place}{sound}.wav" for sound in SOUNDS
        ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "b.wav"}, "file: found 'b.wav', expected 'a.wav'"),
        ({"label": "cat"}, "label: found 'cat', expected"),
        ({"decision": "cat"}, "explained: found 'cat', expected 'dog'"),
        ({"threshold": 0.5}, "threshold: found 0.5, expected None"),
        ({"refine_steps": 2}, "refine_steps: found 2, and 5 in the"),
        ({"n_samples": 3}, "found 4000 samples at 8000 Hz, expected 3"),
    ],
)
def test_masks_that_are_no_pair(tmp_path, changes, message):
    write_pair(tmp_path, **changes)
    with pytest.raises(LMACError, match=message) as caught:
        write_report(tmp_path)
    assert str(tmp_path / "a" / "unrefined") in str(caught.value)


def test_a_mask_without_steps_is_no_pair(tmp_path):
    path = write_clip(tmp_path)
    write_clip(path, "unrefined", file="a.wav")
    with pytest.raises(LMACError, match="found 0, and 0 in the refined"):
        write_report(tmp_path)


def test_an_unrefined_folder_that_is_broken(tmp_path):
    """A broken unrefined folder is an error."""
    path = write_pair(tmp_path)
    (path / "unrefined" / "maps.npz").unlink()
    with pytest.raises(LMACError, match=r"unrefined.maps\.npz: no such file"):
        write_report(tmp_path)


# -------------------------------------------------------------- broken input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "folder.*no such folder"),
        (lambda folder: folder.mkdir(), "holds no explained clips"),
        (
            lambda folder: folder.write_text(""),
            "folder: found a file, expected a folder of explanations",
        ),
        (lambda folder: write_clip(folder.parent, "folder"), "is itself one"),
        (
            lambda folder: (folder / "empty").mkdir(parents=True),
            r"empty.explanation\.json: no such file",
        ),
    ],
)
def test_folder_without_clips(tmp_path, make, message):
    make(tmp_path / "folder")
    with pytest.raises(LMACError, match=message):
        write_report(tmp_path / "folder")
    assert not list(tmp_path.rglob("*.html"))


def test_page_cannot_be_a_folder(tmp_path):
    write_clip(tmp_path)
    with pytest.raises(LMACError, match="a: is a folder, expected a file name"):
        write_report(tmp_path, tmp_path / "a")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("explanation.json", None, "no such file"),
        ("explanation.json", b"{", "cannot be read as JSON"),
        ("explanation.json", b"\xff\xfe", "cannot be read as JSON"),
        ("explanation.json", b"[" * 100000, "cannot be read as JSON"),
        ("explanation.json", b"[]", "holds no JSON object, expected one"),
        ("explanation.json", b"{}", "the key 'id' is missing"),
        ("maps.npz", None, "no such file"),
        ("maps.npz", b"", "cannot be read as maps"),
        ("maps.npz", b"no archive", "cannot be read as maps"),
        ("maps.npz", b"PK\x03\x04 no archive", "cannot be read as maps"),
        ("residual.wav", None, "found none, expected one of residual.wav or"),
        ("residual.wav", b"RIFF", "cannot be read as audio"),
        ("residual.flac", b"", "found residual.wav and residual.flac"),
    ],
)
def test_broken_file(tmp_path, file, content, message):
    write_clip(tmp_path, "good")
    broken = write_clip(tmp_path, "worse") / file
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(content)
    left_out = []
    page = Page(write_report(tmp_path, left_out=left_out))
    (error,) = left_out
    assert re.search(message, str(error))
    assert str(error).startswith(str(tmp_path / "worse"))
    index = page.data("index")
    assert [clip["id"] for clip in index["clips"]] == ["good"]
    assert "clip-1" not in page.inline
    (reason,) = index["left_out"]
    assert re.search(message, reason) and str(tmp_path) not in page.text
    # Alone, it makes no page.
    shutil.rmtree(tmp_path / "good")
    (tmp_path / "report.html").write_text("the earlier page")
    with pytest.raises(LMACError, match=message):
        write_report(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["report.html", "worse"]
    assert (tmp_path / "report.html").read_text() == "the earlier page"


@pytest.mark.parametrize(
    "file", ["explanation.json", "maps.npz", "residual.wav", ""]
)
def test_a_clip_that_may_not_be_read(shared, file):
    """It is left out, and nothing is said of what the file should hold."""
    write_clip(shared.folder, "good")
    closed = write_clip(shared.folder, "worse") / file
    write_report(shared.folder)
    closed.chmod(0)
    left_out = []
    with shared.without_rights():
        write_report(shared.folder, left_out=left_out)
    closed.chmod(0o700)
    file = closed if file else closed / "explanation.json"
    told = f"{file}: cannot be read (Permission denied)"
    assert list(map(str, left_out)) == [told]


def test_a_folder_that_may_not_be_read(shared):
    write_clip(shared.folder / "x", "good")
    (shared.folder / "x").chmod(0)
    with shared.without_rights(), pytest.raises(LMACError) as caught:
        write_report(shared.folder / "x")
    (shared.folder / "x").chmod(0o700)
    assert str(caught.value) == (
        f"folder of explanations: {shared.folder / 'x'} cannot be read "
        "(Permission denied)"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("id", 3, "id: found 3, expected a text"),
        ("file", [], r"file: found \[\], expected a text or null"),
        ("label", 1, "label: found 1"),
        ("classes", [], r"classes: found \[\], expected a list of names"),
        ("classes", ["dog", 1], "classes: found"),
        ("classes", ["dog"], "p: found 5 values for 1 classes"),
        ("decision", "cod", "decision: found 'cod', which is not among"),
        ("p", [1.5, 0, 0, 0, 0], "p: found .* expected a list of probab"),
        ("p_in", [True] * 5, "p_in: found"),
        ("p_out", [float("nan")] * 5, "NaN is no JSON, expected null"),
        ("metrics", {"AI": float("inf")}, "Infinity is no JSON"),
        ("metrics", {"AI": "x"}, "metrics: found .*, expected names with"),
        ("sample_rate", 0, "sample_rate: found 0"),
        ("sample_rate", 4000, "found 4000 samples at 8000 Hz, expected"),
        ("n_samples", 3999, "expected 3999 at 8000 Hz"),
        ("n_bins", 32, r"mask: found uint8 of shape \(40, 33\), expected"),
        ("threshold", "0.5", "threshold: found '0.5'"),
        ("windows", None, "windows: found None, expected a list of start"),
        ("windows", [{"start": 0.0}], "windows: found"),
        ("windows", ["x"], "windows: found"),
        ("windows", [{**WINDOW, "verdict": "good"}], "windows: found"),
        ("verdict", "good", "verdict: found 'good', expected one of 'silent'"),
        ("verdict", ["faithful"], "verdict: found"),
        ("stable", 1, "stable: found 1, expected True or False or null"),
        ("agreement", {"a": "b"}, "agreement: found .*, expected names with"),
        ("refine_steps", -1, "refine_steps: found -1, expected a whole number"),
        ("refine_steps", 1.5, "refine_steps: found 1.5"),
        ("refine_steps", True, "refine_steps: found True"),
    ],
)
def test_wrong_facts(tmp_path, key, value, message):
    write_clip(tmp_path, **{key: value})
    with pytest.raises(LMACError, match=message) as caught:
        write_report(tmp_path)
    assert str(tmp_path / "a") in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mask": (40, BINS)}, "level"),
        ({"mask": (40, BINS), "level": (39, BINS)}, "level: found uint8"),
        ({"mask": (0, BINS), "level": (0, BINS)}, "mask: found uint8"),
        ({"mask": (), "level": ()}, "mask: found uint8"),
        (
            {"mask": (40, BINS), "level": (40, BINS), "kept": (39, BINS)},
            "kept: found uint8",
        ),
        (
            dict.fromkeys(("mask", "level", "more"), (40, BINS)),
            "no item named .*kept.*",
        ),
        (
            dict.fromkeys(("mask", "level", "kept", "more"), (40, BINS)),
            "holds 4 members, expected 2 or 3",
        ),
    ],
)
def test_wrong_maps(tmp_path, arrays, message):
    path = write_clip(tmp_path) / "maps.npz"
    maps = {name: np.zeros(shape, np.uint8) for name, shape in arrays.items()}
    np.savez(path, **maps)
    with pytest.raises(LMACError, match=rf"a.maps\.npz: .*{message}"):
        write_report(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, object])
def test_maps_of_another_type(tmp_path, dtype):
    path = write_clip(tmp_path) / "maps.npz"
    values = np.zeros((40, BINS), dtype)
    np.savez(path, mask=values, level=values)
    with pytest.raises(LMACError, match=r"maps\.npz: "):
        write_report(tmp_path)


def test_maps_that_are_one_array(tmp_path):
    with open(write_clip(tmp_path) / "maps.npz", "wb") as file:
        np.save(file, np.zeros((40, BINS), np.uint8))
    with pytest.raises(LMACError, match=r"maps\.npz: cannot be read"):
        write_report(tmp_path)


# ------------------------------------------------- models, links, disks


def made(**changes):
    """What made a clip."""
    return {
        "model": "mine",
        "checksum": "0123456789abcdef0123",
        "lmac_sb": "0.1",
        "torch": "2.0",
        "speechbrain": "1.0",
        "date": "2026-01-02",
        **changes,
    }


def test_what_made_the_clips(tmp_path):
    """The model, its checksum, versions, and first and last day."""
    for i, day in enumerate(("2026-01-03", "2026-01-01", "2026-01-02")):
        write_clip(tmp_path, str(i), made=made(date=day))
    index = Page(write_report(tmp_path)).data("index")
    words = "mine (0123456789abcdef), lmac_sb 0.1, torch 2.0, speechbrain 1.0"
    assert index["made"] == [words]
    assert index["dates"] == ["2026-01-01", "2026-01-03"]
    write_clip(tmp_path / "former", "a")
    index = Page(write_report(tmp_path / "former")).data("index")
    assert (index["made"], index["dates"]) == ([], [])


@pytest.mark.parametrize(
    "other",
    [{"made": made(model="other")}, {"made": made(checksum="fedc")}, {}],
)
def test_models_are_not_mixed_silently(tmp_path, other):
    write_clip(tmp_path, "a", made=made())
    write_clip(tmp_path, "b", **other)
    with pytest.raises(LMACError, match="'a' by mine .*'b' by .*--mix-models"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    index = Page(write_report(tmp_path, mixed=True)).data("index")
    assert len(index["made"]) == 2
    assert {clip["made"] for clip in index["clips"]} == set(index["made"])


def test_clips_of_different_models_are_named_by_their_folders(tmp_path):
    """The sound may be the same."""
    write_clip(tmp_path / "former", "a", made=made())
    write_clip(tmp_path / "later", "a", made=made(model="other"))
    with pytest.raises(LMACError, match="'former/a' by mine .*'later/a' by"):
        write_report(tmp_path)


def test_two_masks_by_two_models(tmp_path):
    write_pair(tmp_path, made=made())
    with pytest.raises(LMACError, match="model: found .*expected None"):
        write_report(tmp_path)


@pytest.mark.parametrize("value", [None, [], {"model": "x"}, made(date=3)])
def test_what_cannot_have_made_a_clip(tmp_path, value):
    write_clip(tmp_path, made=value)
    with pytest.raises(LMACError, match="made: found"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("gain", "said"),
    [(1.0, []), (100.0, ["sounds played 40 dB louder"])],
)
def test_the_gain_is_said(tmp_path, gain, said):
    write_clip(tmp_path, gain=gain)
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    assert clip["notes"] == said


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("place", ["a", "a/unrefined", "a/original.wav"])
def test_links_are_left_out(tmp_path, place, embed):
    """A private recording does not come out inside of the page."""
    clips, private = tmp_path / "clips", tmp_path / "private"
    write_clip(clips, "good")
    write_pair(clips, "a")
    os.replace(clips / place, private)
    (clips / place).symlink_to(private)
    left_out = []
    page = Page(write_report(clips, embed=embed, left_out=left_out))
    (error,) = left_out
    assert str(error).startswith(f"{clips / place}: is a link")
    assert [clip["id"] for clip in page.data("index")["clips"]] == ["good"]


@pytest.mark.parametrize("name", ["report.html", "report.html.part"])
def test_the_page_follows_no_link(tmp_path, name):
    """It takes the place of the link, not of the file behind it."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    write_clip(tmp_path / "clips")
    (tmp_path / "clips" / name).symlink_to(mine)
    page = write_report(tmp_path / "clips")
    assert mine.read_text() == "mine"
    assert page.is_file() and not page.is_symlink()


def test_a_page_that_cannot_be_written(tmp_path, monkeypatch):
    """One line names it, on a read-only file system say."""
    write_clip(tmp_path)

    def refused(*arguments, **more):
        raise OSError(30, "Read-only file system", "x")

    monkeypatch.setattr("lmac_sb.utils.io.open", refused, raising=False)
    with pytest.raises(LMACError) as caught:
        write_report(tmp_path)
    page = tmp_path / "report.html"
    assert str(caught.value).endswith("(Read-only file system)")
    assert names_of(tmp_path) == ["a"]
    assert not page.exists()


def names_of(folder):
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk(tmp_path, monkeypatch):
    """It stays an error of the disk, which names the page."""
    write_clip(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmac_sb.utils.io.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left .*report\.html"):
        write_report(tmp_path)
    assert names_of(tmp_path) == ["a"]


def test_a_folder_that_is_a_file(tmp_path):
    """Folders with the names of files are folders like others."""
    write_clip(tmp_path, "explanation.json")
    index = Page(write_report(tmp_path)).data("index")
    assert [clip["id"] for clip in index["clips"]] == ["explanation.json"]


def test_truncated_sounds_are_left_out(tmp_path):
    """Although their header is whole."""
    write_clip(tmp_path, "good")
    path = write_clip(tmp_path, "b", ending="flac") / "residual.flac"
    os.truncate(path, path.stat().st_size // 2)
    left_out = []
    write_report(tmp_path, left_out=left_out)
    assert str(left_out[0]).startswith(str(path))


# ------------------------------------------------------------ the real clips


def test_page_of_clips_as_saved(tmp_path):
    features = SpectralFeatures(RATE, n_fft=256, n_mels=20)
    wavs = 0.1 * torch.randn(1, 3001)
    magnitude = features.magnitude(features.stft(wavs))
    explanation = Explanation(
        waveform=0.75 * wavs,
        residual=0.25 * wavs,
        mask=torch.full_like(magnitude, 0.75),
        logits=torch.tensor([[0.0, 2.0]]),
        logits_in=torch.tensor([[0.0, 3.0]]),
        logits_out=torch.tensor([[1.0, 0.0]]),
        decision=torch.tensor([1]),
        magnitude=magnitude,
    )
    folder = tmp_path / "clip"
    named = AudioExplanation.of(explanation, wavs, features, ["<a>", "b"])
    save_clip(folder, named, "b")
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    p, p_in, p_out = (
        float(logits.softmax(1)[0, 1])
        for logits in (
            explanation.logits,
            explanation.logits_in,
            explanation.logits_out,
        )
    )
    assert clip["probabilities"] == pytest.approx([p, p_in, p_out], abs=1e-5)
    assert (clip["decision"], clip["label"]) == ("b", "b")
    assert clip["area"] == pytest.approx(0.75, abs=0.005)
    assert clip["seconds"] == 3001 / RATE


@pytest.mark.parametrize(
    ("label", "kin", "right"),
    [
        (None, {}, None),
        ("dog", {}, True),
        ("cat", {}, False),
        # The label contains the decision, or is contained in it.
        ("cat", {"kin": ["hen", "dog"]}, True),
        ("cat", {"kin": ["hen"]}, False),
    ],
)
def test_who_is_of_the_labels_family_is_right(tmp_path, label, kin, right):
    write_clip(tmp_path, label=label, **kin)
    (clip,) = Page(write_report(tmp_path)).data("index")["clips"]
    assert clip["right"] is right


@pytest.mark.parametrize(
    ("label", "right"),
    [("DOG", True), ("cat", False), ("monday", None), (None, None)],
)
def test_a_label_that_is_no_class_is_neither_right_nor_wrong(label, right):
    """As in an audit; small and capital letters do not matter."""
    facts = {"classes": ["dog", "cat"], "p": [0.6, 0.4], "decision": "dog"}
    assert is_right({**facts, "label": label}) is right
    assert is_right({**facts, "label": label, "kin": ["dog"]}) is True
