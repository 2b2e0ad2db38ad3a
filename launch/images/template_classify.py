"""The program of the flex template for adalabel classify."""  # noqa: INP001 - a program, copied into an image

import sys

from launch.template import main

if __name__ == "__main__":
    sys.exit(main("classify", sys.argv[1:]))
