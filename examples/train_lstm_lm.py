"""Trains an LSTM language model on a text that prepare_text.py has made ready.

mesograd run --master local[2] --workers 2 --servers 2 examples/train_lstm_lm.py -f FOLDER
"""

import math
from pathlib import Path

from common import parser, run, settings

from compute import data, metrics, models, nn, optim, schedule, trigger
from scheduler import TrainingJob

flags = parser("Train an LSTM language model.", batch_size=20, max_epoch=13, learning_rate=0.001)
flags.add_argument("--num-steps", "--numSteps", type=int, default=35, help="tokens in a window")
flags.add_argument("--hidden-size", "--hiddenSize", type=int, default=650, help="of the embedding and the LSTM")
flags.add_argument("--num-layers", "--numLayers", type=int, default=2, help="of the LSTM")
flags.add_argument("--tied", action="store_true", help="the embedding is the output layer, too")
flags.add_argument("--dropout", type=float, default=0.5)
flags.add_argument("--gradient-l2-norm-threshold", "--gradientL2NormThreshold", type=float, default=1.0)
args = flags.parse_args()

folder = Path(args.folder)
vocabulary = len(data.Vocabulary.load(folder / "vocabulary.txt"))
train = data.language_model(folder / "train.npy", args.num_steps)
valid = data.language_model(folder / "valid.npy", args.num_steps)
steps = args.max_epoch * math.ceil(len(train) / args.batch_size)

job = TrainingJob(
    model=models.lstm_language_model(vocabulary, args.hidden_size, args.num_layers, args.dropout, tied=args.tied),
    criterion=nn.CrossEntropyLoss(),
    dataset=train,
    optimizer=optim.AdamW(
        args.learning_rate,
        weight_decay=args.weight_decay,
        schedule=schedule.CosineWithWarmup(min(100, steps // 10), steps),
    ),
    clip=optim.ClipNorm(args.gradient_l2_norm_threshold),
    **settings(args),
)
job.validate(trigger.every_epoch(), dataset=valid, metrics=[metrics.Perplexity()], batch_size=args.batch_size)
run(job, args)
