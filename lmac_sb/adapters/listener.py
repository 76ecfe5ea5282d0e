"""Any classifier of sounds, called in one way."""

import torch

__all__ = ["Listener"]


class Listener(torch.nn.Module):
    """A classifier from waveforms to logits, whatever it is inside.

    Arguments
    ---------
    model : torch.nn.Module or callable
        Called with what `front_end` returns.
    sample_rate : int
        Rate in Hz of the waveforms that it hears.
    labels : list of str
        Names of its classes; by default their numbers.
    multilabel : bool
        Whether each class is decided on its own, by a sigmoid.
    front_end : torch.nn.Module or callable
        From waveforms [batch, samples] to the model's input; by default the
        model gets the waveforms.

    Example
    -------
    >>> listener = Listener(torch.nn.Linear(8, 3), sample_rate=16000)
    >>> listener(torch.rand(2, 8)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        model,
        sample_rate,
        labels=None,
        multilabel=False,
        front_end=None,
    ):
        super().__init__()
        self.model = model
        self.sample_rate = sample_rate
        self.labels = labels
        self.multilabel = multilabel
        self.front_end = front_end

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        inputs = wavs if self.front_end is None else self.front_end(wavs)
        return self.model(inputs)
