"""Tests of an audit's page in a browser, with real explanations of scenes."""

import re
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from audits import alarm, audit_of, group, one_class, write_audit

from lmac_sb import LMACInterpreter
from lmac_sb.pages.audit import write_audit_page

pytest.importorskip("selenium")

from driven import (  # noqa: E402
    DrivenPage,
    brightness,
    contrast,
    sizes_of_controls,
    sticking_out,
)
from selenium.webdriver import Keys  # noqa: E402

CLASSES = ["chainsaw", "clock_tick", "crying_baby", "dog"]
SECONDS_OPEN = 20  # of 521 classes; usually about one
# Names that must stay text, and short enough to be seen.
HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "x" * 3000,
    "שלום \u202e gnol yrev",
    "two\nlines\tand ${1+1} {{x}}",
]


@pytest.fixture(scope="session")
def explained(tmp_path_factory, scenes):
    """Five scenes, explained, by the names of their folders."""
    folder = tmp_path_factory.mktemp("explained")
    interpreter = LMACInterpreter.from_pretrained("esc10")
    found = {}
    for file in sorted((scenes / "audio").glob("*.wav"))[:5]:
        clip = interpreter.explain_file(file)
        clip.save(folder / file.stem)
        decision = clip.classes[int(clip.decision[0])]
        found[file.stem] = {
            "id": file.name,
            "label": "chainsaw",
            "decision": decision,
            "right": False,
        }
    # One is right.
    found[file.stem] |= {"label": decision, "right": True}
    return folder, found


@pytest.fixture(scope="session")
def make_page(explained, tmp_path_factory):
    """Writes the page of an audit with those examples."""
    examples, _ = explained

    def make(audit):
        folder = write_audit(tmp_path_factory.mktemp("audit"), audit)
        (folder / "examples").mkdir()
        for name in audit["examples"]:
            (folder / "examples" / name).mkdir()
            for file in (examples / name).iterdir():
                if file.is_file():
                    (folder / "examples" / name / file.name).write_bytes(
                        file.read_bytes()
                    )
        return write_audit_page(folder)

    return make


@pytest.fixture(scope="session")
def page(make_page, explained):
    """Three alarms of four classes."""
    return make_page(audit_of(CLASSES, explained[1]))


@pytest.fixture(scope="session")
def hostile_page(make_page, explained):
    """The same for classes with such names."""
    audit = audit_of(HOSTILE, explained[1])
    first, second = HOSTILE[:2]
    audit["failed"] = [{"id": name, "error": name} for name in HOSTILE]
    audit["notes"] = HOSTILE
    audit["made"] |= {name: name for name in HOSTILE}
    audit["corpus"] |= {"name": second, "columns": HOSTILE}
    audit["alarms"] = [
        alarm(name, list(explained[1])[:2], where=name, kind=name, text=name)
        for name in HOSTILE
    ]
    audit["alarms"][0] |= {"band_hz": None, "column": second}
    audit["confusions"][0] |= {"groups": [group(second, [], text=second)]}
    for facts in audit["examples"].values():
        facts |= {"id": second, "label": first, "decision": HOSTILE[2]}
    return make_page(audit)


class Audit(DrivenPage):
    """The page as a person sees and uses it."""

    def inside(self, element, selector):
        """Elements in another one."""
        return element.find_elements("css selector", selector)

    def titles(self, section):
        """Headings of what a section shows."""
        return [x.text for x in self.all(f"#{section} h3")]

    def classes(self):
        """Names of the classes that are shown, in order."""
        rows = self.all("tr.class:not([hidden]) .open")
        return [row.text for row in rows]

    def open_class(self, name):
        """Press a class; what it opens to."""
        row = self.all("tr.class:not([hidden]) .open")[
            self.classes().index(name)
        ]
        row.click()
        (panel,) = self.all(".panel")
        return panel

    def search(self, text):
        """Type into the search."""
        field = self.one("#search")
        field.clear()
        field.send_keys(text)

    def audios(self):
        """Name, time and playing state of all loaded sounds."""
        return self.js(
            "[...document.querySelectorAll('audio')]"
            ".map(x => [x.dataset.sound, x.currentTime, !x.paused])"
        )

    def playing(self):
        """Names of the sounds that play."""
        return [name for name, _, plays in self.audios() if plays]

    def drawn(self):
        """How many pictures are drawn."""
        return self.js(
            "[...document.querySelectorAll('canvas')]"
            ".filter(c => c.width > 0).length"
        )


@pytest.fixture
def opened(browse, page):
    """The page, its first pictures drawn."""
    found = Audit(browse.open(page))
    found.wait(found.drawn)
    return found


def test_alarms_come_first_with_their_evidence(opened):
    assert opened.one("h1").text == "Audit: scenes"
    assert opened.one("#answer").text == "3 alarms among 214 tests"
    headings = [x.text for x in opened.all("main > section > h2")]
    assert headings == [
        "Alarms",
        "Wrong decisions",
        "Classes",
        "What failed",
        "How it was made",
    ]
    assert opened.titles("alarms") == [
        "1. chainsaw: 20 to 250 Hz",
        "2. clock_tick: the first 5 %",
        "3. chainsaw: site = north",
    ]
    band, place, column = opened.all("#alarms .finding")
    assert "In 28 of 30 clips that are decided chainsaw" in band.text
    assert "62 % (48 % to 74 %)" in band.text
    assert "p = 1.0 · 10⁻⁷ · q = 2.1 · 10⁻⁵ · 30 clips" in band.text
    assert "Column of the table: site" in column.text
    assert "-20 % (-30 % to -10 %)" in column.text
    # Where it is, in the chart and in each picture.
    assert len(opened.inside(band, "svg .marked")) == 1
    assert len(opened.inside(band, ".example")) == 4
    assert len(opened.inside(column, "svg .marked")) == 0
    marks = opened.js(
        "[...a.querySelectorAll('.mark')].map(m => [m.hidden,"
        " m.style.bottom, m.style.height, m.style.left, m.style.width])",
        band,
    )
    assert len(marks) == 4
    for hidden, bottom, height, left, width in marks:
        assert (hidden, left, width) == (False, "0%", "100%")
        assert float(bottom[:-1]) == pytest.approx(100 * 20 / 8000)
        assert float(height[:-1]) == pytest.approx(100 * 230 / 8000)
    (mark,) = opened.inside(place, ".example:first-child .mark")
    assert opened.js("a.style.width", mark) == "5%"


def test_the_interval_is_drawn_to_scale(opened):
    """From 0 to 100 %, the mean between its ends."""
    figures = opened.js(
        "(svg => [svg.querySelector('.range').getAttribute('d'),"
        " svg.querySelector('.mean').getAttribute('cx'),"
        " svg.getAttribute('aria-label')])(document.querySelector('.interval'))"
    )
    low, high = map(float, figures[0][1:].replace(" 12H", " ").split())
    place = [(x - 12) / 276 for x in (low, float(figures[1]), high)]
    assert place == pytest.approx([0.48, 0.62, 0.74])
    assert figures[2].endswith("the band: 62 % (48 % to 74 %)")


def test_sounds_play_and_follow_each_other(opened):
    example = opened.all("#alarms .example")[0]
    whole, kept, rest = opened.inside(example, "button:not(.term)")
    assert [x.text for x in (whole, kept, rest)] == ["Whole", "Kept", "Rest"]
    whole.click()
    opened.wait(lambda: opened.playing() == ["whole"], "does not play")
    opened.wait(lambda: opened.audios()[0][1] > 0.2)
    assert whole.get_attribute("aria-pressed") == "true"
    kept.click()
    opened.wait(lambda: opened.playing() == ["kept"])
    assert opened.audios()[1][1] >= 0.2
    assert whole.get_attribute("aria-pressed") == "false"
    kept.click()
    assert opened.playing() == []
    opened.press(" ")  # the key plays the button that has the focus
    opened.wait(lambda: opened.playing() == ["kept"])
    # Another example ends the first.
    other = opened.all("#alarms .example")[1]
    opened.inside(other, "button:not(.term)")[2].click()
    opened.wait(lambda: opened.playing() == ["rest"])
    assert len(opened.audios()) == 3
    assert kept.get_attribute("aria-pressed") == "false"


def test_what_is_not_shown_any_more_does_not_play_on(opened):
    example = opened.all("#alarms .example")[0]
    opened.inside(example, "button:not(.term)")[0].click()
    opened.wait(opened.playing)
    opened.search("crying")
    opened.wait(lambda: not opened.playing())


def test_a_search_finds_classes_with_their_alarms_and_pairs(opened):
    opened.press("/")
    opened.press("CLOCK")
    assert opened.classes() == ["clock_tick"]
    assert opened.titles("alarms") == ["2. clock_tick: the first 5 %"]
    assert opened.titles("wrong") == ["chainsaw taken for clock_tick"]
    expected = "1 of 4 classes · 1 alarm · 1 pair"
    assert opened.one("#count").text == expected
    opened.search("nothing like that")
    assert opened.classes() == opened.titles("alarms") == []
    assert opened.one("#count").text == "0 of 4 classes · 0 alarms · 0 pairs"
    opened.search("")
    opened.press("x", Keys.BACKSPACE)
    assert opened.classes() == CLASSES
    assert opened.one("#count").text == ""


def test_classes_are_sorted(opened):
    def sort(name):
        opened.one(f"th.{name} .sort").click()
        return opened.one(f"th.{name}").get_attribute("aria-sort")

    assert sort("class") == "ascending"
    assert sort("class") == "descending"
    assert opened.classes() == CLASSES[::-1]
    assert sort("alarms") == "descending"
    assert opened.classes()[:2] == ["chainsaw", "clock_tick"]
    assert sort("alarms") == "ascending"
    assert opened.classes() == [
        "crying_baby",
        "dog",
        "clock_tick",
        "chainsaw",
    ]


def test_a_class_opens_to_what_it_is_decided_by(opened):
    assert opened.all(".panel") == []
    panel = opened.open_class("chainsaw")
    text = panel.text
    for part in (
        "Kept energy over frequency",
        "Kept energy over time",
        "faithful\n75 % (60 % to 86 %)",
        "FF ↑\n0.500 (0.400 to 0.600)",
        "Alarms:\n20 to 250 Hz\nsite = north",
        "Of 32 clips with this label, 1 is decided otherwise.",
        "low and long 50 % (40 % to 60 %), 16 clips",
        "Prototypes",
        "Outliers",
    ):
        assert part in text, part
    assert len(opened.inside(panel, "svg.profile .shade")) == 2
    opened.all(".open")[0].click()
    assert opened.all(".panel") == []


def test_anchors_lead_to_classes_and_alarms(browse, page):
    found = Audit(browse.open(page))
    opened = found.open_class("dog")
    (link,) = found.inside(opened, ".link")
    address = link.get_attribute("href")
    assert address.endswith("#class/dog")
    found.driver.get("about:blank")
    found.driver.get(address)
    found.wait(lambda: found.all(".panel"))
    assert found.js("document.activeElement.id") == "class/dog"
    found.search("clock")
    # A link to what is not shown shows it.
    link = found.js(
        "document.querySelectorAll('.finding .link')[0].getAttribute('href')"
    )
    found.search("dog")
    found.driver.execute_script("location.hash = arguments[0]", link)
    found.wait(lambda: "clock_tick" in found.js("document.activeElement.id"))


def test_no_alarm_is_said_plainly(browse, make_page):
    classes = [one_class(name, n_wrong=None) for name in CLASSES]
    audit = audit_of(CLASSES, alarms=[], confusions=[], classes=classes)
    audit["corpus"] |= {"labels": False, "n_failed": 0}
    found = Audit(browse.open(make_page(audit | {"failed": []})))
    assert found.one("#answer").text == "No alarm among 214 tests"
    assert "No alarm among 214 tests" in found.one("#alarms .intro").text
    assert "not a proof" in found.one("#alarms .intro").text
    assert "have no labels" in found.one("#wrong .intro").text
    assert "each clip was explained" in found.one("#failed .intro").text
    assert found.all("th.wrong") == []
    assert "without labels" in found.one("#summary").text


def test_labels_that_are_no_classes_are_named(browse, make_page):
    """That is another thing than no labels, and can be mended."""
    classes = [one_class(name, n_wrong=None) for name in CLASSES]
    audit = audit_of(CLASSES, confusions=[], classes=classes)
    audit["corpus"] |= {"labels": False, "unknown_labels": ["c0", "<i>c1"]}
    found = Audit(browse.open(make_page(audit)))
    intro = found.one("#wrong .intro").text
    assert intro.startswith("No clip has a label that is a class of the model,")
    assert "model, for instance: c0, <i>c1. The option --classes-map" in intro
    assert "labels unknown to the model" in found.one("#summary").text
    audit = audit_of(CLASSES, confusions=[])
    audit["corpus"] |= {"unknown_labels": ["c0"]}
    found = Audit(browse.open(make_page(audit)))
    intro = found.one("#wrong .intro").text
    assert intro.startswith("No decision differs from its label. Labels unk")
    assert "decided wrongly" in found.one("#summary").text


def test_no_test_is_no_good_news(browse, make_page):
    page = make_page(audit_of(CLASSES, alarms=[], n_tests=0))
    found = Audit(browse.open(page))
    assert found.one("#answer").text == "Not tested for alarms"
    assert found.one("#answer").get_attribute("class") == "open"
    assert "No test could be made" in found.one("#alarms .intro").text


def test_what_failed_and_how_it_was_made(opened):
    assert opened.one("#failed li").text == "broken.wav: broken.wav: truncated"
    text = opened.one("#how").text
    for part in ("model\nesc10", "Benjamini-Hochberg", "2026-11-27", "site"):
        assert part in text
    assert "The page holds 5 examples, and needs no network." in text
    (plot,) = opened.all("#how .files a")
    assert plot.text == "all classes (png)"
    assert plot.get_attribute("href").endswith("/plots/classes.png")


def test_examples_that_are_left_out_are_told(browse, explained, make_page):
    audit = audit_of(CLASSES, {**explained[1]})
    name = next(iter(explained[1]))
    page = make_page(audit)
    (page.parent / "examples" / name / "original.wav").unlink()
    found = Audit(browse.open(write_audit_page(page.parent)))
    absent = found.all("#alarms .absent")[0]
    assert "found none, expected one of" in absent.text
    assert f"examples/{name}" in absent.text
    assert "1 example could not be read" in found.one("#how .intro").text


@pytest.mark.parametrize("width", [360, 600, 800, 1280])
def test_hostile_names_stay_text_and_in_their_place(
    browse, hostile_page, width
):
    found = Audit(browse.open(hostile_page, width=width))
    found.js("document.querySelectorAll('details').forEach(x => x.open = true)")
    for button in found.all(".open"):
        found.js("a.click()", button)
    assert len(found.all(".panel")) == 4
    assert found.all("img[src=x]") == []
    assert found.all("#alarms h3")[0].text.startswith("1. <script>alert(1)")
    assert found.js("document.documentElement.scrollWidth") <= width
    assert sticking_out(found) == []
    # A name of thousands of letters is cut, and whole when pointed at.
    longest = found.js(
        "[...document.querySelectorAll('body :not(script, :has(*))')]"
        ".reduce((n, e) => Math.max(n, e.textContent.length), 0)"
    )
    assert longest < 2500


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(browse, page, dark):
    found = Audit(browse.open(page, dark=dark))
    found.open_class("chainsaw")
    assert (brightness(found) < 50) == dark
    for selector in [
        "h1",
        "#summary",
        "#answer",
        "#contents a",
        "summary",
        "#view .name",
        ".intro",
        ".kind",
        ".what",
        ".value",
        ".finding .note",
        ".example .wrong",
        ".example .right",
        ".example .origin",
        ".example .verdict",
        ".sort",
        "td.alarms.has",
        ".rows dt",
        ".origins dt",
    ]:
        assert contrast(found, selector) >= 4.5, selector
    found.one("#theme").click()
    assert (brightness(found) < 50) != dark


@pytest.mark.parametrize("width", [360, 1280])
def test_fingers_find_all_controls(browse, page, width):
    found = Audit(browse.open(page, width=width, height=740))
    found.js("document.querySelectorAll('.open')[0].click()")
    sizes = sizes_of_controls(found)
    assert len(sizes) > 50
    assert [x for x in sizes if min(x[1:]) < 43.9] == []


def test_every_control_and_picture_has_a_name(opened):
    opened.open_class("chainsaw")
    tree = opened.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    roles = {}
    for node in tree["nodes"]:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            roles.setdefault(node["role"]["value"], []).append(name)
    for role, least in {
        "button": 40,
        "searchbox": 1,
        "image": 15,
        "heading": 10,
        "link": 10,
        "columnheader": 6,
        "rowheader": 4,
    }.items():
        assert len(roles[role]) >= least, (role, len(roles.get(role, ())))
        assert all(roles[role]), (role, roles[role])


def test_the_keyboard_opens_a_class(opened):
    opened.press("/")
    opened.press("dog", Keys.TAB)
    while opened.js("!document.activeElement.matches('.open')"):
        opened.press(Keys.TAB)
    opened.press(Keys.ENTER)
    assert len(opened.all(".panel")) == 1
    state = opened.js("document.activeElement.getAttribute('aria-expanded')")
    assert state == "true"


@pytest.mark.slow
def test_the_audit_of_a_hum_is_shown(browse, tmp_path):
    """From planted scenes and a trained classifier to the page."""
    root = Path(__file__).resolve().parents[2]
    spec = spec_from_file_location("tool", root / "tools" / "audit_page.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.make_audit(tmp_path, clips=5, steps=1, examples=6)
    found = Audit(browse.open(page))
    titles = found.titles("alarms")
    assert titles[0].startswith(f"1. {tool.HUMS}: ")
    assert re.match(r"[1-9] alarms? among \d+ tests", found.one("#answer").text)
    found.wait(found.drawn)
    example = found.all("#alarms .example")[0]
    for place, sound in enumerate(("whole", "kept", "rest")):
        found.inside(example, "button:not(.term)")[place].click()
        found.wait(lambda sound=sound: found.playing() == [sound])
    panel = found.open_class(tool.HUMS)
    assert len(found.inside(panel, "svg.profile .line")) >= 2
    found.search(tool.HUMS)
    assert found.classes() == [tool.HUMS]


def test_a_label_that_is_no_class_is_shown_alone(browse, make_page, explained):
    """The decision is neither right nor wrong then."""
    unknown = {"label": "monday", "right": None}
    examples = {k: {**v, **unknown} for k, v in explained[1].items()}
    found = Audit(browse.open(make_page(audit_of(CLASSES, examples))))
    assert "label monday" in found.all(".example")[0].text
    assert found.all(".example .right, .example .wrong") == []


def test_many_classes_and_alarms(browse, make_page):
    names = [f"class {i}" for i in range(521)]
    audit = audit_of(names)
    audit["alarms"] = [alarm(name) for name in names[:60]]
    page = make_page(audit)
    start = time.monotonic()
    found = Audit(browse.open(page))
    assert time.monotonic() - start < SECONDS_OPEN
    assert len(found.all("tr.class")) == 521
    # What is not asked for is not made.
    assert len(found.all("#alarms .finding")) == 20
    assert found.all(".panel") == []
    found.js("a.click()", found.one("#alarms .more"))
    assert len(found.all("#alarms .finding")) == 60
    found.search("class 520")
    assert found.classes() == ["class 520"]


def test_pictures_far_away_are_given_up(browse, make_page, explained):
    audit = audit_of(CLASSES, explained[1])
    names = list(explained[1])
    audit["alarms"] = [alarm(f"c{i}", names) for i in range(20)]
    found = Audit(browse.open(make_page(audit)))
    found.wait(found.drawn)
    assert found.drawn() < 60
    found.js("scrollTo(0, document.body.scrollHeight)")
    found.wait(
        lambda: not found.js("document.querySelector('canvas').width"),
        "kept",
    )
