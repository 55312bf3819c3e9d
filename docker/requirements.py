"""Prints the dependencies that a pyproject.toml declares, one a line, for `pip -r`. Usage: requirements.py FILE"""

import sys
import tomllib
from pathlib import Path

print("\n".join(tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]["dependencies"]))
