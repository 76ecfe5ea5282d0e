"""--help of commands that take the keys of a yaml file."""

import re
from pathlib import Path

import pytest
import yaml
from console import run
from speechbrain.utils.run_opts import RunOptions

from lmac_sb.training.key_help import key_help, read_sections
from lmac_sb.training.keys import KEYS
from lmac_sb.training.run_options import FLAGS, LISTS, RUN_OPTIONS
from lmac_sb.utils.recipe import find_yaml, recipe_folder, yaml_names


def entries(name):
    """Keys of a yaml file that its help shows."""
    _, sections = read_sections(find_yaml(name).read_text("utf-8"))
    return [entry for section in sections for entry in section.entries]


@pytest.mark.parametrize("name", yaml_names())
def test_every_key_has_default_unit_and_meaning(name):
    """Of every yaml file, all that are plain, each once."""
    text = find_yaml(name).read_text("utf-8")
    plain = [
        key.value
        for key, value in yaml.compose(text, Loader=yaml.SafeLoader).value
        if KEYS[key.value].kind is not None
        and not (isinstance(value, yaml.MappingNode) and value.value)
    ]
    found = entries(name)
    assert [entry.key for entry in found] == plain
    for entry in found:
        assert entry.default and len(entry.meaning) > 5, entry
        unit = KEYS[entry.key].unit
        if unit:
            assert re.search(rf"\b{unit}\b", entry.meaning), entry


@pytest.mark.parametrize("name", yaml_names())
def test_help_shows_them_in_sections(name):
    text = find_yaml(name).read_text("utf-8")
    title, sections = read_sections(text)
    shown = " ".join(key_help(text, "lmac train").split())
    assert title in shown and len(title) > 20
    assert len(sections) >= 4
    for section in sections:
        assert section.title in shown and section.title
    for entry in entries(name):
        default = " ".join(entry.default.split())
        assert f"--{entry.key} {default}" in shown


def test_a_value_of_each_kind():
    text = (
        "# ###\n# Mine.\n# ###\n\n# First\na: 1 # x, in s\nb: [1, 2] # y\n"
        "\n# An object\nc: !new:x.Y\n    d: 1\n\n"
        "# Second, which\n# is long\ne: !ref <a>/z # z\n"
        "# Above,\n# of two lines\nf: 'a # b'\ng: # list\n    - p\n    - q\n"
        "h: {} # empty\ni:\n    j: 1\n"
    )
    title, (first, second) = read_sections(text)
    assert (title, first.title) == ("Mine.", "First")
    assert first.entries == [("a", "1", "x, in s"), ("b", "[1, 2]", "y")]
    assert second.title == "Second, which is long"
    assert second.entries == [
        ("e", "<a>/z", "z"),
        ("f", "'a # b'", "Above, of two lines"),
        ("g", "[p, q]", "list"),
        ("h", "{}", "empty"),
    ]


@pytest.mark.parametrize(
    ("command", "only", "never"),
    [
        (["train"], "--l_in_w 12", "--n_components"),
        (["train", "l2i"], "--n_components 100", "--g_w"),
        (["train", "lmac_any", "--lr", "1"], "--layers null", "--channels"),
        (["finetune"], "--g_w 4", "--methods"),
        (["eval", "results/lmac/1234"], "--optimised_steps 150", "--lr "),
        (["sanity"], "--roar_epochs 12", "--lr "),
        (["listen"], "--settings [clean, mixture paper]", "--lr "),
    ],
)
def test_help_of_a_command(command, only, never, capsys):
    assert run(*command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: lmac {command[0]} ")
    assert only in out and never not in out
    assert "--device" in out and "--quiet" in out
    assert '--dataloader_options "{num_workers: 2}"' in out
    # SpeechBrain's other options are named, not listed.
    assert "--profile_warmup" not in out and "run_opts" in out


def test_help_of_a_file_of_the_user(tmp_path, capsys):
    text = find_yaml("lmac").read_text("utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("lr: 0.002", "lr: 0.007"), "utf-8")
    assert run("train", path, "--help") == 0
    assert "--lr 0.007" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], "--l_in_w 12"),
        (["hparams/lmac_ft.yaml", "--help"], "--g_w 4"),
        (["-h"], "--l_in_w 12"),
    ],
)
def test_help_of_a_script(arguments, told, recipe):
    done = recipe.command(["train_lmac.py", *arguments], cwd=recipe_folder())
    assert done.code == 0, done.err
    assert done.out.startswith("usage: python train_lmac.py YAML")
    assert told in done.out


def test_run_options_are_those_of_speechbrain():
    actions = {
        action.dest: action
        for action in RunOptions._create_parser()._actions
        if action.option_strings and action.dest != "help"
    }
    assert set(actions) == RUN_OPTIONS
    assert {name for name, x in actions.items() if x.nargs == 0} == FLAGS
    assert {name for name, x in actions.items() if x.nargs == "*"} == LISTS


def test_names_are_those_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hparams = Path(recipe_folder(), "hparams")
    assert len(yaml_names()) == len(list(hparams.rglob("*.yaml")))
    assert find_yaml("hparams/l2i.yaml") == find_yaml("l2i")
    # A file of the user comes before one of the recipe.
    (tmp_path / "l2i.yaml").write_text("a: 1", "utf-8")
    assert find_yaml("l2i.yaml") == Path("l2i.yaml")
    assert find_yaml("l2i").parent == hparams
