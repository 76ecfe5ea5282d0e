"""Names of what an audit leaves in its folder."""

__all__ = ["AUDIT", "EXAMPLES"]

AUDIT = "audit.json"
EXAMPLES = "examples"  # folder of the clips to hear
