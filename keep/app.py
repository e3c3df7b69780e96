"""A web page that restores videos: upload, choose options, watch, download.

    python -m keep.app                              # then open http://127.0.0.1:7860
    python -m keep.app -w KEEP --device cuda --detector RetinaFace --port 8000

Takes the options of ``keep.restore``. For options that are on the page they set the default; the others apply to all
videos.
"""  # fmt: skip

import sys
from collections.abc import Sequence

from keep.utils.starting import starting

with starting():
    from keep.config import arguments, cli
    from keep.inference import web
    from keep.inference.fast import keep_freed_memory
    from keep.utils.logging import to_console


def parser() -> cli.Parser:
    p = cli.Parser(
        prog="keep-app",
        description="A web page that restores videos.",
        epilog="All options of keep-restore (python -m keep.restore -h) are accepted, except IN, OUT and "
        + ", ".join(f"--{name}" for name in web.NOT_ON_PAGE),
    )
    p.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for all (default 127.0.0.1)")
    p.add_argument("--port", type=arguments.port, default=7860, help="port to serve at (default 7860)")
    p.add_argument("--share", action="store_true", help="create a public link through Gradio's servers")
    return p


def serve(argv: Sequence[str] | None) -> None:
    address, rest = parser().parse_known_args(argv)
    with starting():
        web.import_gradio()
    args = web.parse(rest)
    web.check_address(address.host, address.port)
    to_console()
    keep_freed_memory()
    web.run(args, server_name=address.host, server_port=address.port, share=address.share)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(serve, argv)


if __name__ == "__main__":
    sys.exit(main())
