"""Trains a text CNN on a folder of texts, one subfolder per class (as 20 newsgroups are distributed).

mesograd run --master local[2] --workers 2 examples/train_text_cnn.py -f FOLDER --vocabulary words.txt

The vocabulary is written when the file does not exist.
"""

from pathlib import Path

from common import parser, run, settings

from compute import data, models, nn, optim, trigger
from scheduler import TrainingJob

flags = parser("Train a text CNN.", batch_size=128, max_epoch=20, learning_rate=0.01)
flags.add_argument("--vocabulary", type=Path, required=True, metavar="FILE", help="one token per line")
flags.add_argument("--max-words", "--maxWordsNum", type=int, default=5000, help="size of a new vocabulary")
flags.add_argument("--length", "--maxSequenceLength", type=int, default=500, help="tokens of a text that are used")
flags.add_argument("--embedding", "--embeddingDim", type=int, default=100)
flags.add_argument("--split", "--trainingSplit", type=float, default=0.8, help="share of the texts that are trained on")
args = flags.parse_args()

texts = data.text_folder(args.folder)
if not args.vocabulary.exists():
    files = sorted(path for path in Path(args.folder).glob("*/*") if path.is_file())
    corpus = (data.word_tokenize(path.read_text("utf-8", "replace")) for path in files)
    data.Vocabulary.build(corpus, args.max_words, specials=("<pad>", "<unk>")).save(args.vocabulary)
words = data.Vocabulary.load(args.vocabulary)
train, test = (
    texts >> data.tokenize() >> data.to_ids(words) >> data.pad(args.length, value=words.id("<pad>"), multiple=8)
).split(args.split, seed=args.seed)

job = TrainingJob(
    model=models.text_cnn(texts.classes or 0, len(words), args.embedding),
    criterion=nn.NLLLoss(),
    dataset=train,
    optimizer=optim.Adagrad(args.learning_rate, weight_decay=args.weight_decay),
    **settings(args),
)
job.validate(trigger.every_epoch(), dataset=test, metrics=[optim.Top1Accuracy()])
run(job, args)
