"""Small networks that the bench trains itself, kept beside their clips."""

import shutil
from pathlib import Path

from lmac_sb.bench.trained import check_unseen
from lmac_sb.models.weights import load_strict, write_weights
from lmac_sb.utils.console import say
from lmac_sb.utils.io import folder_in_one_step, restore_folder

__all__ = ["kept"]

WEIGHTS = "weights.safetensors"


def kept(setup, name, empty, make):
    """A network that was trained before, or is trained now.

    Arguments
    ---------
    setup : lmac_sb.bench.classifiers.Setup
        Its folder, data and seeds.
    name : str
        What it is called there.
    empty : callable
        Gives the network with any weights.
    make : callable
        Gives a trained one.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    LMACError
        If the file is damaged, or the network has heard a clip of the test.
    """
    folder = Path(setup.folder) / f"{name}-{setup.seeds[0]}"
    restore_folder(folder)
    if not folder.is_dir():
        say(f"training: {folder}")
        net = make()
        with folder_in_one_step(folder) as part:
            write_weights(part / WEIGHTS, net)
            (part / "manifests").mkdir()
            for split in ("train", "valid"):
                path = setup.prepared.manifests / f"{split}.jsonl"
                shutil.copyfile(path, part / "manifests" / path.name)
        return net
    check_unseen(folder, setup.prepared)
    net = empty()
    load_strict(net, folder / WEIGHTS)
    return net.requires_grad_(False)
