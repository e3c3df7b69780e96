"""The record of ``keep-data quickstart``."""

from pathlib import Path

import pytest

from keep.data.tools.quickstart_clips import stored_record
from keep.utils.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"settings": {}}',
        '{"settings": {}, "videos": []}',
        "[]",
        "{",
        '{"settings": {}, "videos": {}, "detector": 5}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_record_is_reported_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "quickstart.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"holds other files; name a new folder with -o$"):
        stored_record(path)
