"""Other people's classifiers: from any of them to a `Listener`.

Imports `models` and `utils`.

**One more kind of classifier** is a function that returns a `Listener`, which
calls the classifier as its owner does.

>>> import torch
>>> from lmac_sb.adapters.listener import Listener
>>> net = torch.nn.Sequential(
...     torch.nn.Unflatten(1, (1, -1)),
...     torch.nn.Conv1d(1, 3, 400, 160),
...     torch.nn.AdaptiveMaxPool1d(1),
...     torch.nn.Flatten(),
... )
>>> listener = Listener(net, sample_rate=16000, labels=["cat", "cow", "dog"])
>>> listener(torch.rand(2, 16000)).shape
torch.Size([2, 3])
"""
