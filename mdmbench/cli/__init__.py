"""The command line. Each command imports what it needs, so that help answers at once."""

from mdmbench.cli import measuring, reading, tools
from mdmbench.cli.guard import app

__all__ = ["app", "measuring", "reading", "tools"]
