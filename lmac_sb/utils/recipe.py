"""The recipe that travels with the package: its scripts and yaml files.

In a checkout its folder is a link to ``recipes/ESC50/interpret``; in a wheel
it is a copy. Nothing is ever written to it.
"""

import importlib
import shutil
import sys
from pathlib import Path

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import folder_in_one_step, is_free, make_folder
from lmac_sb.utils.near import near

__all__ = [
    "copy_recipe",
    "find_yaml",
    "load_script",
    "recipe_folder",
    "yaml_names",
]


def recipe_folder():
    """The folder of the recipe's scripts, with the yaml files in ``hparams``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    LMACError
        If the package is there without it.

    Example
    -------
    >>> (recipe_folder() / "hparams" / "lmac.yaml").is_file()
    True
    """
    folder = Path(__file__).resolve().parents[1] / "recipe"
    if not (folder / "hparams").is_dir():
        raise LMACError(
            f"{folder}: found no recipe, expected its scripts and yaml files; "
            "install lmac-sb again"
        )
    return folder.resolve()


def yaml_names():
    """Short names of the recipe's yaml files.

    Returns
    -------
    list of str
        Those of the folder itself first.

    Example
    -------
    >>> names = yaml_names()
    >>> names[0], names[-1]
    ('audit', 'variants/lmac_psi')
    """
    hparams = recipe_folder() / "hparams"
    names = [
        path.relative_to(hparams).with_suffix("").as_posix()
        for path in hparams.rglob("*.yaml")
    ]
    return sorted(names, key=lambda name: ("/" in name, name))


def find_yaml(name):
    """A yaml file that a user names by its path, or in short.

    Arguments
    ---------
    name : str
        Path of a file; or one of `yaml_names`, with or without ``.yaml``.

    Returns
    -------
    pathlib.Path
        A file of the user comes first, unless the name is a short one.

    Raises
    ------
    LMACError
        If there is no such file.

    Example
    -------
    >>> find_yaml("lmac_any").name, find_yaml("variants/lmac_psi.yaml").name
    ('lmac_any.yaml', 'lmac_psi.yaml')
    """
    names = yaml_names()
    if name not in names and Path(name).is_file():
        return Path(name)
    short = name.removesuffix(".yaml").removeprefix("hparams/")
    if short in names:
        return recipe_folder() / "hparams" / f"{short}.yaml"
    raise LMACError(
        f"{name}: no such file, expected a yaml file or the name of one of "
        f"the recipe{near(short, names)}"
    )


def load_script(name):
    """A script of the recipe, as a module.

    Arguments
    ---------
    name : str
        Such as ``train_lmac.py``.

    Returns
    -------
    module

    Example
    -------
    >>> load_script("score_listening_test.py").__name__
    'score_listening_test'
    """
    folder = str(recipe_folder())
    if folder not in sys.path:
        # First: they import each other, whatever lies where the user stands.
        sys.path.insert(0, folder)
    return importlib.import_module(name.removesuffix(".py"))


def copy_recipe(folder):
    """Copy the recipe to where it can be changed.

    Arguments
    ---------
    folder : str or Path
        A new or an empty folder; it is complete, or not there.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    LMACError
        If it exists and is not empty, or the one above it cannot be made.

    Example
    -------
    >>> folder = copy_recipe(getfixture("tmp_path") / "mine")
    >>> (folder / "train_lmac.py").is_file()
    True
    """
    folder = Path(folder)
    if not is_free(folder):
        kind = "a folder that is not empty" if folder.is_dir() else "a file"
        raise LMACError(
            f"{folder}: found {kind}, expected a new or an empty folder"
        )
    source = recipe_folder()
    make_folder(folder.parent)
    with folder_in_one_step(folder) as part:
        for pattern in ("README.md", "*.py", "hparams/**/*.yaml"):
            for path in source.glob(pattern):
                target = part / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                # Contents alone: those of an installation may be read-only.
                shutil.copyfile(path, target)
    return folder
