"""SpeechBrain's rules for a recipe, so that this one can move there."""

import ast
import csv
import os
import re
from pathlib import Path

import pytest
import yaml
from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "recipes/ESC50/interpret"
CSV = "tests/recipes/ESC50.csv"

COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,"
    "Result_url,HF_repo,test_debug_flags,test_debug_checks,performance"
).split(",")

# The yaml files and the script of each.
SCRIPTS = {
    f"{RECIPE}/hparams/classifier_conv.yaml": f"{RECIPE}/train_classifier.py",
    f"{RECIPE}/hparams/classifier_cnn14.yaml": f"{RECIPE}/train_classifier.py",
    f"{RECIPE}/hparams/lmac.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/lmac_cnn14.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/variants/lmac_encoder.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/lmac_ft.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/lmac_any.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/variants/classifier_conv2d.yaml": (
        f"{RECIPE}/train_classifier.py"
    ),
    f"{RECIPE}/hparams/variants/classifier_attention.yaml": (
        f"{RECIPE}/train_classifier.py"
    ),
    f"{RECIPE}/hparams/variants/classifier_fsdd.yaml": (
        f"{RECIPE}/train_classifier.py"
    ),
    f"{RECIPE}/hparams/variants/lmac_conv2d.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/variants/lmac_attention.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/variants/lmac_fsdd.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/eval.yaml": f"{RECIPE}/eval.py",
    f"{RECIPE}/hparams/sanity.yaml": f"{RECIPE}/sanity.py",
    f"{RECIPE}/hparams/audit.yaml": f"{RECIPE}/audit.py",
    f"{RECIPE}/hparams/variants/lmac_psi.yaml": f"{RECIPE}/train_lmac.py",
    f"{RECIPE}/hparams/l2i.yaml": f"{RECIPE}/train_l2i.py",
    f"{RECIPE}/hparams/classifier_multilabel.yaml": (
        f"{RECIPE}/train_multilabel.py"
    ),
    f"{RECIPE}/hparams/lmac_multilabel.yaml": f"{RECIPE}/train_multilabel.py",
    f"{RECIPE}/hparams/listening.yaml": f"{RECIPE}/make_listening_test.py",
}

# Order of the keys in a yaml file, which may lack some of them.
KEY_ORDER = [
    "seed",
    "__set_seed",
    "data_folder",
    "output_folder",
    "save_folder",
    "train_annotation",
    "number_of_epochs",
    "n_fft",
    "n_mels",
    "modules",
    "opt_class",
    "epoch_counter",
    "lr_annealing",
    "train_logger",
    "checkpointer",
    "pretrainer",
]

SET_SEED = "__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]"

YAML_FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / RECIPE / "hparams").glob("**/*.yaml")
)
EVERY_YAML = sorted({*YAML_FILES, *SCRIPTS})

# Options of the command line are not keys of a yaml file.
RUN_OPTIONS = set(RunOptions().as_dict())


def read(path):
    """Text of a file that is named from the repository's root."""
    return (ROOT / path).read_text(encoding="utf-8")


# -------------------------------------------------------- rules on one text


def top_level_keys(text):
    """Keys at the first column, in the order of the file."""
    return re.findall(r"^([^\s#:]+):", text, flags=re.MULTILINE)


def unread_keys(text, script):
    """Top-level keys that neither a later `!ref` nor the script reads.

    As SpeechBrain, it goes line by line: a reference above the key does not
    count. A pretrainer, `!apply` and the options of the command line are
    left out there too.
    """
    unread = []
    for line in text.splitlines():
        if line.startswith("#") or "parameter_transfer.Pretrainer" in line:
            continue
        keys = top_level_keys(line)
        if keys and "!apply" not in line and "!!" not in line:
            unread += keys
        if "!ref" in line:
            consumed = set(re.findall(r"<([^<>\[]+)[^<>]*>", line))
            unread = [key for key in unread if key not in consumed]
    return [
        key
        for key in unread
        if key not in RUN_OPTIONS
        and f'hparams["{key}"]' not in script
        and not re.search(rf"\b(hparams|modules)\.{key}\b", script)
    ]


def loose_booleans(text):
    """Words that YAML 1.1 reads as booleans, except True and False."""
    words = {"yes", "no", "on", "off", "true", "false"}
    return [
        token.value
        for token in yaml.scan(text)
        if isinstance(token, yaml.ScalarToken)
        and token.plain
        and token.value.lower() in words
        and token.value not in ("True", "False")
    ]


def placeholders(text):
    """Lines that the user must fill in, except for the data folder."""
    return [
        line
        for line in text.splitlines()
        if "!PLACEHOLDER" in line.split("#")[0]
        and not line.startswith("data_folder: !PLACEHOLDER")
    ]


def order_faults(text):
    """Faults in the order of a yaml file: banner, seed, folders, ..."""
    faults = []
    if not text.startswith("# ####"):
        faults.append("the banner is not first")
    if SET_SEED not in text.splitlines():
        faults.append(f"no line '{SET_SEED}'")
    keys = top_level_keys(text)
    if keys[:2] != KEY_ORDER[:2]:
        faults.append("seed and __set_seed are not the first keys")
    if len(keys) != len(set(keys)):
        faults.append("a key stands twice")
    needed = ["data_folder", "output_folder"]
    if "opt_class" in keys:  # something is trained
        needed.append("modules")
    faults += [f"no key {key}" for key in needed if key not in keys]
    found = [key for key in keys if key in KEY_ORDER]
    wanted = [key for key in KEY_ORDER if key in keys]
    if found != wanted:
        faults.append(f"order is {found}, should be {wanted}")
    return faults


# --------------------------------------------------- the rules find mistakes

GOOD_YAML = f"""# #########
# A recipe
# #########

seed: 1234
{SET_SEED}

data_folder: !PLACEHOLDER # folder with audio/ and meta/
output_folder: !ref results/<seed>
use_tensorboard: False

n_mels: 80
lr: 0.001
device: cpu

embedding: !new:torch.nn.Linear
    in_features: !ref <n_mels>
    out_features: 2

modules:
    embedding: !ref <embedding>

opt_class: !name:torch.optim.Adam
    lr: !ref <lr>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding: !ref <modules[embedding]>
"""

GOOD_SCRIPT = """
run(hparams["output_folder"], hparams["data_folder"], hparams["opt_class"])
if self.hparams.use_tensorboard:
    self.modules.embedding(x)
"""


def test_rules_pass_a_good_recipe():
    assert unread_keys(GOOD_YAML, GOOD_SCRIPT) == []
    assert loose_booleans(GOOD_YAML) == []
    assert placeholders(GOOD_YAML) == []
    assert order_faults(GOOD_YAML) == []


@pytest.mark.parametrize(
    ("old", "new", "unread"),
    [
        ("n_mels: 80\n", "n_mels: 80\nn_mel: 40\n", ["n_mel"]),
        # A reference above the key.
        ("n_mels: 80\nlr: 0.001\n", "lr: 0.001\n", []),
        (
            "opt_class:",
            "fmax: !ref <late>\nlate: 1\nopt_class:",
            ["fmax", "late"],
        ),
        # A key that is only the beginning of another.
        ("use_tensorboard:", "use_tensor: 1\nuse_tensorboard:", ["use_tensor"]),
        # In a comment.
        ("lr: !ref <lr>", "lr: 0.1 # not <lr>", ["lr"]),
    ],
)
def test_unread_keys_are_found(old, new, unread):
    assert old in GOOD_YAML
    assert unread_keys(GOOD_YAML.replace(old, new), GOOD_SCRIPT) == unread


def test_keys_that_the_script_no_longer_reads_are_found():
    assert unread_keys(GOOD_YAML, "") == [
        "data_folder",
        "output_folder",
        "use_tensorboard",
        "opt_class",
    ]


def test_loose_booleans_are_found():
    text = "a: true\nb: 'yes'\nc:\n    - No\n    - True\nd: [off, False]\n"
    assert loose_booleans(text) == ["true", "No", "off"]


def test_placeholders_are_found():
    text = "wham_folder: !PLACEHOLDER\na:\n    data_folder: !PLACEHOLDER\n"
    assert len(placeholders(text)) == 2


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("# ####", "\n# ####", "the banner is not first"),
        ("seed: 1234\n", "lr: 1\nseed: 1234\n", "seed and __set_seed are not"),
        ("seed_everything", "seed_all", "no line '__set_seed"),
        ("data_folder: !PL", "data: !PL", "no key data_folder"),
        ("lr: 0.001", "n_mels: 40", "a key stands twice"),
        ("n_mels: 80\n", "opt_class: 1\nn_mels: 80\n", "order is "),
    ],
)
def test_order_faults_are_found(old, new, fault):
    assert old in GOOD_YAML
    faults = order_faults(GOOD_YAML.replace(old, new, 1))
    assert any(found.startswith(fault) for found in faults), faults


# ------------------------------------------------------------ the yaml files


@pytest.mark.parametrize("path", EVERY_YAML)
def test_hparams_file_is_planned_and_there(path):
    assert path in SCRIPTS, f"{path}: name its script in this file"
    assert path in YAML_FILES, f"{path}: not there"


@pytest.mark.parametrize("path", YAML_FILES)
def test_script_reads_every_key(path):
    # The script itself: SpeechBrain's check follows no import.
    assert unread_keys(read(path), read(SCRIPTS[path])) == []


@pytest.mark.parametrize("path", YAML_FILES)
def test_booleans_and_placeholders(path):
    assert loose_booleans(read(path)) == []
    assert placeholders(read(path)) == []


@pytest.mark.parametrize("path", YAML_FILES)
def test_order_of_keys(path):
    assert order_faults(read(path)) == []


@pytest.mark.parametrize("path", YAML_FILES)
def test_every_key_has_a_comment(path):
    """On its line, or on the line above."""
    lines = read(path).splitlines()
    bare = [
        line
        for above, line in zip(lines, lines[1:])
        if top_level_keys(line)
        and not line.startswith("__set_seed")
        and " # " not in line
        and not above.startswith("# ")
    ]
    assert bare == []


# -------------------------------------------------------------- the csv file


def rows():
    """Rows of the recipe table."""
    with open(ROOT / CSV, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table, skipinitialspace=True))


def test_table_has_speechbrains_columns():
    with open(ROOT / CSV, newline="", encoding="utf-8") as table:
        lines = list(csv.reader(table))
    assert lines[0] == COLUMNS
    assert {len(line) for line in lines} == {len(COLUMNS)}


def test_every_hparams_file_has_one_row():
    listed = [row["Hparam_file"] for row in rows()]
    assert sorted(listed) == EVERY_YAML


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["Hparam_file"])
class TestRow:
    """Rules for one row of the recipe table."""

    def test_files_exist(self, row):
        assert row["Script_file"] == SCRIPTS[row["Hparam_file"]]
        for column in COLUMNS[2:6]:
            assert row[column], column
            assert (ROOT / row[column]).is_file(), f"{column}: {row[column]}"

    def test_links_stand_in_the_readme(self, row):
        links = (row["Result_url"] + " " + row["HF_repo"]).split()
        if links:
            readme = read(row["Readme_file"])
            assert [link for link in links if link not in readme] == []

    def test_flags_name_keys_of_the_yaml(self, row):
        flags = re.findall(r"--([^\s=]+)", row["test_debug_flags"])
        assert flags
        known = RUN_OPTIONS.union(top_level_keys(read(row["Hparam_file"])))
        assert set(flags) <= known

    def test_checks_ask_for_the_script(self, row):
        (names,) = re.findall(
            r"file_exists=\[(.*?)\]", row["test_debug_checks"]
        )
        # The experiment's folder gets a copy of the script.
        assert Path(row["Script_file"]).name in names.split(",")


# -------------------------------------------------------------- other rules


def test_data_preparation_is_linked_into_the_task():
    prepare = sorted((ROOT / RECIPE).parent.glob("*_prepare.py"))
    assert "esc50_prepare.py" in [path.name for path in prepare]
    for path in prepare:
        assert os.readlink(ROOT / RECIPE / path.name) == f"../{path.name}"


def test_experiment_folder_is_made_by_the_script_alone():
    # It keeps a copy of its caller's file, which should be the script.
    name = "create_experiment_directory"
    for path in (ROOT / "lmac_sb").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(node, "attr", getattr(node, "id", None))
            assert called != name, path
    for script in sorted(set(SCRIPTS.values())):
        assert f"{name}(" in read(script), script
