"""The command line. Each command imports what it needs, so that help answers at once."""

from mdmbench.cli import benching, measuring, reading, tools
from mdmbench.cli.guard import app

__all__ = ["app", "benching", "measuring", "reading", "tools"]
