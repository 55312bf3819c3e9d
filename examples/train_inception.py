"""Trains Inception v1 (GoogLeNet) or v2 on a folder of images.

mesograd run --master zk://... --workers 8 examples/train_inception.py -f FOLDER --classes 1000

FOLDER holds train/CLASS/*.jpg and val/CLASS/*.jpg. BigDL's recipe for v1: SGD with momentum 0.9 and a rate that falls
as a polynomial.
"""

from common import parser, run, settings

from compute import data, models, nn, optim, schedule, trigger
from scheduler import TrainingJob

flags = parser("Train Inception.", batch_size=32, max_epoch=60, learning_rate=0.01, weight_decay=1e-4)
flags.add_argument("--version", type=int, choices=[1, 2], default=1)
flags.add_argument("--classes", "--classNum", type=int, default=1000)
flags.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406), help="of the pixels, per channel")
flags.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225), help="likewise")
args = flags.parse_args()

model = {1: models.inception_v1, 2: models.inception_v2}[args.version](args.classes)
train = data.image_folder(f"{args.folder}/train") >> data.random_resized_crop(224) >> data.random_horizontal_flip()
test = data.image_folder(f"{args.folder}/val") >> data.resize(256) >> data.center_crop(224)
steps = -(-len(train) // args.batch_size) * args.max_epoch

job = TrainingJob(
    model=model,
    criterion=nn.NLLLoss(),
    dataset=train >> data.normalize(args.mean, args.std),
    optimizer=optim.SGD(
        args.learning_rate, momentum=0.9, weight_decay=args.weight_decay, schedule=schedule.Poly(0.5, steps)
    ),
    **settings(args),
)
metrics = [optim.Top1Accuracy(), optim.Top5Accuracy()]
job.validate(trigger.every_epoch(), test >> data.normalize(args.mean, args.std), metrics, batch_size=32)
run(job, args)
