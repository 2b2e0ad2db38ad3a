"""The program of the flex template for adalabel extract."""  # noqa: INP001 - a program, copied into an image

import sys

from launch.template import main

if __name__ == "__main__":
    sys.exit(main("extract", sys.argv[1:]))
