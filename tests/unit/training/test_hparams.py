"""Tests of reading and checking a command line."""

import dataclasses
from pathlib import Path

import pytest
import torch
from speechbrain import Brain
from speechbrain.utils.run_opts import RunOptions

from lmac_sb.training.arguments import SCRIPTS
from lmac_sb.training.hparams import load_hparams
from lmac_sb.training.keys import KEYS
from lmac_sb.training.run_options import KINDS, RUN_OPTIONS
from lmac_sb.utils.console import get_loudness
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "ESC50" / "interpret"
HPARAMS = RECIPE / "hparams"
FILES = sorted(
    path.relative_to(HPARAMS).as_posix() for path in HPARAMS.rglob("*.yaml")
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in another folder, since objects may make folders."""
    monkeypatch.chdir(tmp_path)


def load(file, *overrides):
    """Load a yaml file as the scripts do."""
    return load_hparams([str(file), *overrides])


def refused(file, *overrides):
    """The message of a refused command line."""
    with pytest.raises(LMACError) as caught:
        load(file, *overrides)
    return str(caught.value)


def user_yaml(tmp_path, old="", new="", name="lmac.yaml"):
    """A user's own file: a shipped one with a change."""
    text = (HPARAMS / name).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["f", "f/below/it"])
def test_a_file_where_the_run_shall_be(tmp_path, place):
    """One line names the key, and no object is made before."""
    (tmp_path / "f").touch()
    said = refused(HPARAMS / "lmac.yaml", f"--output_folder={place}")
    assert said.startswith(f"output_folder: {place} cannot be made or written")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_overrides(tmp_path):
    """Overrides replace values, also in references and objects."""
    hparams = load(
        HPARAMS / "lmac.yaml",
        "--seed=7",
        "--lr",
        "0.5",
        "--dataloader_options={num_workers: 1}",
        "--device=cpu",
    )
    assert hparams.file == str(HPARAMS / "lmac.yaml")
    assert hparams["seed"] == 7
    assert hparams["lr_annealing"].lr == 0.5
    assert hparams["output_folder"].endswith("/7")
    # Keys that are not overridden stay.
    assert hparams["dataloader_options"] == {
        "batch_size": hparams["batch_size"],
        "num_workers": 1,
        "pin_memory": False,
    }
    assert hparams.run_opts["device"] == "cpu"
    assert "seed: 7" in hparams.overrides


def test_object_as_override():
    """SpeechBrain's tags work on the command line too."""
    hparams = load(
        HPARAMS / "lmac.yaml",
        "--classifier=!new:torch.nn.Linear {in_features: 256, out_features: 3}",
    )
    assert hparams["classifier"].out_features == 3


def test_more_processes_than_gpus(monkeypatch):
    """One line, and what to do instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert refused(HPARAMS / "lmac.yaml") == (
        "nproc_per_node: found more processes than GPUs (1), expected at "
        "most 1; without GPUs: --device cpu"
    )


@pytest.mark.parametrize("given", [(), ("--distributed_backend=nccl",)])
def test_processes_on_a_cpu(given):
    """A Brain gets the backend that a CPU has, though nobody asked for it."""
    hparams = load(HPARAMS / "lmac.yaml", "--device=cpu", *given)
    brain = Brain(run_opts=hparams.run_opts)
    assert brain.distributed_backend == "gloo"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "key, near",
    [
        ("experiment_nam", "experiment_name"),
        ("outputfolder", "output_folder"),
        ("data-folder", "data_folder"),
    ],
)
def test_unknown_key_on_the_command_line(file, key, near):
    """The message names the misspelt key and the right one."""
    assert refused(HPARAMS / file, f"--{key}=3") == (
        f"command line: unknown key '{key}'; did you mean '{near}'?"
    )


def test_unknown_key_without_a_value():
    """Its name is the mistake; `lmac explain` has one of this name."""
    for more in ("--seed=1", "--noprogressbar"):
        message = refused(HPARAMS / "lmac_any.yaml", "--trust", more)
        assert message == (
            "command line: unknown key 'trust'; did you mean 'trusted'?"
        )


def test_unknown_key_like_no_other():
    """Without a similar key there is no suggestion."""
    message = refused(HPARAMS / "lmac.yaml", "--qqqq=3")
    assert message == "command line: unknown key 'qqqq'"


@pytest.mark.parametrize("key", ["reg_w_l2", "reg-w-l1"])
def test_unknown_key_in_a_yaml(tmp_path, key):
    """Unknown keys in a user's file are refused too."""
    path = user_yaml(tmp_path, "\nreg_w_l1:", f"\n{key}: 1\nreg_w_l1:")
    message = refused(path)
    assert message.startswith(f"{path}: unknown key '{key}'; did you mean")
    assert "'reg_w_l1'" in message


def test_own_key_that_is_used(tmp_path):
    """A user's own key is accepted if something refers to it."""
    path = user_yaml(
        tmp_path,
        "\nexperiment_name: lmac",
        "\nmine: a\nexperiment_name: !ref x_<mine>",
    )
    assert load(path, "--mine=b")["experiment_name"] == "x_b"


def test_missing_yaml(tmp_path):
    """The message names the file, and one of that name in a sub-folder."""
    path = tmp_path / "nowhere.yaml"
    assert refused(path) == f"{path}: no such file, expected a yaml file"
    assert refused(HPARAMS / "lmac_psi.yaml").endswith(
        "expected a yaml file; did you mean "
        f"{HPARAMS / 'variants' / 'lmac_psi.yaml'}?"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2\nb: 3\n",
        "seed: 1\nseed: 2\n",
        "seed: !ref <nowhere>\n",
        "lr: !new:nowhere.Thing\n",
        "lr: !new:lmac_sb.training.brain.OneCyle\n",
        "lr: !new:lmac_sb.training.brain.OneCycle\n    rate: 3\n",
        "lr: !new:lmac_sb.training.brain.OneCycle\n    lr: -1\n",
        "lr: !wrong 3\n",
        "- seed\n- lr\n",
        "just text\n",
        "",
        "seed: 1\n\tlr: 2\n",
        b"\xff\xfe\x00seed: 1",
    ],
)
def test_broken_yaml(tmp_path, text):
    """One message that names the file."""
    path = tmp_path / "broken.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused(path)
    assert message.startswith(f"{path}: ") or message.startswith("lr, warmup")
    assert message.split(": ", 1)[1].strip()


@pytest.mark.parametrize("override", ["--lr=[1, 2", "--lr={a", "--lr='x"])
def test_broken_override(override):
    """An override that is not yaml is refused; it alone is named."""
    message = refused(HPARAMS / "lmac.yaml", "--seed=1", override)
    key, value = override.split("=")
    assert message.startswith(f'command line: {key} is "{value}"') or (
        message.startswith(f"command line: {key} is '{value}'")
    )
    assert "seed" not in message


def test_placeholder():
    """The message names a value that must be given."""
    message = refused(HPARAMS / "lmac_cnn14.yaml")
    assert message.startswith(f"{HPARAMS / 'lmac_cnn14.yaml'}: ")
    assert "data_folder" in message and "PLACEHOLDER" in message


def test_bad_value_in_an_object():
    """The message of the library's own check comes through."""
    message = refused(
        HPARAMS / "lmac.yaml", "--lr_annealing={lr: 1, warmup: 2}"
    )
    assert message.startswith("lr, warmup: 1, 2")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("l_in_w=abc", "l_in_w is 'abc', expected a number of at least 0"),
        ("lr=0", "lr is 0, expected a number above 0"),
        ("lr=.nan", "lr is nan, expected a number above 0"),
        ("number_of_epochs=-1", "expected a whole number of at least 1"),
        (
            "batch_size=2.5",
            "batch_size is 2.5, expected a whole number of at least 1",
        ),
        (
            "l_out_type=CE",
            "l_out_type is 'CE', expected one of ce, probability",
        ),
        ("train_fold_nums=[1, x]", "train_fold_nums is [1, 'x'], "),
        ("finetuning=1", "finetuning is 1, expected True or False"),
        ("save_folder=null", "save_folder is null, expected a path"),
        ("noisy_splits=[tran]", "in which each item is one of train, valid"),
        ("dataloader_options=4", "expected names with values"),
    ],
)
def test_value_that_a_key_cannot_have(option, told):
    """The message names place, key, what was found and what is expected."""
    message = refused(HPARAMS / "lmac.yaml", f"--{option}")
    assert message.startswith(f"command line: --{option.split('=')[0]} is ")
    assert told in message


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("{num_workers: -1}", ": num_workers is -1, expected a whole number"),
        ("{num_workers: 1.5}", ": num_workers is 1.5, expected a whole"),
        ("{batch_size: null}", ": batch_size is null, expected a whole"),
        ("{pin_memory: 3}", ": pin_memory is 3, expected True or False"),
        ("{shuffle: True}", " has 'shuffle', expected some of batch_size, "),
        ("{num_worker: 1}", " has 'num_worker', expected some of batch_size"),
        ("{batch_size:2}", " has 'batch_size:2', expected some of batch_size"),
        ("{prefetch_factor: 2}", "are no workers, expected num_workers of at"),
    ],
)
def test_how_batches_cannot_be_loaded(options, told):
    """The message names the key, what is within, and what is allowed."""
    message = refused(HPARAMS / "lmac.yaml", f"--dataloader_options={options}")
    assert message.startswith("command line: --dataloader_options")
    assert told in message


def test_how_batches_can_be_loaded():
    """The loader's own options are left to it."""
    options = "{num_workers: 1, multiprocessing_context: spawn}"
    load(HPARAMS / "lmac.yaml", f"--dataloader_options={options}")


def test_value_of_a_file_that_a_key_cannot_have():
    """The file is named, unless an option says otherwise."""
    own = Path("own.yaml")
    text = (HPARAMS / "lmac.yaml").read_text(encoding="utf-8")
    own.write_text(text.replace("\nlr: ", "\nlr: -"), encoding="utf-8")
    assert refused(own).startswith("own.yaml: lr is -0.0")
    load(own, "--lr=0.1")


def test_home_in_a_path(tmp_path, monkeypatch):
    """No shell replaces it behind an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    hparams = load(HPARAMS / "lmac.yaml", "--output_folder=~/run")
    assert hparams["output_folder"] == str(tmp_path / "me" / "run")
    assert load(HPARAMS / "lmac.yaml", "--data_folder=~")["data_folder"] is None


def test_numbers_are_read_as_the_objects_get_them():
    """`1e-3` is a number for hyperpyyaml, though a text for plain yaml."""
    hparams = load(HPARAMS / "lmac.yaml", "--lr=1e-3")
    assert hparams["lr"] == hparams.resolved["lr"] == 0.001


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected a yaml file first"),
        (["--seed=1", "--seed", "2"], "--seed is given twice"),
        (["--device=cpu", "--device=cpu"], "--device is given twice"),
        (["--lr"], "--lr has no value"),
        (["--lr="], "--lr has no value"),
        (["--lr", "--seed=1"], "--lr has no value"),
        (["more"], "'more' is not an option"),
        (["--lr=1", "2"], "'2' is not an option"),
        (["--precision=fp17"], "invalid choice: 'fp17'"),
        (["--max_grad_norm=x"], "--max_grad_norm: invalid float value: 'x'"),
        (["--noprogresbar=1"], "did you mean 'noprogressbar'?"),
    ],
)
def test_bad_command_line(arguments, told, capsys):
    """The message is one line, without argparse's own output."""
    file = [HPARAMS / "lmac.yaml"] if arguments else []
    with pytest.raises(LMACError) as caught:
        load_hparams([*map(str, file), *arguments])
    assert str(caught.value).startswith("command line: ")
    assert told in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("option", "least"),
    [
        *(("ckpt_interval_minutes", 0), ("ckpt_interval_steps", 0)),
        *(("debug_batches", 1), ("debug_epochs", 0)),
        *(("grad_accumulation_factor", 1), ("nonfinite_patience", 0)),
        *(("optimizer_step_limit", 1), ("profile_steps", 1)),
        ("profile_warmup", 0),
    ],
)
def test_run_option_out_of_range(option, least):
    """It is refused as a key of the yaml is; the least value is taken."""
    for value in {-1, least - 1}:
        assert refused(HPARAMS / "lmac.yaml", f"--{option}", str(value)) == (
            f"command line: --{option} is {value}, expected a whole number "
            f"of at least {least}"
        )
    hparams = load(HPARAMS / "lmac.yaml", f"--{option}={least}")
    assert hparams.run_opts[option] == least


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf"])
def test_gradients_are_not_turned_round(value):
    """A limit that is not above zero would do so, or stop the training."""
    assert refused(HPARAMS / "lmac.yaml", f"--max_grad_norm={value}") == (
        f"command line: --max_grad_norm is {float(value)}, expected a number "
        "above 0"
    )


def test_step_limit_that_is_no_number():
    """SpeechBrain takes any text."""
    assert refused(HPARAMS / "lmac.yaml", "--optimizer_step_limit=x") == (
        "command line: --optimizer_step_limit is 'x', expected a whole number "
        "of at least 1"
    )


def test_two_ways_to_say_when_checkpoints_are_written():
    """SpeechBrain would end in the midst of the work."""
    options = "--ckpt_interval_minutes=1", "--ckpt_interval_steps=2"
    assert refused(HPARAMS / "lmac.yaml", *options) == (
        "command line: --ckpt_interval_minutes and --ckpt_interval_steps are "
        "given, expected one of them"
    )


@pytest.mark.parametrize(
    "options", [["--jit"], ["--jit_module_keys", "explainer"]]
)
def test_torchscript(options):
    """It cannot compile SpeechBrain's own blocks."""
    assert refused(HPARAMS / "lmac.yaml", *options) == (
        "command line: --jit is not supported, since TorchScript cannot "
        "compile these networks; leave it out"
    )


def test_modules_to_compile():
    """Without the other option, SpeechBrain would compile none."""
    keys = ["--compile_module_keys", "explainer"]
    assert refused(HPARAMS / "lmac.yaml", *keys) == (
        "command line: --compile_module_keys needs --compile too"
    )
    load(HPARAMS / "lmac.yaml", "--compile", *keys)


def test_every_number_of_the_run_options_has_a_kind():
    """Of the installed SpeechBrain; flags and paths have none."""
    numbers = {
        field.name
        for field in dataclasses.fields(RunOptions)
        if field.name in RUN_OPTIONS and type(field.default) in (int, float)
    }
    assert numbers <= KINDS.keys() <= RUN_OPTIONS


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_how_much_is_printed(option, tmp_path):
    """It is no key of the file, and it holds until the next command."""
    file = tmp_path / "x.yaml"
    file.write_text("seed: 1")
    try:
        assert dict(load_hparams([str(file), option])) == {"seed": 1}
        assert get_loudness().name == option[2:].upper()
    finally:
        load_hparams([str(file)])
    assert get_loudness().name == "USUAL"


def test_quiet_and_verbose_is_too_much():
    """One message says so."""
    with pytest.raises(LMACError, match="--quiet or --verbose, not both"):
        load_hparams(["x.yaml", "--quiet", "--verbose"])


def test_help(capsys):
    """The help text is printed."""
    with pytest.raises(SystemExit) as stop:
        load_hparams(["--help"])
    assert not stop.value.code
    assert "--device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("device=cuda:99", "device: cuda:99 does not exist, found"),
        ("device=gpu", "device: 'gpu' is unknown, expected cpu, cuda, cuda:0"),
        ("device=mps", "device: mps does not exist"),
    ],
)
def test_device_that_is_not_there(option, told, monkeypatch):
    """A missing device is refused before any object is made."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert told in refused(HPARAMS / "lmac.yaml", f"--{option}")


def test_a_mac(monkeypatch):
    """The metrics need what its GPU has not."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    message = refused(HPARAMS / "lmac.yaml", "--device=mps")
    assert message.startswith("device: mps has no floats of 64 bits")


@pytest.mark.parametrize("key", ["precision", "eval_precision"])
def test_half_precision_of_a_gpu(key):
    """Half precision of a GPU is refused on a CPU."""
    message = refused(HPARAMS / "lmac.yaml", "--device=cpu", f"--{key}=fp16")
    assert message.startswith(f"{key}: fp16 needs a GPU")
    message = refused(HPARAMS / "lmac.yaml", "--device=cpu", "--auto_mix_prec")
    assert message.startswith("auto_mix_prec: needs a GPU")


def test_data_parallel_backend():
    """It splits tensors alone; an explainer takes and gives more."""
    message = refused(HPARAMS / "lmac.yaml", "--data_parallel_backend")
    assert message.startswith("data_parallel_backend: not supported")
    assert "torchrun" in message


@pytest.mark.parametrize("file", FILES)
def test_yaml_of_another_script(file, tmp_path):
    """Each shipped file is accepted only by its own script."""
    options = [str(HPARAMS / file), f"--data_folder={tmp_path}"]
    taken = []
    for script in sorted(set(SCRIPTS.values())):
        try:
            load_hparams(options, f"somewhere/{script}")
            taken.append(script)
        except LMACError as error:
            told = str(error)
            if told.startswith("model: null"):  # asked for once it is taken
                taken.append(script)
                continue
            assert f"{file}: is a yaml file for " in told
            assert told.endswith(f", not for {script}")
    table = RECIPE.parents[2] / "tests" / "recipes" / "ESC50.csv"
    (row,) = [
        line
        for line in table.read_text("utf-8").splitlines()
        if f"/{file}," in line
    ]
    assert taken == [row.split(",")[2].rsplit("/", 1)[-1]]


def test_yaml_of_no_script(tmp_path):
    """The message names the key that the script needs."""
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\n", encoding="utf-8")
    with pytest.raises(LMACError) as caught:
        load_hparams([str(path)], "train_lmac.py")
    assert str(caught.value) == (
        f"{path}: key 'lmac_loss' is missing, which train_lmac.py needs"
    )


def test_every_shipped_key_is_declared():
    """Declared keys and keys of shipped files are the same."""
    shipped = {
        line.split(":")[0]
        for path in HPARAMS.rglob("*.yaml")
        for line in path.read_text("utf-8").splitlines()
        if line[:1].isalpha() or line.startswith("__")
    }
    assert shipped == set(KEYS)
    assert all(key.text for key in KEYS.values())


def test_missing_key(tmp_path):
    """A missing key is an error that names the file."""
    path = user_yaml(tmp_path, "\nsave_clips: 8", "\n#")
    hparams = load(path)
    with pytest.raises(LMACError) as caught:
        hparams["save_clips"]
    assert str(caught.value) == f"{path}: key 'save_clips' is missing"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("tag", ["new", "applyref"])
def test_stopped_within_an_import(tag, stop, tmp_path, monkeypatch):
    """It is no fault of the yaml, whose modules take seconds to import."""
    (tmp_path / "stops.py").write_text(f"raise {stop.__name__}\n")
    monkeypatch.syspath_prepend(tmp_path)
    logger = "!new:speechbrain.utils.train_logger.FileTrainLogger"
    path = user_yaml(tmp_path, logger, f"!{tag}:stops.Logger")
    with pytest.raises(stop):
        load(path)
