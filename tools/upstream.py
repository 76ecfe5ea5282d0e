#!/usr/bin/env python3
"""Copy a contribution into a checkout of SpeechBrain.

    python tools/upstream.py 1 ../speechbrain

What goes is declared in upstream.yaml: modules and tests of ours, under the
names that they get there; files that are written for SpeechBrain, which lie in
upstream/ beside this script; and a patch to files of SpeechBrain. Everything is
made and checked before the first file is written; a second run changes
nothing.
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
        By default ``upstream.yaml`` beside this script.

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
    """New name of each module and public name, of all that is there by then."""
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
    """(module, line) of everything that a module imports of ours."""
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
    """The module with SpeechBrain's footer in its docstring."""
    tree = ast.parse(text)
    if ast.get_docstring(tree) is None:
        raise LMACError(f"{name}: a module docstring is needed")
    lines = text.splitlines(keepends=True)
    end = tree.body[0].end_lineno
    head = "".join(lines[:end]).rstrip()
    quotes = head[-3:]
    return head[:-3].rstrip() + AUTHORS + quotes + "\n" + "".join(lines[end:])


def top_level(text, names, file):
    """The nodes of some names at a module's top level."""
    nodes = {}
    for node in ast.parse(text).body:
        targets = getattr(node, "targets", [node])
        for target in targets:
            nodes[getattr(target, "id", getattr(target, "name", None))] = node
    for name in names:
        if name not in nodes:
            raise LMACError(f"{file}: no {name}, which upstream.yaml names")
    return [nodes[name] for name in names]


def drop(text, names, file):
    """The source without some of its functions and constants."""
    lines = text.splitlines(keepends=True)
    for node in top_level(text, names, file):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        lines[first - 1 : node.end_lineno] = [""] * (
            node.end_lineno - first + 1
        )
    text = "".join(lines).rstrip() + "\n"
    exported = re.search(r"(?ms)^__all__ = \[.*?\]", text)
    if exported:
        kept = exported[0]
        for name in names:
            kept = re.sub(rf'\s*"{name}",?', "", kept)
        text = text.replace(exported[0], kept)
    return text


def skip_examples(text, names, file):
    """The source with the examples of some functions marked as not run.

    They use names that the conftest.py of this repository gives them.
    """
    lines = text.splitlines(keepends=True)
    for node in top_level(text, names, file):
        for i in range(node.lineno, node.end_lineno):
            if lines[i].lstrip().startswith(">>> "):
                lines[i] = lines[i].rstrip() + "  # doctest: +SKIP\n"
    return "".join(lines)


def rename(text, names):
    """A text with the names that modules have in SpeechBrain."""
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
    """A module of ours with the names that it has in SpeechBrain.

    Arguments
    ---------
    text, file : str
        The source and its file, for messages.
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
    """A file of ours as a contribution declares it."""
    is_python = source.endswith(".py")
    if is_python:
        text = drop(text, part["left_out"].get(source, []), source)
        text = skip_examples(text, part["skipped"].get(source, []), source)
    for old, new in part["words"].items():
        text = text.replace(old, new)
    return rewrite(text, source, names) if is_python else rename(text, names)


def sources(part, names):
    """Where each file of ours goes that a contribution copies."""
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
    """What the checkout will hold.

    Arguments
    ---------
    number : int
        Of the contribution.
    declared : dict
        By default what `load` gives.
    root : Path
        This repository.

    Returns
    -------
    dict
        Text of each file by its path in the checkout.
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
            raise LMACError(f"{source}: is listed in upstream.yaml, not found")
        text = path.read_text(encoding="utf-8")
        if not source.startswith(OWN):
            unused -= {word for word in part["words"] if word in text}
            text = adapt(text, source, part, names)
        left = [line for line in text.splitlines() if PACKAGE in line]
        if left:
            raise LMACError(
                f"{source}: still names {PACKAGE} in: {left[0].strip()}"
            )
        new[place] = text
    if unused:
        raise LMACError(f"upstream.yaml: no file has {sorted(unused)[0]!r}")
    check_size(number, declared, new)
    return new


def patch_of(number, declared, root=ROOT):
    """The patch of a contribution and the files that it edits, or none."""
    name = declared["contributions"][number].get("patch")
    if name is None:
        return None, []
    path = root / OWN / name
    if not path.is_file():
        raise LMACError(f"{OWN}/{name}: is listed in upstream.yaml, not found")
    return path, edited_by(path)


def edited_by(patch):
    """The files that a patch edits."""
    text = patch.read_text(encoding="utf-8")
    return re.findall(r"(?m)^\+\+\+ b/(.*)$", text)


def check_size(number, declared, new):
    """Refuse more files than a reviewer takes at once."""
    places = [*new, *patch_of(number, declared)[1]]
    count = sum(not place.startswith("tests/") for place in places)
    if count > declared["limit"]:
        raise LMACError(
            f"contribution {number}: {count} files, at most "
            f"{declared['limit']} are expected"
        )


def tidy(text, place, checkout):
    """The source as the checkout's settings want it: imports, then format.

    What was left out and other names leave imports unused and lines broken.
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
    """Whether git says yes in the checkout, and what it says."""
    done = subprocess.run(
        ["git", *arguments], cwd=checkout, capture_output=True, text=True
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def is_patched(patch, checkout):
    """Whether a patch is in the checkout; an error if it does not fit."""
    fits, _ = git(checkout, "apply", "--reverse", "--check", str(patch))
    if fits:
        return True
    fits, said = git(checkout, "apply", "--check", str(patch))
    if not fits:
        raise LMACError(f"{checkout}: {patch.name} does not fit: {said}")
    return False


def check_replaced(number, declared, new, checkout):
    """Refuse to write over a file that SpeechBrain has changed meanwhile."""
    known = declared["contributions"][number]["replaced"]
    for place, text in new.items():
        path = checkout / place
        found = path.read_text(encoding="utf-8") if path.is_file() else text
        if found == text or SIGNATURE in found:
            continue
        blob = git(checkout, "hash-object", place)[1]
        if blob != known.get(place):
            raise LMACError(
                f"{path}: is not the file that upstream.yaml knows "
                f"({known.get(place)}, found {blob}); see what is new in it"
            )


def check_checkout(number, declared, checkout):
    """Refuse a folder that is none, or lacks what this one stands on."""
    if not (checkout / "speechbrain/version.txt").is_file():
        raise LMACError(f"{checkout}: is not a checkout of SpeechBrain")
    for before in range(1, number):
        for place in plan(before, declared):
            if not (checkout / place).is_file():
                raise LMACError(
                    f"{checkout}: has no {place}; contribution {before} "
                    "comes first"
                )


def write(new, checkout, patch=None):
    """Write what differs, apply the patch, and return the paths.

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
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("number", type=int, help="of the contribution")
    parser.add_argument("checkout", type=Path, help="SpeechBrain, develop")
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
