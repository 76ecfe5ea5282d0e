"""Tests of the report page in a browser."""

import base64
import json
import os
import re
import shutil
import time
import zlib
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf

from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages import clip_data
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.report import write_report

pytest.importorskip("selenium")

from driven import (  # noqa: E402
    DrivenPage,
    brightness,
    contrast,
    sizes_of_controls,
    sticking_out,
)
from selenium.webdriver import ActionChains, Keys  # noqa: E402

# So long that no sound ends where a busy machine takes its time.
RATE, SECONDS, FRAMES, BINS = 16000, 12, 60, 32
# A loud cell that is kept, one that is left out, and silence.
KEPT_LOUD, LEFT_OUT, SILENT = [255, 255, 255], [76, 120, 178], [0, 0, 0]
REST = "unfaithful: the rest decides the same"
KEPT = "unfaithful: the kept part does not decide so"
SECONDS_OPEN = 20  # to open 500 clips; usually two or three


def make_clip(
    path,
    facts,
    seconds=SECONDS,
    frames=FRAMES,
    bins=BINS,
    hertz=660,
    rate=RATE,
):
    """A clip whose mask is 1 in the first half and 0.25 in the second."""
    path.mkdir(parents=True)
    mask = np.full((frames, bins), 255, np.uint8)
    mask[frames // 2 :] = 64
    level = np.full((frames, bins), 255, np.uint8)
    level[:, bins // 2 :] = 0
    np.savez_compressed(path / "maps.npz", mask=mask, level=level)
    time = np.arange(rate * seconds) / rate
    sounds = {"original": 440, "interpretation": hertz, "residual": 880}
    for name, pitch in sounds.items():
        tone = 0.1 * np.sin(2 * np.pi * pitch * time)
        sf.write(path / f"{name}.wav", tone, rate, "PCM_16")
    facts = {
        "id": path.name,
        "file": f"{path.name}.wav",
        "label": None,
        "decision": "dog",
        "classes": ["dog", "cat"],
        "p": [0.75, 0.25],
        "p_in": [0.9, 0.1],
        "p_out": [0.2, 0.8],
        "metrics": {},
        "sample_rate": rate,
        "n_samples": len(time),
        "hop_samples": len(time) // frames,
        "n_bins": bins,
        "gain": 1.0,
        "threshold": None,
        "refine_steps": 0,
        "verdict": "faithful",
        "stable": None,
        "agreement": {},
        **facts,
    }
    text = json.dumps(facts)
    (path / "explanation.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Four clips: right, wrong, without label, without a metric."""
    folder = tmp_path_factory.mktemp("clips")
    cat = {"decision": "cat", "p": [0.3, 0.7]}
    two = {"FF": -0.1, "AD": 2.0, "SPS": 0.1}
    silent = {"verdict": "silent"}
    for name, facts in {
        "one": {"label": "dog", "metrics": {"FF": 0.5, "AD": 10.0}},
        "two": {**cat, "label": "dog", "metrics": two, "verdict": REST},
        "three": {
            **cat,
            **silent,
            "metrics": {"FF": 0.9, "AD": 30.0, "SPS": 0.3},
        },
        "two2": {
            "label": "dog",
            "metrics": {"FF": None, "AD": 5.0, "SPS": 0.2},
        },
    }.items():
        make_clip(folder / name, facts)
    return folder


@pytest.fixture(scope="session")
def page(clips):
    """The page of the four clips."""
    return write_report(clips)


class Report(DrivenPage):
    """The report as a person sees and uses it."""

    def ids(self):
        """Ids of the visible clips, in order."""
        return [
            clip.find_element("css selector", ".origin").text.split(" · ")[0]
            for clip in self.all(".clip:not([hidden])")
        ]

    def clip(self, name):
        """One clip's element."""
        return self.all(".clip:not([hidden])")[self.ids().index(name)]

    def play_button(self, name):
        """The clip's button to play and pause."""
        return self.clip(name).find_element("css selector", ".play")

    def sound_buttons(self, name):
        """The clip's three sounds to choose from."""
        return self.clip(name).find_elements("css selector", ".sounds button")

    def chosen(self, name):
        """Number of the clip's chosen sound."""
        states = [
            button.get_attribute("aria-pressed")
            for button in self.sound_buttons(name)
        ]
        assert states.count("true") == 1
        return states.index("true") + 1

    def audios(self):
        """Name, time and playing state of all loaded sounds."""
        return self.js(
            "[...document.querySelectorAll('audio')]"
            ".map(x => [x.dataset.sound, x.currentTime, !x.paused])"
        )

    def playing(self):
        """Names of the sounds that play."""
        return [name for name, _, plays in self.audios() if plays]

    def time(self, sound):
        """Position of a loaded sound in seconds."""
        return {name: t for name, t, _ in self.audios()}.get(sound, 0)

    def playhead(self, name):
        """Where the playhead is, as a share of the picture's width."""
        return self.js(
            "(([x, y]) => (x.left - y.left) / (y.width - x.width))("
            "['.playhead', '.picture'].map("
            "s => a.querySelector(s).getBoundingClientRect()))",
            self.clip(name),
        )

    def pixel(self, name, x, y):
        """Colour of a picture at shares of its width and height."""
        return self.js(
            "(c => [...c.getContext('2d').getImageData("
            "b[0] * c.width, b[1] * c.height, 1, 1).data].slice(0, 3))"
            "(a.querySelector('canvas'))",
            self.clip(name),
            [x, y],
        )

    def focused(self):
        """The clip that has the focus."""
        return self.js(
            "document.activeElement.querySelector('.origin')"
            "?.textContent.split(' · ')[0]"
        )

    def drawn(self):
        """For each clip, whether its picture is drawn."""
        return self.js(
            "[...document.querySelectorAll('canvas')].map(c => c.width > 0)"
        )


@pytest.fixture
def opened(browse, page):
    """The page of four clips, its pictures drawn."""
    found = Report(browse.open(page))
    found.wait(lambda: all(found.drawn()))
    return found


def near(colour, expected, most=3):
    """Whether two colours look the same."""
    return max(abs(a - b) for a, b in zip(colour, expected)) <= most


def test_sounds_play_and_the_playhead_follows(opened):
    opened.play_button("one").click()
    opened.wait(lambda: opened.time("original") > 0.3, "does not play")
    assert opened.play_button("one").text == "Pause"
    place = 0.05
    for _ in range(3):
        opened.wait(lambda p=place: opened.playhead("one") > p, "stands still")
        place = opened.playhead("one")

    opened.play_button("one").click()
    assert opened.play_button("one").text == "Play"
    assert opened.playing() == []
    stopped = opened.time("original")
    assert opened.playhead("one") == pytest.approx(stopped / SECONDS, abs=0.01)
    time.sleep(0.2)
    assert opened.time("original") == stopped
    assert f"of {SECONDS:.1f} s" in opened.clip("one").text


def test_sounds_are_three_and_switching_keeps_the_position(opened):
    opened.play_button("one").click()
    opened.wait(lambda: opened.time("original") > 0.5)
    for number, sound in [(2, "explanation"), (3, "residual")]:
        before = opened.playhead("one") * SECONDS
        opened.sound_buttons("one")[number - 1].click()
        opened.wait(lambda s=sound: opened.playing() == [s])
        assert opened.chosen("one") == number
        after = opened.time(sound)
        assert before - 0.1 <= after < before + 1.5
        opened.wait(lambda s=sound, t=after: opened.time(s) > t)
    sources = opened.js(
        "[...document.querySelectorAll('audio')].map(x => x.src)"
    )
    assert len(set(sources)) == 3


def test_paused_sounds_switch_without_playing(opened):
    opened.sound_buttons("one")[2].click()
    assert opened.audios() == []
    opened.play_button("one").click()
    opened.wait(lambda: opened.playing() == ["residual"])


def test_a_sound_ends_at_the_start(opened):
    late = SECONDS - 0.2
    opened.slide(".clip:first-child .position", late)
    share = pytest.approx(late / SECONDS, abs=0.01)
    assert opened.playhead("one") == share
    opened.play_button("one").click()
    opened.wait(lambda: opened.time("original") > late)
    opened.wait(lambda: opened.play_button("one").text == "Play")
    opened.wait(lambda: opened.playhead("one") == 0)
    opened.play_button("one").click()
    opened.wait(lambda: 0 < opened.time("original") < 2)


def test_a_click_into_the_picture_is_a_position(opened):
    canvas = opened.clip("one").find_element("css selector", "canvas")
    width = canvas.size["width"]
    ActionChains(opened.driver).move_to_element_with_offset(
        canvas, width // 4, 0
    ).click().perform()
    assert opened.playhead("one") == pytest.approx(0.75, abs=0.01)
    opened.play_button("one").click()
    opened.wait(lambda: opened.time("original") > 0.75 * SECONDS)


def test_one_clip_plays_at_a_time(opened):
    opened.play_button("one").click()
    opened.wait(lambda: opened.time("original") > 0.2)
    opened.play_button("two").click()
    opened.wait(lambda: opened.playing() == ["original"])
    assert len(opened.audios()) == 3
    assert opened.play_button("one").text == "Play"
    assert opened.play_button("two").text == "Pause"
    # The first continues where it stopped.
    assert opened.playhead("one") > 0.15 / SECONDS


def test_sounds_beside_the_page_play(browse, clips, tmp_path):
    folder = tmp_path / "copies"
    shutil.copytree(clips / "one", folder / "a ü#?%41'\"&<b>")
    found = Report(browse.open(write_report(folder, embed=False)))
    found.press(" ")
    found.wait(lambda: found.time("original") > 0.2)
    source = found.js("document.querySelector('audio').src")
    assert source.startswith("file:")
    assert source.endswith("/original.wav")


def scaled(level, factor):
    """Level of 80 dB, from 0 to 1, after a multiplication."""
    return max(0, level + 20 * np.log10(factor) / 80) if factor else 0


def heard(level, mask):
    """Colour of a cell: the kept level as heat, over the rest in blue."""
    kept, rest = scaled(level, mask), scaled(level, 1 - mask)
    hot = [min(max(2 * kept - c, 0), 1) for c in (0, 0.5, 1)]
    blue = [0.3 * rest, 0.47 * rest, 0.7 * rest]
    return [255 * max(pair) for pair in zip(hot, blue)]


def test_the_picture_shows_what_is_heard(opened):
    """Loud below, silent above; mask 1 to the left, 0.25 to the right."""
    assert near(opened.pixel("one", 0.2, 0.9), KEPT_LOUD)
    quarter = opened.pixel("one", 0.8, 0.9)
    assert near(quarter, heard(1, 64 / 255), 6)
    # A mask over silence is nothing.
    for x in (0.2, 0.8):
        assert near(opened.pixel("one", x, 0.1), SILENT)


def test_sliders_change_the_picture(opened):
    """The mask fades, and the threshold cuts it, but not where it is silent."""
    silence = [opened.pixel("one", x, 0.1) for x in (0.2, 0.8)]
    opened.slide("#opacity", 0)
    assert opened.one("output[for=opacity]").text == "0 %"
    for x in (0.2, 0.8):
        assert near(opened.pixel("one", x, 0.9), KEPT_LOUD)
    opened.slide("#opacity", 100)
    opened.slide("#threshold", 20)
    assert near(opened.pixel("one", 0.8, 0.9), heard(1, 64 / 255), 6)
    opened.slide("#threshold", 30)
    assert opened.one("output[for=threshold]").text == "0.30"
    for name in ("one", "two"):
        assert near(opened.pixel(name, 0.8, 0.9), LEFT_OUT)
    assert near(opened.pixel("one", 0.2, 0.9), KEPT_LOUD)
    assert [opened.pixel("one", x, 0.1) for x in (0.2, 0.8)] == silence
    # The sounds stay, and the page says so beside the slider.
    note = opened.one("#silent")
    assert note.is_displayed() and "not what you hear" in note.text
    described = opened.one("#threshold").get_attribute("aria-describedby")
    assert described == note.get_attribute("id")


# Machado et al. 2009, for linear RGB.
COLOUR_BLIND = {
    "protan": [
        [0.152, 1.053, -0.205],
        [0.115, 0.786, 0.099],
        [0, -0.048, 1.052],
    ],
    "deutan": [
        [0.367, 0.861, -0.228],
        [0.28, 0.673, 0.047],
        [-0.012, 0.043, 0.969],
    ],
    "tritan": [
        [1.256, -0.077, -0.179],
        [-0.078, 0.931, 0.148],
        [0.005, 0.691, 0.304],
    ],
}


def lab(colours):
    """Colours of linear RGB in CIELAB."""
    to_xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ]
    xyz = colours @ np.transpose(to_xyz) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_the_colour_blind_tell_kept_from_left_out(opened, kind):
    """Whatever the levels, from -40 dB, the two differ by far."""
    scales = opened.js(
        "['--kept', '--rest'].map(x => document.documentElement.style"
        ".getPropertyValue(x).match(/[0-9]+/g).map(Number))"
    )
    kept, rest = (np.reshape(x, (-1, 3))[16:] / 255 for x in scales)
    seen = [
        lab(np.clip(x**2.2 @ np.transpose(COLOUR_BLIND[kind]), 0, 1))
        for x in (kept, rest)
    ]
    distance = np.linalg.norm(seen[0][:, None] - seen[1][None], axis=-1)
    assert distance.min() > 40


def test_what_a_card_says(opened):
    text = opened.clip("two").text
    assert text.startswith(
        f"cat\nwrong, the label is dog\n{REST}\ntwo · two.wav"
    )
    rows = [
        row.text.split()
        for row in opened.clip("two").find_elements("css selector", "tbody tr")
    ]
    assert rows == [
        ["cat", "0.700", "0.100", "0.800"],
        ["dog", "label", "0.300", "0.900", "0.200"],
    ]
    widths = opened.js(
        "[...a.querySelectorAll('tr.explained i')].map(x => x.style.width)",
        opened.clip("two"),
    )
    assert widths == ["70%", "10%", "80%"]
    metrics = opened.clip("two").find_element("css selector", ".metrics")
    assert metrics.text.split() == "AD ↓ 2 FF ↑ -0.100 SPS ↑ 0.100".split()
    assert opened.one("#summary").text == (
        "4 clips · 2 right · 1 wrong · 1 without label"
    )


def test_windows_of_a_long_clip(browse, tmp_path):
    windows = [
        {
            "start": 0.75 * i,
            "end": 0.75 * i + 1,
            "decision": "<b>cat</b>" if i == 2 else "dog",
            "p": 0.5,
            "p_in": None,
            "p_out": 0.125,
            "verdict": "silent" if i == 2 else "faithful",
        }
        for i in range(4)
    ]
    make_clip(tmp_path / "long", {"windows": windows}, seconds=3)
    make_clip(tmp_path / "short", {})
    found = Report(browse.open(write_report(tmp_path)))
    shown = [element.is_displayed() for element in found.all(".windows")]
    assert shown == [True, False]
    summary = found.all(".windows summary")[0]
    assert summary.text == "4 windows"
    found.wait(lambda: len(found.all(".windows tbody tr")) == 4)
    rows = [row.text for row in found.all(".windows tbody tr")]
    assert rows[2] == "1.5 s <b>cat</b>\nsilent\n0.500 – 0.125"
    found.all(".windows tbody button")[2].click()
    assert found.playhead("long") == pytest.approx(0.5)


def test_filters(opened):
    everything = ["one", "three", "two", "two2"]
    assert opened.ids() == everything
    assert opened.one("#count").text == "all 4 clips"

    assert opened.options("#decision") == ["All", "cat", "dog"]
    opened.select("#decision", "cat")
    assert opened.ids() == ["three", "two"]
    assert opened.one("#count").text == "2 of 4 clips"
    opened.select("#outcome", "Wrong")
    assert opened.ids() == ["two"]
    opened.select("#outcome", "Right")
    assert opened.ids() == []
    assert opened.one("#count").text == "0 of 4 clips"
    opened.select("#decision", "All")
    assert opened.ids() == ["one", "two2"]
    opened.select("#outcome", "No label of the model")
    assert opened.ids() == ["three"]
    opened.select("#outcome", "All")

    assert opened.options("#verdict") == ["All", "faithful", REST, "silent"]
    opened.select("#verdict", REST)
    assert opened.ids() == ["two"]
    opened.select("#outcome", "Right")
    assert opened.ids() == []
    opened.select("#outcome", "All")
    opened.select("#verdict", "All")
    assert opened.ids() == everything

    assert not opened.one("#low").is_enabled()
    assert opened.options("#metric") == ["Any value", "AD", "FF", "SPS"]
    opened.select("#metric", "FF")
    assert opened.ids() == everything
    opened.one("#low").send_keys("0.5")
    assert opened.ids() == ["one", "three"]
    opened.one("#high").send_keys("0.8")
    assert opened.ids() == ["one"]
    opened.one("#low").send_keys(Keys.BACKSPACE * 3)
    assert opened.ids() == ["one", "two"]
    opened.select("#metric", "AD")
    assert opened.ids() == []
    opened.select("#metric", "Any value")
    assert opened.ids() == everything


def test_a_filtered_clip_falls_silent(opened):
    opened.play_button("one").click()
    opened.wait(lambda: opened.playing())
    opened.select("#decision", "cat")
    assert opened.audios() == []
    opened.select("#decision", "All")
    assert opened.play_button("one").text == "Play"


def test_sorting(opened):
    assert opened.options("#sort") == [
        "Clip",
        "Decision",
        "Verdict",
        "Before",
        "Inside",
        "Outside",
        "AD",
        "FF",
        "SPS",
    ]
    opened.select("#sort", "AD")
    assert opened.ids() == ["two", "two2", "one", "three"]
    # An unknown value comes last in both orders.
    opened.select("#sort", "SPS")
    assert opened.ids() == ["two", "two2", "three", "one"]
    opened.select("#sort", "FF")
    assert opened.ids() == ["two", "one", "three", "two2"]
    opened.one("#order").click()
    assert opened.one("#order").text == "Descending"
    assert opened.ids() == ["three", "one", "two", "two2"]
    opened.select("#sort", "Decision")
    assert opened.ids() == ["one", "two2", "three", "two"]
    opened.select("#sort", "Verdict")  # the worst first, in this order
    assert opened.ids() == ["three", "two", "one", "two2"]
    opened.select("#sort", "Outside")
    assert opened.ids() == ["three", "two", "one", "two2"]
    opened.select("#sort", "Clip")
    assert opened.ids() == ["two2", "two", "three", "one"]
    # The pictures are still there.
    opened.slide("#opacity", 0)
    assert near(opened.pixel("one", 0.2, 0.9), KEPT_LOUD)


def test_keys_go_from_clip_to_clip(opened):
    for key, expected in [
        ("j", "one"),
        (Keys.ARROW_DOWN, "three"),
        ("j", "two"),
        ("J", "two2"),
        ("j", "two2"),
        ("k", "two"),
        (Keys.ARROW_UP, "three"),
        ("k", "one"),
        ("k", "one"),
    ]:
        opened.press(key)
        assert opened.focused() == expected
    outline = opened.js("getComputedStyle(document.activeElement).outline")
    assert "2px" in outline
    assert "solid" in outline
    opened.press("j", "j")
    # Below the fixed bar, not hidden by it.
    top, bar = opened.js(
        "[a.getBoundingClientRect().top, b.getBoundingClientRect().bottom]",
        opened.clip("two"),
        opened.one("#view"),
    )
    assert bar <= top < 450


def test_keys_play_and_switch(opened):
    opened.press("j", "j", " ")
    opened.wait(lambda: opened.playing() == ["original"])
    assert opened.play_button("three").text == "Pause"
    opened.press("2")
    opened.wait(lambda: opened.playing() == ["explanation"])
    opened.press("3")
    opened.wait(lambda: opened.playing() == ["residual"])
    opened.press("1")
    opened.wait(lambda: opened.playing() == ["original"])
    assert opened.chosen("three") == 1
    opened.press(" ")
    assert opened.playing() == []
    assert opened.chosen("one") == 1


def test_controls_keep_their_own_keys(opened):
    opened.select("#metric", "FF")
    opened.one("#low").click()
    opened.press("1", "j", " ", Keys.ARROW_UP)
    assert opened.audios() == []
    assert opened.focused() is None
    assert opened.one("#low").get_attribute("value") == "2"
    opened.press(Keys.BACKSPACE)

    opened.js("a.focus()", opened.one("#opacity"))
    opened.press(Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    assert opened.one("#opacity").get_attribute("value") == "98"
    assert opened.focused() is None

    # Space on a button presses it, once.
    opened.js("a.focus()", opened.play_button("two"))
    opened.press(" ")
    opened.wait(lambda: opened.playing() == ["original"])
    assert opened.play_button("two").text == "Pause"
    opened.js("a.focus()", opened.sound_buttons("two")[1])
    opened.press(" ")
    opened.wait(lambda: opened.playing() == ["explanation"])
    opened.press("j")
    assert opened.focused() == "two2"


def test_dark_and_light(browse, page):
    found = Report(browse.open(page))
    assert brightness(found) > 200
    assert found.one("#theme").text == "Dark mode"
    found.one("#theme").click()
    assert brightness(found) < 50
    assert found.one("#theme").text == "Light mode"

    found = Report(browse.open(page, dark=True))
    assert brightness(found) < 50
    assert brightness(found, ".clip") < 50
    found.one("#theme").click()
    assert brightness(found) > 200


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(browse, page, dark):
    found = Report(browse.open(page, dark=dark))
    for selector in [
        "h1",
        "#summary",
        "summary",
        "#filters label",
        "#count",
        ".origin",
        ".outcome.right",
        ".outcome.wrong",
        "#verdicts",
        ".verdict.good",
        ".verdict:not(.good)",
        ".play",
        ".sounds button",
        ".axis .tick",
        ".legend span",
        "#silent",
        ".files a",
        "thead th",
        ".note",
        ".metrics dt",
    ]:
        assert contrast(found, selector) >= 4.5, selector


@pytest.mark.parametrize("width", [360, 600, 800, 1000, 1280])
def test_no_width_scrolls_sideways(browse, tmp_path, width):
    make_clip(tmp_path / "clips" / "a", {"metrics": {"Fid-In": 0.5}})
    long = "x" * 200
    make_clip(
        tmp_path / "clips" / long,
        {
            "label": long,
            "decision": long,
            "classes": [long, "dog"],
            "metrics": {long: 1e9},
            "verdict": KEPT,
            "stable": False,
            "windows": [
                {"start": 3e3, "end": 3e3 + 1, "decision": long}
                | dict.fromkeys(("p", "p_in", "p_out"), 0.5)
                | {"verdict": KEPT}
            ],
        },
    )
    found = Report(browse.open(write_report(tmp_path / "clips"), width=width))
    found.js("document.querySelectorAll('details').forEach(x => x.open = true)")
    found.wait(lambda: found.all(".windows tbody tr"))
    assert found.js("innerWidth") == width
    assert found.js("document.documentElement.scrollWidth") <= width
    assert sticking_out(found) == []
    cut = found.js(
        "[...document.querySelectorAll('.clip, .clip *')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1"
        " && e.clientWidth && e.tagName !== 'CAPTION')"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []


@pytest.mark.parametrize("width", [360, 1280])
def test_fingers_find_all_controls(browse, pair_page, width):
    """Whatever can be pressed or moved is 44 px high, and as wide."""
    found = Report(browse.open(pair_page, width=width, height=740))
    found.wait(lambda: len(found.all(".files a[href]")) >= 4)
    sizes = sizes_of_controls(found)
    assert len(sizes) > 40
    small = [x for x in sizes if min(x[1:]) < 43.9]
    assert small == []


def test_fingers_play_sounds(browse, page):
    found = Report(browse.open(page, width=360, height=740))
    found.play_button("one").click()
    found.wait(lambda: found.time("original") > 0.2)


def test_every_control_and_picture_has_a_name(opened):
    tree = opened.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    roles = {}
    for node in tree["nodes"]:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            role = node["role"]["value"]
            roles.setdefault(role, []).append(name)
    for role, least in {
        "button": 4 * 4 + 2,
        "combobox": 4,
        "slider": 2 + 4,
        "spinbutton": 2,
        "image": 4,
        "article": 4,
        "heading": 5,
    }.items():
        assert len(roles[role]) >= least, (role, roles.keys())
        assert all(roles[role]), (role, roles[role])
    (alternative,) = (x for x in roles["image"] if " of one," in x)
    assert alternative == (
        f"Spectrogram of one, {SECONDS:.1f} seconds, 0 to 8 kHz, under the "
        "mask for dog. The mask keeps 63 %. Most of what is heard is from 0.6 "
        "to 9.2 s and from 0.3 to 3.8 kHz."
    )
    assert any(name.startswith("dog one") for name in roles["article"])


def test_hostile_names_are_shown_as_text(browse, tmp_path):
    names = [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(2)</script>",
        "<!--<script>",
        "\u2028');alert(3)//",
        "{{script}}",
    ]
    for i, name in enumerate(names):
        make_clip(
            tmp_path / f"clip{i}",
            {
                "id": name,
                "file": f"x{name}".replace("/", ""),
                "label": names[0],
                "decision": name,
                "classes": names,
                "p": [0.2] * 5,
                "p_in": [0.2] * 5,
                "p_out": [0.2] * 5,
                "metrics": {name: 1.0, "__proto__": 2.0, "constructor": 3.0},
            },
        )
    found = Report(browse.open(write_report(tmp_path)))
    found.wait(lambda: found.drawn()[0])
    assert found.all("img") == []
    assert len(found.all("script:not([type])")) == 1
    titles = found.js(
        "[...document.querySelectorAll('h2')].map(x => x.textContent)"
    )
    assert titles == [names[0]] * 5  # the most probable, and the first
    heads = found.js(
        "[...document.querySelectorAll('.clip:first-child tbody th')]"
        ".map(x => x.firstChild.textContent)"
    )
    assert heads == names[:3]
    menu = found.js("[...document.querySelector('#metric')].map(x => x.text)")
    assert set(names) - {names[3]} <= set(menu)
    assert found.clip(names[1])
    found.select("#sort", "constructor")
    assert len(found.ids()) == 5


def test_policy_stops_what_should_not_be_there(browse, page):
    found = Report(browse.open(page))
    stopped = found.driver.execute_async_script(
        "const done = arguments[0], seen = [];"
        "document.addEventListener('securitypolicyviolation', (event) => {"
        "  seen.push(event.effectiveDirective);"
        "  if (seen.length === 3) done([seen.sort(), window.run ?? null]);"
        "});"
        "const add = (tag, change) => { const e ="
        "  document.createElement(tag); change(e); document.body.append(e) };"
        "add('script', (e) => { e.textContent = 'window.run = 1' });"
        "add('img', (e) => { e.src = 'http://127.0.0.1:9/x.png' });"
        "fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    assert stopped == [["connect-src", "img-src", "script-src-elem"], None]
    # The browser logged what it blocked, and sent no request.
    assert len(browse.driver.get_log("browser")) >= 3
    browse.driver.get_log("performance")


# ----------------------------------------------------- masks before and after


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Clips: refined with the decoder's own mask, without it, and unrefined."""
    folder = tmp_path_factory.mktemp("pairs")
    window = {"start": 0.0, "end": 3.0, "decision": "dog", "p": 0.75}
    window["verdict"] = "faithful"
    pair = {"label": "dog", "file": "a.wav"}
    make_clip(
        folder / "a",
        {
            **pair,
            "refine_steps": 5,
            "p_in": [0.95, 0.05],
            "metrics": {"FF": 0.75, "AD": 1.0},
            "windows": [{**window, "p_in": 0.95, "p_out": 0.2}],
        },
    )
    path = folder / "a" / "unrefined"
    make_clip(
        path,
        {
            **pair,
            "p_in": [0.5, 0.5],
            "p_out": [0.4, 0.6],
            "metrics": {"FF": 0.25, "AD": 40.0, "area": 0.25},
            "windows": [{**window, "p_in": 0.5, "p_out": 0.4}],
            "verdict": REST,
            "stable": True,
            "agreement": {"shift and noise": 0.9},
        },
        hertz=550,
    )
    level = np.load(path / "maps.npz")["level"]
    mask = np.full((FRAMES, BINS), 64, np.uint8)
    mask[FRAMES // 2 :] = 255  # the other half
    np.savez_compressed(path / "maps.npz", mask=mask, level=level)
    make_clip(folder / "b", {"refine_steps": 1, "metrics": {"FF": 0.5}})
    make_clip(folder / "c", {"metrics": {"FF": 0.1, "AD": 20.0}})
    return folder


@pytest.fixture(scope="session")
def pair_page(pairs):
    """The page of these clips."""
    return write_report(pairs)


@pytest.fixture
def compared(browse, pair_page):
    """The page, with its pictures drawn without mixing in the veil."""
    found = Report(browse.open(pair_page))
    found.wait(lambda: all(found.drawn()))
    found.slide("#opacity", 100)
    return found


def switch(report, name="a"):
    """Buttons of a clip's masks: text, and whether it is pressed."""
    return {
        button.text: button.get_attribute("aria-pressed")
        for button in report.clip(name).find_elements(
            "css selector", ".masks button"
        )
        if button.is_displayed()
    }


def wear(report, text, name="a"):
    """Press one of these buttons."""
    for button in report.clip(name).find_elements(
        "css selector", ".masks button"
    ):
        if button.text == text:
            button.click()


def facts(report, name="a"):
    """Probabilities of the explained class, metrics, text for the picture."""
    clip = report.clip(name)
    row = clip.find_element("css selector", "tr.explained").text.split()
    metrics = clip.find_element("css selector", ".metrics").text.split("\n")
    picture = clip.find_element("css selector", "canvas")
    return row, metrics, picture.get_attribute("aria-label")


REFINED, DECODER = "Refined, 5 steps", "Decoder"


def test_a_switch_between_two_masks(compared):
    """Picture, numbers and text of one card change, and change back."""
    assert compared.ids() == ["a", "b", "c"]
    assert switch(compared) == {DECODER: "false", REFINED: "true"}
    assert switch(compared, "b") == switch(compared, "c") == {}
    assert "mask refined, 1 step" in compared.clip("b").text
    assert "refined" not in compared.clip("c").text
    for text, shown, half, row, metrics in (
        (REFINED, 0.2, 0.8, "0.950 0.200", ["AD ↓", "1", "FF ↑", "0.750"]),
        (
            DECODER,
            0.8,
            0.2,
            "0.500 0.400",
            ["AD ↓", "40", "FF ↑", "0.250", "area", "0.250"],
        ),
        (REFINED, 0.2, 0.8, "0.950 0.200", ["AD ↓", "1", "FF ↑", "0.750"]),
    ):
        wear(compared, text)
        assert [k for k, v in switch(compared).items() if v == "true"] == [text]
        compared.wait(
            lambda x=shown: near(compared.pixel("a", x, 0.9), KEPT_LOUD)
        )
        assert near(compared.pixel("a", half, 0.9), heard(1, 64 / 255), 6)
        found = facts(compared)
        assert found[0] == ["dog", "label", "0.750", *row.split()]
        assert found[1] == metrics
        early = text == REFINED
        place = "from 0.6 to 9.2 s" if early else "from 2.8 to 11.4 s"
        assert place in found[2]
        # No other card has changed.
        assert near(compared.pixel("b", 0.2, 0.9), KEPT_LOUD)
        assert facts(compared, "c")[0] == ["dog", "0.750", "0.900", "0.200"]
    compared.slide("#threshold", 90)
    assert near(compared.pixel("a", 0.8, 0.9), LEFT_OUT)


def test_the_verdict_follows_the_switch(compared):
    """On the card; filters, order and counts use the refined mask."""

    def badge():
        """Text, tooltip and whether it is green, of the clip of two masks."""
        (found,) = compared.clip("a").find_elements("css selector", ".verdict")
        kind = found.get_attribute("class")
        ActionChains(compared.driver).move_to_element(found).perform()
        return found.text, compared.one("#tip").text, kind

    meanings = dict(VERDICTS)
    good = ("faithful", say(meanings["faithful"]), "verdict good")
    assert badge() == good
    wear(compared, DECODER)
    title = say(f"{meanings[REST]}; agreement, shift and noise: 0.900")
    assert badge() == (f"{REST}, stable", title, "verdict")
    assert compared.one("#verdicts").text == "3 faithful"
    assert compared.options("#verdict") == ["All", "faithful"]
    wear(compared, REFINED)
    assert badge() == good


def say(words):
    """A sentence."""
    return f"{words[0].upper()}{words[1:]}."


def test_windows_follow_the_switch(compared):
    rows = ".clip:first-child .windows tbody tr"
    compared.wait(lambda: compared.all(rows))
    assert compared.one(rows).text == "0.0 s dog\nfaithful\n0.750 0.950 0.200"
    wear(compared, DECODER)
    assert compared.one(rows).text == "0.0 s dog\nfaithful\n0.750 0.500 0.400"
    # Closed, switched and opened again.
    summary = compared.clip("a").find_element(
        "css selector", ".windows summary"
    )
    summary.click()
    wear(compared, REFINED)
    summary.click()
    compared.wait(
        lambda: (
            compared.one(rows).text == "0.0 s dog\nfaithful\n0.750 0.950 0.200"
        )
    )


def test_sounds_follow_the_switch(compared):
    """A playing sound continues with the other mask, at the same time."""
    compared.press("j", "2")
    compared.slide(".clip:first-child .position", 0.5)
    compared.press(" ")
    compared.wait(lambda: compared.time("explanation") > 0.8)
    sources = [source(compared)]
    before = compared.playhead("a") * SECONDS
    wear(compared, DECODER)
    compared.wait(lambda: compared.playing() == ["explanation"])
    compared.wait(lambda: compared.time("explanation") > before - 0.1)
    assert compared.time("explanation") < before + 1.5
    assert compared.play_button("a").text == "Pause"
    sources.append(source(compared))
    assert len(compared.audios()) == 3
    compared.play_button("a").click()
    assert compared.playing() == []
    # Paused, the switch starts nothing.
    wear(compared, REFINED)
    assert compared.audios() == []
    assert compared.play_button("a").text == "Play"
    compared.press("j", "k", " ")
    compared.wait(lambda: compared.playing() == ["explanation"])
    sources.append(source(compared))
    assert sources[0] == sources[2] != sources[1]
    problem = compared.clip("a").find_element("css selector", ".problem")
    assert problem.text == ""


def source(report):
    """Address of the sound of the explanation."""
    return report.js(
        "document.querySelector('audio[data-sound=explanation]').src"
    )


def test_keys_reach_the_switch(compared):
    """The switch reacts to the key M, and to tab and space."""
    compared.press("j", "m")
    assert switch(compared)[DECODER] == "true"
    compared.press("M")
    assert switch(compared)[REFINED] == "true"
    compared.press(Keys.TAB)
    assert compared.js("document.activeElement.textContent") == DECODER
    compared.press(" ")
    assert switch(compared) == {DECODER: "true", REFINED: "false"}
    compared.press(Keys.TAB, Keys.ENTER)
    assert switch(compared) == {DECODER: "false", REFINED: "true"}
    assert compared.audios() == []
    # A clip with one mask has nothing to switch.
    compared.press("j", "m")
    assert compared.focused() == "b"
    assert switch(compared) == {DECODER: "false", REFINED: "true"}


def test_the_switch_has_a_name(compared):
    tree = compared.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    found = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree["nodes"]
        if not node.get("ignored")
    }
    assert ("group", "Mask") in found
    assert {("button", DECODER), ("button", REFINED)} <= found
    for selector in (".masks span", ".masks button"):
        assert contrast(compared, selector) >= 4.5
    buttons = compared.all(".clip:first-child .masks button")
    assert all(button.size["height"] >= 44 for button in buttons)


def test_filters_and_order_go_by_the_refined_mask(compared):
    """Filters and order use the refined mask, whichever is shown."""
    for text in (REFINED, DECODER):
        wear(compared, text)
        compared.select("#sort", "FF")
        assert compared.ids() == ["c", "b", "a"]
        compared.select("#sort", "Inside")
        assert compared.ids() == ["b", "c", "a"]
        compared.select("#metric", "FF")
        compared.one("#low").send_keys("0.6")
        assert compared.ids() == ["a"]
        assert switch(compared)[text] == "true"
        compared.one("#low").send_keys(Keys.BACKSPACE * 3)
        compared.select("#metric", "Any value")
        compared.select("#sort", "Clip")
    # Its picture outlives being hidden and moved.
    compared.wait(lambda: near(compared.pixel("a", 0.8, 0.9), KEPT_LOUD))


def test_both_masks_beside_the_page(browse, pairs, tmp_path):
    """The page plays the sounds of both masks from their files."""
    shutil.copytree(pairs / "a", tmp_path / "clips" / "a ü#?")
    page = write_report(tmp_path / "clips", embed=False)
    found = Report(browse.open(page))
    found.press("j", "2", " ")
    found.wait(lambda: found.time("explanation") > 0.1)
    assert source(found).endswith("%23%3F/interpretation.wav")
    found.press("m")
    found.wait(lambda: found.time("explanation") > 0.2)
    assert source(found).endswith("%23%3F/unrefined/interpretation.wav")
    assert found.playing() == ["explanation"]


def test_pages_without_a_pair_do_not_speak_of_it(browse, page, pair_page):
    for path, expected in ((page, []), (pair_page, ["P", "DIV"])):
        found = Report(browse.open(path))
        found.js("document.querySelector('details:not(#left-out)').open = true")
        shown = [x for x in found.all(".pairs") if x.is_displayed()]
        assert [x.tag_name.upper() for x in shown] == expected
        texts = [x.text for x in found.all(".masks") if x.is_displayed()]
        assert len(texts) == len(expected) / 2


@pytest.mark.parametrize("width", [360, 600, 1000])
def test_no_width_cuts_the_switch(browse, pair_page, width):
    found = Report(browse.open(pair_page, width=width))
    assert found.js("document.documentElement.scrollWidth") <= width
    cut = found.js(
        "[...document.querySelectorAll('.masks, .masks *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth"
        " || e.scrollWidth > e.clientWidth + 1 && e.clientWidth)"
        ".map(e => e.outerHTML)"
    )
    assert cut == []
    assert switch(found) == {DECODER: "false", REFINED: "true"}


def many_clips(folder, n, monkeypatch):
    """The page of many clips with large pictures."""
    one = folder / "clip0"
    make_clip(one, {}, seconds=5, frames=512, bins=256)
    for i in range(1, n):
        shutil.copytree(one, one.with_name(f"clip{i}"))
    # Equal sounds and pictures are encoded only once.
    kept = {}

    def once(pack):
        def packed(x, *rest):
            x = x if isinstance(x, np.ndarray) else list(x)
            key = b"".join(part.tobytes() for part in x)
            if key not in kept:
                kept[key] = pack(x, *rest)
            return kept[key]

        return packed

    for name in ("_pack", "_png"):
        monkeypatch.setattr(clip_data, name, once(getattr(clip_data, name)))
    return write_report(folder)


@pytest.mark.parametrize("n", [200, 500])
def test_many_clips(browse, tmp_path, monkeypatch, n):
    page = many_clips(tmp_path / "clips", n, monkeypatch)
    start = time.monotonic()
    found = Report(browse.open(page))
    found.wait(lambda: found.drawn()[0])
    assert time.monotonic() - start < SECONDS_OPEN
    assert len(found.all(".clip")) == n
    # Only pictures near the screen are kept.
    assert 1 <= sum(found.drawn()) < 20
    found.js("scrollTo(0, document.body.scrollHeight)")
    found.wait(lambda: found.drawn()[-1] and not found.drawn()[0])
    assert sum(found.drawn()) < 20
    assert found.audios() == []


def printed(driver):
    """Pictures of a PDF of the page: width, height and number of colours."""
    made = driver.execute_cdp_cmd("Page.printToPDF", {})
    pdf, found = base64.b64decode(made["data"]), []
    image = rb"<<([^>]*/Subtype /Image[^>]*)>>\s*stream\s"
    for match in re.finditer(image, pdf):
        facts = match[1].decode()
        width, height, size = (
            int(re.search(rf"/{key} ([0-9]+)", facts)[1])
            for key in ("Width", "Height", "Length")
        )
        data = pdf[match.end() :][:size]
        if "/FlateDecode" in facts:
            data = zlib.decompress(data)
        found.append((width, height, len(set(data))))
    return found


@pytest.mark.parametrize("n", [30, 60])
def test_all_pictures_are_printed(browse, tmp_path, monkeypatch, n):
    """Also those that were never on the screen."""
    page = many_clips(tmp_path / "clips", n, monkeypatch)
    found = Report(browse.open(page))  # returns when the page has loaded
    pictures = [x for x in printed(found.driver) if x[0] == 512]
    # Each has many colours: none is black.
    assert len(pictures) == n
    assert min(x[2] for x in pictures) > 2
    # Afterwards, those far away are given up again.
    found.wait(lambda: sum(found.drawn()) < 20)
    # A filter is followed on paper too.
    found.select("#verdict", "faithful")
    found.js("document.querySelectorAll('.clip')[0].hidden = true")
    pictures = [x for x in printed(found.driver) if x[0] == 512]
    assert len(pictures) == n - 1


def test_paper_is_white_and_has_no_controls(browse, page):
    found = Report(browse.open(page, dark=True))
    found.one("#theme").click()
    found.one("#theme").click()  # dark, as chosen
    assert brightness(found) < 50
    driver = found.driver
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert found.js("getComputedStyle(document.body).colorScheme") == "light"
    for selector in ("#filters", ".play", ".position", ".files"):
        assert not any(x.is_displayed() for x in found.all(selector))
    assert all(found.drawn())
    for selector in (".legend", ".axis", ".verdict"):
        assert all(x.is_displayed() for x in found.all(selector))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_axes_and_scales(opened):
    """Seconds and kHz with round ticks and names; dB and mask as scales."""
    clip = opened.clip("one")

    def texts(selector):
        found = clip.find_elements("css selector", selector)
        assert all(x.is_displayed() for x in found)
        return [x.text for x in found]

    assert texts(".seconds .tick") == ["0", "2", "4", "6", "8", "10", "12"]
    assert texts(".hertz .tick") == ["0", "2", "4", "6", "8"]
    assert texts(".axis .name") == ["Frequency in kHz", "Time in s"]
    kept, rest, mask = texts(".legend p")
    assert kept.split() == ["Kept", "−80", "0", "dB"]
    assert rest.split() == ["Left", "out", "−80", "0", "dB"]
    assert mask.split() == ["Mask", "at", "0", "dB", "0", "1"]
    # Ticks stand where they say, on either side of the picture.
    places = opened.js(
        "((box, mid) => [...a.querySelectorAll('.hertz .tick')].map(x =>"
        " (box.bottom - mid(x.getBoundingClientRect())) / box.height))("
        "a.querySelector('.picture').getBoundingClientRect(),"
        " box => (box.top + box.bottom) / 2)",
        clip,
    )
    assert places == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.02)
    ends = opened.js(
        "['rgb(0, 0, 0)', 'rgb(255, 255, 255)'].map(x => getComputedStyle("
        "a.querySelector('.kept i')).backgroundImage.includes(x))",
        clip,
    )
    assert ends == [True, True]


@pytest.mark.parametrize("width", [390, 1280])
def test_tooltips(browse, page, width):
    """Metrics, verdicts and headings: by mouse, keyboard and touch."""
    found = Report(browse.open(page, width=width))
    tip = found.one("#tip")
    assert not tip.is_displayed()
    words = {
        word.text: word
        for word in found.clip("two").find_elements("css selector", ".term")
    }
    expected = {
        "FF ↑": MEANINGS["FF"],
        "AD ↓": MEANINGS["AD"],
        REST: say(dict(VERDICTS)[REST]),
        "Inside": "The probability for the kept part alone; a good "
        "explanation keeps it.",
    }
    assert set(expected) <= set(words)
    for name, sentence in expected.items():
        word = words[name]
        found.js("a.focus()", word)
        assert tip.is_displayed() and tip.text == sentence
        assert word.get_attribute("aria-describedby") == "tip"
        box = tip.rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        found.press(Keys.ESCAPE)
        assert not tip.is_displayed()
        assert word.get_attribute("aria-describedby") is None
        word.click()
        assert tip.text == sentence
        # It stays while the mouse is on it, and goes with a touch elsewhere.
        ActionChains(found.driver).move_to_element(tip).perform()
        assert tip.is_displayed()
        found.js("document.body.click()")
        assert not tip.is_displayed()


def test_a_link_opens_its_clip(browse, page):
    """Also where a filter hides it; the address stays in the bar."""
    found = Report(browse.open(page))
    link = found.clip("two").find_element("css selector", ".link")
    address = link.get_attribute("href")
    assert address == f"{page.as_uri()}#clip/two"
    link.click()
    found.wait(lambda: found.driver.current_url == address)
    assert found.focused() == "two"
    found.select("#decision", "dog")
    assert "two" not in found.ids()
    found.js("void (location.hash = 'clip/one')")
    found.wait(lambda: found.focused() == "one")
    assert found.ids() == ["one", "two2"]  # it is not hidden: all stays
    found.js("void (location.hash = 'clip/two')")
    found.wait(lambda: found.focused() == "two")
    assert len(found.ids()) == 4
    assert found.options("#decision")[0] == "All"
    found.driver.get("about:blank")
    found.driver.get(address)
    found.wait(lambda: found.focused() == "two")
    found.driver.get("about:blank")
    found.driver.get(f"{page.as_uri()}#clip/nowhere")
    assert found.js("document.activeElement === document.body")


def test_links_of_odd_names(browse, tmp_path):
    name = "a ü#?%41'\"&<b>"
    make_clip(tmp_path / "x", {})
    make_clip(tmp_path / name, {"id": "y"})
    found = Report(browse.open(write_report(tmp_path)))
    link = found.clip("y").find_element("css selector", ".link")
    address = link.get_attribute("href")
    found.driver.get("about:blank")
    found.driver.get(address)
    found.wait(lambda: found.focused() == "y")


def test_downloads(browse, tmp_path):
    """Each sound of a clip, under a name that tells clip, sound and mask."""
    clip = tmp_path / "clips" / "dog #1/ <b>"
    make_clip(clip, {"id": "../dog #1/<b>"})
    found = Report(browse.open(write_report(tmp_path / "clips")))
    (tmp_path / "saved").mkdir()
    found.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(tmp_path / "saved")},
    )
    found.wait(lambda: len(found.all(".files a[download]")) == 3)
    for link in found.all(".files a[download]"):
        name = f"dog_1_b_-{link.text}.mp3"
        assert link.get_attribute("download") == name
        link.click()
        path = tmp_path / "saved" / name
        found.wait(path.is_file, f"no {name}")
        assert sf.info(path).frames == RATE * SECONDS


def test_long_sounds_are_saved_and_played(browse, tmp_path):
    """At a rate that MP3 lacks, a minute: many megabytes."""
    make_clip(tmp_path / "clips" / "a", {}, seconds=60, rate=48001)
    found = Report(browse.open(write_report(tmp_path / "clips")))
    found.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(tmp_path)},
    )
    found.wait(lambda: found.all(".files a[download]"))
    found.slide(".position", 55)
    found.play_button("a").click()
    found.wait(lambda: found.time("original") > 55.2)
    found.all(".files a[download]")[0].click()
    path = tmp_path / "a-original.wav"
    found.wait(path.is_file, "not saved")
    assert sf.info(path).frames == 48001 * 60


def test_sounds_beside_the_page_are_linked(browse, clips, tmp_path):
    """A page from disk may not save them, but opens them."""
    shutil.copytree(clips / "one", tmp_path / "clips" / "one")
    found = Report(browse.open(write_report(tmp_path / "clips", embed=False)))
    found.wait(lambda: len(found.all(".files a[href]")) == 4)
    link = found.all(".files a[download]")[1]
    assert link.get_attribute("href").endswith("/one/interpretation.wav")
    assert link.get_attribute("target") == "_blank"


def test_sounds_play_where_ogg_does_not(browse, page):
    """No sound of the page is in a format that Safari lacks."""
    found = Report(browse.open(page))
    found.play_button("one").click()
    found.wait(lambda: found.playing())
    kinds = found.js(
        "[...document.querySelectorAll('audio')].map(x => x.src.split(';')[0])"
    )
    assert kinds == ["data:audio/mpeg"] * 3


def test_names_from_right_to_left_stay_in_place(browse, tmp_path):
    """Nor do characters that turn the direction reach beyond a name."""
    for i, name in enumerate(["כלב נובח", "\u202eevil\u202d", "x" * 300]):
        make_clip(tmp_path / f"c{i}", {"id": name, "file": f"{i}.wav"})
    found = Report(browse.open(write_report(tmp_path), width=390))
    for origin in found.all(".origin"):
        ends = found.js(
            "(range => [...a.childNodes].map(x => { range.selectNode(x);"
            " return range.getClientRects()[0] })"
            ".map(box => [box.top, box.left]))(new Range())",
            origin,
        )
        assert ends == sorted(ends)  # in the order of reading
    assert found.js("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("dark", [False, True])
def test_screenshot(browse, page, tmp_path, dark):
    """The page is drawn: a picture of it has many colours, and is kept.

    With LMAC_SB_SCREENSHOTS set to a folder, the pictures go there, and
    LMAC_SB_REPORT may name another page to take them of.
    """
    shown = Path(os.environ.get("LMAC_SB_REPORT", page))
    driver = browse.open(shown.resolve(), height=760, dark=dark)
    time.sleep(1)  # the pictures are drawn when they come into view
    folder = Path(os.environ.get("LMAC_SB_SCREENSHOTS", tmp_path))
    picture = folder / f"report-{'dark' if dark else 'light'}.png"
    driver.save_screenshot(str(picture))
    pixels = matplotlib.image.imread(picture)[..., :3]
    colours = len({tuple(c) for c in pixels[::7, ::7].reshape(-1, 3)})
    assert colours > 100
