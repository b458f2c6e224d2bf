"""Discovery of registered names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lightning_gen.errors import UserError
from lightning_gen.registry import Registry

HALF = """
import sys
sys.modules["tests.test_registry"].REGISTRY.register("{name}")(object())
{then}
"""

REGISTRY: Registry[object] = Registry("part", "parts_of_a_test")


def test_a_module_that_cannot_be_imported_is_reported_at_each_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "parts_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text(HALF.format(name="first", then=""))
    (package / "second.py").write_text(HALF.format(name="second", then="import no_such_package"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):  # a second look-up does not settle for the half that was registered
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            REGISTRY["first"]
        sys.modules.pop("parts_of_a_test.second", None)
        REGISTRY._entries.pop("second", None)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    registry: Registry[object] = Registry("loss", "lightning_gen.losses")
    registry.register("hinge")(object())
    with pytest.raises(UserError, match=r"Unknown loss 'hing'.*hinge"):
        registry["hing"]
