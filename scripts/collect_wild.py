"""Old name of ``keep-data collect``, kept for one release."""

import sys

from keep.data.tools.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.collect_wild is now keep-data collect", file=sys.stderr)
    sys.exit(main(["collect", *sys.argv[1:]]))
