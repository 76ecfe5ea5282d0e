#!/usr/bin/env python3
"""Find what a classifier listens to, over a whole corpus.

On the embedded scenes, and on any corpus, by several processes:

    python audit.py hparams/audit.yaml --model results/lmac/1234
    torchrun --nproc_per_node 4 audit.py hparams/audit.yaml \
        --model results/lmac/1234 --data_folder /path/to/recordings
"""

import speechbrain as sb

from lmac_sb.audit.labels import read_classes_map
from lmac_sb.audit.run import Options, run_audit
from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.scenes import make_scenes
from lmac_sb.inference.load import load_interpreter
from lmac_sb.jobs.processes import is_first
from lmac_sb.pages.audit import write_audit_page
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.console import Loudness, progress, say
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.io import check_readable


def open_data(hparams):
    """The corpus; without a data_folder, scenes are made."""
    where = hparams["data_folder"]
    if where is not None:
        check_readable(where, "data_folder")
    else:
        where = hparams["scenes_folder"]
        check_readable(where, "scenes_folder")
        make_scenes(where)
    return open_corpus(
        where,
        table=hparams["labels"],
        label_column=hparams["label_column"],
        file_column=hparams["file_column"],
    )


@exit_on_user_error
def main(argv=None):
    """Explain the clips, and write tables, plots and the page."""
    hparams = load_hparams(argv, __file__)
    corpus = open_data(hparams)
    classes_map = hparams["classes_map"]
    options = Options(
        limit=hparams["limit"],
        seed=hparams["seed"],
        refine_steps=hparams["steps"],
        interventions=hparams["interventions"],
        examples=hparams["examples"],
        classes_map=classes_map and read_classes_map(classes_map),
    )
    interpreter = load_interpreter(hparams["model"], hparams["trusted"])
    out = hparams["output_folder"]
    quiet = hparams.run_opts["noprogressbar"] or not is_first()
    n_clips = min(len(corpus), options.limit or len(corpus))
    with progress(total=n_clips, unit="clip", disable=quiet) as bar:
        found = run_audit(corpus, interpreter, out, options, bar.update)
    # Only now: the folder of another audit has been refused.
    sb.create_experiment_directory(**hparams.directory)
    if is_first():
        n_failed = found["corpus"]["n_failed"]
        if n_failed:
            say(f"failed clips: {n_failed}", Loudness.QUIET)
        say(f"alarms: {len(found['alarms'])}", Loudness.QUIET)
        say(f"page: {write_audit_page(out)}", Loudness.QUIET)


if __name__ == "__main__":
    main()
