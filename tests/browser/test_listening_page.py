"""Tests of the listening test's page in a browser."""

import json

import pytest
import torch

from lmac_sb.pages.listening import write_test
from lmac_sb.pages.ratings import read_key, read_ratings, who_listened

pytest.importorskip("selenium")

from driven import DrivenPage  # noqa: E402

RATE, SECONDS = 8000, 2
BLINK = 0.2  # seconds, of sounds that are played through
METHODS = ("lmac", "gradcam at equal area", "ones")
IDS = ("a", "b", "c", "d")
HOSTILE = "<b>dog</b>"
LOCKED = "play it to the end first"


def make_test(folder, seconds):
    """A test with four clips, three methods each."""
    time = torch.arange(int(RATE * seconds)) / RATE
    tones = [torch.sin(2 * torch.pi * hertz * time) for hertz in (440, 660)]
    trials = [
        {
            "id": clip,
            "setting": "clean",
            "label": "dog",
            "decision": HOSTILE,
            "original": tones[0],
            "sounds": dict.fromkeys(METHODS, tones[1]),
        }
        for clip in IDS
    ]
    write_test(folder, trials, RATE, {"seed": 1})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of a test of very short sounds."""
    return make_test(tmp_path_factory.mktemp("test"), BLINK)


class Test(DrivenPage):
    """The page as a listener sees and uses it."""

    __test__ = False

    def begin(self, listener):
        """Enter the listener's name."""
        self.one("#listener").send_keys(listener)
        self.one("#who button").click()

    def title(self):
        """Heading of the screen."""
        (title,) = [x for x in self.all("h2") if x.is_displayed()]
        return title.text

    def sliders(self):
        """Sliders of the screen."""
        return self.all("#explanations input")

    def outputs(self):
        """Text next to the sliders."""
        return [output.text for output in self.all("#explanations output")]

    def listen(self):
        """Play all explanations of the screen to their end."""
        for i, button in enumerate(self.all("#explanations .play")):
            slider = self.sliders()[2 * i]
            button.click()
            self.wait(slider.is_enabled, "still locked")

    def rate(self, values):
        """Listen, and move the sliders as by hand."""
        self.listen()
        self.move(values)

    def move(self, values):
        """Move the sliders as by hand."""
        for slider, value in zip(self.sliders(), values):
            self.driver.execute_script(
                "arguments[0].value = arguments[1];"
                "arguments[0].dispatchEvent(new Event('input'))",
                slider,
                value,
            )

    def next(self):
        """Press the button to continue."""
        self.one("#next").click()

    def active(self):
        """Id or text of the element with the focus."""
        return self.js(
            "document.activeElement.id || document.activeElement.ariaLabel"
        )

    def index(self):
        """The page's data about the test."""
        return self.js(
            "JSON.parse(document.getElementById('index').textContent)"
        )

    def codes(self):
        """Code of each explanation on the screen, as stored."""
        return self.js(
            "JSON.parse(Object.entries(localStorage)"
            ".find(([key]) => key.endsWith(': ' + a))[1])",
            "ann",
        )


@pytest.fixture
def page(browse, made):  # noqa: F811
    """The page, without stored state of an earlier test."""
    test = Test(browse.open(made / "listening_test.html"))
    test.js("localStorage.clear()")
    test.driver.refresh()
    yield test
    test.js("localStorage.clear()")


@pytest.fixture
def downloads(page, tmp_path):
    """Folder for the browser's downloads."""
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(tmp_path)},
    )
    return tmp_path


def saved(page, folder):
    """Content of the only saved file."""
    page.wait(lambda: page.title() == "Thank you")
    page.wait(lambda: [*folder.glob("*.json")], "no file")
    (path,) = folder.glob("*.json")
    assert path.name == page.one("#file").text
    return path


def test_rate_all_and_save(page, made, downloads):
    assert page.title() == "Before you begin"
    page.begin("ann/ü")
    given = []
    for place in range(4):
        assert page.title() == f"Sound {place + 1} of 4"
        assert page.one("#decision").text == HOSTILE
        values = [1 + 24 * place + i for i in range(6)]
        page.rate(values)
        given.append(values)
        assert page.outputs() == list(map(str, values))
        last = place == 3
        assert page.one("#next").text == ("Save ratings" if last else "Next")
        page.next()
    path = saved(page, downloads)
    key = read_key(made / "key.json")
    content = json.loads(path.read_text("utf-8"))
    assert path.name == f"ratings-{key['test']}-ann_ü.json"
    assert content["listener"] == "ann/ü"
    found = [
        [
            x
            for rating in t["ratings"]
            for x in (rating["fit"], rating["quality"])
        ]
        for t in content["trials"]
    ]
    assert found == given
    rows = read_ratings([path], key)
    assert len(rows) == 12
    for row in rows:
        code = next(c for c, x in key["trials"].items() if x["id"] == row["id"])
        shown = [trial["trial"] for trial in content["trials"]].index(code)
        first = 1 + 24 * shown + 2 * (row["place"] - 1)
        assert (row["fit"], row["quality"]) == (first, first + 1)


def test_nothing_is_left_out(page):
    page.one("#who button").click()  # no name
    assert page.title() == "Before you begin"
    page.begin("   ")
    assert page.title() == "Before you begin"
    page.begin("ann")
    page.next()
    assert page.title() == "Sound 1 of 4"
    assert page.one("#missing").text == (
        "3 explanations have not been played to their end yet."
    )
    assert page.active() == "Play Explanation 1"
    page.listen()
    page.next()
    assert page.one("#missing").text == (
        "6 sliders of this sound are not rated yet."
    )
    assert page.active() == "fit-0"
    page.rate([10, 20, 30])
    page.next()
    assert page.active() == "quality-1"
    assert len(page.all(".question.missing")) == 3
    page.rate([10, 20, 30, 40, 50])
    page.next()
    assert page.one("#missing").text.startswith("One slider of this sound")
    # The middle is a rating if the listener confirms it.
    page.press(" ")
    assert page.outputs()[-1] == "50"
    page.next()
    assert page.title() == "Sound 2 of 4"
    page.one("#back").click()
    assert page.outputs() == ["10", "20", "30", "40", "50", "50"]


def test_a_click_on_the_middle_is_a_rating(page):
    page.begin("ann")
    page.listen()
    assert page.outputs() == ["not rated"] * 6
    page.sliders()[0].click()
    assert page.outputs() == ["50", *["not rated"] * 5]


def test_a_reload_loses_nothing(page, downloads):
    page.begin("ann")
    page.rate(range(11, 17))
    page.next()
    page.rate([7])
    page.driver.refresh()
    # On a busy machine the page may still be loading.
    page.wait(lambda: page.title() == "Sound 2 of 4", "not where it was")
    assert page.outputs() == ["7", *["not rated"] * 5]
    assert page.one("#summary").text == "Listener ann · sounds rated: 1 of 4"
    page.one("#back").click()
    assert page.outputs() == list(map(str, range(11, 17)))
    for _ in range(4):
        page.rate(range(11, 17))
        page.next()
    saved(page, downloads)
    # Another listener starts again, without the first one's ratings.
    page.one("#other").click()
    page.begin("ben")
    assert page.title() == "Sound 1 of 4"
    assert page.outputs() == [LOCKED] * 6
    page.driver.refresh()
    assert page.one("#summary").text.startswith("Listener ben")


def test_garbage_in_the_browsers_memory(page):
    page.begin("ann")
    page.rate([5])
    kept = page.codes()
    unheard = {"fit": 50, "quality": 50, "plays": 0, "began": 1}
    for text in (
        "{",
        "null",
        "[]",
        '{"ratings": 3, "place": "length"}',
        json.dumps({**kept, "place": 99}),
        json.dumps(
            {**kept, "ratings": {x: {"fit": 500} for x in kept["ratings"]}}
        ),
        json.dumps(
            {**kept, "ratings": dict.fromkeys(kept["ratings"], unheard)}
        ),
    ):
        page.js(
            "localStorage.setItem(Object.keys(localStorage)"
            ".find((key) => key.endsWith(': ann')), a)",
            text,
        )
        page.driver.refresh()
        assert page.title() == "Sound 1 of 4"
        assert set(page.outputs()[1:]) <= {"not rated", LOCKED}
    assert page.outputs() == [LOCKED] * 6


def test_works_where_nothing_is_kept(page, made, downloads):
    script = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {
            "source": "Object.defineProperty(window, 'localStorage',"
            "{configurable: true, get() { throw new Error('no'); }})"
        },
    )
    try:
        page.driver.refresh()
        assert page.one("#forgets").is_displayed()
        page.begin("ann")
        for _ in range(4):
            page.rate(range(1, 7))
            page.next()
        saved(page, downloads)
    finally:
        page.driver.execute_cdp_cmd(
            "Page.removeScriptToEvaluateOnNewDocument", script
        )
        page.driver.refresh()


def test_order_is_the_listeners(page, made, tmp_path):
    def orders(listener):
        """Orders of the sounds, read from the saved file."""
        folder = tmp_path / f"{len([*tmp_path.iterdir()])}"
        folder.mkdir()
        page.driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior",
            {"behavior": "allow", "downloadPath": str(folder)},
        )
        page.js("localStorage.clear()")
        page.driver.refresh()
        page.begin(listener)
        for _ in range(4):
            page.rate(range(1, 7))
            page.next()
        content = json.loads(saved(page, folder).read_text("utf-8"))
        return [
            (trial["trial"], *(rating["code"] for rating in trial["ratings"]))
            for trial in content["trials"]
        ]

    ann = orders("ann")
    assert orders("ann") == ann
    others = [orders(f"p{i}") for i in range(4)]
    clips = {tuple(trial[0] for trial in order) for order in [ann, *others]}
    assert len(clips) > 2
    # The order of methods differs between clips and between listeners.
    key = read_key(made / "key.json")["trials"]
    methods = {
        tuple(key[code]["sounds"][sound] for sound in sounds)
        for order in [ann, *others]
        for code, *sounds in order
    }
    assert len(methods) > 3


def test_keyboard_and_names(page):
    page.one("#listener").send_keys("ann", "\ue007")  # Enter
    assert page.active() == "trial-title"
    page.listen()
    page.js("document.getElementById('trial-title').focus()")
    stops = []
    for _ in range(11):
        page.press("\ue004")  # Tab
        stops.append(page.active())
    assert stops == [
        "Play the original sound",
        *(
            name
            for i in range(3)
            for name in (
                f"Play Explanation {i + 1}",
                f"fit-{i}",
                f"quality-{i}",
            )
        ),
        "next",
    ]
    assert page.outputs() == ["not rated"] * 6  # no rating yet
    names = [slider.accessible_name for slider in page.sliders()]
    assert names == [
        f"Explanation {i} {question}"
        for i in (1, 2, 3)
        for question in ("Does it fit the decision?", "How good is the sound?")
    ]
    assert {slider.aria_role for slider in page.sliders()} == {"slider"}
    page.js("document.getElementById('fit-1').focus()")
    text = "document.activeElement.getAttribute('aria-valuetext')"
    assert page.js(text) == "not rated"
    page.press("\ue014", "\ue014")  # to the right
    assert page.outputs()[2] == "52"
    assert page.js(text) is None
    page.one("#missing[role=alert]")


def test_what_was_not_played_is_not_rated(page, downloads):
    """A slider is locked until its own sound has been played to the end."""
    page.begin("ann")
    assert page.outputs() == [LOCKED] * 6
    assert not any(slider.is_enabled() for slider in page.sliders())
    page.move([50] * 6)  # as a script could
    page.sliders()[0].click()
    assert page.outputs() == [LOCKED] * 6
    # The original counts for itself.
    page.all("#trial .play")[0].click()
    page.wait(lambda: page.codes()["originals"])
    page.all("#explanations .play")[1].click()
    page.wait(lambda: page.sliders()[2].is_enabled())
    enabled = [slider.is_enabled() for slider in page.sliders()]
    assert enabled == [False, False, True, True, False, False]
    page.move([50] * 6)
    assert page.outputs() == [LOCKED] * 2 + ["50"] * 2 + [LOCKED] * 2
    # What was played stays played.
    page.driver.refresh()
    assert page.outputs() == [LOCKED] * 2 + ["50"] * 2 + [LOCKED] * 2


def test_the_file_says_how_often_and_how_long(page, made, downloads):
    page.begin("ann")
    page.listen()
    page.all("#explanations .play")[0].click()
    page.wait(lambda: total_plays(page) == 4, "not played again")
    for _ in range(4):
        page.rate(range(1, 7))
        page.next()
    path = saved(page, downloads)
    rows = read_ratings([path], read_key(made / "key.json"))
    assert {row["lasts"] for row in rows} == {BLINK}
    assert all(row["seconds"] >= BLINK - 0.05 for row in rows)
    assert all(row["plays"] >= 1 for row in rows)
    assert who_listened(rows) == ({}, [])
    content = json.loads(path.read_text("utf-8"))
    first = content["trials"][0]
    assert first["ratings"][0]["plays"] >= 2
    assert set(first["ratings"][0]) == {
        *("code", "fit", "quality", "plays", "seconds")
    }
    assert first["plays"] == 0  # of the original


def total_plays(page):
    """How often the explanations of all trials were played to the end."""
    kept = page.codes()["ratings"].values()
    return sum(rating["plays"] for rating in kept)


def test_skipping_to_the_end_is_no_listening(browse, tmp_path):
    """A sound of two seconds that jumps there, as by a media key."""
    page = Test(
        browse.open(make_test(tmp_path, SECONDS) / "listening_test.html")
    )
    page.js("localStorage.clear()")
    page.js(
        "window.Audio = class extends Audio { constructor(...x) { super(...x);"
        "(window.made ??= []).push(this); } }"
    )
    page.begin("ann")
    page.all("#explanations .play")[0].click()
    page.wait(lambda: page.js("window.made[1].currentTime") > 0)
    page.js("void (window.made[1].currentTime = a)", SECONDS - 0.05)
    page.wait(lambda: page.js("window.made[1].paused"))
    page.wait(lambda: page.all("#explanations .play")[0].text == "Play")
    assert page.outputs() == [LOCKED] * 6
    page.js("localStorage.clear()")


def test_sounds_play_one_at_a_time(browse, tmp_path):
    page = Test(
        browse.open(make_test(tmp_path, SECONDS) / "listening_test.html")
    )
    page.js("localStorage.clear()")
    page.driver.refresh()
    page.begin("ann")
    buttons = page.all("#trial .play")
    assert len(buttons) == 4
    buttons[0].click()
    page.wait(lambda: buttons[0].text == "Pause")
    bars = "[...document.querySelectorAll('#trial progress')].map(x => x.value)"
    page.wait(lambda: page.js(bars)[0] > 0.1, "does not go on")
    buttons[2].click()
    page.wait(
        lambda: [b.text for b in buttons] == "Play Play Pause Play".split()
    )
    assert buttons[2].accessible_name == "Pause Explanation 2"
    page.wait(lambda: page.js(bars)[2] > 0.05)
    buttons[2].click()
    page.wait(lambda: buttons[2].text == "Play")
    assert not any(p.text for p in page.all(".player .problem"))
    # A pause is not the end.
    assert page.outputs() == [LOCKED] * 6
    page.js("localStorage.clear()")


@pytest.mark.parametrize("width", [360, 1280])
def test_fingers_find_all_controls(browse, made, width):
    page = Test(browse.open(made / "listening_test.html", width=width))
    page.js("localStorage.clear()")
    page.driver.refresh()
    for step in range(2):
        sizes = page.js(
            "[...document.querySelectorAll('a[href], button, input')]"
            ".filter(e => e.checkVisibility()).map(e =>"
            " [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])"
            ".map(([text, box]) => [text, box.width, box.height])"
        )
        assert len(sizes) >= 2 + 9 * step
        assert [x for x in sizes if min(x[1:]) < 43.9] == []
        if not step:
            page.begin("ann")
    page.js("localStorage.clear()")


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark(browse, made, dark):  # noqa: F811
    page = Test(browse.open(made / "listening_test.html", dark=dark))
    page.js("localStorage.clear()")
    page.driver.refresh()
    page.begin("ann")

    def luminance(selector, name):
        colour = page.js(
            "getComputedStyle(document.querySelector(a))[b]"
            ".match(/[0-9.]+/g).slice(0, 3).map(Number)",
            selector,
            name,
        )
        parts = [
            x / 3294.6 if x <= 10.3 else ((x / 255 + 0.055) / 1.055) ** 2.4
            for x in colour
        ]
        return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), parts))

    paper = luminance(".panel", "backgroundColor")
    assert (paper < 0.2) == dark
    for selector in ("label", "output", ".ends", "legend", "strong"):
        ink = luminance(f"#trial {selector}", "color")
        light, deep = max(ink, paper), min(ink, paper)
        assert (light + 0.05) / (deep + 0.05) >= 4.5, selector
    page.js("localStorage.clear()")


def test_small_screens_need_no_scrolling_sideways(browse, made):  # noqa: F811
    page = Test(browse.open(made / "listening_test.html", width=360))
    page.js("localStorage.clear()")
    page.driver.refresh()
    width = "document.documentElement.scrollWidth"
    assert page.js(width) <= 360
    page.begin("a" * 60)
    assert page.js(width) <= 360
    page.js("localStorage.clear()")
