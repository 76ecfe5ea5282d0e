"""Methods of the bench, and those of third parties."""

import importlib
import sys

import pytest
import torch

from lmac_sb.bench.classifiers import CLASSIFIERS, Classifier
from lmac_sb.bench.data import DATA, Data
from lmac_sb.bench.entries import code_of, find_entry
from lmac_sb.bench.methods import base, bench_methods, check_methods
from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.judge import Judge
from lmac_sb.methods.registry import make_case
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.utils.errors import LMACError

MODULE = """
import numpy as np
import torch
from lmac_sb.bench.data import Data
from lmac_sb.methods.registry import Method

def level(explainer, analysis, target):
    return analysis.magnitude

def array(explainer, analysis, target):
    return np.ones(analysis.magnitude.shape)

def short(explainer, analysis, target):
    return analysis.magnitude[:, 1:]

def nan(explainer, analysis, target):
    return analysis.magnitude * float("nan")

def infinite(explainer, analysis, target):
    return analysis.magnitude / 0

def negative(explainer, analysis, target):
    return -1 - analysis.magnitude

def flat(explainer, analysis, target):
    return 0 * analysis.magnitude

def log(explainer, analysis, target):
    return (analysis.magnitude * 0).log()

def nothing(explainer, analysis, target):
    return None

def text(explainer, analysis, target):
    return "0.5"

def dictionary(explainer, analysis, target):
    return {"scores": analysis.magnitude}

def complexes(explainer, analysis, target):
    return analysis.stft if analysis.stft.is_complex() else (
        analysis.magnitude * 1j)

def whole(explainer, analysis, target):
    return (100 * analysis.magnitude).int()

def boolean(explainer, analysis, target):
    return analysis.magnitude > analysis.magnitude.mean()

def fails(explainer, analysis, target):
    return {}["a key\\nand more"]

def second(explainer, analysis, target):
    if len(target) > 1 or target[0] == 1:
        raise IndexError("only of the first class")
    return analysis.magnitude

def inplace(explainer, analysis, target):
    analysis.magnitude.mul_(0)
    analysis.stft.zero_()
    return analysis.magnitude

def leaves(explainer, analysis, target):
    raise SystemExit(3)

half = Method("mask", lambda case: torch.full_like(
    case.analysis.magnitude, 0.5))
large = Method("mask", lambda case: 2 + case.analysis.magnitude)
top = Method("area", lambda case, area: (
    case.analysis.magnitude > 0).float())
data = Data(lambda made, real: made)
number = 3
"""
ITEMS = [{"id": x, "class_string": "dog"} for x in "ab"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of a third party, where the command is run."""
    (tmp_path / "their_methods.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield "their_methods"
    sys.modules.pop("their_methods", None)


def rows_of(interpreter, names):
    """Rows of masks as they are, by method and clip."""
    explainer = interpreter.explainer
    methods, _ = bench_methods(names, {"lmac": explainer})
    case = make_case(explainer, torch.randn(2, 16000) / 8, [1.0, 1.0], ITEMS)
    comparison = Comparison(
        Judge(explainer), methods, interpreter.classes, shares=[]
    )
    rows, _ = comparison(case, ITEMS)
    return {
        (row["method"], row["id"]): row for row in rows if row["keep"] == "own"
    }


def test_a_method_of_a_third_party(interpreter, mine):
    some = ("level", "array", "half", "top", "whole", "boolean")
    names = [f"{mine}:{x}" for x in some]
    rows = rows_of(interpreter, names)
    assert all("error" not in row for row in rows.values())
    assert rows[names[2], "a"]["area"] == 0.5
    assert list(dict.fromkeys(x for x, _ in rows)) == [
        *("lmac", "loudest"),
        *names,
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("negative", "no score above zero"),
        ("flat", "constant mask"),
        ("half", "constant mask"),
        ("level", None),
    ],
)
def test_what_is_odd_about_masks_is_said(interpreter, mine, name, said):
    """Scores below zero count as zero in the own mask."""
    rows = rows_of(interpreter, [f"{mine}:{name}"])
    row = rows[f"{mine}:{name}", "b"]
    assert row.get("warning") == said and "error" not in row
    assert (row["area"] == 0) == (name in ("negative", "flat"))


def test_what_it_changes_is_its_own(interpreter, mine):
    """Methods after it get the clips as they were."""
    after = ["ones", f"{mine}:level"]
    torch.manual_seed(0)
    expected = rows_of(interpreter, after)
    torch.manual_seed(0)
    found = rows_of(interpreter, [f"{mine}:inplace", *after])
    for key, row in expected.items():
        assert found[key] == row


def test_code_that_was_changed(mine, tmp_path):
    """The same names are another method then."""
    names = [f"{mine}:level", "loudest", f"{mine}:array", "sys:path"]
    check_methods(names[:3])
    before = code_of(names)
    assert list(before) == ["their_methods"]
    assert code_of(names) == before
    path = tmp_path / "their_methods.py"
    path.write_text(MODULE.replace("ones", "zeros"), encoding="utf-8")
    assert code_of(names) != before


HELPERS = {
    "their_top.py": (
        "import torch\nimport their_whole as whole\n"
        "from their_pack.deep import scale\n"
        "from their_numbers import STEPS\n"
        "from their_level import level\n"
        "def late(*args):\n    import their_late\n"
    ),
    "their_level.py": "try:\n    from their_last import *\nfinally:\n    pass\n"
    "def level(explainer, analysis, target):\n    return analysis.magnitude\n",
    "their_last.py": "import their_top\n",
    "their_whole.py": "",
    "their_numbers.py": "STEPS = 3\n",
    "their_late.py": "",
    "their_pack/__init__.py": "",
    "their_pack/deep.py": "from . import beside\nfrom .far import scale\n",
    "their_pack/far.py": "scale = 2\n",
    "their_pack/beside.py": "",
}


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """A module of a third party that others help, and its method."""
    for name, text in HELPERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    check_methods(["their_top:level"])
    yield ["their_top:level"]
    for name in [x for x in sys.modules if x.startswith("their_")]:
        del sys.modules[name]


def test_helpers_are_code_too(helpers, tmp_path):
    """What a module imports, and so on, but neither torch nor what is late."""
    before = code_of(helpers)
    assert sorted(before) == [
        *("their_last", "their_level", "their_numbers", "their_pack"),
        *("their_pack.beside", "their_pack.deep", "their_pack.far"),
        *("their_top", "their_whole"),
    ]
    importlib.import_module("their_late")
    assert code_of(helpers) == before
    for module in before:
        path = tmp_path.joinpath(*module.split("."))
        path = path if path.is_dir() else path.with_suffix(".py")
        path = path / "__init__.py" if path.is_dir() else path
        content = path.read_bytes()
        path.write_bytes(content + b"\nmore = 1\n")
        changed = code_of(helpers)
        assert [x for x in before if before[x] != changed[x]] == [module]
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short", "mask of shape (1, 86, 513), expected (1, 87, 513)"),
        ("nan", "NaN in the mask"),
        ("infinite", "infinite scores, expected finite numbers of 32 bits"),
        ("log", "infinite scores, expected finite numbers of 32 bits"),
        ("nothing", "gave nothing, expected a tensor"),
        ("text", "gave a str, expected a tensor of real numbers"),
        ("dictionary", "gave a dict, expected a tensor of real numbers"),
        ("complexes", "complex numbers, expected a tensor of real numbers"),
        ("fails", "KeyError: 'a key"),
        ("leaves", "SystemExit: 3"),
        ("large", "expected values in [0, 1]"),
    ],
)
def test_its_faults_are_those_of_its_rows(interpreter, mine, name, said):
    rows = rows_of(interpreter, [f"{mine}:{name}", "ones"])
    row = rows[f"{mine}:{name}", "a"]
    assert said in row["error"] and "\n" not in row["error"]
    assert "AI" not in row
    assert rows["ones", "a"]["area"] == 1 and "AI" in rows["loudest", "b"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone:level", "No module named 'gone'"),
        ("their_methods:levle", "their_methods.py has no 'levle'"),
        (
            "their_methods:number",
            "found an object of the type int, expected a function",
        ),
        ("random:level", "random.py has no 'level'"),
        ("./their_methods.py:level", "in the file mine.py here"),
        ("their_methods.py:level", "in the file mine.py here"),
        ("their_methods", "of your own: mine:level for"),
        ("their_methods.level", "or mine:level for what is called level"),
        ("loudset", "did you mean 'loudest'?"),
        ("lmca+5", "did you mean 'lmac'?"),
    ],
)
def test_methods_that_there_are_not(mine, name, said):
    with pytest.raises(LMACError, match="^methods: ") as error:
        check_methods([name])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("data", "/tmp/x", "mine:sounds for"),
        ("data", "/tmp/x", 'Data(lambda made, real: "FOLDER")'),
        ("data", "their_methods.py:data", "in the file mine.py here"),
        ("data", "mine", "of your own: mine:sounds for"),
        ("classifiers", "./folder", "mine:classifier for"),
        ("classifiers", "./folder", "LMACInterpreter.from_classifier(MODEL, "),
        ("classifiers", "mine.py:x", "in the file mine.py here"),
        ("classifiers", "multilable", "did you mean 'multilabel'?"),
        ("classifiers", "mine", "of your own: mine:classifier for"),
    ],
)
def test_how_entries_of_ones_own_are_written(mine, kind, name, said):
    """The example is one of the kind that is asked for."""
    table, form = (DATA, Data)
    if kind == "classifiers":
        table, form = (CLASSIFIERS, Classifier)
    with pytest.raises(LMACError, match=f"^{kind}: ") as error:
        find_entry(kind, name, table, form)
    assert said in str(error.value) and "mine:level" not in str(error.value)


@pytest.mark.parametrize("name", ["ones", "their_methods:level"])
def test_a_method_that_is_given_twice(mine, name):
    with pytest.raises(LMACError, match=f"'{name}' is given twice"):
        check_methods([name, name])


def test_what_a_classifier_lacks_is_left_out(interpreter):
    explainer = interpreter.explainer
    names = ["lmac+5", "l2i", "optimised+2", "gradcam"]
    methods, left_out = bench_methods(names, {"lmac": explainer})
    assert left_out == ["l2i"]
    assert list(methods) == [
        *("lmac", "loudest", "lmac+5", "optimised+2", "gradcam")
    ]
    methods, left_out = bench_methods(names, {"l2i": explainer})
    assert left_out == ["lmac+5"]
    assert list(methods)[0] == "optimised+20"


def test_a_classifier_may_have_steps_of_its_own(interpreter):
    """They start where its owner lets them, not at a mask of one half."""
    explainer = interpreter.explainer
    own = explainer.starting_from(LevelDecoder())
    names = ["optimised", "optimised+2", "lmac+2", "random"]
    wavs = torch.randn(2, 16000)
    found = {}
    for steps in (None, own):
        explainers = {"lmac": explainer, "optimised": steps}
        explainers = {k: x for k, x in explainers.items() if x is not None}
        methods, left_out = bench_methods(names, explainers)
        assert left_out == []
        case = make_case(explainer, wavs, [1.0] * 2, [{"id": x} for x in "ab"])
        found[steps] = methods["optimised+2"].function(case)
    expected = own(wavs, refine_steps=2).mask
    assert torch.allclose(found[own], expected)
    assert not torch.allclose(found[None], expected)
    methods, left_out = bench_methods(names, {"optimised": own})
    assert left_out == ["lmac+2"]
    assert [*methods][:2] == ["optimised+20", "loudest"]


def test_base_of_a_name():
    assert [base(x) for x in ("a", "a+10", "a_binary", "a+b")] == [
        *("a", "a", "a", "a+b")
    ]


def test_entries(mine):
    assert find_entry("data", "scenes", DATA, Data) is DATA["scenes"]
    found = find_entry("data", f"{mine}:data", DATA, Data)
    assert found.find("made", None) == "made"
    # A function alone is an entry too.
    found = find_entry("classifiers", f"{mine}:level", CLASSIFIERS, Classifier)
    assert found.load(None, type("", (), {"magnitude": 1}), 0) == 1
    for name, said in (
        ("cnm", "unknown 'cnm'; did you mean 'cnn'? there are cnn,"),
        (
            f"{mine}:number",
            "found an object of the type int, expected a Classifier",
        ),
        ("gone:x", "No module named 'gone'"),
    ):
        with pytest.raises(LMACError, match="^classifiers: ") as error:
            find_entry("classifiers", name, CLASSIFIERS, Classifier)
        assert said in str(error.value)
