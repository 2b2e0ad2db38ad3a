"""A virtual environment with timm and Ray over the project's own packages: python -m … FOLDER."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def main() -> None:
    """Make it; the project's environment stays as it is."""
    folder = Path(sys.argv[1])
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    ours = sysconfig.get_path("purelib")
    theirs = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (theirs / "project.pth").write_text(f"{ours}\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
    subprocess.run(command, check=True)  # noqa: S603 - our own requirements
    print(python)


if __name__ == "__main__":
    main()
