"""A task of sentences made of running text: are its words in order? As TSV, for dataset=sentences.

Run: python benchmarks/word_order.py TEXT OUT.tsv        (TEXT may be gzipped)

Sentences of 6 to 40 words, split at a full stop, exclamation or question mark with spaces on both sides, as WikiText
has them; headings are left out. Of each, a coin decides whether its words are shuffled, all but the last, its end.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
from pathlib import Path

_SHORTEST, _LONGEST = 6, 40  # words


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence of a text whose paragraphs are lines."""
    lines = [line.strip() for line in text.splitlines()]
    found = [
        sentence.split()
        for line in lines
        if line and not line.startswith("=")
        for sentence in re.split(r"(?<= [.!?]) ", line)
    ]
    return [words for words in found if _SHORTEST <= len(words) <= _LONGEST]


def main() -> None:
    """Write the task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    content = given.text.read_bytes()
    text = (gzip.decompress(content) if given.text.suffix == ".gz" else content).decode()
    draw, rows = random.Random(0), ["text\tlabel"]
    for words in sentences(text):
        *first, last = words
        shuffled = draw.random() < 0.5
        if shuffled:
            draw.shuffle(first)
        rows.append(f"{' '.join([*first, last])}\t{'shuffled' if shuffled else 'plain'}")
    given.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
