"""The evaluation: every clip, in every setting, by every method.

Each batch of clips in a setting is one file of rows, so that a run that was
broken off goes on where it stopped.
"""

import hashlib
import re
import time
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from lmac_sb.data.dataset import EqualLengthBatches
from lmac_sb.evaluation.judge import Judge
from lmac_sb.explain.masking import cut_ranks, ranks
from lmac_sb.methods.registry import Case, make_case, min_max
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.shape import mask_area
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import read_json, write_json

__all__ = ["Grid", "OWN"]

OWN = "own"  # the mask as the method gives it


class Grid:
    """All rows of an evaluation.

    Arguments
    ---------
    explainer : lmac_sb.explain.explainer.Explainer
        Of the explained classifier.
    methods : dict
        From `make_methods`; the first one's area is the one at which all are
        compared.
    settings : list
        From `lmac_sb.evaluation.contamination.make_settings`.
    shares : list of float
        Further areas, in (0, 1].
    classes : list of str
        Names of the classes.
    other : callable
        See `Judge`.
    regions : dict
        Clip to (onset, offset) in seconds where that is known.
    rows_folder : str or Path
        Where finished rows are kept.
    device : str or torch.device
        Where the models are.

    Raises
    ------
    LMACError
        If a share is out of range, or the first method has no area.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> from lmac_sb.evaluation.contamination import make_settings
    >>> from lmac_sb.methods.registry import make_methods
    >>> methods = make_methods(["lmac", "loudest"], {"lmac": explainer})
    >>> clean = make_settings(["clean"], {}, 16000, seed=0)
    >>> folder = getfixture("tmp_path")
    >>> grid = Grid(explainer, methods, clean, [0.1], ["cat", "dog"], folder)
    """

    def __init__(
        self,
        explainer,
        methods,
        settings,
        shares,
        classes,
        rows_folder,
        other=None,
        regions=None,
        device="cpu",
    ):
        for share in shares:
            if not 0 < share <= 1:
                raise LMACError(f"shares: {share} is not in (0, 1]")
        self.reference = next(iter(methods))
        if methods[self.reference].kind == "area":
            raise LMACError(
                f"methods: '{self.reference}' comes first, but has no area of "
                "its own; all are compared at the area of the first"
            )
        self.explainer = explainer
        self.methods = methods
        self.settings = settings
        self.shares = list(shares)
        self.classes = classes
        self.rows_folder = Path(rows_folder)
        self.judge = Judge(explainer, other)
        self.regions = regions or {}
        self.device = device

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
            each setting by each method.

        Returns
        -------
        rows : list of dict
            One a clip, setting, method and keep, in a fixed order.
        seconds : list of dict
            Mean time of each method for a clip, in each setting.
        """
        rows, spent = [], []
        batches = list(EqualLengthBatches(dataset.n_samples, batch_size))
        total = len(dataset.n_samples) * len(self.settings) * len(self.methods)
        bar = tqdm(total=total, unit="clip", disable=quiet)
        for setting in self.settings:
            slug = re.sub(r"[^\w.+-]+", "_", setting.name)
            for batch in batches:
                ids = [dataset.data_ids[i] for i in batch]
                key = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
                path = self.rows_folder / f"{slug}-{key}.json"
                if path.is_file():
                    done = read_json(path)
                    bar.update(len(ids) * len(self.methods))
                else:
                    done = self._batch(
                        [dataset[i] for i in batch], setting, bar
                    )
                    self.rows_folder.mkdir(parents=True, exist_ok=True)
                    write_json(path, done)
                rows += done["rows"]
                spent += done["seconds"]
        bar.close()
        return self._sorted(rows), _mean_seconds(spent)

    def _sorted(self, rows):
        """Rows by setting, method, keep and clip."""
        places = [
            {name: i for i, name in enumerate(names)}
            for names in ([s.name for s in self.settings], self.methods)
        ]
        keeps = {keep: i for i, keep in enumerate(self._keeps())}
        return sorted(
            rows,
            key=lambda row: (
                places[0][row["setting"]],
                places[1][row["method"]],
                keeps[row["keep"]],
                row["id"],
            ),
        )

    def _keeps(self):
        """Names of the ways in which a mask is made."""
        return [OWN, f"area of {self.reference}", *map(str, self.shares)]

    def _batch(self, items, setting, bar):
        """Rows of some clips of one length in one setting, and the times."""
        ids = [item["id"] for item in items]
        mixed = [setting(item["sig"], item["id"]) for item in items]
        *sounds, gains = zip(*mixed)
        wavs, clean = (torch.stack(x).to(self.device) for x in sounds)
        case = make_case(self.explainer, wavs, gains, items)
        frames = self._frames(ids, case.analysis.magnitude.shape[1])
        texts = self._texts(items, setting, case)
        more = {
            "clean": None if setting.name == "clean" else clean,
            "frames": frames,
        }
        rows, seconds, area = [], [], None
        for name, method in self.methods.items():
            begin = time.perf_counter()
            made = self._make(method, case, area)
            spent = time.perf_counter() - begin
            if area is None:
                if not torch.is_tensor(made):
                    raise LMACError(f"{self.reference}: {made[0]}")
                area = mask_area(made)
            part = self._rows(name, method, made, area, case, ids, more)
            rows += [{**texts[row["id"]], **row} for row in part]
            seconds.append(
                {
                    "setting": setting.name,
                    "method": name,
                    "seconds": spent,
                    "clips": len(ids),
                }
            )
            bar.update(len(ids))
        return {"rows": rows, "seconds": seconds}

    def _texts(self, items, setting, case):
        """What all rows of a clip have in common."""
        silence = self.judge.silence(case).tolist()
        texts = {}
        for item, c, p in zip(items, case.target.tolist(), silence):
            decision = self.classes[c]
            texts[item["id"]] = {
                "id": item["id"],
                "setting": setting.name,
                "method": None,
                "keep": None,
                "label": item["class_string"],
                "decision": decision,
                "right": int(decision == item["class_string"]),
                "p_silence": p,
            }
        return texts

    def _frames(self, ids, n_frames):
        """Active frames [batch, time], none where they are not known."""
        if not any(clip in self.regions for clip in ids):
            return None
        features = self.explainer.features
        seconds = torch.arange(n_frames) * features.hop_samples
        seconds = seconds / features.sample_rate
        unknown = torch.inf, -torch.inf
        active = [
            (seconds >= onset) & (seconds <= offset)
            for onset, offset in (self.regions.get(x, unknown) for x in ids)
        ]
        return torch.stack(active).to(self.device)

    def _make(self, method, case, area):
        """A method's mask or scores; error texts, one a clip, if it fails."""
        try:
            made = self._call(method, case, area)
            if made.isfinite().all():
                return made
        except (LMACError, RuntimeError, ValueError, TypeError) as error:
            if len(case.wavs) == 1:
                return [" ".join(str(error).split()) or type(error).__name__]
        if len(case.wavs) == 1:
            return ["NaN in the mask"]
        # Clip by clip, so that one does not cost the others their rows.
        parts = [
            self._make(
                method,
                _pick(case, i),
                None if area is None else area[i : i + 1],
            )
            for i in range(len(case.wavs))
        ]
        if all(torch.is_tensor(part) for part in parts):
            return torch.cat(parts)
        return [part if torch.is_tensor(part) else part[0] for part in parts]

    def _call(self, method, case, area):
        """A method's mask or scores, as a tensor of the right shape."""
        if method.kind == "area":
            made = method.function(case, area)
        else:
            made = method.function(case)
        shape = case.analysis.magnitude.shape
        if made.shape != shape:
            raise LMACError(
                f"mask of shape {tuple(made.shape)}, needed {tuple(shape)}"
            )
        return made.detach().float()

    def _rows(self, name, method, made, area, case, ids, more):
        """Rows of one method: in each of its keeps, one a clip."""
        if torch.is_tensor(made):
            return self._judged(name, method, made, area, case, ids, more)
        rows = []
        for i, part in enumerate(made):
            if torch.is_tensor(part):
                one = {
                    key: None if x is None else x[i : i + 1]
                    for key, x in more.items()
                }
                rows += self._judged(
                    name,
                    method,
                    part,
                    area[i : i + 1],
                    _pick(case, i),
                    ids[i : i + 1],
                    one,
                )
            else:
                head = {"id": ids[i], "method": name, "keep": OWN}
                rows.append({**head, "error": part})
        return rows

    def _judged(self, name, method, made, area, case, ids, more):
        """Rows of masks that could be made."""
        flat = (made.amax((1, 2)) == made.amin((1, 2))).tolist()
        rows = []
        for keeps, mask, full in self._masks(method, made, area, case):
            columns = self.judge(case, mask, ids, full=full, **more)
            columns = {key: x.tolist() for key, x in columns.items()}
            for keep, (i, clip) in product(keeps, enumerate(ids)):
                row = {"id": clip, "method": name, "keep": keep}
                row.update((key, x[i]) for key, x in columns.items())
                if case.event is None and clip not in self.regions:
                    for key in _of_frames(row):
                        del row[key]
                if flat[i] and method.kind != "fixed":
                    row["warning"] = "constant mask"
                rows.append(row)
        return rows

    def _masks(self, method, made, area, case):
        """Names of keeps, their mask, and whether to judge it in full."""
        own, at_area, *names = self._keeps()
        shares = list(zip(names, self.shares))
        if method.kind == "fixed":
            yield [own], made, True
        elif method.kind == "area":
            yield [own, at_area], made, True
            for name, share in shares:
                at_share = method.function(case, torch.full_like(area, share))
                yield [name], at_share, False
        else:
            scaled = method.kind == "scores"
            yield [own], min_max(made) if scaled else made, True
            places = ranks(made)
            yield [at_area], cut_ranks(places, area), True
            for name, share in shares:
                yield [name], cut_ranks(places, share), False


def _pick(case, i):
    """One clip of a case."""
    row = slice(i, i + 1)
    event = None if case.event is None else case.event[row]
    return Case(
        case.explainer,
        case.wavs[row],
        case.analysis[row],
        case.target[row],
        event,
    )


def _of_frames(row):
    """Columns that mean nothing for a clip without known frames."""
    return [k for k in row if k in METRICS and METRICS[k].needs == "frames"]


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
