"""Trains ResNet-20 or ResNet-56 on CIFAR-10, or ResNet-18, 34 or 50 on a folder of images.

mesograd run --master local[2] --workers 2 examples/train_resnet.py -f FOLDER --depth 20

For the deeper ones FOLDER holds train/CLASS/*.jpg and val/CLASS/*.jpg.
"""

from common import parser, run, settings

from compute import data, models, nn, optim, schedule, trigger
from scheduler import TrainingJob

flags = parser("Train a ResNet.", batch_size=128, max_epoch=156, learning_rate=0.1, weight_decay=1e-4)
flags.add_argument("--depth", type=int, choices=[18, 20, 34, 50, 56], default=20)
flags.add_argument("--classes", type=int, default=1000, help="of an image folder")
flags.add_argument("--augment", action="store_true", help="CIFAR: random crops of the image padded by 4, and flips")
flags.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406), help="of the pixels, per channel")
flags.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225), help="likewise")
flags.add_argument("--warm-up", type=int, default=0, help="steps in which the rate grows from 0")
args = flags.parse_args()

if args.depth in (20, 56):
    model = {20: models.resnet20, 56: models.resnet56}[args.depth]()
    train, test = data.cifar10(args.folder), data.cifar10(args.folder, train=False)
    if args.augment:
        train = train >> data.random_crop(32, padding=4) >> data.random_horizontal_flip()
else:
    model = {18: models.resnet18, 34: models.resnet34, 50: models.resnet50}[args.depth](args.classes)
    train = data.image_folder(f"{args.folder}/train") >> data.random_resized_crop(224) >> data.random_horizontal_flip()
    test = data.image_folder(f"{args.folder}/val") >> data.resize(256) >> data.center_crop(224)

steps = -(-len(train) // args.batch_size) * args.max_epoch
job = TrainingJob(
    model=model,
    criterion=nn.NLLLoss(),
    dataset=train >> data.normalize(args.mean, args.std),
    optimizer=optim.SGD(
        args.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=args.weight_decay,
        schedule=schedule.CosineWithWarmup(total_steps=steps, warmup_steps=args.warm_up),
    ),
    **settings(args),
)
job.validate(
    trigger.every_epoch(),
    dataset=test >> data.normalize(args.mean, args.std),
    metrics=[optim.Top1Accuracy(), optim.Top5Accuracy(), optim.Loss()],
)
run(job, args)
