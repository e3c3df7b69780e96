"""Old name of ``keep-weights convert``, kept for one release."""

import sys

from keep.inference.__main__ import main

if __name__ == "__main__":
    print("deprecated: scripts.convert_weights is now keep-weights convert", file=sys.stderr)
    sys.exit(main(["convert", *sys.argv[1:]]))
