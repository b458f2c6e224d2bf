"""Names that configs may use, mapped to the classes that registered them."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from lightning_gen.errors import UserError

T = TypeVar("T")


def suggestion(name: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` when ``known`` holds a name close to ``name``, else the list of known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(sorted(known))}."


def resolve(target: str, base: type[T]) -> type[T]:
    """The class at ``package.module.Class`` or ``package.module:Class``.

    Raises:
        UserError: there is none, or it is no subclass of ``base``.
    """
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"Cannot find {target!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{target!r} is not a {base.__name__}")
    return found


def construct(spec: Mapping[str, Any], base: type[T], **derived: Any) -> T:
    """The object that a config describes.

    Args:
        spec: ``{"_target_": "package.module.Class", **options}``, plain values.
        base: the class that it must have.
        derived: further arguments; those that the class does not name are left out.

    Raises:
        UserError: no such class, or it does not take the options.
    """
    target = str(spec.get("_target_"))
    found = resolve(target, base)
    accepted = inspect.signature(found).parameters
    options = {key: value for key, value in spec.items() if key != "_target_"}
    try:
        return found(**options, **{key: value for key, value in derived.items() if key in accepted})
    except TypeError as error:
        raise UserError(f"{target}: {error}") from error


class Registry(Generic[T]):
    """Named classes of one package; a new one is a new file there with a decorated class.

    The package's modules are imported at the first look-up, so registering needs no central list.

    Args:
        kind: what the names stand for, for messages (``"feature extractor"``).
        package: dotted name of the package whose modules register themselves.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that makes the decorated object known as ``name``.

        Raises:
            ValueError: ``name`` is taken by another object.
        """

        def add(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The object registered as ``name``.

        Raises:
            UserError: no such name; the message lists or suggests the known ones.
        """
        self._discover()
        if name not in self._entries:
            raise UserError(f"Unknown {self.kind} {name!r}.{suggestion(name, list(self._entries))}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # set first: a module of the package may look a name up while it is imported
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._discovered = False
            raise
