"""Every command and option that takes a folder, given those of strangers.

The options are found by themselves: a new one must be named here, with what
it is for, and is then given all the folders.
"""

import argparse
import ast
import json
import os
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
import torch
import yaml
from folders import YAML, Trap, change, replaced

from lmac_sb import cli
from lmac_sb.cli.main import lmac
from lmac_sb.cli.usage import MODEL, PLACE
from lmac_sb.inference.load import load_interpreter
from lmac_sb.training.keys import KEYS
from lmac_sb.utils.checksums import write_sums
from lmac_sb.utils.errors import LMACError

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"
CODE = "!apply:os.mkdir [CANARY]"


# ------------------------------------------------------------------ the folders


def marked(folder):
    """An exported folder that says it is a run."""
    change(folder, "code in use, apply")
    (folder / "experiment.json").write_text("{}")


def unsealed(folder):
    """A folder without checksums."""
    change(folder, "code in use, apply")
    (folder / "SHA256SUMS").unlink()


def of_speechbrain(folder):
    """A classifier of SpeechBrain, and one of ours at once."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    text = f"modules: {{a: 1}}\npretrainer: {CODE}\nlabel_encoder: {CODE}\n"
    (folder / YAML).write_text(text)
    for name in ("embedding_model", "classifier"):
        torch.save({"weight": Trap()}, folder / f"{name}.ckpt")
    (folder / "label_encoder.txt").write_text("__import__('os') => 0\n")


def of_hugging_face(folder):
    """A classifier of Hugging Face with code of its own."""
    of_speechbrain(folder)
    (folder / YAML).unlink()
    settings = {
        "model_type": "mine",
        "architectures": ["OwnForAudioClassification"],
        "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"},
    }
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps(settings))
    (folder / "own.py").write_text("import os\nos.mkdir('CANARY')\n")
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")


def of_pipes(folder):
    """Whatever is opened never ends."""
    for path in list(folder.rglob("*")):
        if path.is_file():
            path.unlink()
            os.mkfifo(path)
    for name in ("explanation.json", "key.json", "ratings.json"):
        os.mkfifo(folder / name)


EXPORTED = {
    "code": lambda folder: change(folder, "code in use, apply"),
    "code, marked as a run": marked,
    "code without checksums": unsealed,
    "speechbrain": of_speechbrain,
    "hugging face": of_hugging_face,
    "pipes": of_pipes,
    "brackets": lambda folder: change(folder, "bomb, brackets"),
}


def run_with_code(run):
    """A run whose model would run code."""
    replaced("min_frames: 32", f"min_frames: {CODE}")(run)


def run_with_pickles(run):
    """A run whose checkpoint would run code, whatever its checksums say."""
    (folder,) = (run / "save").glob("CKPT*")
    torch.save({"weight": Trap()}, folder / "decoder.ckpt")
    text = "loss: !!python/object/apply:os.mkdir [CANARY]"
    (folder / "CKPT.yaml").write_text(text)
    write_sums(folder)


RUNS = {"run with code": run_with_code, "run of pickles": run_with_pickles}


# ------------------------------------------------------------- the entry points


def script(name, file, **options):
    """A script with one option that is the folder."""

    def call(folder, recipe, tmp_path, good):
        given = {
            key: value(folder, good) if callable(value) else value
            for key, value in options.items()
        }
        given.setdefault("output_folder", tmp_path / "out")
        done = recipe.main(name, file, **given)
        assert "Traceback" not in done.err
        if done.code:
            last = done.err.strip().splitlines()[-1]
            assert last.startswith("error: "), done.err
            raise LMACError(last)

    return call


def this(folder, good):
    """The folder of a stranger."""
    return folder


def also(folder, good):
    """The folder of a stranger as one more model."""
    return f"{{more: {folder}}}"


def one_of_ours(folder, good):
    """A good model."""
    return good


def command(*arguments):
    """A command with a folder of a stranger."""

    def call(folder, recipe, tmp_path, good):
        places = {"FOLDER": folder, "OUT": tmp_path / "out", "WAV": "x.wav"}
        soundfile.write(tmp_path / "x.wav", np.ones(8000) / 9, 16000)
        assert cli.main([str(places.get(x, x)) for x in arguments]) == 0

    return call


KEY = {"test": "t", "trials": {"k": {"id": "1", "setting": "clean"}}}
KEY["trials"]["k"]["sounds"] = {"x": "lmac"}


def score(ratings, key):
    """The script that scores a listening test."""

    def call(folder, recipe, tmp_path, good):
        (tmp_path / "ratings").mkdir()
        (tmp_path / "good.json").write_text(json.dumps(KEY))
        places = {"FOLDER": folder, "OURS": tmp_path}
        given = [
            places[x.partition("/")[0]] / x.partition("/")[2]
            for x in (ratings, key)
        ]
        recipe.script("score_listening_test").main(
            [str(given[0]), "--key", str(given[1])]
        )

    return call


THEIRS = """\
from lmac_sb.bench.data import Data
from lmac_sb.data.scenes import make_scenes
tiny = Data(lambda made, real: make_scenes(
    made, clips_per_class=1, duration_s=1.0))
"""


def bench_trained(folder, recipe, tmp_path, good):
    """A bench whose decoder is the folder of a stranger."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    models = tmp_path / "models" / "theirs_tiny" / "cnn"
    (models / "classifier-1234" / "model").mkdir(parents=True)
    folder.rename(models / "lmac-1234")
    (models / "lmac-1234" / "results.json").write_text("{}")
    for run in models.iterdir():
        (run / "manifests").mkdir(exist_ok=True)
        for split in ("train", "valid"):
            (run / "manifests" / f"{split}.jsonl").unlink(missing_ok=True)
            (run / "manifests" / f"{split}.jsonl").touch()
    words = ["bench", "--out", tmp_path / "out", "--data", "theirs:tiny"]
    words += ["--classifiers", "cnn", "--trained", tmp_path / "models"]
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert cli.main([*map(str, words), "--seeds", "1"]) == 0
    finally:
        os.chdir(here)


EXPLAIN = command("explain", "WAV", "--model", "FOLDER", "--out", "OUT")
# What takes the folder of a model, a run, explanations or ratings.
ENTRIES = {
    "explain model": EXPLAIN,
    "audit model": command("audit", "WAV", "--model", "FOLDER", "--out", "OUT"),
    "export run_folder": command("export", "FOLDER", "OUT"),
    "report folder": command("report", "FOLDER"),
    "bench trained": bench_trained,
    "score_listening_test ratings": score("FOLDER/", "OURS/good.json"),
    "score_listening_test key": score("OURS/ratings", "FOLDER/experiment.json"),
    "interpreter": script("eval", "eval.yaml", interpreter=this),
    "interpreter sanity": script("sanity", "sanity.yaml", interpreter=this),
    "interpreter test": script(
        "make_listening_test", "listening.yaml", interpreter=this
    ),
    "interpreters": script(
        "eval", "eval.yaml", interpreter=one_of_ours, interpreters=also
    ),
    "judge_folder": script(
        "eval", "eval.yaml", interpreter=one_of_ours, judge_folder=this
    ),
    "pretrained_interpreter": script(
        "train_lmac",
        "lmac_ft.yaml",
        pretrained_interpreter=this,
        # Of a run, the weights of the decoder are good, and all that is read.
        data_folder="nowhere",
    ),
    "classifier_folder": script(
        "train_lmac", "lmac.yaml", classifier_folder=this
    ),
    "model": script("train_lmac", "lmac_any.yaml", model=this),
    "data_folder": script(
        "train_classifier", "classifier_conv.yaml", data_folder=this
    ),
}
# What takes none, or one that the user writes to: why it is not among them.
OTHERS = {
    "explain files": "sounds",
    "explain out": "written to",
    "try out": "written to",
    "try model": "goes to explain",
    "try sound": "a name",
    "explain weights": "a file, see tests of YAMNet",
    "explain at": "a time",
    "explain target": "a class",
    "explain against": "a class",
    "audit data": "sounds, and tables of texts",
    "audit out": "written to",
    "audit labels": "a table of texts",
    "audit classes_map": "a table of texts",
    "audit label_column": "a word",
    "audit file_column": "a word",
    "audit weights": "as of explain",
    "bench out": "written to",
    "bench real": "sounds",
    "bench data": "names, and modules that the user names",
    "bench classifiers": "names, and modules that the user names",
    "bench methods": "names, and modules that the user names",
    "labels": "a table of texts",
    "classes_map": "a table of texts",
    "label_column": "a word",
    "file_column": "a word",
    "report names": "words",
    "report name_of_class": "a word",
    "report verdict": "a word",
    "export out_folder": "written to",
    "export license": "a word",
    "export push": "an id",
    "scenes out": "written to",
    "scenes foregrounds": "sounds",
    "scenes ambients": "sounds",
    "scenes distractors": "sounds",
    "cache folder": "of the user's own clips; only names are read",
    "score_listening_test output_folder": "written to",
    "score ratings": "goes to the script, which is tried",
    "score key": "goes to the script, which is tried",
    "score output_folder": "written to",
    "app model": "loaded as that of explain",
    "app explained": "clips are read as by report",
    "app host": "an address",
    "experiment_name": "a word",
    "output_folder": "the user's own run",
    "save_folder": "the user's own run",
    "manifest_folder": "the user's own run",
    "model_folder": "written to",
    "train_log": "written to",
    "tensorboard_folder": "written to",
    "scenes_folder": "the user's own sounds",
    "audio_cache": "the user's own sounds",
    "wham_folder": "sounds",
    "speech_folder": "sounds",
    "clips": "of keys that are here",
    "select_key": "a word",
    "dataloader_options": "numbers",
    "classifier_recipe": "a yaml that the user names",
    "methods": "words",
    "settings": "words",
    "randomisation_methods": "words",
    "roar_methods": "words",
    "swap_methods": "words",
}


def texts_of(parser):
    """Options of a parser that take any text."""
    return [
        action.dest
        for action in parser._actions
        if action.nargs != 0 and action.choices is None and action.type is None
    ]


def options_of_commands():
    """Options of the commands that take any text."""
    return {
        f"{name} {option.name}"
        for name, command in lmac.commands.items()
        for option in getattr(command, "params", [])
        if option.type in (MODEL, PLACE, click.STRING)
    }


def options_of_scripts(recipe, monkeypatch):
    """Options of the scripts that have a parser of their own."""
    found = set()
    for path in sorted(RECIPE.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        if "argparse" not in imported:
            continue

        class Seen(Exception):
            """The parser is complete."""

        def see(parser, *_, stem=path.stem, seen=Seen):
            found.update(f"{stem} {option}" for option in texts_of(parser))
            raise seen

        with monkeypatch.context() as patched:
            patched.setattr(argparse.ArgumentParser, "parse_args", see)
            with pytest.raises(Seen):
                recipe.script(path.stem).main([])
    return found


def keys():
    """Keys of the yaml files whose value may be a path, or hold one."""
    path = "some/folder"
    return {
        name
        for name, key in KEYS.items()
        if key.kind and any(map(key.kind.holds, (path, {"a": path})))
    }


def test_every_option_is_known(recipe, monkeypatch):
    """One that takes a folder of others is tried below."""
    found = options_of_commands() | keys()
    found |= options_of_scripts(recipe, monkeypatch)
    assert not set(ENTRIES) & set(OTHERS)
    tried = {name for name in ENTRIES if name in found}
    assert found == tried | set(OTHERS)
    # More than one script reads these.
    assert set(ENTRIES) - tried == {"interpreter sanity", "interpreter test"}


def test_every_yaml_key_has_its_kind():
    """Keys of the shipped files are declared, so that none is missed."""
    for path in (RECIPE / "hparams").rglob("*.yaml"):
        content = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)
        assert set(content) <= set(KEYS), path


@pytest.fixture(autouse=True, scope="module")
def warm(bundle, recipe):
    """What is imported on the way counts for no folder."""
    load_interpreter(bundle)
    for path in RECIPE.glob("*.py"):
        recipe.script(path.stem)
    pytest.importorskip("transformers")


@pytest.mark.parametrize("kind", [*EXPORTED, *RUNS])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_folder_of_a_stranger(
    bundle, run_folder, copied, outcome, recipe, tmp_path, entry, kind
):
    """It is refused in one line, and runs nothing."""
    if kind in RUNS:
        folder = copied(run_folder)
        RUNS[kind](folder)
    else:
        folder = copied(bundle)
        EXPORTED[kind](folder)
    recipe.cwd = tmp_path
    call = ENTRIES[entry]
    message = outcome(call, folder, recipe, tmp_path, bundle)
    # A page is made of the example clip that lies in a model's folder.
    assert message is not None or entry == "report folder"
    assert not list(tmp_path.rglob("CANARY"))
