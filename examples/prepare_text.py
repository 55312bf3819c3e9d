"""Makes of a text what train_lstm_lm.py and train_transformer_lm.py read: token ids and a vocabulary.

Writes train.npy, valid.npy and test.npy (int64, a stream of ids) and vocabulary.txt. Of every 2000 lines the last 100
are for the test and the 100 before them for validation. Any text of one sentence or paragraph per line will do. The
King James Bible (31,102 verses, 4.4 MB) comes with Debian's package bible-kjv:

apt-get install bible-kjv
bible -f gen1:1-rev22:21 | cut -d ' ' -f 2- | python examples/prepare_text.py -o kjv
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from compute import data

BLOCK_LINES = 100
BLOCKS = 20

parser = argparse.ArgumentParser(description="Turn a text into token ids for the language models.")
parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the files are written")
parser.add_argument("--text", metavar="FILE", help="UTF-8 text; standard input by default")
parser.add_argument("--max-vocabulary", type=int, default=10000, help="most frequent tokens kept; others are <unk>")
args = parser.parse_args()

text = Path(args.text).read_text("utf-8") if args.text else sys.stdin.read()
lines = [[*data.word_tokenize(line), "</s>"] for line in text.splitlines() if line.strip()]
parts: dict[str, list[list[str]]] = {"train": [], "valid": [], "test": []}
for number, tokens in enumerate(lines):
    block = number // BLOCK_LINES % BLOCKS
    parts["test" if block == BLOCKS - 1 else "valid" if block == BLOCKS - 2 else "train"].append(tokens)

vocabulary = data.Vocabulary.build(parts["train"], args.max_vocabulary, specials=("<unk>", "</s>"))
folder = Path(args.output)
folder.mkdir(parents=True, exist_ok=True)
vocabulary.save(folder / "vocabulary.txt")
for name, part in parts.items():
    ids = vocabulary.ids(token for tokens in part for token in tokens)
    np.save(folder / f"{name}.npy", ids)
    unknown = int((ids == vocabulary.id("<unk>")).sum())
    print(f"{name}: {len(part)} lines, {len(ids)} tokens, {unknown} of them unknown")
print(f"vocabulary: {len(vocabulary)} tokens")
