"""Model folders as strangers might make them, from a good one.

Each entry changes a copy of an exported folder or of a run. None of them may
run anything, and each must end in one line, or load as if it were not there.
"""

import io
import json
import os
import pickle
import socket
import struct
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lmac_sb.utils.checksums import SUMS, write_sums

YAML = "hyperparams.yaml"
CANARY = "CANARY"  # what code of a folder would leave


class Trap:
    """A pickle that leaves the canary where it is loaded."""

    def __reduce__(self):
        return os.mkdir, (CANARY,)


# Values that would call, read or compute something.
CODE = {
    "apply": "!apply:os.mkdir [CANARY]",
    "applyref": "!applyref:os.mkdir [CANARY]",
    "new": "!new:subprocess.Popen [[mkdir, CANARY]]",
    "name": "!name:os.mkdir [CANARY]",
    "module": "!module:os",
    "include": "!include:/etc/passwd",
    "python": "!!python/object/apply:os.mkdir [CANARY]",
    "bracket": "(!!python/object/apply:os.mkdir ['CANARY'],)",
    "quoted bracket": "\"(!!python/object/apply:os.mkdir ['CANARY'],)\"",
    "in a list": "[1, {a: !apply:os.mkdir [CANARY]}]",
    "as an argument": "!new:torch.nn.Linear [!apply:os.mkdir [CANARY], 1]",
    "trainer": "!new:lmac_sb.training.checkpoints.SafeCheckpointer [CANARY]",
    "train logger": (
        "!new:speechbrain.utils.train_logger.FileTrainLogger [CANARY]"
    ),
    "attribute": "!ref <features.__class__>",
    "arithmetic": "!ref <features> ** 9 ** 9",
}


def nested(line, n=28):
    """Keys each of which holds the one before twice."""
    lines = ["z0: [1, 1, 1, 1]"]
    lines += [line.format(f"z{i}", f"z{i - 1}") for i in range(1, n)]
    return "\n".join(lines)


# Text that would take hours, or all memory, to be read.
BOMBS = {
    "copies": nested("{0}: [!copy <{1}>, !copy <{1}>]"),
    "references": nested("{0}: [!ref <{1}>, !ref <{1}>]"),
    "aliases": "z0: &z0 [1, 1]\n"
    + "\n".join(f"z{i}: &z{i} [*z{i - 1}, *z{i - 1}]" for i in range(1, 28)),
    "brackets": "z: " + "[" * 40_000,
    "braces": "z: " + "{a: " * 10_000,
    "dashes": "z:\n  " + "- " * 10_000 + "1",
    "questions": "? " * 10_000,
    "list": "z: [" + "1, " * 350_000 + "1]",
    "list of lines": "z:\n" + "- 1\n" * 30_000,
    "keys": "\n".join(f"z{i}: {i}" for i in range(20_000)),
    "closed brackets": "z: " + "[" * 500 + "]" * 500,
    "long text": "z: " + "x" * 3_000_000,
    "digits": "z: " + "9" * 100_000,
    "number": "z: 1e400",
    "float": "z: 1.0e+300",
    "hexadecimal": "z: 0x" + "f" * 1000,
    "dangling reference": "z: !ref <nothing>",
    "dangling copy": "z: !copy <nothing>",
    "dangling alias": "z: *nothing",
    "circle": "z: !ref <y>\ny: [!ref <z>]",
    "itself": "z: !copy <z>",
    "alias of itself": "z: &z [*z]",
    "chain": "\n".join(f"z{i}: !ref <z{i + 1}>" for i in range(900))
    + "\nz900: 1",
    "twice": "decoder: 1",
    "tab": "z:\t\t- a: [\t",
    "merge": "z: {<<: {a: 1}}",
    "binary": "z: !!binary AAAA",
    "set": "z: !!set {a, b}",
    "escape": 'z: "\\U11111111"',
    "placeholder": "z: !PLACEHOLDER",
}

# Objects that nothing needs, which must not be made.
UNUSED = {
    "linear": "!new:torch.nn.Linear [25000, 25000]",
    "in a list": "[!new:torch.nn.Linear [25000, 25000]]",
    "norm": "!new:torch.nn.BatchNorm1d [3000000000]",
    "decoder": "!new:lmac_sb.models.decoder.MaskDecoder [[30000, 30000]]",
    "features": (
        "!new:lmac_sb.models.features.SpectralFeatures {n_fft: 1000000000}"
    ),
}

# Settings of the good yaml, and what they become.
SETTINGS = {
    "seconds": ("signal_length_s: null", "signal_length_s: 20000"),
    "many seconds": ("signal_length_s: null", "signal_length_s: 1000000000"),
    "infinite": ("signal_length_s: null", "signal_length_s: .inf"),
    "rate": ("sample_rate: 16000", "sample_rate: 1000000000"),
    "steps": ("refine_steps: 0", "refine_steps: 1000000000"),
    "steps as float": ("refine_steps: 0", "refine_steps: 1.0e+9"),
    "fft": ("n_fft: 1024", "n_fft: 1000000000"),
    "bins": ("n_fft: 1024", "n_fft: 4194304"),
    "window": ("win_length: 23.2199", "win_length: 1000000000"),
    "hop": ("hop_length: 11.6099", "hop_length: 0.0000001"),
    "mel bands": ("n_mels: 80", "n_mels: 1000000000"),
    "negative bands": ("n_mels: 80", "n_mels: -1"),
    "width": ("width: 4", "width: 100000"),
    "channels": ("- 4", "- 100000"),
    "outputs": ("out_features: 3", "out_features: 1000000000"),
    "inputs": ("in_features: 8", "in_features: 1000000000"),
    "a text": ("out_features: 3", "out_features: many"),
    "a list": ("out_features: 3", "out_features: [3]"),
    "a code for a number": ("min_frames: 32", f"min_frames: {CODE['apply']}"),
    "an unknown setting": ("width: 4", "width: 4\n    owner: me"),
}


def with_yaml(change):
    """A change of the text of the yaml."""

    def make(folder):
        path = folder / YAML
        path.write_text(change(path.read_text("utf-8")), encoding="utf-8")

    return make


def replaced(old, new):
    """Another setting in place of the good one."""

    def change(text):
        if old not in text:
            raise KeyError(old)
        return text.replace(old, new)

    return with_yaml(change)


def added(line):
    """More text at the end."""
    return with_yaml(lambda text: f"{text}\n{line}\n")


def grown(name, size):
    """A file that is a hole for its greatest part."""

    def make(folder):
        with open(folder / name, "ab") as file:
            file.truncate(size)

    return make


def instead(name, make):
    """Something else in the place of a file."""

    def change(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def written(name, content):
    """Other content of a file."""
    data = content if isinstance(content, bytes) else content.encode()
    return instead(name, lambda path: path.write_bytes(data))


def with_weights(change):
    """Other tensors in the file of the classifier's weights."""

    def make(folder):
        path = folder / "embedding_model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path)

    return make


def negative(state):
    """Variances that no data has."""
    name = next(name for name in state if name.endswith("running_var"))
    state[name] = -torch.ones_like(state[name])


def valued(number):
    """One value that is none."""

    def change(state):
        name = next(name for name in state if name.endswith("weight"))
        state[name].view(-1)[0] = number

    return change


def cast(kind):
    """Another type of numbers."""

    def change(state):
        for name, value in state.items():
            state[name] = value.to(kind)

    return change


def headed(header, length=None):
    """A safetensors file of a header alone."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return struct.pack("<Q", size) + text


def bomb(size=1 << 28):
    """A small archive of zeros, much larger inside, as a checkpoint."""
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, stream)
    packed = io.BytesIO()
    with zipfile.ZipFile(stream) as source:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            for item in source.infolist():
                content = source.read(item)
                if item.filename.endswith("data/0"):
                    with target.open(item.filename, "w") as file:
                        for _ in range(size >> 24):
                            file.write(bytes(1 << 24))
                    continue
                target.writestr(item.filename, content)
    return packed.getvalue()


def trapped():
    """A checkpoint that runs code where it is believed."""
    stream = io.BytesIO()
    torch.save({"weight": Trap()}, stream)
    return stream.getvalue()


def huge(kind):
    """A pickle that asks for gigabytes by a name that holds no tensor."""
    return pickle.dumps({"weight": kind}, protocol=2)


class Bytes:
    """A gigabyte of zeros in some letters."""

    def __reduce__(self):
        return bytearray, (1 << 32,)


def ckpt(content):
    """A checkpoint in the place of weights."""

    def make(folder):
        (folder / "embedding_model.safetensors").unlink()
        (folder / "embedding_model.ckpt").write_bytes(content)

    return make


def listen(path):
    """A socket."""
    cwd = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(cwd)


def many(folder):
    """More files than any model has."""
    (folder / "more").mkdir()
    for i in range(10_001):
        (folder / "more" / str(i)).touch()


def deep(folder):
    """Folders in folders."""
    path = folder.joinpath(*["d"] * 40)
    path.mkdir(parents=True)
    (path / "x").touch()


def label(line):
    """Another file of class names."""
    return written("label_encoder.txt", line)


END = "================\n'starting_index' => 0\n"
FILES = {
    "negative variance": with_weights(negative),
    "NaN": with_weights(valued(float("nan"))),
    "infinity": with_weights(valued(float("inf"))),
    "doubles": with_weights(cast(torch.float64)),
    "halves": with_weights(cast(torch.float16)),
    "whole numbers": with_weights(cast(torch.int8)),
    "a tensor more": with_weights(lambda s: s.update(more=torch.ones(1))),
    "a tensor less": with_weights(lambda s: s.pop(next(iter(s)))),
    "shape": with_weights(lambda s: s.update({next(iter(s)): torch.ones(3)})),
    "header of 8 EB": written("decoder.safetensors", headed(b"{}", 2**63 - 1)),
    "header of 20 MB": written(
        "decoder.safetensors", headed(b" " * (20 << 20))
    ),
    "giant shape": written(
        "decoder.safetensors",
        headed(
            {
                "w": {
                    "dtype": "F32",
                    "shape": [10**9] * 2,
                    "data_offsets": [0, 4],
                }
            }
        ),
    ),
    "shapes in shapes": written("decoder.safetensors", headed(b"[" * 100_000)),
    "no header": written("decoder.safetensors", b"x"),
    "zip bomb": ckpt(bomb()),
    "pickle with code": ckpt(trapped()),
    "old pickle with code": ckpt(pickle.dumps({"weight": Trap()}, protocol=2)),
    "pickle of zeros": ckpt(huge(Bytes())),
    "no pickle": ckpt(b"\x80\x02" + b"(" * 1000),
    "labels with code": label(f"__import__('os').mkdir('{CANARY}') => 0\n"),
    "million labels": label("".join(f"'{i}' => {i}\n" for i in range(10**6))),
    "long label": label(f"'{'x' * 5_000_000}' => 0\n{END}"),
    "deep label": label("(" * 900 + " => 0\n"),
    "label without number": label("'cat' => many\n"),
    "labels as pickle": label("\x80\x02}."),
    "other labels": label(f"'cat' => 0\n{END}"),
    "sparse readme": grown("README.md", 10**12),
    "sparse sums": grown(SUMS, 6 * 10**9),
    "sparse labels": grown("label_encoder.txt", 10**10),
    "sparse yaml": grown(YAML, 10**11),
    "sparse weights": grown("decoder.safetensors", 10**12),
    "sparse sound": grown("example/clip/original.wav", 4 * 10**8),
    "pipe": instead("pipe", os.mkfifo),
    "pipe as yaml": instead(YAML, os.mkfifo),
    "pipe as weights": instead("decoder.safetensors", os.mkfifo),
    "pipe as labels": instead("label_encoder.txt", os.mkfifo),
    "pipe as sums": instead(SUMS, os.mkfifo),
    "device as readme": instead(
        "README.md", lambda path: path.symlink_to("/dev/zero")
    ),
    "device as yaml": instead(YAML, lambda path: path.symlink_to("/dev/zero")),
    "socket": instead("talk", listen),
    "folder as weights": instead("decoder.safetensors", Path.mkdir),
    "link out": instead(
        "README.md", lambda path: path.symlink_to("/etc/hostname")
    ),
    "link to nothing": instead("x", lambda path: path.symlink_to("nothing")),
    "link to a folder": instead("x", lambda path: path.symlink_to("/etc")),
    "one file more": written("run_me.py", "x"),
    "one file more in a folder": written("example/more.txt", "x"),
    "many files": many,
    "deep folders": deep,
    "no yaml": instead(YAML, lambda path: None),
    "empty yaml": written(YAML, ""),
    "yaml of bytes": written(YAML, b"\xff\xfe\x00"),
}

SUM = "0" * 64
# What SHA256SUMS says by itself.
LISTS = {
    "forged": f"{SUM}  {YAML}\n",
    "a file elsewhere": f"{SUM}  /etc/hostname\n",
    "a file above": f"{SUM}  ../x\n",
    "a file twice": f"{SUM}  {YAML}\n" * 2,
    "no checksum": f"x  {YAML}\n",
    "missing file": f"{SUM}  {YAML}\n{SUM}  gone\n",
    "million lines": "".join(f"{SUM}  {i}\n" for i in range(20_000)),
    "long name": f"{SUM}  {YAML}\n{SUM}  {'x' * 5000}\n",
    "nothing": "",
    "zero byte": f"{SUM}  {YAML}\n{SUM}  a\0b\n",
}


# Changes whose point is that no checksum is right, or none can be made.
UNSEALED = (
    "one file more",
    "one file more in a folder",
    "many files",
    "deep folders",
    "pipe as yaml",
    "device as yaml",
    *(name for name in FILES if name.startswith(("sparse", "pipe as sums"))),
)


def yaml_changes():
    """Name to a change of a folder's yaml."""
    found = {}
    for name, value in CODE.items():
        found[f"code, {name}"] = added(f"z: {value}")
        found[f"code in use, {name}"] = replaced(
            "min_frames: 32", f"min_frames: {value}"
        )
    for name, text in BOMBS.items():
        found[f"bomb, {name}"] = added(text)
    for name, value in UNUSED.items():
        found[f"unused, {name}"] = added(f"z: {value}")
    for name, (old, new) in SETTINGS.items():
        found[f"setting, {name}"] = replaced(old, new)
    return found


def file_changes():
    """Name to a change of a folder's other files."""
    sums = {f"sums, {name}": written(SUMS, x) for name, x in LISTS.items()}
    return {**FILES, **sums}


def change(folder, name):
    """Change a folder by the name of the change; its sums hold if they can."""
    {**yaml_changes(), **file_changes()}[name](folder)
    if name not in UNSEALED and not name.startswith("sums"):
        write_sums(folder)
