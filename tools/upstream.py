#!/usr/bin/env python3
"""Copy a contribution into a checkout of SpeechBrain.

    python tools/upstream.py 1 ../speechbrain

The file upstream.yaml lists what to copy: modules and tests of this package,
which get the names that they have in SpeechBrain; files that were written for
SpeechBrain, from the folder upstream; and a patch to existing files of
SpeechBrain. All files are prepared and checked before the first is written. A
second run changes nothing.
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
OWN = "tools/upstream"  # what is written for SpeechBrain alone
TESTS = "tests/unittests/lmac"
OPTIONAL = (
    "moved",
    "public",
    "files",
    "replaced",
    "left_out",
    "skipped",
    "words",
)
SIGNATURE = "The lmac-sb authors 2026"
AUTHORS = f"\n\nAuthors\n * {SIGNATURE}\n"


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
    declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    for part in declared["contributions"].values():
        for key in OPTIONAL:
            part.setdefault(key, {})
    return declared


def known_names(declared, number):
    """New names of a contribution and of those before it."""
    names = {}
    for i, part in declared["contributions"].items():
        if i > number:
            continue
        for name in part["modules"]:
            names[f"{PACKAGE}.{name}"] = part["moved"].get(
                name, f"{declared['target']}.{name.rpartition('.')[2]}"
            )
        for name, new in part["public"].items():
            names[f"{PACKAGE}.{name}"] = new
    return names


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


def top_level(text, names, file):
    """Find some definitions of a module: ``name`` or ``Class.method``."""
    nodes = {}
    for node in ast.parse(text).body:
        for part in getattr(node, "body", []):
            if isinstance(node, ast.ClassDef):
                method = getattr(part, "name", None)
                nodes[f"{node.name}.{method}"] = part
        targets = getattr(node, "targets", [node])
        for target in targets:
            nodes[getattr(target, "id", getattr(target, "name", None))] = node
    for name in names:
        if name not in nodes:
            raise LMACError(f"{file}: has no {name}, which upstream.yaml names")
    return [nodes[name] for name in names]


def drop(text, names, file):
    """Remove some top-level definitions.

    The comments above them go too, and the imports that only they used.
    """
    lines = text.splitlines(keepends=True)
    for node in top_level(text, names, file):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        while lines[first - 2].startswith("#"):
            first -= 1
        lines[first - 1 : node.end_lineno] = [""] * (
            node.end_lineno - first + 1
        )
    text = without_unused("".join(lines).rstrip() + "\n")
    exported = re.search(r"(?ms)^__all__ = \[.*?\]", text)
    if exported:
        kept = exported[0]
        for name in names:
            kept = re.sub(rf'\s*"{name}",?', "", kept)
        text = text.replace(exported[0], kept)
    return text


def without_unused(text):
    """Remove the imports from this package that nothing uses any more."""
    tree = ast.parse(text)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    lines = text.splitlines(keepends=True)
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        kept = [a for a in node.names if (a.asname or a.name) in used]
        if node.module.split(".")[0] == PACKAGE and kept != node.names:
            names = ast.ImportFrom(node.module, kept, node.level)
            line = ast.unparse(names) + "\n" if kept else ""
            lines[node.lineno - 1 : node.end_lineno] = [line] + [""] * (
                node.end_lineno - node.lineno
            )
    return "".join(lines)


def skip_examples(text, names, file):
    """Mark the examples of some functions as not to be run.

    They use names that only the conftest.py of this repository provides.
    """
    lines = text.splitlines(keepends=True)
    for node in top_level(text, names, file):
        for i in range(node.lineno, node.end_lineno):
            if lines[i].lstrip().startswith(">>> "):
                lines[i] = lines[i].rstrip() + "  # doctest: +SKIP\n"
    return "".join(lines)


def rename(text, names):
    """Rename modules in a text as in SpeechBrain."""
    for old in sorted(names, key=len, reverse=True):
        new = names[old]
        text = re.sub(rf"\b{re.escape(old)}\b(?!\.\w)", new, text)
        room, name = old.rsplit(".", 1)
        place, new_name = new.rsplit(".", 1)
        text = re.sub(
            rf"(?m)^(\s*(?:>>> )?from ){re.escape(room)} import {name}\b",
            rf"\1{place} import {new_name}"
            + ("" if new_name == name else f" as {name}"),
            text,
        )
        # A class by its full name: the module, then the class.
        text = re.sub(rf"\b{re.escape(old)}\.(?=[A-Z_a-z])", f"{new}.", text)
    return text


def rewrite(text, file, names):
    """Rename the modules in a source file as in SpeechBrain.

    Arguments
    ---------
    text, file : str
        The source, and its file for messages.
    names : dict
        From `known_names`.

    Returns
    -------
    str
    """
    for name, line in imported(ast.parse(text)):
        if name not in names:
            raise LMACError(
                f"{file}, line {line}: imports {name}, which is not copied"
            )
    text = rename(text, names)
    errors = names[f"{PACKAGE}.utils.errors"]
    text = text.replace(f'"{PACKAGE}"\n', f'"{errors}"\n')
    return with_authors(text, file)


def adapt(text, source, part, names):
    """Change a file of this repository as a contribution declares it."""
    is_python = source.endswith(".py")
    if is_python:
        text = drop(text, part["left_out"].get(source, []), source)
        text = skip_examples(text, part["skipped"].get(source, []), source)
    for old, new in part["words"].items():
        text = text.replace(old, new)
    return rewrite(text, source, names) if is_python else rename(text, names)


def sources(part, names):
    """Path of each file to copy, and its path in the checkout."""
    found = {
        f"{PACKAGE}/{name.replace('.', '/')}.py": names[
            f"{PACKAGE}.{name}"
        ].replace(".", "/")
        + ".py"
        for name in part["modules"]
    }
    for name in part["tests"]:
        place = Path(name).name.replace("test_", "test_lmac_", 1)
        found[f"tests/{name}"] = f"{TESTS}/{place}"
    for place, source in part["files"].items():
        found[source or f"{OWN}/{place}"] = place
    return found


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
    names = known_names(declared, number)
    new, unused = {}, set(part["words"])
    if number == 1:
        folder = declared["target"].replace(".", "/")
        text = '"""Listenable maps for audio classifiers (L-MAC)."""\n'
        new[f"{folder}/__init__.py"] = with_authors(text, "__init__.py")
    for source, place in sources(part, names).items():
        path = root / source
        if not path.is_file():
            raise LMACError(f"{source}: listed in upstream.yaml, but not found")
        text = path.read_text(encoding="utf-8")
        if not source.startswith(OWN):
            unused -= {word for word in part["words"] if word in text}
            text = adapt(text, source, part, names)
        left = [line for line in text.splitlines() if PACKAGE in line]
        if left:
            raise LMACError(
                f"{source}: {PACKAGE} remains in: {left[0].strip()}"
            )
        new[place] = text
    if unused:
        raise LMACError(f"upstream.yaml: no file has {sorted(unused)[0]!r}")
    check_size(number, declared, new)
    return new


def patch_of(number, declared, root=ROOT):
    """The patch of a contribution, or None, and the files that it edits."""
    name = declared["contributions"][number].get("patch")
    if name is None:
        return None, []
    path = root / OWN / name
    if not path.is_file():
        raise LMACError(f"{OWN}/{name}: listed in upstream.yaml, but not found")
    return path, edited_by(path)


def edited_by(patch):
    """The files that a patch edits."""
    text = patch.read_text(encoding="utf-8")
    return re.findall(r"(?m)^\+\+\+ b/(.*)$", text)


def check_size(number, declared, new):
    """Refuse a contribution with more files than can be reviewed at once."""
    places = [*new, *patch_of(number, declared)[1]]
    count = sum(not place.startswith("tests/") for place in places)
    if count > declared["limit"]:
        raise LMACError(
            f"contribution {number}: {count} files, expected at most "
            f"{declared['limit']}"
        )


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


def git(checkout, *arguments):
    """Whether a git command succeeds in the checkout, and its output."""
    done = subprocess.run(
        ["git", *arguments], cwd=checkout, capture_output=True, text=True
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def is_patched(patch, checkout):
    """Whether a patch has been applied; an error if it does not fit."""
    fits, _ = git(checkout, "apply", "--reverse", "--check", str(patch))
    if fits:
        return True
    fits, said = git(checkout, "apply", "--check", str(patch))
    if not fits:
        raise LMACError(f"{checkout}: {patch.name} does not fit: {said}")
    return False


def check_replaced(number, declared, new, checkout):
    """Refuse to replace a file that SpeechBrain has changed in the meantime."""
    known = declared["contributions"][number]["replaced"]
    for place, text in new.items():
        path = checkout / place
        found = path.read_text(encoding="utf-8") if path.is_file() else text
        if found == text or SIGNATURE in found:
            continue
        blob = git(checkout, "hash-object", place)[1]
        if blob != known.get(place):
            raise LMACError(
                f"{path}: expected version {known.get(place)} as in "
                f"upstream.yaml, found {blob}; read what is new in it"
            )


def check_checkout(number, declared, checkout):
    """Refuse a folder without SpeechBrain or an earlier contribution."""
    if not (checkout / "speechbrain/version.txt").is_file():
        raise LMACError(f"{checkout}: not a checkout of SpeechBrain")
    for before in range(1, number):
        for place in plan(before, declared):
            if not (checkout / place).is_file():
                raise LMACError(
                    f"{checkout}: has no {place}; contribution {before} "
                    "comes first"
                )


def write(new, checkout, patch=None):
    """Write the files that differ, apply the patch, and return the paths.

    Arguments
    ---------
    new : dict
        From `plan`.
    checkout : Path
        Of SpeechBrain.
    patch : Path
        From `patch_of`, or None.

    Returns
    -------
    list of str
    """
    new = {
        place: tidy(text, place, checkout) if place.endswith(".py") else text
        for place, text in new.items()
    }
    edited = []
    if patch is not None and not is_patched(patch, checkout):
        edited = edited_by(patch)
    changed = []
    for place, text in new.items():
        path = checkout / place
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(place)
    if edited:
        done, said = git(checkout, "apply", str(patch))
        if not done:
            raise LMACError(f"{checkout}: {patch.name} failed: {said}")
    return changed + edited


@exit_on_user_error
def main(argv=None):
    """Copy the contribution that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("number", type=int, help="number of the contribution")
    parser.add_argument(
        "checkout", type=Path, help="SpeechBrain's branch develop"
    )
    args = parser.parse_args(argv)
    declared = load()
    new = plan(args.number, declared)
    check_checkout(args.number, declared, args.checkout)
    check_replaced(args.number, declared, new, args.checkout)
    patch, _ = patch_of(args.number, declared)
    changed = write(new, args.checkout, patch)
    print(f"{args.checkout}: {len(changed)} files changed")


if __name__ == "__main__":
    main()
