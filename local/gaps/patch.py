"""The one way a gap-fill enters moto, which has no plugin interface: a method is added to, or laid around, its own."""

import functools
from collections.abc import Callable
from typing import Any


def adds(owner: type) -> Callable[[Callable], Callable]:
    """Add the decorated function to `owner` as the method of the same name, in place of any that is there."""

    def install(function: Callable) -> Callable:
        setattr(owner, function.__name__, function)
        return function

    return install


def around(owner: type) -> Callable[[Callable], Callable]:
    """Lay the decorated function around `owner`'s method of the same name; its first argument is the original."""

    def install(function: Callable) -> Callable:
        original = getattr(owner, function.__name__)

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        setattr(owner, function.__name__, method)
        return function

    return install
