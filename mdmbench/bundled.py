"""Where tasks, configs and models that ship with the package lie."""

from pathlib import Path

from mdmbench.errors import unknown

_PACKAGE = Path(__file__).parent
# In a wheel the two folders are inside the package; in a checkout they are beside it.
ROOT = _PACKAGE / "_bundled" if (_PACKAGE / "_bundled").is_dir() else _PACKAGE.parent
TASKS, CONFIGS = ROOT / "tasks", ROOT / "configs"


def tasks() -> dict[str, Path]:
    """The files of the tasks that ship with the package, by the folder; one may hold variants."""
    return {path.parent.name: path for path in sorted(TASKS.glob("*/task.py"))}


def models() -> dict[str, Path]:
    """The folder of each model that ships with the package: one a task, by the task's name."""
    return {p.parent.parent.name: p.parent for p in sorted(TASKS.glob("*/model/config.json"))}


def config(name: str) -> Path:
    """A recipe by path, or by the name of one that ships with the package."""
    if Path(name).is_file():
        return Path(name)
    known = {path.stem: path for path in sorted(CONFIGS.rglob("*.yaml"))}
    if name not in known:
        raise unknown("recipe", name, known)
    return known[name]
