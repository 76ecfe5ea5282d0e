"""Tests of the figures."""

import math
import random
import re
import struct

import pytest
from test_tables import failing, grid

from lmac_sb.evaluation import plots
from lmac_sb.utils.errors import LMACError

METHODS = [f"method {i}" for i in range(25)]


def figure(mean):
    """A mean with its interval."""
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def lines(places, metrics, names=("a", "b"), seed=0):
    """Random lines over some places."""
    generator = random.Random(seed)
    return {
        name: [
            (x, {metric: figure(generator.random()) for metric in metrics})
            for x in places
        ]
        for name in names
    }


LAYERS = ["none", "classifier", "blocks.2"]
# Functions that draw each figure, by the path of the files.
DRAWN = {
    "curves": lambda stem: plots.draw_curves(stem, grid()),
    "snr": lambda stem: plots.draw_snr(stem, grid()),
    "passes": lambda stem: plots.draw_passes(
        stem, lines([1, 20, 600], ["AI", "AD", "FF"]), ["AI", "AD"]
    ),
    "randomisation": lambda stem: plots.draw_randomisation(
        stem, lines(LAYERS, ["correlation", "SSIM"])
    ),
    "roar": lambda stem: plots.draw_roar(
        stem, lines([0, 0.1, 0.5], ["accuracy"])
    ),
}


@pytest.fixture
def panels(monkeypatch):
    """Panels of the next figure."""
    seen = {}
    write = plots.write_figure

    def watched(figure, stem):
        seen["figure"] = figure
        return write(figure, stem)

    monkeypatch.setattr(plots, "write_figure", watched)

    def read():
        (legend,) = seen["figure"].legends
        seen["names"] = [text.get_text() for text in legend.get_texts()]
        return {
            axis.get_title(): {
                name: [(float(x), float(y)) for x, y in zip(*line.get_data())]
                for name, line in zip(seen["names"], axis.get_lines())
                if not isinstance(line.get_xdata()[0], str)
            }
            for axis in seen["figure"].axes
        }

    read.seen = seen
    return read


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_files(tmp_path, name):
    """A figure is a PNG and an SVG, and nothing else is left."""
    # A dot in the name does not begin a suffix.
    paths = DRAWN[name](tmp_path / "a.b")
    assert paths == [tmp_path / "a.b.png", tmp_path / "a.b.svg"]
    assert sorted(tmp_path.iterdir()) == paths
    png = paths[0].read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width > 600 and height > 300
    assert paths[1].read_text(encoding="utf-8").rstrip().endswith("</svg>")


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_same_bytes(tmp_path, name):
    """The files hold no date and no random name."""
    first, again = (
        [path.read_bytes() for path in DRAWN[name](tmp_path / stem)]
        for stem in ("x", "y")
    )
    assert first == again
    assert b"<dc:date>" not in first[1]


def test_same_bytes_from_shuffled_rows(tmp_path):
    """The order of the rows changes nothing."""
    rows = failing(grid())
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    for draw in (plots.draw_curves, plots.draw_snr):
        first, again = (
            [path.read_bytes() for path in draw(tmp_path / "x", given)]
            for given in (rows, shuffled)
        )
        assert first == again


def test_curves(tmp_path, panels):
    """A curve is the mean over the clips at each share and both ends."""
    rows = failing(grid())
    plots.draw_curves(tmp_path / "x", rows)
    drawn = panels()
    assert list(drawn) == [
        f"{setting}: {side}"
        for setting in ("clean", "noise 10 dB")
        for side in ("insertion ↑", "deletion ↓")
    ]
    for setting in ("clean", "noise 10 dB"):
        for side, key, ends in (
            ("insertion ↑", "p_in", (0.1, 0.9)),
            ("deletion ↓", "p_out", (0.9, 0.1)),
        ):
            panel = drawn[f"{setting}: {side}"]
            assert list(panel) == ["lmac", "lmac+5", "ones"]
            for method, points in panel.items():
                assert [x for x, _ in points] == [0, 0.05, 0.2, 0.5, 1]
                assert (points[0][1], points[-1][1]) == pytest.approx(ends)
                for share, mean in points[1:-1]:
                    values = [
                        row[key]
                        for row in rows
                        if row["setting"] == setting
                        and row["method"] == method
                        and row["keep"] == str(share)
                    ]
                    # The clip that failed has no curve.
                    failed = (setting, method) == ("clean", "lmac")
                    assert len(values) == 6 - failed
                    assert mean == pytest.approx(sum(values) / len(values))


def test_snr(tmp_path, panels):
    """Settings are sorted by SNR and kind; those without are left out."""
    rows = []
    for name in ("clean", "white paper", "noise 10 dB", "noise -5 dB"):
        rows += [{**row, "setting": name} for row in grid()[: 6 * 3 * 5]]
    rows += [
        {**row, "setting": "same-class mixture 0 dB"}
        for row in grid(seed=1)[: 6 * 3 * 5]
    ]
    for row in rows:
        if row["setting"] == "noise -5 dB":
            row["AD"] = 3.0
        # Only masks as published count.
        if row["keep"] != "own":
            row["AD"] = 1000.0
    plots.draw_snr(tmp_path / "x", rows)
    drawn = panels()
    assert list(drawn) == [
        f"{kind}: {metric}"
        for kind in ("noise", "same-class mixture")
        for metric in ("AI ↑", "AD ↓")
    ]
    expected = [
        row["AD"]
        for row in rows
        if row["method"] == "ones"
        and row["keep"] == "own"
        and row["setting"] == "noise 10 dB"
    ]
    mean = sum(expected) / len(expected)
    (low, high) = drawn["noise: AD ↓"]["ones"]
    assert low == (-5, pytest.approx(3)) and high == (10, pytest.approx(mean))
    assert [x for x, _ in drawn["same-class mixture: AI ↑"]["lmac"]] == [0]


@pytest.mark.parametrize(
    "setting, parts",
    [
        ("noise 10 dB", ("noise", 10)),
        ("any-class mixture -2.5 dB", ("any-class mixture", -2.5)),
        ("clean", None),
        ("white paper", None),
        ("10 dB", ("", 10)),
        ("loud dB", None),
        ("dB", None),
        ("", None),
    ],
)
def test_snr_in_a_name(setting, parts):
    """An SNR is read only from names that have one."""
    kind, snr = plots._kind_and_snr(setting)
    assert (snr is None) if parts is None else ((kind, snr) == parts)


def test_nothing_to_draw_from_rows(tmp_path):
    """An evaluation without shares or SNRs has no such figure."""
    rows = [row for row in grid() if row["keep"] == "own"]
    rows = [row for row in rows if row["setting"] == "clean"]
    assert plots.draw_curves(tmp_path / "x", rows) == []
    assert plots.draw_snr(tmp_path / "x", rows) == []
    assert list(tmp_path.iterdir()) == []


def test_passes(tmp_path, panels):
    """Each requested metric has a panel, over a logarithmic axis."""
    given = lines([1, 20, 600], ["AI", "AD", "FF"])
    del given["b"][0], given["b"][0]
    plots.draw_passes(tmp_path / "x", given, ["AD", "AI"])
    drawn = panels()
    assert list(drawn) == ["AD ↓", "AI ↑"]
    for title, panel in drawn.items():
        metric = title.split()[0]
        for name, points in panel.items():
            assert points == [
                (x, found[metric]["mean"]) for x, found in given[name]
            ]
    for axis in panels.seen["figure"].axes:
        assert axis.get_xscale() == "log"
        assert axis.get_xlabel() == "passes of the classifier"


@pytest.mark.parametrize("passes", [0, -1, math.nan])
def test_no_pass_is_refused(tmp_path, passes):
    """Zero passes are refused: a logarithmic axis cannot show them."""
    with pytest.raises(LMACError, match=f"{passes} passes of 'a'"):
        plots.draw_passes(tmp_path / "x", lines([1, passes], ["AI"]), ["AI"])
    assert list(tmp_path.iterdir()) == []


def test_intervals(tmp_path, panels):
    """Each point has its interval, in the colour of the line."""
    given = lines([0, 0.1, 0.5], ["accuracy"])
    plots.draw_roar(tmp_path / "x", given)
    assert panels()["accuracy"]["b"][1][0] == 0.1
    (axis,) = panels.seen["figure"].axes
    assert len(axis.collections) == 2
    for name, line, bars in zip("ab", axis.get_lines(), axis.collections):
        ends = [[tuple(p) for p in segment] for segment in bars.get_segments()]
        assert ends == [
            [
                (x, found["accuracy"]["low"]),
                (x, found["accuracy"]["high"]),
            ]
            for x, found in given[name]
        ]
        assert bars.get_color()[0][:3] == pytest.approx(
            [int(line.get_color()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        )


def test_layers_keep_their_order(tmp_path, panels):
    """Layers keep their order, from the top on."""
    plots.draw_randomisation(
        tmp_path / "x", lines(LAYERS, ["correlation", "SSIM"])
    )
    assert list(panels()) == ["correlation", "SSIM"]
    for axis in panels.seen["figure"].axes:
        labels = [text.get_text() for text in axis.get_xticklabels()]
        assert labels == LAYERS


def test_lines_are_told_apart(tmp_path, panels):
    """Lines differ in colour, marker or dashes, the same in all panels."""
    plots.draw_passes(
        tmp_path / "x", lines([1, 2], ["AI", "AD"], METHODS), ["AI", "AD"]
    )
    panels()
    assert panels.seen["names"] == METHODS
    first, second = (
        [
            (line.get_color(), line.get_marker(), line.get_linestyle())
            for line in axis.get_lines()
        ]
        for axis in panels.seen["figure"].axes
    )
    assert first == second
    assert len(set(first)) == len(METHODS)
    figure = panels.seen["figure"]
    box = figure.legends[0].get_window_extent()
    # To the right of the panels and within the figure.
    assert box.x0 > max(axis.bbox.x1 for axis in figure.axes)
    assert 0 <= box.y0 and box.y1 <= figure.bbox.y1
    assert box.x1 <= figure.bbox.x1


def test_a_line_keeps_its_look_where_another_is_missing(tmp_path, panels):
    """A method without a metric does not change the other lines."""
    given = lines([1, 2], ["AI", "AD"], "abc")
    for _, found in given["a"]:
        del found["AD"]
    plots.draw_passes(tmp_path / "x", given, ["AI", "AD"])
    panels()
    first, second = (axis.get_lines() for axis in panels.seen["figure"].axes)
    assert [x.get_color() for x in first[1:]] == [x.get_color() for x in second]


def test_names_are_no_formulas(tmp_path):
    """Dollar signs in names are not read as formulas."""
    plots.draw_roar(
        tmp_path / "x", lines([0, 1], ["accuracy"], ["$\\frac$", "a_$b"])
    )
    rows = [{**row, "setting": "$\\x$ 3 dB"} for row in grid()[:90]]
    plots.draw_curves(tmp_path / "y", rows)
    assert len(plots.draw_snr(tmp_path / "z", rows)) == 2


def test_nothing_to_draw(tmp_path):
    """The message names the figure."""
    for draw in (
        lambda stem: plots.draw_roar(stem, {}),
        lambda stem: plots.draw_randomisation(stem, {"a": []}),
        lambda stem: plots.draw_passes(stem, lines([1], ["AI"]), ["FF"]),
    ):
        with pytest.raises(LMACError, match="figure .*x: no values to draw"):
            draw(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    """A failed write leaves the old figure, and no part of the new one."""
    from matplotlib.figure import Figure

    DRAWN["roar"](tmp_path / "x")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self, file, **options):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="no space"):
        DRAWN["roar"](tmp_path / "x")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_global_state_is_left_alone(tmp_path):
    """Drawing leaves no pyplot figure and no setting behind."""
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    DRAWN["roar"](tmp_path / "x")
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib" not in vars(plots)


def test_text_is_large_enough(tmp_path):
    """Letters of the SVG's text are at least nine points high."""
    (_, path) = DRAWN["curves"](tmp_path / "x")
    text = path.read_text(encoding="utf-8")
    # Text is drawn as paths whose scale is a hundredth of the font's size.
    scales = [float(x) for x in re.findall(r"scale\(([\d.]+) -[\d.]+\)", text)]
    assert len(scales) > 20
    assert min(scales) >= 0.09
