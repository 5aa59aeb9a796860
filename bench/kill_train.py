"""Does a tiny base stage that is killed at random moments end in the bytes of an undisturbed one?

    python bench/kill_train.py [--kills 200] [--seed 1] [--signals] [--quick]

Each stage is the real one (its shards checked, trained, evaluated, published), saves every step,
and is killed up to five times before it may end. Compared is the artifact's digest: weights, curve,
facts, and the state to replay from. `--signals`: SIGTERM and SIGINT among the kills, after which
the stage saves and stops by itself.

Ends with one JSON line: kills, stages that ended under them, and how many of those differ (the
figure; 0 is right). Not a power cut: what was written and not synced survives a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.train.builders import begin_run
from tests.train.killing import busy_config, train_calmly, train_with_kills

from picochat.core.publish import open_artifact

KILLS_A_STAGE = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--signals", action="store_true")
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    wanted = 10 if flags.quick else flags.kills
    signals = (
        (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) if flags.signals else (signal.SIGKILL,)
    )
    choose, kills, stages, different = random.Random(flags.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, config = Path(temporary), busy_config()
        begin_run(folder / "run", config)
        train_calmly(
            folder / "run", folder / "first", config
        )  # starts the server that the others are forked from
        longest_s = train_calmly(folder / "run", folder / "calm", config)
        expected = open_artifact(folder / "calm", "base").digest
        print(f"an undisturbed stage takes {longest_s:.1f} s", file=sys.stderr)
        while kills < wanted:
            stages += 1
            place = folder / f"stage-{stages}"
            kills += train_with_kills(
                folder / "run",
                place,
                config,
                min(KILLS_A_STAGE, wanted - kills),
                longest_s,
                choose,
                signals,
            )
            different += open_artifact(place, "base").digest != expected
            print(f"{kills} kills, {stages} stages, {different} different", file=sys.stderr)
    command = " ".join(["python", *sys.argv])
    figures = {
        "figure": "base_stages_changed_by_kills",
        "ours": different,
        "peer": None,
        "ratio": None,
        "unit": "stages",
    }
    print(
        json.dumps(
            {**figures, "peak_rss_mb": None, "kills": kills, "stages": stages, "command": command}
        )
    )
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
