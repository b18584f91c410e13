"""Cut extras.json (losses, metric, center points) out of a parity pack.

python tests/golden/make_extras_golden.py PACK_FOLDER
"""

import json
import sys
from pathlib import Path

KEPT = ("losses", "metric", "center_points", "center_dt_disc_row50", "center_dt_max")


def main(pack: Path) -> None:
    """Write extras.json beside this file."""
    extras = json.loads((pack / "reference.json").read_text())["extras"]
    kept = {key: extras[key] for key in KEPT}
    target = Path(__file__).parent / "extras.json"
    target.write_text(json.dumps(kept, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
