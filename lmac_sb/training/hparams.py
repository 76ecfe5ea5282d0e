"""Turn a command line into hyperparameters, and check them first."""

import atexit
import contextlib
import difflib
import gc
import io
import logging
import re
import sys
from pathlib import Path

import speechbrain as sb
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.run_opts import RunOptions

from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.keys import KEYS, check_values
from lmac_sb.utils.console import Loudness, set_loudness
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Hparams", "load_hparams"]


class Hparams(dict):
    """Hyperparameters; a missing key raises an error that names the file.

    Arguments
    ---------
    values : dict
        Values loaded by hyperpyyaml.
    file : str
        The yaml file, for messages.
    run_opts : RunOptions or dict
        SpeechBrain's run options.
    overrides : str
        Keys that the command line overrides, as yaml.
    resolved : dict
        The file's content as plain values, with overrides applied and
        references resolved; an object is a dict with its tag.

    Example
    -------
    >>> Hparams({"seed": 1}, "x.yaml")["lr"]
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml: key 'lr' is missing
    """

    def __init__(self, values, file, run_opts=None, overrides="", resolved=()):
        super().__init__(values)
        self.file = file
        self.run_opts = run_opts if run_opts is not None else {}
        self.overrides = overrides
        self.resolved = dict(resolved)

    @property
    def directory(self):
        """Arguments of `speechbrain.create_experiment_directory`."""
        return {
            "experiment_directory": self["output_folder"],
            "hyperparams_to_save": self.file,
            "overrides": self.overrides,
            "log_config": LOG_CONFIG,
        }

    def __missing__(self, key):
        raise LMACError(f"{self.file}: key '{key}' is missing")


# A key that identifies the yaml files of a script; the first match counts.
SCRIPTS = {
    "n_events": "train_multilabel.py",
    "optimised_steps": "eval.py",
    "roar_methods": "sanity.py",
    "interpreters": "make_listening_test.py",
    "l2i_loss": "train_l2i.py",
    "lmac_loss": "train_lmac.py",
    "mask_share": "train_classifier.py",
}


def load_hparams(argv=None, script=None):
    """Load the yaml file and the overrides of a command line.

    Arguments
    ---------
    argv : list of str
        Arguments of a script: a yaml file, then run options and overrides,
        and ``--quiet`` or ``--verbose``. By default the arguments of this
        process.
    script : str
        Path of the script, to refuse a yaml file of another script.

    Returns
    -------
    Hparams
        Content of the file, with the overrides.

    Raises
    ------
    LMACError
        If the file cannot be read or belongs to another script, an option is
        unknown, given twice or has no value, a value is out of range, or the
        device does not exist. Then no object has been made yet.

    Example
    -------
    >>> load_hparams(["lmac.yaml", "--seed=1", "--seed=2"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: command line: --seed is given twice
    """
    # Hide a warning about images in TensorBoard, since none are sent.
    logging.getLogger("speechbrain.utils.train_logger").addFilter(
        lambda record: "torchvision" not in record.getMessage()
    )
    argv = _take_loudness(sys.argv[1:] if argv is None else argv)
    _check_arguments(argv)
    file, run_opts, overrides = _parse(argv)
    text = _read(file)
    own = _top_keys(text, file)
    _check_keys(file, text, own, overrides)
    _check_script(file, own, script)
    resolved, plain = _resolve(file, text, overrides)
    check_values(plain, file)
    _check_device(run_opts)
    _join_group(run_opts)
    try:
        values = load_hyperpyyaml(text, overrides)
    except LMACError:
        raise
    except Exception as error:
        # A yaml can call anything; hyperpyyaml wraps what that raises.
        cause = error.__cause__ or error
        raise LMACError(f"{file}: {_one_line(cause)}") from error
    return Hparams(values, file, run_opts, overrides, resolved)


def _take_loudness(argv):
    """Print as much as is asked for; the arguments without that."""
    asked = {
        option: loudness
        for option, loudness in (
            ("--quiet", Loudness.QUIET),
            ("--verbose", Loudness.VERBOSE),
        )
        if option in argv
    }
    if len(asked) > 1:
        raise LMACError("command line: expected --quiet or --verbose, not both")
    set_loudness(next(iter(asked.values()), Loudness.USUAL))
    return [argument for argument in argv if argument not in asked]


def _check_arguments(argv):
    """Refuse an option that is given twice or has no value."""
    flags = {
        option
        for option, value in RunOptions().as_dict().items()
        if value is False
    }
    several = {"jit_module_keys", "compile_module_keys"}
    seen, files, waits = set(), [], None
    for argument in [*argv, "--"]:
        is_option = argument.startswith("--")
        if waits is not None and is_option:
            raise LMACError(f"command line: --{waits} has no value")
        if not is_option:
            if waits is None and not seen & several:
                files.append(argument)
            waits = None
            continue
        name, equals, value = argument[2:].partition("=")
        if name in seen:
            raise LMACError(f"command line: --{name} is given twice")
        if equals and not value:
            raise LMACError(f"command line: --{name} has no value")
        seen.add(name)
        if not equals and name not in flags | several | {"help", ""}:
            waits = name
    if len(files) > 1:
        raise LMACError(
            f"command line: {shown(files[1])} is not an option; options begin "
            "with -- and follow the yaml file"
        )
    if not files and "help" not in seen:
        raise LMACError("command line: expected a yaml file first")


def _parse(argv):
    """The yaml file, run options, and the overrides as yaml."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return sb.parse_arguments(argv)
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
        reason = complaint.getvalue().strip().splitlines()[-1]
        reason = reason.partition("error: ")[2] or reason
        raise LMACError(f"command line: {reason}") from stop


def _read(file):
    """Text of a yaml file."""
    path = Path(file)
    if not path.is_file():
        below = sorted(path.parent.glob(f"*/{path.name}"))
        hint = f"; did you mean {below[0]}?" if below else ""
        raise LMACError(f"{file}: no such file, expected a yaml file{hint}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LMACError(f"{file}: cannot be read ({error})") from error


def _check_keys(file, text, own, overrides):
    """Refuse keys that nothing reads, such as misspelt ones."""
    # A user's own key is fine if another key refers to it.
    known = {*KEYS, *re.findall(r"<(\w+)>", text)}
    asked = _top_keys(overrides, "command line") if overrides else []
    options = set(RunOptions().as_dict())
    for place, keys, allowed, near in (
        (file, own, known, known),
        ("command line", asked, set(own), options | set(own)),
    ):
        for key in keys:
            if key in allowed:
                continue
            found = difflib.get_close_matches(key, sorted(near), n=1)
            hint = f"; did you mean '{found[0]}'?" if found else ""
            raise LMACError(f"{place}: unknown key '{key}'{hint}")


def _check_script(file, keys, script):
    """Refuse a yaml file that belongs to another script."""
    name = Path(script).name if script else None
    if name not in SCRIPTS.values():
        return
    wanted, *_ = [key for key, owner in SCRIPTS.items() if owner == name]
    owners = [owner for key, owner in SCRIPTS.items() if key in keys]
    if not owners:
        raise LMACError(
            f"{file}: key '{wanted}' is missing, which {name} needs"
        )
    if owners[0] != name:
        raise LMACError(
            f"{file}: is a yaml file for {owners[0]}, not for {name}"
        )


def _top_keys(text, place):
    """Top-level keys of a hyperpyyaml text."""
    try:
        # This loader ignores tags, whose objects are made later.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise LMACError(f"{place}: not yaml ({_one_line(error)})") from error
    if not isinstance(content, dict):
        raise LMACError(f"{place}: holds no keys, expected 'key: value'")
    return list(content)


def _resolve(file, text, overrides):
    """All content as plain values, and the values of keys without objects."""
    try:
        resolved = resolve_references(text, overrides).read()
        root = yaml.compose(resolved, Loader=yaml.SafeLoader)
    except Exception as error:
        cause = error.__cause__ or error
        raise LMACError(f"{file}: {_one_line(cause)}") from error
    plain = [item for item in root.value if not _has_object(item[1])]
    node = yaml.MappingNode(root.tag, plain)
    values = load_hyperpyyaml(yaml.serialize(node)) if plain else {}
    content = {key.value: _content(value) for key, value in root.value}
    return {**content, **values}, values


def _has_object(node):
    """Whether a yaml node holds a tag, that is, an object to make."""
    if node.tag.startswith("!"):
        return True
    if isinstance(node, yaml.ScalarNode):
        return False
    return any(
        _has_object(part)
        for item in node.value
        for part in (item if isinstance(item, tuple) else (item,))
    )


def _content(node):
    """A yaml node as plain values."""
    if isinstance(node, yaml.ScalarNode):
        value = node.value
    elif isinstance(node, yaml.SequenceNode):
        value = [_content(item) for item in node.value]
    else:
        value = {_content(k): _content(v) for k, v in node.value}
    return {node.tag: value} if node.tag.startswith("!") else value


def _check_device(run_opts):
    """Refuse a device that does not exist, or a precision that it lacks."""
    if run_opts["data_parallel_backend"]:
        raise LMACError(
            "data_parallel_backend: not supported, expected several processes: "
            "torchrun --nproc_per_node 2 ..."
        )
    name = run_opts["device"]
    try:
        device = torch.device(name or "cpu")
    except RuntimeError as error:
        raise LMACError(
            f"device: {shown(name)} is unknown, expected cpu, cuda, cuda:0, ..."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= (
        torch.cuda.device_count()
    ):
        raise LMACError(
            f"device: {name} does not exist, found "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise LMACError("device: mps does not exist, it needs a Mac with a GPU")
    if device.type == "mps":
        raise LMACError(
            "device: mps has no floats of 64 bits, which the metrics need; "
            "expected cpu or cuda"
        )
    if device.type == "cuda" or (name is None and torch.cuda.is_available()):
        return
    for key in ("precision", "eval_precision"):
        if run_opts[key] == "fp16":
            raise LMACError(
                f"{key}: fp16 needs a GPU, expected fp32 or bf16 on a CPU"
            )
    if run_opts["auto_mix_prec"]:
        raise LMACError(
            "auto_mix_prec: needs a GPU, expected --precision bf16 on a CPU"
        )


def _join_group(run_opts):
    """Connect the processes of a distributed run, once."""
    if torch.distributed.is_initialized():
        return
    sb.utils.distributed.ddp_init_group(run_opts)
    # Its threads must end before the Python interpreter does.
    atexit.register(_leave_group)


def _leave_group():
    """Disconnect the processes of a distributed run, if there are several."""
    if torch.distributed.is_initialized():
        # A wrapped module that is still there keeps the group's threads alive.
        gc.collect()
        torch.distributed.destroy_process_group()


def _one_line(error):
    """An error's text on one line."""
    return " ".join(str(error).split())
