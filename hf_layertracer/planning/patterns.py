"""Regular expressions on parameter names. Whatever is written in one, it comes to an end."""

from __future__ import annotations

import regex

from ..errors import LayerTracerError


# Names are short: a pattern that takes a second for one goes back and forth without end.
_SECONDS = 1.0


def matches_patterns(name: str, patterns: list[str]) -> bool:
    """Whether a parameter of what a plan trains does train: always, or where its name matches one of the patterns."""
    return not patterns or any(matches(pattern, name) for pattern in patterns)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches somewhere in a name.

    Args:
        pattern (`str`): The regular expression.
        name (`str`): The parameter's name.

    Returns:
        `bool`: Whether it does.

    Raises:
        LayerTracerError: It is no regular expression, or tries so many ways that it would not end.
    """
    try:
        return regex.search(pattern, name, timeout=_SECONDS) is not None
    except regex.error as error:
        raise LayerTracerError(f"{pattern!r:.80} is not a regular expression: {error}.") from error
    except TimeoutError as error:
        raise LayerTracerError(
            f"The regular expression {pattern!r:.80} takes too long: it repeats what already repeats. Write it simpler."
        ) from error
