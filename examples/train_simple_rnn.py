"""Trains a simple recurrent network to say the next word of a sentence.

mesograd run --master local[2] --workers 2 examples/train_simple_rnn.py -f FOLDER

FOLDER is what prepare_text.py has written.
"""

from pathlib import Path

import numpy as np
from common import parser, run, settings

from compute import data, metrics, models, nn, optim, trigger
from scheduler import TrainingJob

flags = parser("Train a simple RNN.", batch_size=12, max_epoch=30, learning_rate=0.1)
flags.add_argument("--num-steps", "--numSteps", type=int, default=20, help="words of a piece of text")
flags.add_argument("--hidden-size", "--hiddenSize", type=int, default=40)
flags.add_argument("--momentum", type=float, default=0.0)
args = flags.parse_args()

folder = Path(args.folder)
size = len(data.Vocabulary.load(folder / "vocabulary.txt"))
one_hot = data.map(lambda ids: np.eye(size, dtype=np.float32)[ids], (args.num_steps, size))
train = data.language_model(folder / "train.npy", args.num_steps) >> one_hot
valid = data.language_model(folder / "valid.npy", args.num_steps) >> one_hot

job = TrainingJob(
    model=models.simple_rnn(size, args.hidden_size, size),
    criterion=nn.CrossEntropyLoss(),
    dataset=train,
    optimizer=optim.SGD(args.learning_rate, momentum=args.momentum, weight_decay=args.weight_decay),
    **settings(args),
)
job.validate(trigger.every_epoch(), dataset=valid, metrics=[metrics.Perplexity()])
run(job, args)
