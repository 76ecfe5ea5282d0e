"""Running the real scripts, and breaking them."""

import os
from pathlib import Path

import pytest

from lmac_sb.training.checkpoints import SafeCheckpointer

BROKEN = str(Path(__file__).with_name("broken.py"))


@pytest.fixture(scope="session")
def command(recipe, helpers):
    """Command of a script with a fault."""

    def command(fault, script="train_lmac", yaml="lmac.yaml", **overrides):
        module = recipe.script(script)
        return [
            BROKEN,
            fault,
            module.__file__,
            *helpers.arguments(yaml, overrides),
        ]

    return command


@pytest.fixture(scope="session")
def broken(recipe, command):
    """Run a script with a fault."""
    recipe_folder = str(Path(recipe.script("train_lmac").__file__).parent)
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, recipe_folder]))
    recipe.environment["PYTHONPATH"] = path

    def broken(fault, launcher=(), **overrides):
        return recipe.command([*launcher, *command(fault, **overrides)])

    return broken


@pytest.fixture(scope="session")
def start(recipe, command, broken):
    """Start a script with a fault, which can be told to go on."""

    def start(fault, **overrides):
        return recipe.copy(command(fault, **overrides), asked=True)

    return start


@pytest.fixture(scope="session")
def resumed(recipe, whole, helpers):
    """Run the same command again; it ends like an uninterrupted run."""

    def resumed(folder, **overrides):
        done = recipe.main(
            "train_lmac", "lmac.yaml", output_folder=folder, **overrides
        )
        assert done.code == 0, done.err
        helpers.same(folder, whole)
        tidy(folder)
        return done

    return resumed


def tidy(folder):
    """There is no incomplete file, lock or temporary file."""
    ends = (".part", ".tmp", ".lock", ".former")
    names = [str(path) for path in Path(folder).rglob("*")]
    assert [name for name in names if name.endswith(ends)] == []
    folders = set((Path(folder) / "save").glob("CKPT*"))
    found = SafeCheckpointer(Path(folder) / "save").list_checkpoints()
    assert {checkpoint.path for checkpoint in found} == folders


# Started by the tests, no test itself.
collect_ignore = ["broken.py", "worker.py"]
