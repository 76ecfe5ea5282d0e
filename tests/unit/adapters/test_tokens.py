"""Where the outputs of layers lie, against the layers' own arithmetic."""

import pytest
import torch
from small_models import FAMILIES, small_model

from lmac_sb.adapters.hugging_face import from_hugging_face
from lmac_sb.adapters.tokens import token_maps

pytest.importorskip("transformers")


def maps_of(listener, wavs):
    """Maps of a sound, by the end of the layer's name."""
    outputs, hooks = {}, []
    maps = token_maps(listener)
    for name in maps:
        hooks.append(
            listener.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: outputs.update(
                    {name: output}
                )
            )
        )
    listener(wavs)
    for hook in hooks:
        hook.remove()
    return {name: maps[name](outputs[name]) for name in maps}


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes(family):
    listener = from_hugging_face(*small_model(family))
    maps = maps_of(listener, 0.1 * torch.randn(2, 6435))
    layers = [
        tuple(value.shape) for name, value in maps.items() if "conv" not in name
    ]
    # 321 frames of 35 samples, 20 apart; SEW halves their number. Patches of
    # 16 x 16, 10 apart, on 64 frames and 32 bands. Whisper's 50 positions.
    # 38 Kaldi frames, of which two are stacked.
    expected = {
        "ast": (2, 16, 5, 2),
        "whisper": (2, 16, 50, 1),
        "wav2vec2-bert": (2, 16, 19, 1),
        "sew": (2, 16, 160, 1),
        "sew-d": (2, 16, 160, 1),
    }
    assert layers == 2 * [expected.get(family, (2, 16, 321, 1))]
    channels = [v.shape[1:3] for name, v in maps.items() if "conv" in name]
    frames = [(8, 1286), (8, 642), (12, 321)]
    frames = {
        "ast": [],
        "wav2vec2-bert": [],
        "whisper": [(16, 100), (16, 50)],
    }.get(family, frames)
    assert channels == frames


def test_patches_of_ast():
    listener = from_hugging_face(*small_model("ast"))
    maps = token_maps(listener)
    model = listener.model.model
    patches = model.audio_spectrogram_transformer.embeddings.patch_embeddings
    bands = torch.randn(1, 64, 32)
    found = next(iter(maps.values()))(
        torch.cat((torch.full((1, 2, 16), 1e6), patches(bands)), 1)
    )
    weight, bias = patches.projection.weight, patches.projection.bias
    assert found.shape == (1, 16, 5, 2)
    for time in range(5):
        for freq in range(2):
            patch = bands[0, 10 * time :, 10 * freq :][:16, :16]
            right = (weight[:, 0] * patch.T).sum((1, 2)) + bias
            torch.testing.assert_close(found[0, :, time, freq], right)


def test_frames_of_wav2vec2():
    """A click moves the frames that hear it, and no others."""
    listener = from_hugging_face(
        *small_model("wav2vec2", feat_extract_norm="layer")
    )
    wavs = 0.1 * torch.randn(1, 4000)
    other = wavs.clone()
    other[:, 2000] += 1
    (name,) = (n for n in token_maps(listener) if n.endswith("conv_layers.2"))
    difference = maps_of(listener, wavs)[name] - maps_of(listener, other)[name]
    moved = difference.abs().amax((0, 1, 3)).gt(0).nonzero().flatten()
    # Frame i hears the samples 20 i to 20 i + 34.
    assert moved.tolist() == [99, 100]


def test_no_hook_stays():
    listener = from_hugging_face(*small_model("whisper"))
    token_maps(listener)
    assert not any(m._forward_hooks for m in listener.modules())
