"""Tests of layers that need no gradient of their weights."""

import copy

import pytest
import torch
from speechbrain.lobes.models.Cnn14 import Cnn14, ConvBlock

from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.frozen import channels_last, fix, folded

MELS = 40


def make(kind, norm="bn"):
    """A model whose norms have statistics and weights of their own."""
    torch.manual_seed(3)
    if kind == "small":
        model = ConvEmbedding(MELS, [4, 8, 16])
    else:
        model = Cnn14(mel_bins=MELS, emb_dim=16, norm_type=norm)
    model.train()
    with torch.no_grad():
        model(5 * torch.rand(4, 101, MELS))
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.uniform_(-0.5, 0.5)
    return model.eval().requires_grad_(False)


def output_and_gradient(model, features):
    """Embeddings, and the gradient of their first entry."""
    features = features.clone().requires_grad_()
    found = model(features)
    (gradient,) = torch.autograd.grad(found[..., 0].sum(), features)
    return found.detach(), gradient


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["small", "CNN14"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_is_computed(kind, batch, inside):
    model, features = make(kind), torch.rand(batch, 37, MELS)
    expected = output_and_gradient(copy.deepcopy(model), features)
    fix(model)
    if inside:
        with folded(model):
            found = output_and_gradient(model, features)
    else:
        found = output_and_gradient(model, features)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_inside_fewer_layers_run():
    model = make("small")
    fix(model)
    norms = []
    for name, part in model.named_modules():
        if name == "blocks.0.norm1":
            # Not by a hook, which would be a reason not to fold.
            part.factors = lambda part=part, own=part.factors: (
                norms.append(1) or own()
            )
    features = torch.rand(1, 20, MELS)
    with folded(model):
        for _ in range(4):
            model(features)
    assert norms == [1]
    model(features)
    assert norms == [1, 1]


def test_new_weights_are_used_the_next_time():
    model, features = make("small"), torch.rand(1, 20, MELS)
    fix(model)
    with folded(model):
        before = model(features)
    with torch.no_grad():
        model.blocks[0].conv1.weight.mul_(2)
    expected = model(features)
    assert not torch.allclose(before, expected)
    with folded(model):
        torch.testing.assert_close(model(features), expected)


def test_who_looks_between_the_layers_still_sees_them():
    """A hook at a convolution or a norm gets what it gets outside."""
    model, features, seen = make("small"), torch.rand(1, 20, MELS), []
    fix(model)
    norm = model.blocks[1].norm1
    norm.register_forward_hook(lambda m, i, o: seen.append(o.clone()))
    model(features)
    with folded(model):
        model(features)
    one, other = seen
    torch.testing.assert_close(one, other)


def test_one_within_another_and_an_error_leave_nothing_behind():
    model, features = make("small"), torch.rand(1, 20, MELS)
    fix(model)
    with folded(model):
        layers = model.blocks[0]._layers
        with folded(model):
            assert model.blocks[0]._layers is layers
        assert model.blocks[0]._layers is layers
    with pytest.raises(ValueError, match="stop"), folded(model):
        raise ValueError("stop")
    assert all(block._layers is None for block in model.blocks)
    model(features)


def test_a_model_that_is_trained_again_is_trained():
    """Whoever wrapped a classifier may train it later."""
    model, features = make("small"), torch.rand(4, 20, MELS)
    fix(model)
    model.train().requires_grad_()
    mean = model.blocks[0].norm1.running_mean.clone()
    with folded(model):
        model(features).sum().backward()
    assert not torch.equal(model.blocks[0].norm1.running_mean, mean)
    assert model.blocks[0].conv1.weight.grad.any()


class Own(ConvBlock):
    """A block that does more."""

    def forward(self, x, pool_size=(2, 2), pool_type="avg"):
        return 2 * super().forward(x, pool_size, pool_type)


class Strange(torch.nn.Module):
    """Somebody's model of blocks, to whom the layout of a map matters."""

    def __init__(self):
        super().__init__()
        self.block = ConvBlock(1, 4, "bn")

    def forward(self, features):
        """Embeddings, as a view of the map."""
        return self.block(features[:, None]).view(len(features), -1)


def test_other_peoples_classes_stay():
    model = make("small")
    model.blocks[1] = Own(4, 8, "bn").eval()
    strange, features = Strange().eval(), torch.rand(2, 20, MELS)
    expected = model(features), strange(features)
    fix(model)
    fix(strange)
    assert type(model.blocks[1]) is Own
    assert type(strange.block) is ConvBlock
    with folded(model), folded(strange):
        torch.testing.assert_close(model(features), expected[0])
        torch.testing.assert_close(strange(features), expected[1])


@pytest.mark.parametrize("norm", ["in", "ln"])
def test_other_norms_are_not_folded(norm):
    model, features = make("CNN14", norm), torch.rand(2, 101, MELS)
    expected = model(features)
    fix(model)
    with folded(model):
        torch.testing.assert_close(
            model(features), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("pool_type", ["max", "avg", "avg+max"])
def test_each_pooling(pool_type):
    block = make("small").blocks[1]
    x = torch.rand(2, 4, 9, 8)
    expected = block(x, (2, 2), pool_type)
    holder = make("small")
    holder.blocks[1] = block
    fix(holder)
    with folded(holder):
        torch.testing.assert_close(block(x, (2, 2), pool_type), expected)


def test_half_precision_rounds_as_before():
    """Weights that are multiplied first would be rounded otherwise."""
    model, features = make("small"), torch.rand(2, 20, MELS)
    fix(model)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(features)
        with folded(model):
            assert torch.equal(model(features), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last(channels):
    x = torch.rand(2, channels, 5, 7)
    found = channels_last(x)
    assert torch.equal(found, x)
    assert found.stride()[1] == 1 and found.stride()[3] == channels
    if channels == 1:
        assert found.data_ptr() == x.data_ptr()
