"""Old name of ``keep-data preview``, kept for one release."""

import sys

from keep.data.tools.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.preview_data is now keep-data preview", file=sys.stderr)
    sys.exit(main(["preview", *sys.argv[1:]]))
