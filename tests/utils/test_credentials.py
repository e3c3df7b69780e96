"""User names, passwords and tokens of addresses are neither stored nor shown, and still used."""

import sys
from types import SimpleNamespace

import pytest

from keep.config.explain import explain
from keep.config.reading import load, to_yaml
from keep.config.registry import dump
from keep.config.schema import TrainConfig
from keep.training.checkpoint import differences
from keep.utils.credentials import without_credentials
from keep.utils.errors import UserError, first_line, plain, shortened

ADDRESS = "https://someone:pass%40@word@server:5000/path"
TRACKER = f"log.trackers=[{{type: MLflow, uri: '{ADDRESS}'}}]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ADDRESS, "https://server:5000/path"),
        ("postgresql+psycopg2://u:p@db/runs", "postgresql+psycopg2://db/runs"),
        ("https://token@server", "https://server"),
        ("to http://a:b@c/ and ftp://d:e@f: failed", "to http://c/ and ftp://f: failed"),
        ("https://server/a?user=me&token=abc&x=1#part", "https://server/a?user=…&token=…&x=1#part"),
        ("hf://org/name@v2", "hf://org/name@v2"),
        ("sqlite:///folder/a@b.db", "sqlite:///folder/a@b.db"),
        ("https://server/a@b?mail=a@b", "https://server/a@b?mail=a@b"),
        ("someone@server", "someone@server"),
    ],
)
def test_what_is_removed(text, shown):
    assert without_credentials(text) == shown


def test_options_are_stored_and_explained_without_them(monkeypatch):
    config = load("options/tiny/stage1.yml", [TRACKER], TrainConfig)
    for text in (to_yaml(config), str(dump(config))):
        assert "server:5000" in text
        assert "word@" not in text
    assert "word@" not in explain(TrainConfig, config)
    library = SimpleNamespace(entities=None)
    monkeypatch.setitem(sys.modules, "mlflow", library)
    monkeypatch.setitem(sys.modules, "mlflow.entities", library)
    assert config.log.trackers[0].build()._uri == ADDRESS, "the run itself uses them"


def test_messages_are_without_them():
    error = ConnectionError(f"API request to {ADDRESS} failed\nlong story")
    assert first_line(error) == "API request to https://server:5000/path failed"
    texts = [plain([ADDRESS]), shortened(ADDRESS, 12), shortened([ADDRESS]), *differences({"a": ADDRESS}, {"a": 1})]
    assert not any("someone" in text for text in texts)
    with pytest.raises(UserError, match="seed") as caught:
        load("options/tiny/stage1.yml", [f"seed={ADDRESS}"], TrainConfig)
    assert "word@" not in str(caught.value)
