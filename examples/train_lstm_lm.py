"""Trains an LSTM language model on a text that prepare_text.py has made ready.

mesograd run --master local[2] --workers 2 --servers 2 examples/train_lstm_lm.py -f FOLDER
"""

import argparse
import math
from pathlib import Path

from compute import data, metrics, models, nn, optim, schedule, trigger
from scheduler import TrainingJob

parser = argparse.ArgumentParser(description="Train an LSTM language model.")
parser.add_argument("-f", "--folder", required=True, help="holds what prepare_text.py has written")
parser.add_argument("-b", "--batchSize", type=int, default=20, help="windows of the text per step")
parser.add_argument("-e", "--maxEpoch", type=int, default=13)
parser.add_argument("-i", "--maxIteration", type=int, help="end after so many steps, whatever the epoch")
parser.add_argument("-l", "--learningRate", type=float, default=0.001)
parser.add_argument("--numSteps", type=int, default=35, help="tokens in a window")
parser.add_argument("--hiddenSize", type=int, default=650, help="of the embedding and the LSTM's layers")
parser.add_argument("--numLayers", type=int, default=2, help="of the LSTM")
parser.add_argument("--tied", action="store_true", help="the embedding is the output layer, too")
parser.add_argument("--dropout", type=float, default=0.5)
parser.add_argument("--gradientL2NormThreshold", type=float, default=1.0)
parser.add_argument("--model", metavar="FILE", default="", help="saved model to begin with")
parser.add_argument("--checkpoint", metavar="FOLDER", help="write a checkpoint after each epoch")
parser.add_argument("--summary", metavar="FOLDER", help="write TensorBoard event files")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--engine", choices=["onednn", "mkl", "numpy"], default="onednn")
parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
args = parser.parse_args()

folder = Path(args.folder)
vocabulary = len(data.Vocabulary.load(folder / "vocabulary.txt"))
train = data.language_model(folder / "train.npy", args.numSteps)
valid = data.language_model(folder / "valid.npy", args.numSteps)
steps = args.maxEpoch * math.ceil(len(train) / args.batchSize)

job = TrainingJob(
    model=models.lstm_language_model(vocabulary, args.hiddenSize, args.numLayers, args.dropout, tied=args.tied),
    criterion=nn.CrossEntropyLoss(),
    dataset=train,
    optimizer=optim.Adam(args.learningRate, schedule=schedule.CosineWithWarmup(min(100, steps // 10), steps)),
    batch_size=args.batchSize,
    end_when=trigger.max_iteration(args.maxIteration) if args.maxIteration else trigger.max_epoch(args.maxEpoch),
    seed=args.seed,
    engine=args.engine,
    precision=args.precision,
    weights=args.model,
    clip=optim.ClipNorm(args.gradientL2NormThreshold),
)
job.validate(trigger.every_epoch(), dataset=valid, metrics=[metrics.Perplexity()], batch_size=args.batchSize)
if args.checkpoint:
    job.checkpoint(args.checkpoint, trigger.every_epoch())
if args.summary:
    job.summary(args.summary)
job.run()
