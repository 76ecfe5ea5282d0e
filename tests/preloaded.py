"""What the processes of `copies` have imported when they start."""

# ruff: noqa: F401

import matplotlib.backends.backend_agg
import matplotlib.pyplot
import torch
import torch.distributed.launcher.api

import eval  # the recipe's
import lmac_sb.cli.main
import lmac_sb.inference.in_rows
import lmac_sb.inference.load
import lmac_sb.pages.report
import sanity
import train_classifier
import train_l2i
import train_lmac
import train_multilabel

torch.set_num_threads(1)
