"""Tests of the small classifier and of the adapter that freezes any."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from speechbrain.lobes.models.Cnn14 import Cnn14

from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.utils.errors import LMACError

MELS = 40
LAYERS = ["blocks.2", "blocks.1", "blocks.0"]


def bare():
    """Encoder and linear layer with batch-norm statistics of their own."""
    embedding = ConvEmbedding(MELS, [4, 8, 16])
    embedding.train()
    with torch.no_grad():
        embedding(5 * torch.rand(8, 20, MELS))
    return embedding.eval(), torch.nn.Linear(16, 3)


@pytest.fixture
def frozen():
    """The bare modules behind the adapter."""
    return FrozenClassifier(*bare(), LAYERS, min_frames=4)


@pytest.fixture(scope="module")
def cnn14():
    """SpeechBrain's CNN14 with the fewest channels."""
    torch.manual_seed(0)
    return Cnn14(mel_bins=MELS, emb_dim=16).eval()


class Recurrent(torch.nn.Module):
    """Model whose layers work on [batch, time, channels]."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(MELS, 6)
        self.rnn = torch.nn.GRU(6, 5, batch_first=True)

    def forward(self, x):
        """Embeddings [batch, 5]."""
        return self.rnn(self.first(x).relu())[0].mean(1)


class Pooled(torch.nn.Module):
    """Embedding that is the mean over all cells of a scaled input."""

    def __init__(self, scales):
        super().__init__()
        self.deep = torch.nn.Conv2d(1, len(scales), 1, bias=False)
        self.deep.weight.data = torch.tensor(scales).view(-1, 1, 1, 1)

    def forward(self, x):
        """Embeddings [batch, channels]."""
        return self.deep(x[:, None]).mean((2, 3))


class Double(torch.nn.Module):
    """Classifier that changes its input in place."""

    def forward(self, x):
        """Logits [batch, classes]."""
        return x.mul_(2.0)


def keep_outputs(model, names):
    """Outputs of named layers, collected by separate hooks."""
    outputs = {}
    for name, module in model.named_modules():
        if name in names:
            module.register_forward_hook(
                lambda m, i, o, name=name: outputs.__setitem__(name, o.clone())
            )
    return outputs


def slow_evidence(embedding, linear, features, target):
    """Evidence of the blocks.2 activation, written out clip by clip."""
    results = []
    for clip, c in zip(features, target):
        h = embedding.norm(clip[None].transpose(1, 2)).transpose(1, 2)[:, None]
        h = embedding.blocks[0](h, pool_size=(2, 2))
        h = embedding.blocks[1](h, pool_size=(2, 2))
        h = embedding.blocks[2](h, pool_size=(1, 1))
        activation = h.detach().requires_grad_()
        bands = activation.mean(dim=3)
        logits = linear(bands.amax(dim=2) + bands.mean(dim=2))[0]
        p = torch.exp(logits) / torch.exp(logits).sum()
        log_odds = torch.log(p[c] / (1 - p[c]))
        log_odds.backward()
        n_cells = activation.shape[2] * activation.shape[3]
        results.append(activation.detach() * activation.grad * n_cells)
    return torch.cat(results)


@pytest.mark.parametrize("channels", [[4], [4, 8], [4, 8, 16]])
def test_embedding_of_any_length(channels):
    """From the shortest clip on, one vector a clip."""
    model = ConvEmbedding(MELS, channels)
    assert model.min_frames == 2 ** (len(channels) - 1)
    for n_frames in [*range(model.min_frames, 20), 87]:
        embeddings = model(torch.rand(2, n_frames, MELS))
        assert embeddings.shape == (2, channels[-1])
        assert embeddings.isfinite().all()


def test_embedding_needs_enough_bands():
    """Each block but the last halves the bands: 5 need 16 at least."""
    ConvEmbedding(16, [2] * 5)
    with pytest.raises(LMACError, match="n_mels: 15 .* 4 blocks, .* 16$"):
        ConvEmbedding(15, [2] * 5)


def test_stays_in_evaluation_mode(frozen):
    """`Brain.fit` calls train on the whole dict of modules at each epoch."""
    modules = torch.nn.ModuleDict(
        {"classifier": frozen, "other": torch.nn.Dropout()}
    )
    modules.train()
    assert modules["other"].training
    assert not any(module.training for module in frozen.modules())


def test_wraps_modules_in_training_mode():
    """Modules that come in training mode are put into evaluation mode."""
    embedding, linear = bare()
    frozen = FrozenClassifier(embedding.train(), linear.train(), LAYERS)
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())


def test_training_steps_change_nothing(frozen):
    """Training steps change the input, but no bit of the classifier."""
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    modules = torch.nn.ModuleDict({"classifier": frozen})
    features = torch.rand(2, 13, MELS, requires_grad=True)
    start = features.detach().clone()
    optimizer = torch.optim.Adam([features, *frozen.parameters()], lr=0.1)
    for _ in range(3):
        modules.train()
        optimizer.zero_grad()
        frozen(features)[0].square().sum().backward()
        optimizer.step()
        frozen.trace(features.detach())
    assert (features.detach() - start).abs().min() > 0
    after = frozen.state_dict()
    assert any("running_mean" in name for name in before)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.grad is None for p in frozen.parameters())


def test_same_logits_latents_and_gradient_as_bare_modules():
    """The adapter gives the results of the bare modules."""
    embedding, linear = bare()
    kept = keep_outputs(embedding, LAYERS)
    alone = torch.rand(2, 13, MELS, requires_grad=True)
    expected = linear(embedding(alone))
    expected[:, 1].sum().backward()

    wrapped = alone.detach().clone().requires_grad_()
    logits, latents = FrozenClassifier(embedding, linear, LAYERS)(wrapped)
    logits[:, 1].sum().backward()
    # Fixed batch norms are computed in another order.
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=0)
    # Its batch normalisation multiplies in another order.
    torch.testing.assert_close(wrapped.grad, alone.grad, rtol=1e-4, atol=1e-9)
    assert wrapped.grad.abs().sum() > 0
    assert len(latents) == 3
    for name, latent in zip(LAYERS, latents):
        assert torch.equal(latent, kept[name]), name


@pytest.mark.parametrize("order", [LAYERS, LAYERS[::-1], ["blocks.1"]])
def test_latents_come_in_the_order_asked_for(order):
    """The order is that of the list, not that of the layers."""
    frozen = FrozenClassifier(*bare(), order)
    channels = {"blocks.0": 4, "blocks.1": 8, "blocks.2": 16}
    _, latents = frozen(torch.rand(1, 13, MELS))
    assert [h.shape[1] for h in latents] == [channels[n] for n in order]


@pytest.mark.parametrize("return_reps", [False, True])
def test_speechbrain_cnn14(cnn14, return_reps):
    """Logits and representations are the model's own, in its own order."""
    layers = ["conv_block6", "conv_block5", "conv_block4", "conv_block3"]
    linear = torch.nn.Linear(16, 5)
    features = torch.rand(2, 37, MELS)
    cnn14.return_reps = True
    with torch.no_grad():
        embeddings, reps = cnn14(features)
        expected = linear(embeddings)[:, 0]
    cnn14.return_reps = return_reps
    frozen = FrozenClassifier(cnn14, linear, layers, min_frames=32)
    logits, latents = frozen(features)
    assert logits.shape == (2, 5)
    # The layers of the frozen one round otherwise.
    torch.testing.assert_close(logits, expected)
    for latent, rep in zip(latents, reps):
        torch.testing.assert_close(latent, rep)
    traced, (evidence, *latents) = frozen.trace(features)
    assert torch.allclose(traced, expected, atol=1e-6)
    assert evidence.shape == reps[0].shape
    assert evidence.abs().sum() > 0
    for latent, rep in zip(latents, reps):
        assert torch.allclose(latent, rep, atol=1e-6)


@pytest.mark.parametrize("deepest", ["rnn", "first"])
def test_layers_without_a_frequency_axis(deepest):
    """[batch, time, channels] becomes one band, also from a layer's tuple."""
    model, linear = Recurrent(), torch.nn.Linear(5, 3)
    features = torch.rand(2, 9, MELS)
    frozen = FrozenClassifier(model, linear, [deepest])
    logits, (latent,) = frozen(features)
    first = model.first(features)
    rows = {"first": first, "rnn": model.rnn(first.relu())[0]}[deepest]
    assert torch.allclose(logits, linear(model(features)), atol=1e-6)
    assert torch.allclose(latent, rows.transpose(1, 2)[..., None], atol=1e-6)

    leaf = rows.detach().requires_grad_()
    h = model.rnn(leaf.relu())[0] if deepest == "first" else leaf
    p = linear(h.mean(1)).softmax(1).amax(1)
    torch.log(p / (1 - p)).sum().backward()
    slow = (leaf * leaf.grad).detach().transpose(1, 2)[..., None] * 9
    traced, (evidence, latent) = frozen.trace(features)
    assert torch.allclose(traced, logits, atol=1e-6)
    assert torch.allclose(evidence, slow, atol=1e-5)
    assert torch.allclose(latent, rows.transpose(1, 2)[..., None], atol=1e-6)


def test_layer_of_vectors_is_one_cell():
    """A layer after the pooling gives a map of one cell."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(80, 6))
    frozen = FrozenClassifier(model, torch.nn.Linear(6, 3), ["1"])
    features = torch.rand(2, 2, 40)
    assert frozen(features)[1][0].shape == (2, 6, 1, 1)
    evidence, latent = frozen.trace(features)[1]
    assert evidence.shape == latent.shape == (2, 6, 1, 1)


@pytest.mark.parametrize("name", ["block.2", ""])
def test_unknown_layer(name):
    """The message says which layers there are."""
    with pytest.raises(LMACError) as error:
        FrozenClassifier(*bare(), ["blocks.2", name])
    assert f"no layer '{name}' in ConvEmbedding" in str(error.value)
    assert "blocks.2, blocks.2.conv1" in str(error.value)


def test_empty_list_of_layers():
    """Without latents there is nothing to decode."""
    with pytest.raises(LMACError, match="latent_layers: empty"):
        FrozenClassifier(*bare(), [])


@pytest.mark.parametrize("call", ["forward", "trace"])
def test_nothing_is_kept_after_a_call(frozen, call):
    """A call keeps nothing after its results are freed."""
    features = torch.rand(2, 13, MELS, requires_grad=call == "forward")
    logits, latents = getattr(frozen, call)(features)
    made = [weakref.ref(x) for x in (logits, *latents, features)]
    del logits, latents, features
    gc.collect()
    assert all(x() is None for x in made)
    assert not frozen._latents
    assert not frozen._traced


def test_trace_gives_what_forward_gives(frozen):
    """Logits and latents are forward's; before them the evidence."""
    features = torch.rand(3, 13, MELS)
    logits, latents = frozen(features)
    traced, (evidence, *traced_latents) = frozen.trace(features)
    assert torch.allclose(traced, logits, atol=1e-6)
    assert len(traced_latents) == len(latents)
    for a, b in zip(latents, traced_latents):
        assert torch.allclose(a, b, atol=1e-6)
    assert evidence.shape == latents[0].shape
    for tensor in (traced, evidence, *traced_latents):
        assert not tensor.requires_grad


def test_trace_without_evidence():
    """Without evidence, `trace` gives only the latents."""
    embedding, linear = bare()
    frozen = FrozenClassifier(embedding, linear, LAYERS, evidence=False)
    features = torch.rand(2, 13, MELS, requires_grad=True)
    logits, latents = frozen(features)
    traced, traced_latents = frozen.trace(features)
    assert torch.equal(traced, logits)
    assert len(traced_latents) == 3
    assert not any(h.requires_grad for h in (traced, *traced_latents))


@pytest.mark.parametrize("target", [None, [0, 0, 0], [2, 0, 1]])
def test_evidence_against_a_slow_writing(frozen, target):
    """Gradient of the log-odds times activation times number of cells."""
    features = 3 * torch.rand(3, 13, MELS)
    wanted = None if target is None else torch.tensor(target)
    logits, latents = frozen.trace(features, wanted)
    chosen = logits.argmax(1).tolist() if target is None else target
    slow = slow_evidence(
        frozen.embedding_model, frozen.classifier, features, chosen
    )
    assert slow.abs().max() > 1e-3
    assert torch.allclose(latents[0], slow, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "asked", [["blocks.0"], ["blocks.0", "blocks.2"], LAYERS[::-1]]
)
def test_evidence_of_several_layers(asked):
    """Each by hooks on the bare model, before its latent."""
    frozen = FrozenClassifier(*bare(), LAYERS, 4, evidence_layers=asked)
    features = 3 * torch.rand(3, 13, MELS)
    logits, found = frozen.trace(features, torch.tensor([2, 0, 1]))

    kept = {}
    for name in LAYERS:
        layer = frozen.embedding_model.get_submodule(name)

        def keep(module, inputs, output, name=name):
            """A leaf of its own, so that the graph goes no further."""
            kept[name] = output.detach().requires_grad_()
            return kept[name].clone()

        hook = layer.register_forward_hook(keep)
        slow_logits = frozen.classifier(frozen.embedding_model(features))
        hook.remove()
        if name in asked:
            p = slow_logits.softmax(1)[range(3), [2, 0, 1]]
            (p / (1 - p)).log().sum().backward()
    shown = iter(found)
    for name in LAYERS:
        if name in asked:
            cells = kept[name][0, 0].numel()
            slow = kept[name].grad * kept[name].detach() * cells
            torch.testing.assert_close(next(shown), slow, rtol=1e-3, atol=1e-5)
        latent = next(shown)
        assert not latent.requires_grad
        torch.testing.assert_close(
            latent, frozen(features)[1][LAYERS.index(name)]
        )
    assert next(shown, None) is None
    torch.testing.assert_close(logits, slow_logits.detach())


def test_evidence_of_a_layer_that_is_not_read():
    """The message lists those that are."""
    with pytest.raises(LMACError, match="evidence_layers: empty"):
        FrozenClassifier(*bare(), LAYERS, evidence_layers=[])
    with pytest.raises(LMACError, match="'blocks.9', expected some of the .*2"):
        FrozenClassifier(*bare(), LAYERS, evidence_layers=["blocks.9"])


def test_evidence_depends_on_the_target(frozen):
    """Evidence depends on the target; the decision is the default."""
    features = torch.rand(1, 13, MELS)
    logits, by_default = frozen.trace(features)
    chosen = logits.argmax(1)
    same = frozen.trace(features, chosen)[1]
    other = frozen.trace(features, (chosen + 1) % 3)[1]
    assert torch.equal(by_default[0], same[0])
    assert (by_default[0] - other[0]).abs().max() > 1e-3
    assert torch.equal(by_default[1], other[1])


def test_evidence_by_hand():
    """Two channels, four cells, two classes, numbers worked out by hand.

    The log-odds of class 0 are z0 - z1; with z = W mean(a) its derivative by
    a cell of channel k is (W[0, k] - W[1, k]) / 4.
    """
    model = Pooled([1.0, 10.0])
    linear = torch.nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[3.0, 0.5], [1.0, 0.7]])
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    frozen = FrozenClassifier(model, linear, ["deep"])
    # Means are 2.5 and 25: z0 = 7.5 + 12.5, z1 = 2.5 + 17.5.
    logits, (evidence, _) = frozen.trace(features, torch.tensor([0]))
    assert logits.tolist() == [[20.0, 20.0]]
    by_hand = torch.tensor([[[2.0, 4.0], [6.0, 8.0]], [[-2, -4], [-6, -8]]])
    assert torch.allclose(evidence[0], by_hand, atol=1e-5)
    _, (evidence, _) = frozen.trace(features, torch.tensor([1]))
    assert torch.allclose(evidence[0], -by_hand, atol=1e-5)


def test_evidence_adds_up_to_the_log_odds():
    """For a linear model its mean is the log-odds, at any size of input."""
    linear = torch.nn.Linear(3, 2, bias=False)
    frozen = FrozenClassifier(Pooled([1.0, -2.0, 0.5]), linear, ["deep"])
    for shape in ((2, 3), (30, 7)):
        logits, (evidence, _) = frozen.trace(torch.rand(2, *shape))
        log_odds = logits.amax(1) - logits.amin(1)
        whole = evidence.sum(1).mean((1, 2))
        assert torch.allclose(whole, log_odds, atol=1e-5)


def test_trace_of_what_changes_in_place():
    """In-place layers after the deepest one are handled."""
    encoder = torch.nn.Sequential(torch.nn.Linear(4, 3))
    frozen = FrozenClassifier(encoder, Double(), ["0"])
    features = torch.rand(2, 4)
    activation = frozen.embedding_model(features)
    logits, (evidence, latent) = frozen.trace(features, torch.tensor([0, 1]))
    assert torch.allclose(logits, 2 * activation)
    assert torch.allclose(latent[:, :, 0, 0], activation)
    p = (2 * activation).softmax(1)
    for row, c in enumerate((0, 1)):
        others = [k for k in range(3) if k != c]
        for k in range(3):
            weight = 1.0 if k == c else float(-p[row, k] / p[row, others].sum())
            by_hand = 2 * weight * float(activation[row, k])
            assert float(evidence[row, k]) == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, torch.enable_grad]
)
def test_trace_in_any_gradient_mode(frozen, mode):
    """Same results, and the caller's mode is left as it was."""
    wavs = torch.rand(2, 13, MELS)
    logits, latents = frozen.trace(wavs)
    with mode():
        before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        features = wavs + 0  # an inference tensor in that mode
        inside, inside_latents = frozen.trace(features)
        after = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert before == after
    assert torch.equal(inside, logits)
    for a, b in zip(latents, inside_latents):
        assert torch.equal(a, b)
        assert not b.requires_grad


def test_mode_is_left_as_it_was_after_an_error(frozen):
    """A failing call leaves neither gradients on nor the tracing."""
    with torch.no_grad():
        with pytest.raises(RuntimeError):
            frozen.trace(torch.rand(1, 13, MELS + 1))
        assert not torch.is_grad_enabled()
        with pytest.raises(LMACError, match="class 99"):
            frozen.trace(torch.rand(1, 13, MELS), torch.tensor([99]))
        assert not torch.is_grad_enabled()
        logits, _ = frozen(torch.rand(1, 13, MELS))
        assert not torch.is_grad_enabled()
    assert not logits.requires_grad


def test_independent_of_batch_mates(frozen):
    """A clip gets alone what it gets in a batch."""
    features = torch.rand(3, 13, MELS)
    features[2] *= 100
    logits, latents = frozen.trace(features)
    for row in range(3):
        alone, alone_latents = frozen.trace(features[row : row + 1])
        assert torch.allclose(alone[0], logits[row], rtol=1e-4, atol=1e-4)
        for a, b in zip(alone_latents, latents):
            assert torch.allclose(a[0], b[row], rtol=1e-3, atol=1e-4)


def test_save_and_load(frozen, tmp_path):
    """State survives a file: the same logits in a fresh adapter."""
    torch.save(frozen.state_dict(), tmp_path / "model.ckpt")
    fresh = FrozenClassifier(*bare(), LAYERS, min_frames=4)
    features = torch.rand(2, 13, MELS)
    expected = frozen(features)[0]
    assert not torch.equal(fresh(features)[0], expected)
    fresh.load_state_dict(torch.load(tmp_path / "model.ckpt"))
    assert torch.equal(fresh(features)[0], expected)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_stand_for_themselves(frozen, copied):
    """Copies, also pickled ones, are independent."""
    features = torch.randn(2, 20, MELS)
    logits, latents = frozen.trace(features)
    other = copied(frozen)
    with torch.no_grad():
        frozen.classifier.bias += 1
        for block in frozen.embedding_model.blocks:
            for weight in block.parameters():
                weight.zero_()
    found, others = other.trace(features)
    assert torch.equal(found, logits)
    for latent, expected in zip(others, latents):
        assert torch.equal(latent, expected)


# ----------------------------------------------------------------- batch norm


class Loud(torch.nn.BatchNorm1d):
    """A batch norm that does more, as those of some model libraries."""

    def forward(self, x):
        """Normalise, and apply an activation."""
        return 7 * super().forward(x).relu()


def normed(norm):
    """A classifier with one batch norm, and its logits before it is frozen."""
    torch.manual_seed(0)
    embedding = torch.nn.Sequential(norm, torch.nn.Flatten())
    for value in (norm.running_mean, norm.running_var):
        value.uniform_(0.5, 1.5)
    mel = torch.rand(2, 5, 4)
    linear = torch.nn.Linear(20, 3)
    with torch.no_grad():
        expected = linear(embedding.eval()(mel))
    return FrozenClassifier(embedding, linear, ["0"]), mel, expected


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm1d, Loud])
def test_any_batch_norm_computes_what_it_did(kind):
    """What only derives from PyTorch's own keeps its own `forward`."""
    frozen, mel, expected = normed(kind(5))
    torch.testing.assert_close(frozen(mel)[0], expected)


def test_several_processes_leave_the_norms_alone():
    """SpeechBrain turns those of what is trained into ones that sum up."""
    frozen, mel, expected = normed(torch.nn.BatchNorm1d(5))
    synced = torch.nn.SyncBatchNorm.convert_sync_batchnorm(frozen)
    kinds = {type(module) for module in synced.modules()}
    assert torch.nn.SyncBatchNorm not in kinds
    torch.testing.assert_close(synced(mel)[0], expected)


class Watched(torch.nn.Module):
    """An embedding model with a recurrent layer, as in CRDNN."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.first = torch.nn.Linear(40, 8)
        self.gru = torch.nn.GRU(8, 8, batch_first=True)

    def forward(self, features):
        self.seen.append(torch.backends.cudnn.enabled)
        states, _ = self.gru(self.first(features))
        return states[:, -1:]


def test_cudnn_is_left_out_of_recurrent_layers():
    """It gives no gradient in evaluation mode; no GPU is needed to see it."""
    before, seen = torch.backends.cudnn.enabled, []
    frozen = FrozenClassifier(Watched(seen), torch.nn.Linear(8, 3), ["first"])
    features = torch.rand(2, 50, 40, requires_grad=True)
    logits, _ = frozen(features)
    frozen.trace(features)
    frozen.logits_and_embedding(features)
    assert seen == [False] * 3
    assert torch.backends.cudnn.enabled == before
    logits.sum().backward()
    assert features.grad.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_recurrent_layers_on_a_gpu():
    frozen = FrozenClassifier(Watched([]), torch.nn.Linear(8, 3), ["first"])
    frozen.cuda()
    features = torch.rand(2, 50, 40, device="cuda", requires_grad=True)
    logits, (evidence, _) = frozen.trace(features)
    assert evidence.isfinite().all()
    frozen(features)[0].sum().backward()
    assert features.grad.any()
