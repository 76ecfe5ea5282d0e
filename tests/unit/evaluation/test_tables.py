"""Tests of the summary of an evaluation."""

import csv
import math
import random
import re
import statistics
import time

import pytest

from lmac_sb.evaluation.tables import (
    area_under,
    curve_rows,
    curves,
    natural,
    read_results,
    summarize_grid,
    write_summary,
)
from lmac_sb.metrics.registry import GUARDS, METRICS
from lmac_sb.metrics.summary import bootstrap
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import write_csv

NAN = float("nan")
FILES = ("summary.csv", "summary.md", "summary.tex")
SHARES = ("0.05", "0.2", "0.5")
GUARDED = [name for name, metric in METRICS.items() if metric.repeated]


def grid(n_clips=6, methods=("lmac", "lmac+5", "ones"), seed=0):
    """Rows of an evaluation as eval.py makes them."""
    generator = random.Random(seed)
    rows = []
    for setting in ("clean", "noise 10 dB"):
        for clip in range(n_clips):
            for method in methods:
                for keep in ("own", "area of lmac", *SHARES):
                    row = {
                        "id": f"clip{clip}",
                        "setting": setting,
                        "method": method,
                        "keep": keep,
                        "label": "dog",
                        "decision": "dog" if clip % 3 else "cat",
                        "right": int(clip % 3 > 0),
                        "p": 0.9,
                        "p_in": generator.random(),
                        "p_out": generator.random(),
                        "p_silence": 0.1,
                        "AI": generator.choice([0.0, 100.0]),
                        "AD": 10 * generator.random(),
                        "area": generator.random(),
                    }
                    if keep == "own":
                        for guard in GUARDS:
                            for name in GUARDED:
                                row[f"{guard} {name}"] = generator.random()
                    rows.append(row)
    return rows


def written(rows, folder):
    """Bytes of the three files."""
    folder.mkdir()
    write_summary(folder, rows)
    return [(folder / name).read_bytes() for name in FILES]


# ------------------------------------------------------------------- reading


def table(rows):
    """Rows with all columns, as eval.py writes them."""
    names = dict.fromkeys(name for row in rows for name in row)
    names = [*names, "warning", "error"]
    return [{name: row.get(name, "") for name in names} for row in rows]


def test_round_trip(tmp_path):
    """What was written is read with its types, and gives the same tables."""
    path = tmp_path / "results.csv"
    rows = grid()
    rows[3]["warning"] = 'a "constant", mask\nof ones'
    rows[4]["AD"] = NAN
    rows[5]["id"] = "0123"
    write_csv(path, table(rows))
    found = read_results(path)
    assert len(found) == len(rows)
    for new, old in zip(found, rows):
        assert new.pop("error") == ""
        assert new.pop("warning") == old.pop("warning", "")
        assert new.keys() == old.keys()
        for key, value in old.items():
            assert type(new[key]) is type(value), key
            assert new[key] == value or math.isnan(value), key
    assert found[5]["id"] == "0123"
    assert written(found, tmp_path / "a") == written(rows, tmp_path / "b")


def test_byte_order_mark_and_line_ends(tmp_path):
    """A spreadsheet's way to save a csv is no reason to refuse it."""
    path = tmp_path / "results.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,setting,method,keep,AI\r\na,clean,m,own,1\r\n"
    )
    assert read_results(path) == [
        {"id": "a", "setting": "clean", "method": "m", "keep": "own", "AI": 1.0}
    ]


HEAD = "id,setting,method,keep,right,AI\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "found the columns none; expected id, setting, method, keep"),
        ("id,method\n", "found the columns id, method; expected"),
        (f"AI,{HEAD}", "no name twice"),
        (f"{HEAD}a,b,c,d,1,high\n", "line 2: AI is 'high', expected a number"),
        (f"{HEAD}a,b,c,d,0.5,1\n", "line 2: right is '0.5'"),
        (f"{HEAD}a,b,c,d,1,1\na,b,c", "line 3: 3 fields, expected 6"),
        (f"{HEAD}a,b,c,d,1,1,1\n", "line 2: 7 fields"),
        (f'{HEAD}"a,b,c,d,1,1\n', "not a csv file"),
    ],
)
def test_bad_file(tmp_path, text, message):
    """The message names the file, the line and the problem."""
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(LMACError, match=message) as error:
        read_results(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    """A missing file, a folder and a binary file are refused."""
    path = tmp_path / "results.csv"
    with pytest.raises(LMACError, match="results.csv: cannot be read .*such"):
        read_results(path)
    with pytest.raises(LMACError, match="cannot be read"):
        read_results(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LMACError, match="results.csv: not a csv file"):
        read_results(path)


# -------------------------------------------------------------------- curves


def slow_area(shares, values, n=20000):
    """Area as the mean height at many places of the curve."""
    total = 0
    for step in range(n):
        x = shares[0] + (step + 0.5) / n * (shares[-1] - shares[0])
        i = max(i for i in range(len(shares) - 1) if shares[i] <= x)
        part = (x - shares[i]) / (shares[i + 1] - shares[i])
        total += values[i] + part * (values[i + 1] - values[i])
    return total / n


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_area_slowly(seed):
    """The area agrees with the mean of many heights."""
    generator = random.Random(seed)
    shares = sorted(generator.uniform(-1, 3) for _ in range(6))
    values = [generator.random() for _ in shares]
    expected = slow_area(shares, values)
    assert area_under(shares, values) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "shares, values",
    [([0, 1], [1]), ([0], [1]), ([0, 0.5, 0.5, 1], [1] * 4), ([1, 0], [1, 1])],
)
def test_bad_shares(shares, values):
    """Shares that do not increase are refused."""
    with pytest.raises(LMACError, match="that rise"):
        area_under(shares, values)


def test_area_of_nan_is_nan():
    """A NaN probability gives a NaN area, not a smaller one."""
    assert math.isnan(area_under([0, 0.5, 1], [0, NAN, 1]))


def test_curve_by_hand():
    """A curve starts at silence and ends at the whole clip."""
    common = {"id": "a", "setting": "clean", "method": "m", "right": 1}
    common.update(p=0.9, p_silence=0.1)
    rows = [
        {**common, "keep": "0.5", "p_in": 0.8, "p_out": 0.2},
        {**common, "keep": "own", "p_in": 0.0, "p_out": 0.0},
        {**common, "keep": "0.1", "p_in": 0.6, "p_out": 0.5},
        {**common, "keep": "1.0", "p_in": 0.3, "p_out": 0.3},
    ]
    assert curves(rows) == [
        {
            **{k: common[k] for k in ("id", "setting", "method", "right")},
            "shares": [0, 0.1, 0.5, 1],
            "insertion": [0.1, 0.6, 0.8, 0.9],
            "deletion": [0.9, 0.5, 0.2, 0.1],
        }
    ]
    (row,) = curve_rows(rows)
    insertion = 0.1 * 0.35 + 0.4 * 0.7 + 0.5 * 0.85
    assert row.pop("insertion AUC") == pytest.approx(insertion)
    deletion = 0.1 * 0.7 + 0.4 * 0.35 + 0.5 * 0.15
    assert row.pop("deletion AUC") == pytest.approx(deletion)
    assert row.pop("keep") == "curve"
    assert row == {k: common[k] for k in ("id", "setting", "method", "right")}


def test_curves_of_each_clip():
    """There is a curve for each clip, setting and method with shares."""
    rows = [
        row for row in grid() if row["method"] != "ones" or row["keep"] == "own"
    ]
    names = [(c["setting"], c["method"], c["id"]) for c in curves(rows)]
    assert names == [
        (setting, method, f"clip{clip}")
        for setting in ("clean", "noise 10 dB")
        for method in ("lmac", "lmac+5")
        for clip in range(6)
    ]
    assert curves([row for row in rows if row["keep"] == "own"]) == []


def test_missing_share_is_refused():
    """A missing share is refused: it would change the area."""
    rows = grid()
    gone = next(i for i, row in enumerate(rows) if row["keep"] == "0.2")
    row = rows.pop(gone)
    message = f"clip '{row['id']}', .* method '{row['method']}': .* keep 0.2"
    with pytest.raises(LMACError, match=message):
        curves(rows)


def test_missing_probability_is_refused():
    """The message names the missing probability."""
    rows = grid()
    del rows[-1]["p_in"], rows[-1]["p_silence"]
    with pytest.raises(LMACError, match="keep 0.5: no p_in, p_silence"):
        curves(rows)


def failing(rows, clip="clip1", method="lmac"):
    """Rows of an evaluation in which a method fails on a clip."""
    kept = []
    for row in rows:
        name = (row["setting"], row["id"], row["method"])
        if name != ("clean", clip, method):
            kept.append(row)
        elif row["keep"] == "own":
            texts = ("id", "setting", "method", "keep", "label", "right")
            kept.append({**{k: row[k] for k in texts}, "error": "it broke"})
    return kept


def test_error_is_a_curve_with_an_error():
    """A failed clip has a curve with an error, and no area."""
    made = {
        (row["setting"], row["method"], row["id"]): row
        for row in curve_rows(failing(grid()))
    }
    assert len(made) == 2 * 3 * 6
    row = made["clean", "lmac", "clip1"]
    assert row["error"] == "it broke"
    assert "insertion AUC" not in row
    assert "error" not in made["clean", "lmac", "clip2"]


def test_method_that_always_fails_has_no_curve():
    """Its rows hold only errors, so there is nothing to draw."""
    rows = grid()
    for clip in range(6):
        rows = failing(rows, f"clip{clip}")
    found = {(c["setting"], c["method"]) for c in curves(rows)}
    assert ("clean", "lmac") not in found
    assert ("noise 10 dB", "lmac") in found


# ------------------------------------------------------------------- summary


def test_summary_slowly():
    """Each entry is the bootstrap of the right values."""
    rows = grid()
    summary = summarize_grid(rows)
    subsets = {"all": (0, 1), "right": (1,), "wrong": (0,)}
    counts = {"all": 6, "right": 4, "wrong": 2}
    keeps = ("own", "area of lmac", *SHARES)
    for setting in ("clean", "noise 10 dB"):
        for keep in keeps:
            for subset, rights in subsets.items():
                for method in ("lmac", "lmac+5", "ones"):
                    for name in ("AI", "AD", "area", "p_in"):
                        values = [
                            row[name]
                            for row in rows
                            if row["setting"] == setting
                            and row["keep"] == keep
                            and row["method"] == method
                            and row["right"] in rights
                        ]
                        found = summary[setting, keep, subset][method][name]
                        assert found == pytest.approx(bootstrap(values))
                        assert found["n"] == counts[subset]
    assert len(summary) == 2 * 6 * 3


def test_summary_has_the_areas_under_the_curves():
    """Areas are a separate keep, also split by right and wrong."""
    rows = grid()
    made = [row for row in curve_rows(rows) if row["setting"] == "clean"]
    summary = summarize_grid(rows)
    for subset, rights in (("all", (0, 1)), ("wrong", (0,))):
        values = [
            row["deletion AUC"]
            for row in made
            if row["method"] == "ones" and row["right"] in rights
        ]
        found = summary["clean", "curve", subset]["ones"]["deletion AUC"]
        assert found["mean"] == pytest.approx(statistics.fmean(values))
        assert found["n"] == len(values)


def test_order():
    """Rows are sorted: published masks first, increasing shares last."""
    rows = grid(2, ("ones", "lmac+20", "lmac+5", "lmac"))
    for row in rows[: len(rows) // 2]:
        row["setting"] = "noise 5 dB"
    random.Random(0).shuffle(rows)
    summary = summarize_grid(rows)
    keeps = ["own", "area of lmac", "curve", *SHARES]
    assert list(dict.fromkeys(name[:2] for name in summary)) == [
        (setting, keep)
        for setting in ("noise 5 dB", "noise 10 dB")
        for keep in keeps
    ]
    for methods in summary.values():
        assert list(methods) == ["lmac", "lmac+5", "lmac+20", "ones"]


@pytest.mark.parametrize(
    "names",
    [
        ["noise -5 dB", "noise 0 dB", "noise 2.5 dB", "noise 10 dB"],
        ["a", "a1", "a2", "a10", "b"],
        ["1", "1.0", "1.00"],
    ],
)
def test_natural(names):
    """Names are sorted with numbers as numbers."""
    shuffled = list(names)
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert sorted(shuffled, key=natural) == names


def test_same_files_from_shuffled_rows(tmp_path):
    """Neither the order of rows nor that of their keys matters."""
    rows = failing(grid())
    expected = written(rows, tmp_path / "a")
    for seed in range(2):
        generator = random.Random(seed)
        shuffled = []
        for row in rows:
            items = list(row.items())
            generator.shuffle(items)
            shuffled.append(dict(items))
        generator.shuffle(shuffled)
        assert written(shuffled, tmp_path / str(seed)) == expected


def test_errors_and_warnings_are_counted():
    """Errors and warnings are counted for each method."""
    rows = failing(grid())
    for row in rows:
        if row["keep"] == "own" and row["method"] == "ones":
            row["warning"] = "constant mask"
    summary = summarize_grid(rows)
    found = summary["clean", "own", "all"]
    assert (found["lmac"]["errors"]["n"], found["lmac"]["AI"]["n"]) == (6, 5)
    assert found["lmac"]["errors"]["mean"] == pytest.approx(1 / 6)
    assert found["lmac"]["warnings"]["mean"] == 0
    assert found["ones"]["warnings"]["mean"] == 1
    assert summary["clean", "0.2", "all"]["lmac"]["errors"]["n"] == 5
    curve = summary["clean", "curve", "all"]["lmac"]
    assert (curve["errors"]["n"], curve["insertion AUC"]["n"]) == (6, 5)


def test_two_rows_of_a_clip_are_refused():
    """The message names the keys that both rows share."""
    rows = grid()
    rows.append({**rows[7], "AI": 3.0})
    row = rows[7]
    message = (
        f"id 'clip0', setting 'clean', method '{row['method']}', "
        f"keep '{row['keep']}'"
    )
    with pytest.raises(LMACError, match=re.escape(message)):
        summarize_grid(rows)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("AI", "", "AI is '', expected a number"),
        ("AI", None, "AI is None, expected a number"),
        ("note", "text", "note is 'text', expected a number"),
        ("right", "1", "right is '1', expected a number"),
        ("right", 2, "right is 2, expected 0 or 1"),
    ],
)
def test_values_without_a_mean_are_refused(key, value, message):
    """Values without a mean are refused, not silently ignored."""
    rows = grid()
    rows[2][key] = value
    with pytest.raises(LMACError, match=f"clip 'clip0': {message}"):
        summarize_grid(rows)


def test_no_rows():
    """An empty evaluation has no summary."""
    with pytest.raises(LMACError, match="no rows"):
        summarize_grid([])


def test_clips_of_which_nothing_is_known():
    """Without `right`, there is only the table for all clips."""
    rows = [
        {"id": "a", "setting": "clean", "method": "m", "keep": "own", "AI": 1.0}
    ]
    assert list(summarize_grid(rows)) == [("clean", "own", "all")]


# --------------------------------------------------------------------- files


def test_long_csv(tmp_path):
    """The csv has each entry of the summary, as plain text."""
    summary = write_summary(tmp_path, grid())
    with open(tmp_path / "summary.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [
        *("setting", "method", "keep", "subset"),
        *("metric", "mean", "low", "high", "n"),
    ]
    for line in lines:
        cell = summary[line["setting"], line["keep"], line["subset"]]
        figure = cell[line["method"]][line["metric"]]
        for key in ("mean", "low", "high", "n"):
            assert float(line[key]) == figure[key]
    count = sum(len(m) for cell in summary.values() for m in cell.values())
    assert len(lines) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_markdown(tmp_path):
    """A heading, the counts and the parts of the table, best in bold."""
    rows = failing(grid())
    for row in rows:
        if row["keep"] == "own" and "AI" in row:
            row["AI"] = {"lmac": 10.0, "lmac+5": 50.0}.get(row["method"], 50.0)
    write_summary(tmp_path, rows)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    headings = re.findall("^## .*", text, re.MULTILINE)
    assert headings[:3] == [
        "## clean, keep: own",
        "## clean, keep: area of lmac",
        "## clean, keep: curve",
    ]
    assert len(headings) == 12
    own = text.split("## ")[1]
    assert "6 clips; warnings: none; errors: lmac 1." in own
    first, second, third = re.findall(r"(?:^\|.*\n)+", own, re.MULTILINE)
    assert first.startswith("| method | AI ↑ | AD ↓ | area |\n")
    assert "| lmac | 10.0 ± 0.0 |" in first
    assert "| lmac+5 | **50.0 ± 0.0** |" in first
    assert "| ones | **50.0 ± 0.0** |" in first
    for part, guards in ((second, GUARDS[:2]), (third, GUARDS[2:])):
        names = [f"{guard} {name}" for guard in guards for name in GUARDED]
        head = part.splitlines()[0]
        assert re.sub(" [↑↓]", "", head) == "| method | " + (
            " | ".join(names) + " |"
        )
    # At the shares the failed clip has no row.
    share = text.split("## clean, keep: 0.05")[1].split("## ")[0]
    assert "5 to 6 clips; warnings: none; errors: none." in share
    assert "p_silence" not in text


def test_columns_of_a_complete_table(tmp_path):
    """Ten at most side by side, in the usual order; what is new last."""
    names = [*METRICS, "seconds", "passes"]
    rows = [
        {"id": "a", "setting": "clean", "method": "m", "keep": "own"}
        | dict.fromkeys(reversed(names), 1.0)
    ]
    write_summary(tmp_path, rows)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    heads = re.findall(r"^\| method \| (.*) \|$", text, re.MULTILINE)
    heads = [re.sub(" [↑↓]", "", head).split(" | ") for head in heads]
    assert heads == [names[i : i + 10] for i in range(0, len(names), 10)]


def balanced(text):
    """Whether LaTeX's braces, environments and columns match."""
    text = re.sub(r"(?m)^%.*\n", "", text)
    open_ones = []
    for kind, name in re.findall(r"\\(begin|end){(.*?)}", text):
        if kind == "begin":
            open_ones.append(name)
        elif not open_ones or open_ones.pop() != name:
            return False
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    if open_ones or plain.count("{") != plain.count("}"):
        return False
    if plain.count("$") % 2:
        return False
    tables = re.findall(r"(?s)\\begin{tabular}{(l.*?)}(.*?)\\end", text)
    return len(tables) > 0 and all(
        len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
        for columns, body in tables
        for line in body.splitlines()
        if line.endswith(r"\\")
    )


def test_latex(tmp_path):
    """One table for each setting and keep, whatever the names hold."""
    strange = r"a_b & 50% {x} $y$ #1 ~^\z"
    rows = grid(4, ("lmac", strange))
    rows[0]["AI"] = NAN
    for row in rows:
        if row["setting"] == "clean":
            row["setting"] = "input×gradient_1"
    write_summary(tmp_path, rows)
    text = (tmp_path / "summary.tex").read_text(encoding="utf-8")
    assert balanced(text)
    assert not balanced(text.replace(r"\_", "_").replace(r"\&", "&"))
    assert text.count(r"\begin{table*}") == 12
    assert text.count(r"\toprule") == 12 + 2 * 2
    assert r"a\_b \& 50\% \{x\} \$y\$ \#1 \textasciitilde{}" in text
    assert r"input$\times$gradient\_1" in text
    assert r"AI $\uparrow$ & AD $\downarrow$ & area" in text
    assert re.search(r"\$\\mathbf{[\d.]+ \\pm [\d.]+}\$", text)


def test_latex_of_nothing(tmp_path):
    """A missing entry is a dash, and NaN is shown as nan."""
    common = {"id": "a", "setting": "clean", "keep": "own"}
    write_summary(
        tmp_path,
        [
            {**common, "method": "m", "AI": NAN, "FF": -0.25},
            {**common, "method": "n", "AI": 3.0},
        ],
    )
    text = (tmp_path / "summary.tex").read_text(encoding="utf-8")
    assert r"m & nan & $\mathbf{-0.250 \pm 0.000}$ \\" in text
    assert r"n & $\mathbf{3.0 \pm 0.0}$ & -- \\" in text


def test_failed_write_leaves_the_old_files(tmp_path):
    """Bad rows do not change the files."""
    write_summary(tmp_path, grid())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(LMACError):
        write_summary(tmp_path, [*grid(), grid()[0]])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_many_cells_are_fast(tmp_path):
    """A thirtieth of a large evaluation takes less than four seconds."""
    names = [*METRICS, *(f"{g} {name}" for g in GUARDS for name in GUARDED)]
    generator = random.Random(0)
    rows = [
        {
            **{"id": str(clip), "setting": "clean", "method": f"m{method}"},
            **{"keep": f"k{keep}", "right": int(clip % 5 > 0)},
            **{name: generator.random() for name in names},
        }
        for clip in range(80)
        for method in range(13)
        for keep in range(3)
    ]
    begin = time.process_time()
    write_summary(tmp_path, rows)
    assert time.process_time() - begin < 4
