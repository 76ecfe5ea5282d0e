"""Other people's classifiers, each as a `Listener`; their layers as maps.

Imports `listener`, `models` and `utils`.

**One more kind of classifier** is a function that returns a `Listener`, which
calls the classifier as its owner does; one more kind of folder is an entry of
`LOADERS`, by the file that tells it.

>>> import torch
>>> from lmac_sb.adapters.source import as_listener
>>> net = torch.nn.Sequential(
...     torch.nn.Unflatten(1, (1, -1)),
...     torch.nn.Conv1d(1, 3, 400, 160),
...     torch.nn.AdaptiveMaxPool1d(1),
...     torch.nn.Flatten(),
... )
>>> listener = as_listener(net, 16000, labels=["cat", "cow", "dog"])
>>> listener(torch.rand(2, 16000)).shape
torch.Size([2, 3])
"""
