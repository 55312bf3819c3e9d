"""Trains VGG with batch normalization on CIFAR-10, or on other images in CIFAR-10's binary format.

mesograd run --master local[2] --workers 2 examples/train_vgg.py -f FOLDER

BigDL's recipe: SGD with momentum 0.9, the rate halved every 25 epochs, no augmentation; --augment adds random crops and
flips, --cosine lets the rate fall along a half cosine over the whole run, which suits short ones.
benchmarks/fashion_cifar.py writes Fashion-MNIST in this format.
"""

from common import parser, run, settings

from compute import data, models, nn, optim, schedule, trigger
from scheduler import TrainingJob

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training pixels, between 0 and 1

flags = parser("Train VGG on CIFAR-10.", batch_size=128, max_epoch=90, learning_rate=0.01, weight_decay=5e-4)
flags.add_argument("--augment", action="store_true", help="random crops of the image padded by 4, and flips")
flags.add_argument("--no-dropout", action="store_true")
flags.add_argument("--mean", type=float, nargs=3, default=MEAN, help="of the pixels, per channel, between 0 and 1")
flags.add_argument("--std", type=float, nargs=3, default=STD, help="likewise")
flags.add_argument("--step", type=int, default=25, help="epochs after which the rate is halved")
flags.add_argument("--cosine", action="store_true", help="the rate falls along a half cosine to 0 at the end instead")
flags.add_argument("--warm-up", type=int, default=0, help="with --cosine: steps in which the rate grows from 0")
args = flags.parse_args()
if args.warm_up and not args.cosine:
    flags.error("--warm-up goes with --cosine")

train = data.cifar10(args.folder)
if args.augment:
    train = train >> data.random_crop(32, padding=4) >> data.random_horizontal_flip()
train = train >> data.normalize(args.mean, args.std)
test = data.cifar10(args.folder, train=False) >> data.normalize(args.mean, args.std)

steps = -(-len(train) // args.batch_size) * args.max_epoch
rates = schedule.CosineWithWarmup(args.warm_up, steps) if args.cosine else schedule.EpochStep(args.step, 0.5)
job = TrainingJob(
    model=models.vgg_cifar10(dropout=not args.no_dropout),
    criterion=nn.NLLLoss(),
    dataset=train,
    optimizer=optim.SGD(args.learning_rate, momentum=0.9, weight_decay=args.weight_decay, schedule=rates),
    **settings(args),
)
job.validate(trigger.every_epoch(), dataset=test, metrics=[optim.Top1Accuracy(), optim.Loss()])
run(job, args)
