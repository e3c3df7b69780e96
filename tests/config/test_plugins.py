"""A user's own file under ``plugins``: what is wrong in it is named with its line."""

import contextlib
from pathlib import Path

import pytest

from keep.config.reading import load
from keep.config.registry import LOSSES
from keep.config.schema import TrainConfig
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "x.yml").write_text(f"_base_: {ROOT / 'options/tiny/stage1.yml'}\nseed: 1\nplugins:\n- mine.py\n")
    with pytest.raises(UserError) as refused:
        load(tmp_path / "x.yml", [], TrainConfig)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path}/x.yml:4  plugins: {tmp_path}/mine.py:")
    return message.removeprefix(f"{tmp_path}/x.yml:4  plugins: {tmp_path}/")


@pytest.mark.parametrize("registry", ["LOSSES", "ARCHS", "DATASETS", "METRICS", "OPTIMIZERS"])
def test_a_decorator_without_parentheses_is_named_with_its_line(tmp_path: Path, registry: str) -> None:
    text = f"from keep.config.registry import {registry}\n\n\n@{registry}.register\nclass Mine:\n    pass\n"
    message = refusal(tmp_path, text)
    assert message.startswith("mine.py:4 fails on import: the ")
    assert message.endswith(" Mine: write the decorator with parentheses: .register()")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x / 0\n", "mine.py:2 fails on import: ZeroDivisionError: division by zero"),
        (
            "\n\nimport no_such_module\n",
            "mine.py:3 fails on import: ModuleNotFoundError: No module",
        ),
        ("def f(:\n", "mine.py:1 fails on import: SyntaxError: "),
        ("x = 1\n  y = 2\n", "mine.py:2 fails on import: IndentationError: "),
        ("\nimport sys\nsys.exit('a reason')\n", "mine.py:3 fails on import: SystemExit: a reason"),
        (
            "def f():\n    raise ValueError('two\\nlines')\n\n\nf()\n",
            "mine.py:2 fails on import: ValueError: two li",
        ),
        ("import json\njson.loads('{')\n", "mine.py:2 fails on import: JSONDecodeError: "),  # raised in a library
        ("assert False\n", "mine.py:1 fails on import: AssertionError: "),
        ("x = '\\ud800'.encode()\n", "mine.py:1 fails on import: UnicodeEncodeError: "),
        ("def f():\n    f()\n\n\nf()\n", "mine.py:2 fails on import: RecursionError: "),
    ],
)
def test_an_exception_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message.rstrip())


def test_so_are_a_taken_name_and_a_parameter_without_a_type(tmp_path: Path) -> None:
    taken = "from keep.config.registry import LOSSES\n\n\n@LOSSES.register()\nclass L1:\n    pass\n"
    assert refusal(tmp_path, taken).startswith("mine.py:4 fails on import: the loss 'L1' exists twice, in keep.losses")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def __init__(self, x): pass", "Mine.__init__: parameter 'x' needs a type"),
        ("def __init__(self, *x: int): pass", "Mine.__init__: parameter 'x' needs a type"),
        ("def __init__(self, x: 'Nothing' = 1): pass", "Mine.__init__: the type of a parameter: name 'Nothing' is not"),
        ("def __init__(self, x: object() = 1): pass", "Mine.__init__: "),
        ("def __init__(self, x: torch.Tensor): pass", "Mine.__init__: its parameters cannot be options of a YAML file"),
        ("def __init__(self, x: int = 'many'): pass", "model.pixel.x: Input should be a valid integer"),
        ("def __init__(self, x: int): pass", "model.pixel.x: this option is required"),
        ("x: int = 3", None),
    ],
)
def test_a_signature_that_is_no_list_of_options_is_named(tmp_path: Path, body: str, message: str | None) -> None:
    name = f"Mine{abs(hash(body))}"
    text = "import torch\n\nfrom keep.config.registry import LOSSES\n\n\n@LOSSES.register()\n"
    (tmp_path / "mine.py").write_text(f"{text}class {name}:\n    {body}\n")
    (tmp_path / "x.yml").write_text(f"_base_: {ROOT / 'options/tiny/stage1.yml'}\nplugins: [mine.py]\n")
    try:
        with pytest.raises(UserError) if message else contextlib.nullcontext() as refused:
            load(tmp_path / "x.yml", [f"model.pixel={{type: {name}}}"], TrainConfig)
    finally:
        LOSSES._classes.pop(name, None)  # other tests list every class
    if message:
        assert refused is not None
        assert message.replace("Mine", name) in str(refused.value)
        assert str(refused.value).count("\n") <= 1


def test_a_function_is_no_class(tmp_path: Path) -> None:
    text = "from keep.config.registry import LOSSES\n\n\n@LOSSES.register()\ndef mine(): pass\n"
    assert "is no class: only a class can be registered as loss" in refusal(tmp_path, text)


def test_a_file_can_be_mended_and_loaded_again(tmp_path: Path) -> None:
    refusal(tmp_path, "1 / 0\n")
    (tmp_path / "mine.py").write_text(
        "from keep.config.registry import LOSSES\n\n\n@LOSSES.register()\nclass MendedLoss:\n    pass\n"
    )
    config = load(tmp_path / "x.yml", ["model.pixel=MendedLoss"], TrainConfig)
    assert config.model.options["pixel"].type == "MendedLoss"
