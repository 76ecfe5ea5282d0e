"""Make and load the weights of modules, and compute their checksum.

A file of weights may come from anyone: its shapes are compared with those of
the module before a weight is read, and nothing in it is unpacked.
"""

import contextlib
import hashlib
import io
import os
import pickletools
import zipfile
from pathlib import Path

import torch

from lmac_sb.utils.errors import LMACError, kind_of, shown
from lmac_sb.utils.given import check_file
from lmac_sb.utils.io import first_line

__all__ = [
    "check_device",
    "check_unread",
    "check_values",
    "load_linear",
    "load_strict",
    "load_tensors",
    "single_precision",
    "weights_sha256",
    "weights_state",
    "write_weights",
]

# Bytes of the names and shapes of a file of weights, which are a hundred for
# each tensor.
_LONGEST = 1 << 20
# What the pickle of a state dict names, but for storages.
_NAMED = (
    "collections OrderedDict",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    "torch.nn.parameter Parameter",
)
_PICKLES = 5  # in a row, in files of torch before version 1.6


def check_device(name):
    """Refuse a device that does not exist.

    Arguments
    ---------
    name : str
        As torch calls it.

    Returns
    -------
    torch.device

    Raises
    ------
    LMACError
        Says what was found and what there is.

    Example
    -------
    >>> check_device("gpu")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: device: 'gpu' is unknown, expected cpu, cuda, cuda:0, ...
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise LMACError(
            f"device: {shown(name)} is unknown, expected cpu, cuda, cuda:0, ..."
        ) from error
    n_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise LMACError(
            f"device: {name} does not exist, found {n_gpus} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise LMACError("device: mps does not exist, it needs a Mac with a GPU")
    return device


@contextlib.contextmanager
def single_precision():
    """Context, or decorator, in which modules are made in single precision.

    So they are also where somebody has called
    ``torch.set_default_dtype(torch.float64)``; afterwards that holds again.

    Example
    -------
    >>> torch.set_default_dtype(torch.float64)
    >>> with single_precision():
    ...     dtype = torch.nn.Linear(1, 1).weight.dtype
    >>> dtype, torch.get_default_dtype()
    (torch.float32, torch.float64)
    >>> torch.set_default_dtype(torch.float32)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def load_strict(module, path):
    """Load weights, all of them and no others.

    Arguments
    ---------
    module : torch.nn.Module
        Module that receives the weights.
    path : str or Path
        File with a state dict: ``.safetensors``, or a pickle that holds
        nothing but tensors.

    Raises
    ------
    LMACError
        If the file is missing or unreadable, holds more than tensors, or
        does not fit the module; names the file and the first difference.

    Example
    -------
    >>> path = getfixture("tmp_path") / "m.ckpt"
    >>> torch.save(torch.nn.Linear(2, 1).state_dict(), path)
    >>> load_strict(torch.nn.Linear(3, 1), path)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../m.ckpt: 'weight' has shape [1, 2], ...
    """
    path = _there(path)
    _load(_state_of(path, module), module, path)


def _state_of(path, module):
    """State dict in a file, with the names and shapes of a module."""
    if _is_safetensors(path):
        return _read_safetensors(path, module)
    state = load_tensors(path)
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise LMACError(f"{path}: not a state dict of tensors")
    shapes = {name: value.shape for name, value in state.items()}
    _check_shapes(shapes, module, path)
    return state


def _load(state, module, path):
    """Load a state dict whose names and shapes fit."""
    _check_types(state, module, path)
    check_values(state, path)
    module.load_state_dict(state)


def load_linear(path, n_inputs):
    """A linear layer with as many outputs as a file has weights for.

    Arguments
    ---------
    path : str or Path
        The state dict of a `torch.nn.Linear`, see `load_strict`; of any
        precision, which becomes single.
    n_inputs : int
        Of the layer.

    Returns
    -------
    torch.nn.Linear

    Raises
    ------
    LMACError
        See `load_strict`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "layer.pt"
    >>> torch.save(torch.nn.Linear(8, 3).state_dict(), path)
    >>> load_linear(path, 8)
    Linear(in_features=8, out_features=3, bias=True)
    """
    path = _there(path)
    if _is_safetensors(path):
        found = _shapes_of_safetensors(path)
    else:
        found = load_tensors(path)
        if isinstance(found, dict):
            found = {
                name: getattr(value, "shape", kind_of(value))
                for name, value in found.items()
            }
    named = isinstance(found, dict) and "weight" in found
    weight = found["weight"] if named else ""
    if isinstance(weight, str) or len(weight) != 2:
        raise LMACError(
            f"{path}: found {_found_instead(found)}, expected 'weight' "
            f"[outputs, {n_inputs}] and 'bias' [outputs], the state dict of a "
            "torch.nn.Linear"
        )
    shape = list(weight)
    if shape[0] == n_inputs != shape[1]:
        raise LMACError(
            f"{path}: 'weight' has shape {shape}, expected {shape[::-1]}; it "
            "looks transposed, as a kernel of Keras is"
        )
    layer = torch.nn.Linear(n_inputs, shape[0])
    state = {
        name: value.float() if value.is_floating_point() else value
        for name, value in _state_of(path, layer).items()
    }
    _load(state, layer, path)
    return layer


def _found_instead(found):
    """What there is in place of the shapes of a linear layer."""
    if not isinstance(found, dict):
        return kind_of(found)
    if "weight" not in found:
        return ", ".join(map(shown, sorted(found, key=str)[:3])) or "none"
    weight = found["weight"]
    if isinstance(weight, str):
        return f"'weight', {weight}"
    return f"'weight' of shape {list(weight)}"


def _there(path):
    """The place of a file of weights, which exists."""
    path = Path(path)
    if not path.exists():
        raise LMACError(f"{path}: no such file, expected weights")
    if path.is_dir():
        raise LMACError(
            f"{path}: is a folder, expected a file of weights; no such file is "
            "there"
        )
    if not check_file(path):
        raise LMACError(f"{path}: is empty, expected weights")
    return path


def _is_safetensors(path):
    """Whether a file is no pickle: by its content, or else by its name."""
    with open(path, "rb") as file:
        first = file.read(9)
    # Behind the length of its header, that begins.
    if first[8:] == b"{":
        return True
    is_pickle = first.startswith((b"PK", b"\x80"))
    return Path(path).suffix == ".safetensors" and not is_pickle


def _shapes_of_safetensors(path):
    """Name to shape of what a file holds."""
    # Here, so that other files load without that package.
    from safetensors import safe_open

    _check_as(path, safetensors=True)
    try:
        with safe_open(path, framework="pt") as file:
            return {x: file.get_slice(x).get_shape() for x in file.keys()}
    except Exception as error:
        raise _no_weights(path, error) from error


def _read_safetensors(path, module):
    """State dict in a file, if its header has the shapes of a module."""
    from safetensors import safe_open

    _check_shapes(_shapes_of_safetensors(path), module, path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:
        # Of its own class, and of those of the tensors' types.
        raise _no_weights(path, error) from error


def load_tensors(path):
    """What a pickle holds: tensors and plain values, of which no code is run.

    Tensors lie in the file until they are used, so that their shapes can be
    looked at first.

    Arguments
    ---------
    path : str or Path
        Written by `torch.save`.

    Returns
    -------
    object
        Mostly a state dict.

    Raises
    ------
    LMACError
        If it holds anything else, or is compressed: then it may be much
        larger than the file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "m.ckpt"
    >>> torch.save({"mean": torch.zeros(2)}, path)
    >>> load_tensors(path)
    {'mean': tensor([0., 0.])}
    """
    _check_as(path, safetensors=False)
    try:
        return torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(path),
        )
    except Exception as error:
        # Broken files fail in many ways: IndexError, UnicodeDecodeError, ...
        raise _no_weights(path, error) from error


def check_unread(path):
    """Refuse a file of weights that would grow when it is read, or runs code.

    Arguments
    ---------
    path : str or Path
        Its name ends in ``.safetensors``, or it is a pickle.

    Returns
    -------
    int
        Its size in bytes.

    Raises
    ------
    LMACError
        If it is too large, has too many names, is compressed, or names
        anything but tensors.

    Example
    -------
    >>> path = getfixture("tmp_path") / "m.ckpt"
    >>> torch.save(torch.nn.Linear(2, 1).state_dict(), path)
    >>> check_unread(path) > 12
    True
    """
    return _check_as(path, Path(path).suffix == ".safetensors")


def _check_as(path, safetensors):
    """Check a file that is read as one kind or the other."""
    size = check_file(path)
    try:
        if safetensors:
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST:
                raise LMACError(f"names and shapes of {length} bytes")
        elif zipfile.is_zipfile(path):
            _check_zip(path, size)
        else:
            with open(path, "rb") as file:
                _check_names(file.read(_LONGEST), _PICKLES)
    except Exception as error:
        # Broken files fail in many ways: IndexError, UnicodeDecodeError, ...
        raise _no_weights(path, error) from error
    return size


def _no_weights(path, error):
    """The error for a file that holds something else."""
    return LMACError(
        f"{path}: not a file of weights only ({first_line(error)})"
    )


class _Sipped(io.FileIO):
    """A file of which no large part is read at once."""

    def read(self, size=-1):
        """Bytes, by default all that are left; refused if they are many."""
        if size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > _LONGEST:
            raise LMACError(f"a list of {size} bytes of files or names")
        return super().read(size)


def _check_zip(path, size):
    """Refuse an archive that holds more than it is large, or names code."""
    with _Sipped(path) as file, zipfile.ZipFile(file) as archive:
        found = archive.infolist()
        for item in found:
            if item.compress_type or item.file_size != item.compress_size:
                raise LMACError(
                    f"{shown(item.filename)} is compressed, expected a file "
                    "as torch.save writes it"
                )
        total = sum(item.file_size for item in found)
        if total > size:
            raise LMACError(f"says that it holds {total} bytes, but has {size}")
        for item in found:
            if not item.filename.endswith(".pkl"):
                continue
            if item.file_size > _LONGEST:
                raise LMACError(f"a pickle of {item.file_size} bytes")
            _check_names(archive.read(item))


def _check_names(content, most=1):
    """Refuse pickles that name what no state dict names."""
    stream, texts = io.BytesIO(content), []
    for _ in range(most):
        for code, argument, _ in pickletools.genops(stream):
            name = argument
            if code.name == "STACK_GLOBAL":
                name = " ".join(texts[-2:])
            elif code.name != "GLOBAL":
                if isinstance(argument, str):
                    texts = [*texts[-1:], argument]
                continue
            is_storage = name.startswith("torch ") and name.endswith("Storage")
            if name not in _NAMED and not is_storage:
                raise LMACError(f"it names {shown(name)}")


def _check_shapes(shapes, module, path):
    """Refuse names and shapes that are not those of a module."""
    owner = type(module).__name__
    expected = module.state_dict()
    for name, value in expected.items():
        if name not in shapes:
            raise LMACError(f"{path}: holds no '{name}', expected by {owner}")
        if list(shapes[name]) != list(value.shape):
            raise LMACError(
                f"{path}: '{name}' has shape {list(shapes[name])}, expected "
                f"{list(value.shape)}"
            )
    extra = min(set(shapes) - set(expected), default=None, key=str)
    if extra is not None:
        raise LMACError(
            f"{path}: holds {shown(extra)}, which {owner} does not have"
        )


def _check_types(state, module, path):
    """Refuse tensors that are not of the types of a module's."""
    for name, value in module.state_dict().items():
        found = state[name]
        if found.dtype != value.dtype:
            raise LMACError(
                f"{path}: '{name}' is of {found.dtype}, expected {value.dtype}"
            )
        if found.layout != torch.strided or found.device.type != "cpu":
            raise LMACError(
                f"{path}: '{name}' is a {found.layout} of the device "
                f"{found.device}, expected plain numbers"
            )


def check_values(state, path):
    """Refuse weights that are not finite, and variances below zero.

    Arguments
    ---------
    state : dict
        Name to tensor.
    path : str or Path
        Where they come from, for messages.

    Raises
    ------
    LMACError
        If there are some; names the first.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> _ = norm.running_var.fill_(-1)
    >>> check_values(norm.state_dict(), "x.ckpt")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.ckpt: 'running_var' holds -1, ...
    """
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise LMACError(f"{path}: '{name}' holds NaN or infinite values")
        what = name.rpartition(".")[2]
        if what in ("running_var", "num_batches_tracked") and (value < 0).any():
            raise LMACError(
                f"{path}: '{name}' holds {value.min():g}, expected none below "
                "zero"
            )


def weights_sha256(*modules):
    """Checksum of the weights of modules.

    Arguments
    ---------
    *modules : torch.nn.Module
        The checksum depends on their order.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            if not isinstance(value, torch.Tensor):
                continue  # a module's extra state
            # As bytes, since numpy lacks some of the types.
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_state(module):
    """What tells that weights were changed, without a look at them.

    Arguments
    ---------
    module : torch.nn.Module
        Changes past autograd, by a weight's `data`, do not count.

    Returns
    -------
    list of tuple

    Example
    -------
    >>> net = torch.nn.Linear(2, 2)
    >>> before = weights_state(net)
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> weights_state(net) == before
    False
    """
    return [
        # What was made in inference mode counts no changes.
        (value.data_ptr(), None if value.is_inference() else value._version)
        for value in module.state_dict().values()
        if isinstance(value, torch.Tensor)
    ]


def write_weights(path, module):
    """Write the weights of a module as safetensors.

    Arguments
    ---------
    path : str or Path
        The file.
    module : torch.nn.Module
        Its state dict is written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "m.safetensors"
    >>> write_weights(path, torch.nn.Linear(2, 1))
    >>> load_strict(torch.nn.Linear(2, 1), path)
    """
    # Here, so that other files load without that package.
    from safetensors.torch import save

    state = {
        name: value.detach().cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    # Not save_file, which writes a file that only its owner can read.
    Path(path).write_bytes(save(state))
