"""docs/cli.md is what the program says today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_reference_is_up_to_date() -> None:
    code = "import sys; sys.path.insert(0, 'scripts')\n"
    code += "import make_cli_reference as made\n"
    code += "assert made.TARGET.read_text() == made.make_reference(), 'run the script again'\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
