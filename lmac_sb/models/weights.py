"""Load the weights of modules strictly, and compute their checksum."""

import hashlib
from pathlib import Path

import torch

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line

__all__ = ["load_strict", "weights_sha256", "write_weights"]


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
    path = Path(path)
    state = _read_state(path)
    _check_fit(state, module, path)
    module.load_state_dict(state)


def _read_state(path):
    """State dict in a file, which may hold nothing but tensors."""
    if not path.is_file():
        raise LMACError(f"{path}: no such file, expected weights")
    try:
        if path.suffix == ".safetensors":
            # Here, so that other files load without that package.
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Broken files fail in many ways: IndexError, UnicodeDecodeError, ...
        raise LMACError(
            f"{path}: not a file of weights only ({first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise LMACError(f"{path}: not a state dict of tensors")
    return state


def _check_fit(state, module, path):
    """Refuse weights that do not fit the module, or are not finite."""
    owner = type(module).__name__
    expected = module.state_dict()
    for name, value in expected.items():
        if name not in state:
            raise LMACError(f"{path}: holds no '{name}', expected by {owner}")
        if state[name].shape != value.shape:
            raise LMACError(
                f"{path}: '{name}' has shape {list(state[name].shape)}, "
                f"expected {list(value.shape)}"
            )
    extra = sorted(set(state) - set(expected))
    if extra:
        raise LMACError(
            f"{path}: holds '{extra[0]}', which {owner} does not have"
        )
    bad = [n for n, v in state.items() if not torch.isfinite(v).all()]
    if bad:
        raise LMACError(f"{path}: '{bad[0]}' holds NaN or infinite values")


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
