"""The one exception that a user can cause."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend: what is wrong, with the value, and the way out.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message, self.hint = message, hint

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        """It crosses from the workers that score answers."""
        return UserError, (self.message, self.hint)


def reason(error: BaseException) -> str:
    """An exception of somebody else's code in one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that is not among `known`; the nearest name is proposed."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {name!r}", f"{guess}known: {', '.join(names) or 'none'}")
