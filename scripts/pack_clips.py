"""Old name of ``keep-data pack``, kept for one release."""

import sys

from keep.data.tools.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.pack_clips is now keep-data pack", file=sys.stderr)
    sys.exit(main(["pack", *sys.argv[1:]]))
