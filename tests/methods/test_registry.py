import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar, Literal

import pytest

from tapetum.methods import registry
from tapetum.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class OutsideConfig:
    """A method from outside."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    kind: Literal["outside"] = "outside"
    """The method."""


class Outside(Method):
    Config = OutsideConfig


class NoConfig(Method):
    pass


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize("kind", registry.METHODS)
def test_built_in_methods_answer_to_their_kind(kind):
    assert registry.method_class(kind).Config.kind == kind


def test_registered_method_is_found_and_may_be_registered_again():
    assert registry.register(Outside) is Outside
    registry.register(Outside)
    assert registry.method_class("outside") is Outside
    assert "outside" in registry.method_kinds()


def test_unknown_kind_lists_the_known_ones_and_the_option():
    with pytest.raises(
        ValueError, match=r"did you mean 'paws'\? Known methods are .*paws, .*supervised, .*; .* --plugin MODULE"
    ):
        registry.method_class("pawz")


def test_kinds_cannot_be_taken_twice():
    registry.register(Outside)
    other = type("Other", (Method,), {"Config": OutsideConfig})
    with pytest.raises(ValueError, match=r"the kind 'outside' of .*Other is taken by .*Outside"):
        registry.register(other)
    config = dataclass(frozen=True, kw_only=True)(type("C", (), {"kind": "paws", "__annotations__": {"kind": str}}))
    with pytest.raises(ValueError, match=r"is taken by tapetum\.methods\.paws:PAWS"):
        registry.register(type("Other", (Method,), {"Config": config}))


@pytest.mark.parametrize("wrong", [int, NoConfig, "tapetum.methods.paws:PAWS"])
def test_only_methods_with_a_config_can_be_registered(wrong):
    with pytest.raises(ValueError, match=r"is no method|has no usable Config"):
        registry.register(wrong)


def test_entry_points_are_loaded_when_named(monkeypatch):
    points = [
        EntryPoint("outside", f"{__name__}:Outside", registry.ENTRY_POINT_GROUP),
        EntryPoint("absent", "no_such_module_at_all:Method", registry.ENTRY_POINT_GROUP),
        EntryPoint("paws", "no_such_module_at_all:Method", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(EntryPoint, "load", lambda self: Outside if self.name == "outside" else 1 / 0)
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    assert registry.method_kinds() == tuple(sorted(["absent", "outside", *registry.METHODS]))
    assert registry.method_class("outside") is Outside
    assert registry.method_class("paws").__name__ == "PAWS"


def test_plugins_are_imported_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "a_plugin_of_the_tests.py").write_text(
        "from tapetum.methods.registry import register\n"
        "from tapetum.methods.supervised import Supervised, SupervisedConfig\n"
        "from dataclasses import dataclass\nfrom typing import Literal\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Config(SupervisedConfig):\n"
        "    kind: Literal['from_plugin'] = 'from_plugin'\n"
        "@register\nclass FromPlugin(Supervised):\n    Config = Config\n"
    )
    monkeypatch.chdir(tmp_path)
    registry.load_plugins(["a_plugin_of_the_tests"])
    assert registry.method_class("from_plugin").__name__ == "FromPlugin"


def test_missing_plugin_is_a_users_error_and_a_broken_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "a_broken_plugin.py").write_text("import no_such_module_at_all\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="the plugin 'no_such_plugin' cannot be found"):
        registry.load_plugins(["no_such_plugin"])
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        registry.load_plugins(["a_broken_plugin"])
