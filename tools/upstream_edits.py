"""SpeechBrain's own files with what the contribution adds to them.

Authors
 * The lmac-sb authors 2026
"""

import ast
import csv
import re

from upstream_rewrite import TARGET, parse, rewrite_text, splice

from lmac_sb.errors import LMACError

RECIPE = "recipes/ESC50/interpret"
TABLE = "tests/recipes/ESC50.csv"
INTERFACE = "speechbrain/inference/interpretability.py"


def merge_rows(theirs, ours):
    """The recipe table with our rows at its end.

    Arguments
    ---------
    theirs, ours : str
        Tables with the same columns; a row is known by its hparams file.
        What a row writes lies in ``tests/tmp/ESC50_row_<its line>``; where
        one of our rows reads that of another, the number follows.

    Returns
    -------
    str
        Their lines as they were, without those for our files.

    Example
    -------
    >>> head = "Hparam_file,test_debug_flags\\n"
    >>> merge_rows(head + "a,1\\nb,2\\n", head + "b,3\\nc,ESC50_row_02\\n")
    'Hparam_file,test_debug_flags\\na,1\\nb,3\\nc,ESC50_row_03\\n'
    """
    head, *lines = theirs.splitlines()
    our_head, *new = ours.splitlines()
    if head != our_head:
        raise LMACError(f"{TABLE}: columns are {head}, ours are {our_head}")
    column = next(csv.reader([head])).index("Hparam_file")
    recipes = [next(csv.reader([line]))[column] for line in new]
    lines = [
        line
        for line in lines
        if line and next(csv.reader([line]))[column] not in recipes
    ]

    def moved(match):
        """The line that a row of ours gets."""
        return f"ESC50_row_{int(match[1]) + len(lines):02d}"

    new = [re.sub(r"ESC50_row_(\d+)", moved, line) for line in new]
    return "\n".join([head, *lines, *new]) + "\n"


LAZY_INTERFACE = '''

def __getattr__(name):
    """Load the interface of L-MAC when it is asked for.

    It needs packages that the interface of PIQ does without.
    """
    if name == "LMACInterpreter":
        from speechbrain.lobes.lmac.inference import LMACInterpreter

        return LMACInterpreter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
'''


def add_interface(text):
    """`interpretability.py` with `LMACInterpreter` beside what it has.

    Arguments
    ---------
    text : str
        The module.

    Returns
    -------
    str

    Example
    -------
    >>> print(add_interface("x = 1\\n").splitlines()[3])
    def __getattr__(name):
    """
    if text.endswith(LAZY_INTERFACE):
        return text
    if "__getattr__" in text or "LMACInterpreter" in text:
        raise LMACError(
            f"{INTERFACE}: has a __getattr__ or an LMACInterpreter already, "
            "and not ours; add the interface by hand"
        )
    return text.rstrip("\n") + "\n" + LAZY_INTERFACE


def detach_eval(text):
    """`eval.py`, which is for L2I now: it takes no class from `train_lmac`.

    Arguments
    ---------
    text : str
        The script.

    Returns
    -------
    str
        Its branch for L-MAC says where L-MAC is evaluated.
    """
    name = f"{RECIPE}/eval.py"
    message = 'raise ValueError("eval_lmac.py evaluates L-MAC, see README.md")'
    if message in text and "train_lmac import" not in text:
        return text
    tree = parse(text, name)
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "train_lmac"
    ]
    branches = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "'lmac'" in ast.unparse(node.test)
    ]
    if len(imports) != 1 or len(branches) != 1:
        raise LMACError(
            f"{name}: {len(imports)} imports of train_lmac and "
            f"{len(branches)} branches for 'lmac', one of each is needed"
        )
    body = branches[0].body
    indent = body[0].col_offset
    edits = [
        ((imports[0].lineno, 0), (imports[0].end_lineno + 1, 0), ""),
        (
            (body[0].lineno, indent),
            (body[-1].end_lineno, body[-1].end_col_offset),
            message,
        ),
    ]
    return splice(text, edits)


def merge_readme(theirs, ours):
    """The folder's README with our section on L-MAC instead of the old one.

    Arguments
    ---------
    theirs, ours : str
        Markdown texts.

    Returns
    -------
    str
    """
    name = f"{RECIPE}/README.md"
    title, section = "### Listenable Maps for Audio Classifiers (L-MAC)\n", ""
    # What the README of this repository's root is for.
    for line in rewrite_text(ours).splitlines()[1:]:
        section += re.sub(
            r" Figures and .* README of the repository\.", "", line
        )
        section += "\n"
    start = theirs.find(title)
    end = theirs.find("\n-----", start)
    if start < 0 or end < 0:
        raise LMACError(f"{name}: no section '{title.strip()}' that ends")
    text = theirs[: start + len(title)] + section + theirs[end:]
    for anchor, note in README_NOTES.items():
        if note in text:
            continue
        if text.count(anchor) != 1:
            raise LMACError(f"{name}: no line '{anchor.strip()}'")
        text = text.replace(anchor, anchor + note)
    return text


README_NOTES = {
    "## Evaluation and Inference\n": """
`eval.py` is for L2I. L-MAC is evaluated by `train_lmac.py` at the end of a run,
and by `eval_lmac.py` beside other methods; files are explained by the command
`lmac explain` and by `LMACInterpreter` of
`speechbrain.inference.interpretability`.
""",
    "Some results that are obtained with this recipe on the OOD evaluation "
    "are as follows:\n": """
(The rows of L-MAC, and its training logs below, are those of the recipe before
its rewriting. AD was computed on the softmax of probabilities in all rows.)
""",
}


def add_lines(text, lines):
    """A list of requirements with some more, in order.

    Arguments
    ---------
    text : str
        One requirement a line.
    lines : list of str
        What must be in it; a package that is there stays as it is.

    Returns
    -------
    str

    Example
    -------
    >>> add_lines("numpy>=1\\ntorch\\n", ["scipy", "numpy>=2"])
    'numpy>=1\\nscipy\\ntorch\\n'
    """

    def package(line):
        """Name in a requirement, in lower case."""
        return re.split(r"[<>=~! ]", line.lower())[0]

    found = text.splitlines()
    known = {package(line) for line in found}
    found += [line for line in lines if package(line) not in known]
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def add_package_data(text, suffixes):
    """`pyproject.toml` with our files that are no modules, and the command.

    Arguments
    ---------
    text : str
        The file.
    suffixes : collection of str
        Of the files, with the dot.

    Returns
    -------
    str
    """
    patterns = ", ".join(f'"*{suffix}"' for suffix in sorted(suffixes))
    entries = [
        (
            "[tool.setuptools.package-data]\n",
            f'"{TARGET}" = ',
            f"[{patterns}]\n",
        ),
        ("[project.scripts]\n", "lmac = ", f'"{TARGET}.cli:main"\n'),
    ]
    if "[project.scripts]\n" not in text:
        text = text.replace(
            "[project.optional-dependencies]\n",
            "[project.scripts]\n\n[project.optional-dependencies]\n",
            1,
        )
    for section, key, value in entries:
        if section not in text:
            raise LMACError(f"pyproject.toml: no section {section.strip()}")
        head, tail = text.split(section, 1)
        tail = re.sub(rf"(?m)^{re.escape(key)}.*\n", "", tail, count=1)
        text = head + section + key + value + tail
    return text
