#!/usr/bin/env python3
"""Copy a contribution into a checkout of SpeechBrain.

    python tools/upstream.py 1 ../speechbrain

The file upstream.yaml lists what to copy. All files are prepared and checked
before the first is written. A second run changes nothing.
"""

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lmac_sb.utils.errors import LMACError, exit_on_user_error  # noqa: E402

PACKAGE = "lmac_sb"
TESTS = "tests/unittests/lmac"
AUTHORS = "\n\nAuthors\n * The lmac-sb authors 2026\n"


def load(path=None):
    """The declared contributions.

    Arguments
    ---------
    path : Path
        By default ``upstream.yaml`` in this script's folder.

    Returns
    -------
    dict
    """
    path = path or Path(__file__).with_name("upstream.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def known_modules(declared, number):
    """New name of each module of a contribution and of those before it."""
    target = declared["target"]
    return {
        f"{PACKAGE}.{name}": f"{target}.{name.rpartition('.')[2]}"
        for i, part in declared["contributions"].items()
        if i <= number
        for name in part["modules"]
    }


def imported(tree):
    """Name and line of each import from this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module.count(".") < 2:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE:
                yield name, node.lineno


def with_authors(text, name):
    """Add SpeechBrain's list of authors to the module's docstring."""
    tree = ast.parse(text)
    if ast.get_docstring(tree) is None:
        raise LMACError(f"{name}: expected a module docstring")
    lines = text.splitlines(keepends=True)
    end = tree.body[0].end_lineno
    head = "".join(lines[:end]).rstrip()
    quotes = head[-3:]
    return head[:-3].rstrip() + AUTHORS + quotes + "\n" + "".join(lines[end:])


def drop(text, names, file):
    """Remove some top-level functions from the source."""
    nodes = {getattr(n, "name", None): n for n in ast.parse(text).body}
    lines = text.splitlines(keepends=True)
    for name in names:
        if name not in nodes:
            raise LMACError(
                f"{file}: has no {name}, which upstream.yaml leaves out"
            )
        node = nodes[name]
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        lines[first - 1 : node.end_lineno] = [""] * (
            node.end_lineno - first + 1
        )
    return "".join(lines).rstrip() + "\n"


def rewrite(text, name, modules, outside):
    """Rename the modules in a source file as in SpeechBrain.

    Arguments
    ---------
    text, name : str
        The source, and its file for messages.
    modules : dict
        Name to new name of each module that is copied.
    outside : list of str
        Modules that may still be imported from `lmac-sb`.

    Returns
    -------
    str
    """
    for module, line in imported(ast.parse(text)):
        if module not in modules and module not in outside:
            raise LMACError(
                f"{name}, line {line}: imports {module}, which is not copied"
            )
    for old, new in modules.items():
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
        room, module = old.rsplit(".", 1)
        place = new.rpartition(".")[0]
        text = re.sub(
            rf"(?m)^(\s*(?:>>> )?from ){re.escape(room)} import {module}\b",
            rf"\1{place} import {module}",
            text,
        )
    # The error's public name, which says from where users import it.
    errors = modules[f"{PACKAGE}.utils.errors"]
    text = text.replace(f"{PACKAGE}.LMACError", f"{errors}.LMACError")
    text = text.replace(f'"{PACKAGE}"\n', f'"{errors}"\n')
    left = [line for line in text.splitlines() if f"{PACKAGE}." in line]
    if left and not outside:
        raise LMACError(f"{name}: {PACKAGE} remains in: {left[0].strip()}")
    return with_authors(text, name)


def plan(number, declared=None, root=ROOT):
    """Files of a contribution.

    Arguments
    ---------
    number : int
        Number of the contribution.
    declared : dict
        By default the result of `load`.
    root : Path
        Root of this repository.

    Returns
    -------
    dict
        Path in the checkout to the text of each file.
    """
    declared = declared or load()
    if number not in declared["contributions"]:
        raise LMACError(f"upstream.yaml: no contribution {number}")
    part = declared["contributions"][number]
    modules = known_modules(declared, number)
    folder = declared["target"].replace(".", "/")
    sources = {
        f"{PACKAGE}/{name.replace('.', '/')}.py": f"{folder}/"
        f"{name.rpartition('.')[2]}.py"
        for name in part["modules"]
    }
    if number == 1:
        text = '"""Listenable maps for audio classifiers (L-MAC)."""\n'
        new = {f"{folder}/__init__.py": with_authors(text, "__init__.py")}
    else:
        new = {}
    for name in part["tests"]:
        place = Path(name).name.replace("test_", "test_lmac_", 1)
        sources[f"tests/unit/{name}"] = f"{TESTS}/{place}"
    for source, place in sources.items():
        path = root / source
        if not path.is_file():
            raise LMACError(f"{source}: listed in upstream.yaml, but not found")
        text = path.read_text(encoding="utf-8")
        left_out = part["left_out"].get(source.replace("tests/unit/", ""), [])
        text = drop(text, left_out, source)
        new[place] = rewrite(text, source, modules, part["outside"])
    count = sum(not place.startswith("tests/") for place in new)
    if count > declared["limit"]:
        raise LMACError(
            f"contribution {number}: {count} files, expected at most "
            f"{declared['limit']}"
        )
    return new


def tidy(text, place, checkout):
    """Sort the imports and format the source by the checkout's settings.

    This also removes imports that are unused without the removed functions.
    """
    for command in (["check", "--select", "I,F401", "--fix"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet"]
            + ["--stdin-filename", place, "-"],
            cwd=checkout,
            input=text,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise LMACError(f"{place}: ruff failed: {done.stderr.strip()}")
        text = done.stdout
    return text


def write(new, checkout):
    """Write the files that differ, and return their paths."""
    if not (checkout / "speechbrain/version.txt").is_file():
        raise LMACError(f"{checkout}: not a checkout of SpeechBrain")
    new = {place: tidy(text, place, checkout) for place, text in new.items()}
    changed = []
    for place, text in new.items():
        path = checkout / place
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(place)
    return changed


@exit_on_user_error
def main(argv=None):
    """Copy the contribution that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("number", type=int, help="number of the contribution")
    parser.add_argument(
        "checkout", type=Path, help="SpeechBrain's branch develop"
    )
    args = parser.parse_args(argv)
    changed = write(plan(args.number), args.checkout)
    print(f"{args.checkout}: {len(changed)} files changed")


if __name__ == "__main__":
    main()
