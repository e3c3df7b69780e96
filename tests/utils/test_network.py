"""A machine that does not answer is named at once."""

import socket

import pytest

from keep.utils.errors import UserError
from keep.utils.network import check_reachable


def test_an_open_port_is_reachable_and_a_closed_one_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_reachable(f"127.0.0.1:{port}", "the server")
        check_reachable(f"http://127.0.0.1:{port}/path", "the server")
    with pytest.raises(
        UserError, match=rf"^the server cannot be reached at http://127.0.0.1:{port}: Connection refused"
    ):
        check_reachable(f"http://user:secret@127.0.0.1:{port}", "the server")


def test_names_without_a_port_are_left_to_the_library():
    for address in ("local", "auto", "sqlite:///runs.db"):
        check_reachable(address, "the server")
    with pytest.raises(UserError, match=r"^the server: host:many is not an address"):
        check_reachable("host:many", "the server")
