"""The evaluation: every clip, in every setting, by every method.

Each batch of clips in a setting is one file of rows, so that a run that was
broken off goes on where it stopped.
"""

import hashlib
import logging
import re
from pathlib import Path

import torch

from lmac_sb.data.dataset import EqualLengthBatches
from lmac_sb.methods.registry import make_case
from lmac_sb.metrics.registry import METRICS
from lmac_sb.utils.console import progress
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line, read_json, write_json
from lmac_sb.utils.seal import is_sealed, seal

__all__ = ["Grid"]

logger = logging.getLogger(__name__)


class Grid:
    """All rows of an evaluation.

    Arguments
    ---------
    comparison : lmac_sb.evaluation.comparison.Comparison
        The methods, and how they are judged.
    settings : list
        From `lmac_sb.evaluation.contamination.make_settings`.
    rows_folder : str or Path
        Where finished rows are kept.
    regions : dict
        Clip to (onset, offset) in seconds where that is known.

    Example
    -------
    >>> from lmac_sb.evaluation.comparison import Comparison
    >>> from lmac_sb.evaluation.contamination import make_settings
    >>> from lmac_sb.evaluation.judge import Judge
    >>> from lmac_sb.methods.registry import make_methods
    >>> methods = make_methods(["lmac", "loudest"], {"lmac": explainer})
    >>> clean = make_settings(["clean"], {}, 16000, seed=0)
    >>> classes = ["cat", "cow", "dog"]
    >>> comparison = Comparison(Judge(explainer), methods, classes, [0.1])
    >>> grid = Grid(comparison, clean, getfixture("tmp_path"))
    """

    def __init__(self, comparison, settings, rows_folder, regions=None):
        self.comparison = comparison
        self.explainer = comparison.judge.explainer
        self.settings = settings
        self.rows_folder = Path(rows_folder)
        self.regions = regions or {}

    def run(self, dataset, batch_size, quiet=True):
        """Evaluate all clips of a data set.

        Arguments
        ---------
        dataset : speechbrain.dataio.dataset.DynamicItemDataset
            From `lmac_sb.data.dataset.make_dataset`, without noise.
        batch_size : int
            Clips at once.
        quiet : bool
            Whether to leave out the progress bar, which counts each clip in
            each setting.

        Returns
        -------
        rows : list of dict
            One a clip, setting, method and keep, in a fixed order.
        seconds : list of dict
            Mean time of each method for a clip, in each setting.
        """
        rows, spent = [], []
        batches = list(EqualLengthBatches(dataset.n_samples, batch_size))
        total = len(dataset.n_samples) * len(self.settings)
        bar = progress(total=total, unit="clip", disable=quiet)
        for setting in self.settings:
            slug = re.sub(r"[^\w.+-]+", "_", setting.name)
            for batch in batches:
                ids = [dataset.data_ids[i] for i in batch]
                key = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
                path = self.rows_folder / f"{slug}-{key}.json"
                done = _read(path)
                if done is None:
                    done = self._batch([dataset[i] for i in batch], setting)
                    self.rows_folder.mkdir(parents=True, exist_ok=True)
                    write_json(path, seal(done, path.name))
                rows += done["rows"]
                spent += done["seconds"]
                bar.update(len(ids))
        bar.close()
        return self._sorted(rows), _mean_seconds(spent)

    def _sorted(self, rows):
        """Rows by setting, method, keep and clip."""
        settings, methods, keeps = (
            {name: i for i, name in enumerate(names)}
            for names in (
                [setting.name for setting in self.settings],
                self.comparison.methods,
                self.comparison.keeps(),
            )
        )
        return sorted(
            rows,
            key=lambda row: (
                settings[row["setting"]],
                methods[row["method"]],
                keeps[row["keep"]],
                row["id"],
            ),
        )

    def _batch(self, items, setting):
        """Rows of some clips of one length in one setting, and the times."""
        ids = [item["id"] for item in items]
        device = next(self.explainer.features.buffers()).device
        mixed = [setting(item["sig"], item["id"]) for item in items]
        wavs, clean, gains = zip(*mixed)
        wavs, clean = (torch.stack(x).to(device) for x in (wavs, clean))
        case = make_case(self.explainer, wavs, gains, items)
        case.clean = None if setting.name == "clean" else clean
        case.frames = self._frames(ids, case.analysis.magnitude)
        rows, seconds = self.comparison(case, items, setting.name)
        if case.event is None:
            for row in rows:
                if row["id"] not in self.regions:
                    _forget_frames(row)
        return {
            "rows": rows,
            "seconds": [
                {
                    "setting": setting.name,
                    "method": name,
                    "seconds": spent,
                    "clips": len(ids),
                }
                for name, spent in seconds.items()
            ],
        }

    def _frames(self, ids, magnitude):
        """Active frames [batch, time], none where they are not known."""
        if not any(clip in self.regions for clip in ids):
            return None
        features = self.explainer.features
        seconds = torch.arange(magnitude.shape[1]) * features.hop_samples
        seconds = seconds / features.sample_rate
        unknown = torch.inf, -torch.inf
        active = [
            (seconds >= onset) & (seconds <= offset)
            for onset, offset in (self.regions.get(x, unknown) for x in ids)
        ]
        return torch.stack(active).to(magnitude.device)


def _read(path):
    """Finished rows; None if there are none, or others than were written."""
    if not path.is_file():
        return None
    try:
        done = read_json(path)
    except (LMACError, OSError) as error:
        problem = first_line(error).removeprefix(f"{path}: ")
    else:
        if is_sealed(done, path.name):
            return done
        problem = "was changed, or is of an older release"
    logger.warning("%s: %s; computed again", path, problem)
    return None


def _forget_frames(row):
    """Drop columns that mean nothing for a clip without known frames."""
    for name, metric in METRICS.items():
        if metric.needs == "frames":
            row.pop(name, None)


def _mean_seconds(spent):
    """Mean seconds for a clip by setting and method, in their order."""
    sums = {}
    for entry in spent:
        total = sums.setdefault((entry["setting"], entry["method"]), [0, 0])
        total[0] += entry["seconds"]
        total[1] += entry["clips"]
    return [
        {"setting": setting, "method": method, "seconds": total / n}
        for (setting, method), (total, n) in sums.items()
    ]
