"""The schema of a class: its parameters, those of its base, and the fields of dataclasses."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from keep.config.registry import Registry, argument_docs, dump, schema

PARTS = Registry("part")


@dataclass(frozen=True)
class Shape:
    """The shape of a part.

    Args:
        width: in metres.
        heights: of its floors.
    """

    width: Annotated[float, Field(gt=0)] = 2.0
    heights: tuple[int, ...] = (3, 4)


@PARTS.register()
class House:
    """A house.

    Args:
        shape: its shape.
        doors: their number.
    """

    def __init__(self, shape: Shape, doors: int = 1) -> None:
        self.shape, self.doors = shape, doors


@PARTS.register()
class Castle(House):
    """A house with towers.

    Args:
        towers: their number.
    """

    def __init__(self, towers: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.towers = towers


def test_the_fields_of_a_dataclass_are_options_of_the_class() -> None:
    options = schema(House).model_fields
    assert list(options) == ["width", "heights", "doors"]
    assert [f.description for f in options.values()] == ["in metres.", "of its floors.", "their number."]
    spec = PARTS.spec({"type": "House", "width": 5, "heights": [2], "doors": 3})
    assert dump(spec) == {"type": "House", "width": 5, "heights": [2], "doors": 3}
    house = spec.build()
    assert (house.shape, house.doors) == (Shape(5, (2,)), 3)
    assert PARTS.spec("House").build().shape == Shape()


def test_they_are_inherited_with_the_other_options() -> None:
    assert list(schema(Castle).model_fields) == ["towers", "width", "heights", "doors"]
    castle = PARTS.spec({"type": "Castle", "width": 9}).build()
    assert (castle.shape, castle.doors, castle.towers) == (Shape(9), 1, 4)


def test_they_are_checked_as_other_options() -> None:
    with pytest.raises(ValidationError, match="greater than 0") as error:
        PARTS.spec({"type": "House", "width": 0, "widht": 1})
    assert "did you mean 'width'" in str(error.value)


def test_an_inherited_init_has_the_meanings_of_its_class() -> None:
    class Base:
        """A base.

        Args:
            size: how large.
            kind: of what.
        """

        def __init__(self, size: int, kind: str = "") -> None: ...

    class Derived(Base):
        """A name for it.

        Args:
            kind: of this.
        """

    assert argument_docs(Derived) == {"size": "how large.", "kind": "of this."}
