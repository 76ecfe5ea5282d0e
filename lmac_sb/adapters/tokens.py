"""Where the layers of a model of transformers lie in time and frequency."""

import functools

import torch

__all__ = ["token_maps"]


def token_maps(listener):
    """Where the outputs of a model's layers lie in time and frequency.

    Found by a run on noise. The tokens of wav2vec2-like and Whisper models
    are frames; those of AST lie on a grid of patches, behind a class and a
    distillation token. Of a model with a fixed length (``n_samples``) the map
    covers that length, of others the sound.

    Arguments
    ---------
    listener : Listener
        From `load_hugging_face` or `from_hugging_face`.

    Returns
    -------
    dict of str to callable
        For each layer, by its name among the listener's modules and in the
        order of the network, a function from its output to a map
        [batch, channels, time, freq]. Frames have one band.

    Example
    -------
    >>> import transformers
    >>> from lmac_sb.adapters.hugging_face import from_hugging_face
    >>> config = transformers.ASTConfig(
    ...     hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
    ...     intermediate_size=8, num_mel_bins=26, max_length=56,
    ... )
    >>> listener = from_hugging_face(
    ...     transformers.ASTForAudioClassification(config),
    ...     transformers.ASTFeatureExtractor(num_mel_bins=26, max_length=56),
    ... )
    >>> (to_map,) = token_maps(listener).values()
    >>> to_map(torch.rand(3, 2 + 5 * 2, 8)).shape
    torch.Size([3, 8, 5, 2])
    """
    layers, shapes, hooks = _layers(listener), {}, []
    for name, module in listener.named_modules():
        hooks.append(
            module.register_forward_hook(
                functools.partial(_note_shape, shapes, name)
            )
        )
    length = max(listener.min_samples, listener.sample_rate)
    try:
        with torch.no_grad():
            length = min(length, listener.n_samples or length)
            listener(torch.zeros(1, length, device=listener.model.model.device))
    finally:
        for hook in hooks:
            hook.remove()
    patches = (
        shapes[name][2:]
        for name, module in listener.named_modules()
        if isinstance(module, torch.nn.Conv2d) and name in shapes
    )
    grid = next(patches, None)
    maps = {}
    for name in shapes:
        if name in layers and len(shapes[name]) == 3:
            shape = None if layers[name] == "channels" else grid
            maps[name] = functools.partial(
                _to_map, is_channels=layers[name] == "channels", grid=shape
            )
    return maps


def _layers(listener):
    """Names of the layers, and what the second axis of their output is."""
    layers = {}
    for name, module in listener.named_modules():
        owner, _, stack = name.rpartition(".")[0].rpartition(".")
        if isinstance(module, torch.nn.ModuleList) or "pos_conv" in owner:
            continue
        if stack in ("layers", "layer"):
            layers[name] = "tokens"
        elif stack == "conv_layers" or name.endswith((".conv1", ".conv2")):
            layers[name] = "channels"
    return layers


def _first(output):
    """Tensor of a layer's output."""
    return output[0] if isinstance(output, (tuple, list)) else output


def _note_shape(shapes, name, module, inputs, output):
    """Hook that notes the shape of an output, in the order of the calls."""
    output = _first(output)
    if isinstance(output, torch.Tensor):
        shapes[name] = tuple(output.shape)


def _to_map(output, is_channels=False, grid=None):
    """Map [batch, channels, time, freq] of a layer's output."""
    output = _first(output)
    if is_channels:  # [batch, channels, time]
        return output.unsqueeze(3)
    tokens = output.transpose(1, 2)
    if grid is None:
        return tokens.unsqueeze(3)
    n_freq, n_time = grid
    tokens = tokens[:, :, -n_freq * n_time :]
    return tokens.unflatten(2, (n_freq, n_time)).transpose(2, 3)
