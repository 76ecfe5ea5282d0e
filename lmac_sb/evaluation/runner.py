"""The evaluation: every clip, in every setting, by every method.

The clips in the settings are items of a job: any number of processes share
them, and a run that was broken off goes on where it stopped.
"""

import hashlib
from pathlib import Path

import torch

from lmac_sb.evaluation.rows import StoredRows, in_order, of_one_length
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import is_first
from lmac_sb.methods.registry import make_case
from lmac_sb.metrics.registry import METRICS
from lmac_sb.utils.console import progress
from lmac_sb.utils.io import read_json, write_json

__all__ = ["Grid"]


class Grid:
    """All rows of an evaluation.

    Arguments
    ---------
    comparison : lmac_sb.evaluation.comparison.Comparison
        The methods, and how they are judged.
    settings : list
        From `lmac_sb.evaluation.contamination.make_settings`.
    folder : str or Path
        Where finished rows are kept.
    regions : dict
        Clip to a list of (onset, offset) in seconds where that is known.
    about : dict
        What else makes other rows, for the identity of the job.

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

    def __init__(self, comparison, settings, folder, regions=None, about=None):
        self.comparison = comparison
        self.explainer = comparison.judge.explainer
        self.settings = settings
        self.folder = Path(folder)
        self.regions = regions or {}
        self.about = about or {}

    def run(self, dataset, batch_size, quiet=True):
        """Evaluate all clips of a data set.

        Arguments
        ---------
        dataset : speechbrain.dataio.dataset.DynamicItemDataset
            From `lmac_sb.data.dataset.make_dataset`, without noise.
        batch_size : int
            Clips at once; a folder that has rows keeps what it began with.
        quiet : bool
            Whether to leave out the progress bar, which counts each clip in
            each setting.

        Returns
        -------
        rows : lmac_sb.evaluation.rows.StoredRows
            One a clip, setting, method and keep, in a fixed order.
        seconds : list of dict
            Mean time of each method for a clip, in each setting.

        Raises
        ------
        LMACError
            If the folder has rows of other clips, settings or methods.
        """
        clips = in_order(dataset.n_samples)
        ids = "\n".join(dataset.data_ids[i] for i in clips)
        settings = [setting.name for setting in self.settings]
        methods, keeps = list(self.comparison.methods), self.comparison.keeps()
        identity = {
            "clips": hashlib.sha256(ids.encode()).hexdigest(),
            "settings": settings,
            "methods": methods,
            "keeps": keeps,
            **self.about,
        }
        n_items = len(clips) * len(settings)
        job = Job(self.folder, n_items, identity, chunk=batch_size)

        def work(items):
            """Rows of the clips in the settings with these numbers."""
            rows, seconds = [], []
            for setting, places in self._parts(items, clips, dataset):
                done = self._batch([dataset[i] for i in places], setting)
                rows += done["rows"]
                seconds += done["seconds"]
            # Times differ from run to run, and the tables must not.
            write_json(self._times(items), seconds)
            return Chunk(rows)

        bar = progress(
            total=n_items, unit="clip", disable=quiet or not is_first()
        )
        self._times(range(1)).parent.mkdir(parents=True, exist_ok=True)
        job.run(work, lambda index: bar.update(len(job.items(index))))
        bar.close()
        spent = []
        for index in range(job.n_chunks):
            spent += read_json(self._times(job.items(index)))
        rows = StoredRows(job, settings, methods, keeps)
        return rows, _mean_seconds(spent)

    def _parts(self, items, clips, dataset):
        """Settings, and places of clips of one length."""
        parts = {}
        for item in items:
            number, place = divmod(item, len(clips))
            parts.setdefault(number, []).append(clips[place])
        for number, places in parts.items():
            for batch in of_one_length(places, dataset):
                yield self.settings[number], batch

    def _times(self, items):
        """The file with the times that a chunk took."""
        return self.folder / "seconds" / f"from-{items.start:08d}.json"

    def _batch(self, items, setting):
        """Rows of some clips of one length in one setting, and the times."""
        ids = [item["id"] for item in items]
        device = next(self.explainer.features.buffers()).device
        mixed = [setting(item["sig"], item["id"]) for item in items]
        wavs, clean, gains = zip(*mixed)
        wavs, clean = (torch.stack(x).to(device) for x in (wavs, clean))
        case = make_case(self.explainer, wavs, gains, items)
        case.clean = None if setting.name == "clean" else clean
        if case.event is None:
            # A stem tells more of an event than its onset and offset.
            case.frames = self._frames(ids, case.analysis.magnitude)
        rows, seconds = self.comparison(case, items, setting.name)
        if case.frames is not None:
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
        active = torch.zeros(len(ids), len(seconds), dtype=torch.bool)
        for row, clip in zip(active, ids):
            for onset, offset in self.regions.get(clip, ()):
                row |= (seconds >= onset) & (seconds <= offset)
        return active.to(magnitude.device)


def _forget_frames(row):
    """Drop columns that mean nothing for a clip without known frames."""
    for name, metric in METRICS.items():
        if metric.needs in ("frames", "kept frames", "kept known"):
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
