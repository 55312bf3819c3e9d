"""Trains LeNet-5 on MNIST or Fashion-MNIST.

mesograd run --master local[2] --workers 2 --servers 2 examples/train_lenet.py -f FOLDER
"""

import argparse

from compute import data, models, nn, optim, schedule, trigger
from scheduler import TrainingJob

MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST's training pixels, between 0 and 1

parser = argparse.ArgumentParser(description="Train LeNet-5 on 28x28 grey images in MNIST's format.")
parser.add_argument("-f", "--folder", required=True, help="holds train-images-idx3-ubyte.gz and the other three files")
parser.add_argument("-b", "--batch-size", type=int, default=256)
parser.add_argument("-e", "--max-epoch", type=int, default=3)
parser.add_argument("--learning-rate", type=float, default=0.1)
parser.add_argument("--checkpoint", metavar="FOLDER", help="write a checkpoint after each epoch")
parser.add_argument("--summary", metavar="FOLDER", help="write TensorBoard event files")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--engine", choices=["onednn", "mkl", "numpy"], default="onednn")
args = parser.parse_args()

train = data.mnist(args.folder) >> data.normalize(MEAN, STD)
test = data.mnist(args.folder, train=False) >> data.normalize(MEAN, STD)

job = TrainingJob(
    model=models.lenet5(),
    criterion=nn.NLLLoss(),
    dataset=train,
    optimizer=optim.SGD(args.learning_rate, momentum=0.9, weight_decay=5e-4, schedule=schedule.EpochStep(3, 0.1)),
    batch_size=args.batch_size,
    end_when=trigger.max_epoch(args.max_epoch),
    seed=args.seed,
    engine=args.engine,
)
job.validate(trigger.every_epoch(), dataset=test, metrics=[optim.Top1Accuracy()])
if args.checkpoint:
    job.checkpoint(args.checkpoint, trigger.every_epoch())
if args.summary:
    job.summary(args.summary)
job.run()
