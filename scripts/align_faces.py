"""Old name of ``keep-data align``, kept for one release."""

import sys

from keep.data.tools.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.align_faces is now keep-data align", file=sys.stderr)
    sys.exit(main(["align", *sys.argv[1:]]))
