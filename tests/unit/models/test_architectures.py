"""Tests of other classifiers: attention, Conv2dEncoder_v2."""

import math

import pytest
import torch
from speechbrain.lobes.models.PIQ import Conv2dEncoder_v2

from lmac_sb.evaluation.sanity import stages
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.models.encoders import AttentionEmbedding, embed
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.yaml_safety import safe_yaml

MELS = 16
DIM = 8
PATCH = (4, 8)


def with_statistics(embedding):
    """Give a model weights and statistics that are not neutral."""
    embedding.train()
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        embedding(3 * torch.rand(8, 20, MELS))
    return embedding.eval()


def attention(n_blocks=2, **more):
    """A small Transformer."""
    return with_statistics(
        AttentionEmbedding(MELS, DIM, n_blocks, 2, PATCH, **more)
    )


def stemmed():
    """The same on two convolutions."""
    return attention(stem=[DIM, DIM])


def conv2d():
    """SpeechBrain's model with few channels."""
    return with_statistics(Conv2dEncoder_v2(dim=DIM))


# Model, layers for the decoder, shortest input, and size of each layer's
# map for 37 frames: patches are filled, strides drop the remainder.
MODELS = {
    "attention": (attention, {"blocks.1": (10, 2), "blocks.0": (10, 2)}, 1),
    "stem": (
        stemmed,
        {
            "blocks.1": (10, 2),
            "tokens.stem.1": (10, 4),
            "tokens.stem.0": (20, 8),
        },
        1,
    ),
    "conv2d": (
        conv2d,
        {"resblock": (2, 1), "bn3": (4, 2), "bn2": (9, 4), "bn1": (18, 8)},
        16,
    ),
}


@pytest.fixture(params=MODELS)
def case(request):
    """Bare model, linear layer, adapter, sizes of the maps."""
    make, sizes, min_frames = MODELS[request.param]
    model, linear = make(), torch.nn.Linear(DIM, 3)
    frozen = FrozenClassifier(model, linear, list(sizes), min_frames)
    return model, linear, frozen, list(sizes.values())


def slow_attention(model, features):
    """The Transformer for one clip, token by token and head by head."""
    norm = model.norm
    x = (features - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    x = x * norm.weight + norm.bias
    frames, bands = model.patch
    tokens = []
    for t in range(len(x) // frames):
        for f in range(MELS // bands):
            piece = x[frames * t :, bands * f :][:frames, :bands]
            token = (model.tokens.conv.weight[:, 0] * piece).sum((1, 2))
            place = [t / 10000 ** (2 * i / DIM) for i in range(DIM // 2)]
            place = [math.sin(a) for a in place] + [math.cos(a) for a in place]
            token = token + model.tokens.conv.bias + torch.tensor(place)
            tokens.append(token + model.tokens.band[:, 0, f])
    for block in model.blocks:
        parts = [block.attention(block.attention_norm(h)) for h in tokens]
        size = DIM // 2
        after = []
        for i, h in enumerate(tokens):
            heads = []
            for head in range(2):
                query = parts[i][head * size :][:size]
                keys = [p[DIM + head * size :][:size] for p in parts]
                values = [p[2 * DIM + head * size :][:size] for p in parts]
                scores = [float(query @ k) / size**0.5 for k in keys]
                weights = [math.exp(s) for s in scores]
                weights = [w / sum(weights) for w in weights]
                heads.append(sum(w * v for w, v in zip(weights, values)))
            h = h + block.merge(torch.cat(heads))
            after.append(h + block.cell(h))
        tokens = after
    return sum(model.last_norm(h) for h in tokens) / len(tokens), tokens


def test_attention_against_a_slow_writing():
    """Embedding and last map, token by token."""
    model = attention()
    features = 3 * torch.rand(2, 12, MELS)
    kept = []
    model.blocks[-1].register_forward_hook(lambda m, i, o: kept.append(o))
    with torch.no_grad():
        embeddings = model(features)
        for clip in range(2):
            slow, tokens = slow_attention(model, features[clip])
            torch.testing.assert_close(
                embeddings[clip], slow, rtol=1e-4, atol=1e-5
            )
            for i, token in enumerate(tokens):
                cell = kept[0][clip, :, i // 2, i % 2]
                torch.testing.assert_close(cell, token, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stem", [(), (4, 6)])
def test_attention_of_any_length(stem):
    """Any length works; the last patch is padded with silence."""
    model = attention(stem=stem)
    with torch.no_grad():
        for n_frames in [*range(1, 14), 87, 3001]:
            features = torch.rand(2, n_frames, MELS)
            embeddings = model(features)
            assert embeddings.shape == (2, DIM)
            assert embeddings.isfinite().all()
            silence = torch.zeros(2, -n_frames % PATCH[0], MELS)
            longer = torch.cat([features, silence], 1)
            assert torch.equal(model(longer), embeddings)


def test_attention_knows_places():
    """The same patches in another order are another sound."""
    model = attention()
    early, late = torch.rand(1, 4, MELS), torch.rand(1, 4, MELS)
    with torch.no_grad():
        one = model(torch.cat([early, late], 1))
        other = model(torch.cat([late, early], 1))
        low = torch.cat([early[..., :8], late[..., :8]], 2)
        high = torch.cat([late[..., :8], early[..., :8]], 2)
        assert (one - other).abs().max() > 1e-3
        assert (model(low) - model(high)).abs().max() > 1e-3


def test_a_stem_makes_tokens_of_their_patches():
    """Convolutions of stride 2 one by one; a token knows little else."""
    model = attention(stem=[4, 6])
    tokens = model.tokens
    features = torch.rand(1, 24, MELS)
    with torch.no_grad():
        h = slow_norm(model, features[0])
        for conv, norm, act in tokens.stem:
            h = slow_halves(conv, h)
            h = act(norm(h[None]))[0]
        kept = []
        tokens.stem.register_forward_hook(lambda m, i, o: kept.append(o[0]))
        model(features)
        torch.testing.assert_close(kept[0], h, rtol=1e-4, atol=1e-5)

        changed = features.clone()
        changed[:, 8:12, :8] += 1  # the patch at 2, 0
        moved = [tokens(x[:, None]) for x in (features, changed)]
        moved = (moved[1] - moved[0])[0].abs().amax(0) > 1e-6
    assert moved[2, 0]
    # The receptive field reaches 3 cells beyond a patch, up and to the left.
    assert not moved[:2].any()
    assert not moved[4:].any()


def slow_norm(model, x):
    """Batch normalisation of one clip [time, mel], with a channel axis."""
    norm = model.norm
    x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    return (x * norm.weight + norm.bias)[None]


def slow_halves(conv, x):
    """Convolution of stride 2 by three by three cells, cell by cell."""
    padded = torch.zeros(len(x), x.shape[1] + 2, x.shape[2] + 2)
    padded[:, 1:-1, 1:-1] = x
    out = torch.zeros(len(conv.bias), x.shape[1] // 2, x.shape[2] // 2)
    for t in range(out.shape[1]):
        for f in range(out.shape[2]):
            piece = padded[:, 2 * t :, 2 * f :][:, :3, :3]
            out[:, t, f] = (conv.weight * piece).sum((1, 2, 3)) + conv.bias
    return out


def test_attention_relates_far_cells():
    """The first token's latent depends on the last frame."""
    model = attention(n_blocks=1)
    frozen = FrozenClassifier(model, torch.nn.Linear(DIM, 3), ["blocks.0"])
    features = torch.rand(1, 40, MELS)
    changed = features.clone()
    changed[:, -1] += 3
    first, second = (frozen(x)[1][0][0, :, 0] for x in (features, changed))
    assert (first - second).abs().max() > 1e-4


def test_every_weight_can_be_made_random():
    """The stages of the sanity check cover every weight."""
    for make, sizes, _ in MODELS.values():
        frozen = FrozenClassifier(make(), torch.nn.Linear(DIM, 3), list(sizes))
        reached = {
            weights
            for name in stages(frozen)
            for weights in frozen.get_submodule(name).parameters()
        }
        assert reached == set(frozen.parameters())


def test_dropout_in_training_only():
    """Two passes differ in training, and not in evaluation."""
    model = attention(dropout=0.5)
    features = torch.rand(2, 12, MELS)
    assert torch.equal(model(features), model(features))
    model.train()
    assert not torch.equal(model(features), model(features))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": (8, 5)}, "patch: 5 bands do not divide n_mels 16"),
        ({"n_heads": 3}, "dim: 8 is not a multiple of n_heads 3 and of 2"),
        ({"stem": [4, 4, 4]}, r"stem: 3 .* patch of \[4, 8\].*multiples of 8"),
        ({"dim": 9, "n_heads": 3}, "dim: 9 is not a multiple of n_heads 3"),
    ],
)
def test_attention_of_wrong_sizes(settings, message):
    with pytest.raises(LMACError, match=message):
        AttentionEmbedding(
            **{"n_mels": MELS, "dim": DIM, "patch": PATCH, **settings}
        )


def test_shortest_input(case):
    """`min_frames` is the shortest input that works."""
    model, _, frozen, _ = case
    shortest = torch.rand(1, frozen.min_frames, MELS)
    assert frozen(shortest)[0].isfinite().all()
    if frozen.min_frames > 1:
        with pytest.raises(RuntimeError):
            frozen(shortest[:, 1:])


def test_embedding_of_a_map_is_its_mean():
    """As in SpeechBrain's recipe for `Conv2dEncoder_v2`."""
    model = conv2d()
    features = torch.rand(2, 37, MELS)
    with torch.no_grad():
        cells = model(features).flatten(2)
        assert cells.shape == (2, DIM, 2)
        by_hand = (cells[:, :, 0] + cells[:, :, 1]) / 2
        torch.testing.assert_close(embed(model, features), by_hand)


def test_logits_latents_and_gradient_of_the_bare_model(case):
    """The adapter gives what the bare modules give, and the layers' maps."""
    model, linear, frozen, sizes = case
    names = frozen.latent_layers
    kept = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: kept.__setitem__(name, o.detach())
        )
    alone = torch.rand(2, 37, MELS, requires_grad=True)
    expected = linear(embed(model, alone))
    expected[:, 1].sum().backward()
    features = alone.detach().clone().requires_grad_()
    logits, latents = frozen(features)
    logits[:, 1].sum().backward()
    assert torch.equal(logits, expected)
    assert torch.equal(features.grad, alone.grad)
    # Frames that a stride drops have no gradient.
    assert (features.grad[:, :32].abs().amax((1, 2)) > 0).all()
    assert [tuple(h.shape) for h in latents] == [
        (2, DIM, *size) for size in sizes
    ]
    for name, latent in zip(names, latents):
        assert torch.equal(latent, kept[name]), name
    assert all(p.grad is None for p in frozen.parameters())


def test_same_bits_with_and_without_gradient(case):
    """Outputs with and without gradients have the same bits."""
    frozen = case[2]
    features = torch.rand(2, 37, MELS)
    with_graph, latents = frozen(features.clone().requires_grad_())
    with torch.no_grad():
        without, plain_latents = frozen(features)
    traced, (_, *traced_latents) = frozen.trace(features)
    assert torch.equal(with_graph, without)
    assert torch.equal(with_graph, traced)
    for one, other, third in zip(latents, plain_latents, traced_latents):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


def test_evidence(case):
    """Evidence is map times gradient times number of cells."""
    model, linear, frozen, sizes = case
    features = 3 * torch.rand(2, 37, MELS)
    target = torch.tensor([2, 0])
    logits, (evidence, deepest, *_) = frozen.trace(features, target)
    leaf = deepest.clone().requires_grad_()
    if isinstance(model, AttentionEmbedding):
        vectors = model.last_norm(leaf.flatten(2).transpose(1, 2)).mean(1)
    else:
        vectors = leaf.mean((2, 3))
    p = linear(vectors).softmax(1).gather(1, target[:, None])
    torch.log(p / (1 - p)).sum().backward()
    slow = deepest * leaf.grad * (sizes[0][0] * sizes[0][1])
    assert evidence.abs().max() > 1e-3
    torch.testing.assert_close(evidence, slow, rtol=1e-3, atol=1e-5)


def test_a_clip_gets_alone_what_it_gets_in_a_batch(case):
    frozen = case[2]
    features = torch.rand(3, 37, MELS)
    features[2] *= 100
    logits, latents = frozen.trace(features)
    for row in range(3):
        alone, alone_latents = frozen.trace(features[row : row + 1])
        torch.testing.assert_close(alone[0], logits[row], rtol=1e-4, atol=1e-5)
        for a, b in zip(alone_latents, latents):
            torch.testing.assert_close(a[0], b[row], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_frames", [37, 40, 87])
def test_decoder_reads_the_latents(case, n_frames):
    """The mask has the right size, and every latent matters."""
    frozen = case[2]
    features = torch.rand(2, n_frames, MELS)
    latents = [h.requires_grad_() for h in frozen.trace(features)[1]]
    decoder = MaskDecoder([DIM] * len(latents), MELS, 64, width=4)
    mask = decoder(latents, torch.rand(2, n_frames, 33))
    assert mask.shape == (2, n_frames, 33)
    mask.square().sum().backward()
    for latent in latents:
        assert (latent.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("model", [AttentionEmbedding, Conv2dEncoder_v2])
def test_a_folder_that_nobody_vouches_for_may_hold_it(model):
    text = f"m: !new:{model.__module__}.{model.__qualname__} {{}}\n"
    assert model.__qualname__ in safe_yaml(text, "hyperparams.yaml")


def test_decoder_learns_from_latents_in_any_memory_order():
    """Channels-last latents give the same gradients."""
    gradients = []
    decoder = MaskDecoder([DIM, DIM], n_mels=40, n_fft=256, width=4)
    maps = [torch.rand(8, DIM, 11, 5), torch.rand(8, DIM, 11, 5)]
    for order in (torch.contiguous_format, torch.channels_last):
        latents = [h.to(memory_format=order) for h in maps]
        decoder.zero_grad()
        decoder(latents, torch.ones(8, 88, 129)).square().sum().backward()
        gradients.append([p.grad.clone() for p in decoder.parameters()])
    torch.testing.assert_close(*gradients)
