"""A small classifier of the waveform itself, without a spectrogram.

M5 of Dai et al., arXiv 1610.00087, with a linear layer for the classes.
"""

import copy

import torch
from torch.nn import functional as F

__all__ = ["M5", "fit_waveform"]

EPOCHS, BATCH, LR = 40, 16, 3e-3
WIDTHS = (32, 32, 64, 128)


class M5(torch.nn.Module):
    """Four convolutions over time, a mean, and a linear layer.

    Arguments
    ---------
    n_classes : int
        Number of classes.

    Example
    -------
    >>> M5(10)(torch.rand(2, 16000)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_classes):
        super().__init__()
        blocks, inputs = [], 1
        for i, width in enumerate(WIDTHS):
            kernel, stride = (80, 4) if i == 0 else (3, 1)
            blocks += [
                torch.nn.Conv1d(
                    inputs, width, kernel, stride, padding=kernel // 2
                ),
                torch.nn.BatchNorm1d(width),
                torch.nn.ReLU(),
                torch.nn.MaxPool1d(4, ceil_mode=True),
            ]
            inputs = width
        self.blocks = torch.nn.Sequential(*blocks)
        self.head = torch.nn.Linear(inputs, n_classes)

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        return self.head(self.blocks(wavs[:, None]).mean(2))


def fit_waveform(train, valid, seed, epochs=None):
    """Train M5, and keep the epoch that does best on other clips.

    Arguments
    ---------
    train, valid : tuple of torch.Tensor
        Waveforms [clips, samples] and their classes [clips].
    seed : int
        Of weights, order and shifts.
    epochs : int
        Passes over the clips; default 40.

    Returns
    -------
    M5
        In evaluation mode.

    Example
    -------
    >>> clips = torch.rand(4, 800), torch.tensor([0, 0, 1, 1])
    >>> fit_waveform(clips, clips, seed=1, epochs=1)(clips[0]).shape
    torch.Size([4, 2])
    """
    wavs, labels = train
    epochs = epochs or EPOCHS
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = M5(int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(net.parameters(), LR)
        n_steps = epochs * -(-len(wavs) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, n_steps)
        best, least = None, torch.inf
        for _ in range(epochs):
            net.train()
            for rows in torch.randperm(len(wavs)).split(BATCH):
                shift = int(torch.randint(wavs.shape[1], ()))
                logits = net(wavs[rows].roll(shift, 1))
                optimizer.zero_grad()
                F.cross_entropy(logits, labels[rows]).backward()
                optimizer.step()
                schedule.step()
            net.eval()
            with torch.no_grad():
                loss = F.cross_entropy(net(valid[0]), valid[1]).item()
            # The first one counts even if its loss is NaN.
            if best is None or loss < least:
                best, least = copy.deepcopy(net.state_dict()), loss
    net.load_state_dict(best)
    return net.requires_grad_(False)
