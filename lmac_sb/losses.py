"""The losses of `lmac_sb.lmac.losses`, under the name that users import."""

from lmac_sb.lmac.losses import *  # noqa: F403
