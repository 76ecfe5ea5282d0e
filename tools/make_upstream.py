#!/usr/bin/env python3
"""Lay this project into a checkout of SpeechBrain, as a pull request would.

    python tools/make_upstream.py --speechbrain ../speechbrain
    python tools/make_upstream.py --speechbrain ../speechbrain \
        --description UPSTREAM.md

All modules of `lmac_sb` go, with the recipe, its rows, the unit tests and an
interface beside SpeechBrain's own. Everything is made and checked before the
first file is written; a second run changes nothing.

Authors
 * The lmac-sb authors 2026
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from upstream_edits import (
    INTERFACE,
    RECIPE,
    TABLE,
    add_interface,
    add_lines,
    add_package_data,
    detach_eval,
    merge_readme,
    merge_rows,
)
from upstream_rewrite import (
    PACKAGE,
    RENAMED,
    TARGET,
    rename_tests,
    rewrite_python,
    rewrite_text,
)

from lmac_sb.errors import LMACError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]

LIBRARY = "speechbrain/lobes/lmac"
TESTS = "tests/unittests/lmac"
SETUP = "tests/recipes/setup"  # what a row of the table needs first

# Files of SpeechBrain that ours take the place of.
REPLACED = {f"{RECIPE}/train_lmac.py", f"{RECIPE}/hparams/lmac_cnn14.yaml"}
# By this a file is known to be ours.
SIGNATURE = "The lmac-sb authors"

# Tests of what stays here: the tools, the benchmarks, setup.cfg; and those
# that need a newer pytest than SpeechBrain's.
LEFT_OUT_FILES = {
    "test_benchmarks.py",
    "test_make_upstream.py",
    "test_reproduce.py",
}
LEFT_OUT_TESTS = {
    "test_cli.py": {"test_console_script"},
    "test_localisation.py": {"test_quantus"},
    "test_metrics.py": {"test_quantus"},
}

# What the package needs beyond SpeechBrain's own requirements.
REQUIREMENTS = {
    "requirements.txt": ["matplotlib>=3.8", "safetensors>=0.4"],
    f"{RECIPE}/extra_requirements.txt": ["captum>=0.8", "safetensors"],
}

A_CHECKOUT = [
    "conftest.py",
    "pyproject.toml",
    "requirements.txt",
    ".github/pull_request_template.md",
    "speechbrain/version.txt",
    "speechbrain/lobes/__init__.py",
    INTERFACE,
    "recipes/ESC50/esc50_prepare.py",
    f"{RECIPE}/README.md",
    f"{RECIPE}/eval.py",
    f"{RECIPE}/extra_requirements.txt",
    "tests/consistency/test_recipe.py",
    "tests/unittests",
    TABLE,
]


def own_files(folder, root):
    """Files of a folder of ours, without what running it leaves there.

    Arguments
    ---------
    folder : str
        From `root`.
    root : Path
        The repository.

    Returns
    -------
    list of pathlib.Path
    """
    return sorted(
        path
        for path in (root / folder).rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and "results" not in path.relative_to(root).parts
        and not any(
            part == "__pycache__" or part.startswith(".")
            for part in path.relative_to(root).parts
        )
    )


def read(path):
    """Text of a file.

    Arguments
    ---------
    path : Path
        In UTF-8.

    Returns
    -------
    str
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LMACError(f"{path}: cannot be read ({error})") from error


def plan(root, checkout):
    """What the checkout will hold.

    Arguments
    ---------
    root : Path
        This repository.
    checkout : Path
        SpeechBrain's.

    Returns
    -------
    new : dict
        Text of each of our files by its path in the checkout.
    edited : dict
        The same of SpeechBrain's own files.
    links : dict
        What each link points to.
    """
    new = {}
    for path in own_files(PACKAGE, root):
        place = f"{LIBRARY}/{path.relative_to(root / PACKAGE).as_posix()}"
        text = read(path)
        new[place] = (
            rewrite_python(text, str(path))
            if path.suffix == ".py"
            else rewrite_text(text)
        )
    suffixes = {Path(p).suffix for p in new} - {".py"}

    for path in own_files("recipes/ESC50", root):
        place = path.relative_to(root).with_name(
            f"{RENAMED.get(path.stem, path.stem)}{path.suffix}"
            if path.suffix == ".py"
            else path.name
        )
        place = place.as_posix()
        if path.suffix == ".py":
            new[place] = rewrite_python(read(path), str(path))
        elif path.suffix == ".yaml":
            new[place] = rewrite_text(read(path))
        elif place != f"{RECIPE}/README.md":
            raise LMACError(f"{path}: no rule for it in {Path(__file__).name}")

    tests = [root / "tests/conftest.py", *own_files("tests/unit", root)]
    modules = [path.stem for path in tests]
    for path in tests:
        if path.name in LEFT_OUT_FILES:
            continue
        place = path.relative_to(root / "tests").with_name(
            rename_tests(path.name, modules)
        )
        new[f"{TESTS}/{place.as_posix()}"] = rewrite_python(
            rename_tests(read(path), modules),
            str(path),
            2,
            LEFT_OUT_TESTS.get(path.name, ()),
        )

    for path in own_files(SETUP, root):
        new[path.relative_to(root).as_posix()] = rewrite_text(read(path))

    for place, text in new.items():
        if re.search(rf"{PACKAGE}\b", text):
            raise LMACError(f"{place}: still names {PACKAGE}")

    edited = {
        INTERFACE: add_interface(read(checkout / INTERFACE)),
        TABLE: merge_rows(
            read(checkout / TABLE),
            rewrite_text(read(root / TABLE)),
        ),
        f"{RECIPE}/eval.py": detach_eval(read(checkout / RECIPE / "eval.py")),
        f"{RECIPE}/README.md": merge_readme(
            read(checkout / RECIPE / "README.md"),
            read(root / RECIPE / "README.md"),
        ),
        "pyproject.toml": add_package_data(
            read(checkout / "pyproject.toml"), suffixes
        ),
    }
    for name, lines in REQUIREMENTS.items():
        edited[name] = add_lines(read(checkout / name), lines)
    links = {
        name.replace("/ESC50/", "/ESC50/interpret/"): f"../{Path(name).name}"
        for name in new
        if Path(name).parent.as_posix() == "recipes/ESC50"
    }
    return new, edited, links


def check_checkout(checkout):
    """Refuse a folder that is no checkout of SpeechBrain.

    Arguments
    ---------
    checkout : Path
        The folder.

    Returns
    -------
    None
    """
    if not checkout.is_dir():
        raise LMACError(f"{checkout}: no such folder")
    missing = [name for name in A_CHECKOUT if not (checkout / name).exists()]
    if missing:
        raise LMACError(
            f"{checkout}: is no checkout of SpeechBrain's develop branch, it "
            f"lacks {', '.join(missing)}"
        )


def check_places(checkout, new, links):
    """Refuse to write over what is neither ours nor to be replaced.

    Arguments
    ---------
    checkout : Path
        Where to.
    new, links : dict
        From `plan`.

    Returns
    -------
    None
    """
    for name in new:
        path = checkout / name
        if path.is_symlink() or (
            path.exists()
            and name not in REPLACED
            and not name.startswith((f"{LIBRARY}/", f"{TESTS}/"))
            and SIGNATURE not in read(path)
        ):
            raise LMACError(
                f"{path}: is a file of SpeechBrain's, ours has the same name; "
                "add it to RENAMED in tools/upstream_rewrite.py"
            )
    for name, target in links.items():
        path = checkout / name
        if os.path.lexists(path) and not (
            path.is_symlink() and os.readlink(path) == target
        ):
            raise LMACError(f"{path}: is in the way of a link to {target}")


def formatted(checkout, new):
    """Our Python files as SpeechBrain's settings of ruff want them.

    Arguments
    ---------
    checkout : Path
        With those settings.
    new : dict
        From `plan`.

    Returns
    -------
    dict
        The same with other line breaks and order of imports.
    """
    sources = [name for name in new if name.endswith(".py")]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "pyproject.toml").write_text(
            read(checkout / "pyproject.toml"), encoding="utf-8"
        )
        for name in sources:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(new[name], encoding="utf-8")
        for command in (
            ["check", "--fix", "--exit-zero"],
            ["format"],
            ["check"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--quiet"]
                + ["--no-cache", "."],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                said = (done.stdout + done.stderr).strip()
                raise LMACError(f"ruff {command[0]}: {said}")
        return {
            **new,
            **{name: read(folder / name) for name in sources},
        }


def lay(root, checkout):
    """Write the contribution into a checkout.

    Arguments
    ---------
    root : Path
        This repository.
    checkout : Path
        SpeechBrain's.

    Returns
    -------
    list of str
        The files that changed, as paths in the checkout.
    """
    check_checkout(checkout)
    new, edited, links = plan(root, checkout)
    check_places(checkout, new, links)
    wanted = {**formatted(checkout, new), **edited}
    stale = [
        path.relative_to(checkout).as_posix()
        for folder in (LIBRARY, TESTS)
        for path in own_files(folder, checkout)
        if path.relative_to(checkout).as_posix() not in new
    ]
    changed = [
        name
        for name, text in wanted.items()
        if not (checkout / name).is_file() or read(checkout / name) != text
    ]
    undo = []
    try:
        for name in changed + stale:
            path = checkout / name
            before = path.read_bytes() if path.is_file() else None
            undo.append((path, before))
            if name in stale:
                path.unlink()
                continue
            source = root / name
            mode = source.stat().st_mode if source.is_file() else 0o644
            if before is not None:
                mode = path.stat().st_mode
            _replace(path, wanted[name].encode("utf-8"), mode)
        for name, target in links.items():
            if not os.path.lexists(checkout / name):
                undo.append((checkout / name, None))
                os.symlink(target, checkout / name)
                changed.append(name)
    except BaseException as error:
        for path, before in reversed(undo):
            if before is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(before)
        if isinstance(error, OSError):
            raise LMACError(
                f"{checkout}: cannot be written ({error})"
            ) from error
        raise
    return sorted(changed + stale)


def _replace(path, content, mode):
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, mode & 0o777)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


# -------------------------------------------------------------- description

# Modules in the order of review; what is in none of these comes with the last.
STEPS = [
    (
        "Formulas: features, masks, losses, metrics, each with a second, "
        "slow writing in its test",
        "__init__ errors audio features masking losses metrics",
    ),
    (
        "Models: the frozen classifier, the decoder, the explainer",
        "classifier decoder explainer refine baselines",
    ),
    (
        "Data: scenes with known answers, noise, preparation",
        "noise scenes manifests cache data settings",
    ),
    (
        "Training: checkpoints, the Brain, the recipe and its rows",
        "checkpoints lock training experiment results",
    ),
    (
        "Inference: `LMACInterpreter`, model folders",
        "artifacts bundles streams explained inference export",
    ),
    ("Tools: the command, the report, comparisons", ""),
]


def needed(new, names, left):
    """Modules with what they import, in the order of the alphabet.

    Arguments
    ---------
    new : dict
        Our files, from `plan`.
    names, left : list of str
        Modules to begin with, and those that are to be had.

    Returns
    -------
    list of str
    """
    found, more = set(), set(names) & set(left)
    while more:
        found |= more
        texts = [new[f"{LIBRARY}/{name}.py"] for name in more]
        imported = re.findall(
            rf"^ *(?:from|import) {re.escape(TARGET)}\.(\w+)",
            "\n".join(texts),
            re.MULTILINE,
        )
        more = (set(imported) & set(left)) - found
    return sorted(found)


def describe(new, template):
    """The pull request's description.

    Arguments
    ---------
    new : dict
        Our files, from `plan`.
    template : str
        SpeechBrain's form for pull requests.

    Returns
    -------
    str
        Markdown.
    """
    here = Path(__file__).parent
    modules = [
        Path(name).stem
        for name in new
        if name.startswith(LIBRARY) and name.endswith(".py")
    ]
    steps, left = [], list(modules)
    for number, (title, names) in enumerate(STEPS, 1):
        part = needed(new, names.split() or list(left), left)
        left = [name for name in left if name not in part]
        shown = ", ".join(f"`{name}`" for name in part)
        steps.append(f"{number}. {title}: {shown}")
    recipes = ", ".join(
        f"`{Path(name).name}`"
        for name in sorted(new)
        if name.startswith(f"{RECIPE}/") and name not in REPLACED
    )
    text = read(here / "upstream_text.md")
    for key, value in (
        ("@N_MODULES@", str(len(modules))),
        ("@NEW_RECIPES@", recipes),
        ("@STEPS@", "\n".join(steps)),
    ):
        text = text.replace(key, value)
    breaks = read(here / "upstream_breaks.md")

    parts = re.split(r"<!--.*?-->\n", template, flags=re.DOTALL)
    issue = "Fixes #<issue_number>"
    if len(parts) < 3 or issue not in parts[1]:
        raise LMACError(
            "pull_request_template.md: no longer asks for a summary, an issue "
            "and breaking changes, in this order"
        )
    middle = parts[1].replace(
        issue, "Fixes the faults above; no issue is open."
    )
    end = template[template.index(parts[2]) :]
    return parts[0] + text + middle + breaks + end


@exit_on_user_error
def main(argv=None):
    """Run the command.

    Arguments
    ---------
    argv : list of str
        Arguments; by default those of the process.

    Returns
    -------
    None
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--speechbrain", required=True, help="checkout of the develop branch"
    )
    parser.add_argument(
        "--description", help="write the pull request's text to this file"
    )
    args = parser.parse_args(argv)
    checkout = Path(args.speechbrain).resolve()
    changed = lay(ROOT, checkout)
    print(f"{checkout}: {len(changed)} files changed")
    if args.description:
        text = describe(
            plan(ROOT, checkout)[0],
            read(checkout / ".github/pull_request_template.md"),
        )
        _replace(Path(args.description), text.encode("utf-8"), 0o644)
        print(f"{args.description}: written")


if __name__ == "__main__":
    main()
