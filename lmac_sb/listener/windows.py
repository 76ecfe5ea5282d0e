"""Windows of a clip in the batch axis, and back."""

import dataclasses

import torch
from torch.nn.functional import pad

from lmac_sb.utils.errors import LMACError, is_whole, shown

__all__ = ["Windows", "overlap_add"]


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a clip is cut into the windows that a model gets as a batch.

    Arguments
    ---------
    size : int
        Samples of a window. A shorter clip is padded with zeros.
    hop : int
        Samples from the start of a window to that of the next; by default
        `size`, so that windows do not overlap.
    last : str
        What becomes of samples after the last whole window: ``"pad"`` fills
        one more window with zeros, ``"drop"`` leaves them out.
    padding : int
        Zeros before and after the clip, such as half a window where windows
        are centred.

    Raises
    ------
    LMACError
        If a value is not one of these.

    Example
    -------
    >>> windows = Windows(size=4, hop=2)
    >>> windows.cut(torch.arange(1.0, 8.0)[None])
    tensor([[1., 2., 3., 4.],
            [3., 4., 5., 6.],
            [5., 6., 7., 0.]])
    >>> Windows(size=4, hop=2, last="drop").count(7)
    2
    """

    size: int
    hop: int = None
    last: str = "pad"
    padding: int = 0

    def __post_init__(self):
        if self.hop is None:
            object.__setattr__(self, "hop", self.size)
        for name, least in (("size", 1), ("hop", 1), ("padding", 0)):
            value = getattr(self, name)
            if not is_whole(value) or value < least:
                raise LMACError(
                    f"windows: found {name}={shown(value)}, expected a whole "
                    f"number of samples of at least {least}"
                )
            object.__setattr__(self, name, int(value))  # NumPy's is no JSON
        if self.last not in ("pad", "drop"):
            raise LMACError(
                f"windows: found last={shown(self.last)}, expected 'pad' or "
                "'drop'"
            )

    def count(self, n_samples):
        """Number of windows of a clip of `n_samples` samples."""
        length = max(n_samples + 2 * self.padding, self.size)
        whole, rest = divmod(length - self.size, self.hop)
        whole += 1
        # With gaps between windows the rest may lie in a gap.
        if self.last == "pad" and rest and whole * self.hop < length:
            whole += 1
        return whole

    def starts(self, n_samples):
        """First sample of each window in the clip, [windows]."""
        return torch.arange(self.count(n_samples)) * self.hop - self.padding

    def cut(self, wavs):
        """Windows of waveforms, with a gradient.

        Arguments
        ---------
        wavs : torch.Tensor
            [batch, samples].

        Returns
        -------
        torch.Tensor
            [batch * windows, size], those of a clip after each other.
        """
        n_samples = wavs.shape[1]
        needed = (self.count(n_samples) - 1) * self.hop + self.size
        missing = max(needed - n_samples - self.padding, 0)
        wavs = pad(wavs, (self.padding, missing))
        # Windows are changed in place by some models: none shares memory.
        return wavs.unfold(1, self.size, self.hop).reshape(-1, self.size)


def overlap_add(maps, n_windows, hop):
    """Lay maps of windows on the clip, faded into each other.

    Each cell is the mean of the windows that hold it, with weights that fall
    from the middle of a window to its ends and sum to one. So there are no
    seams, and where all windows agree the clip does too.

    Arguments
    ---------
    maps : torch.Tensor
        [batch * windows, channels, time, freq], those of a clip after each
        other.
    n_windows : int
        Windows of a clip.
    hop : float
        Cells of time from a window to the next, at most as many as a window
        has. A window that would start between two cells starts at the
        nearer one.

    Returns
    -------
    torch.Tensor
        [batch, channels, time of the clip, freq].

    Raises
    ------
    LMACError
        If the number of maps is not a multiple of `n_windows`, or there are
        gaps between the windows.

    Example
    -------
    >>> maps = torch.ones(2 * 3, 8, 4, 5)
    >>> clip = overlap_add(maps, n_windows=3, hop=2)
    >>> clip.shape, bool(torch.allclose(clip, torch.ones(1)))
    (torch.Size([2, 8, 8, 5]), True)
    """
    rows, channels, time, freq = maps.shape
    if n_windows < 1 or rows % n_windows:
        raise LMACError(
            f"maps: found {rows} rows, expected a multiple of the {n_windows} "
            "windows of a clip"
        )
    if not 0 < hop <= time:
        raise LMACError(
            f"hop: found {hop} cells, expected more than 0 and at most the "
            f"{time} cells of a window, or gaps are left"
        )
    # Half up, so that all windows are rounded in the same direction.
    starts = (torch.arange(n_windows) * hop + 0.5).floor().long()
    cells = (starts[:, None] + torch.arange(time)).flatten().to(maps.device)
    fade = torch.arange(1, time + 1, dtype=maps.dtype, device=maps.device)
    fade = torch.minimum(fade, fade.flip(0))
    total = maps.new_zeros(int(starts[-1]) + time)
    total = total.index_add(0, cells, fade.repeat(n_windows))
    shares = fade.repeat(n_windows) / total[cells]
    clips = maps.reshape(-1, n_windows, channels, time, freq)
    clips = clips.transpose(1, 2).flatten(2, 3) * shares[:, None]
    whole = clips.new_zeros(clips.shape[0], channels, len(total), freq)
    return whole.index_add(2, cells, clips)
