"""Keeps user names, passwords and tokens of addresses out of what is stored, printed or logged."""

import re

USER = re.compile(r"(?<=://)[^\s/?#]*@")
SECRET = re.compile(
    r"([?&;](?:user|password|passwd|pwd|token|access_token|auth_token|api_?key|secret)=)[^\s&;#'\"]+", re.IGNORECASE
)


def without_credentials(text: str) -> str:
    """``text`` with its addresses reduced to what anybody may read.

    ``https://me:word@host/a?token=x`` becomes ``https://host/a?token=…``; text without such parts stays as it is.
    """
    return SECRET.sub(r"\1…", USER.sub("", text))
