"""The losses of `lmac_sb.explain.losses`, under the name that users import."""

from lmac_sb.explain.losses import *  # noqa: F403
