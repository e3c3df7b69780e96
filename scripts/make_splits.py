"""Old name of ``keep-data splits``, kept for one release."""

import sys

from keep.data.tools.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.make_splits is now keep-data splits", file=sys.stderr)
    sys.exit(main(["splits", *sys.argv[1:]]))
