"""Imports killed with SIGKILL at random moments: does each end in the bytes of an undisturbed one?

The Hub is on loopback.

    python bench/kill_import.py [--kills 50] [--seed 1] [--quick]

Ends with one JSON line: kills, imports that were finished under them, and how many of those differ
(the figure; 0 is right). It is no power cut: what was written and not synced survives a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.data.builders import folder_bytes, serving
from tests.data.importing.killing import calm_import_s, import_with_kills, slow_hub


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    wanted = 10 if flags.quick else flags.kills
    choose, kills, imports, different = random.Random(flags.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary, serving(slow_hub()):
        folder = Path(temporary)
        longest_s = calm_import_s(folder / "calm")
        expected = folder_bytes(folder / "calm")
        while kills < wanted:
            imports += 1
            kills += import_with_kills(
                folder / str(imports), min(5, wanted - kills), longest_s, choose
            )
            found = folder_bytes(folder / str(imports))
            names = sorted(
                name for name in {*found, *expected} if found.get(name) != expected.get(name)
            )
            different += bool(names)
            print(
                f"{kills} kills, {imports} imports, {different} different {', '.join(names)}",
                file=sys.stderr,
            )
    command = f"python bench/kill_import.py --kills {wanted} --seed {flags.seed}"
    figures = {
        "figure": "imports_changed_by_kills",
        "ours": different,
        "peer": None,
        "ratio": None,
        "unit": "imports",
    }
    print(
        json.dumps(
            {**figures, "peak_rss_mb": None, "kills": kills, "imports": imports, "command": command}
        )
    )
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
