"""Old name of ``keep-data prepare``, kept for one release."""

import sys

from keep.data.tools.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.prepare_vfhq is now keep-data prepare", file=sys.stderr)
    sys.exit(main(["prepare", *sys.argv[1:]]))
