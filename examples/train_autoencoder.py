"""Trains an autoencoder on MNIST or Fashion-MNIST: 784 pixels through 32 numbers and back.

mesograd run --master local[2] --workers 2 examples/train_autoencoder.py -f FOLDER
"""

from common import parser, run, settings

from compute import data, metrics, models, nn, optim, trigger
from scheduler import TrainingJob

flags = parser("Train an autoencoder on 28x28 grey images.", batch_size=150, max_epoch=10, learning_rate=0.01)
flags.add_argument("--hidden", type=int, default=32, help="numbers that an image is brought to")
args = flags.parse_args()


def images(train: bool) -> data.Dataset:
    """Images as vectors of numbers between 0 and 1, with themselves as targets."""
    flat = data.mnist(args.folder, train) >> data.to_float() >> data.map(lambda x: x.reshape(len(x), 784), (784,))
    return flat >> data.input_as_target()


job = TrainingJob(
    model=models.autoencoder(args.hidden),
    criterion=nn.MSELoss(),
    dataset=images(train=True),
    optimizer=optim.Adagrad(args.learning_rate, weight_decay=args.weight_decay),
    **settings(args),
)
job.validate(trigger.every_epoch(), dataset=images(train=False), metrics=[metrics.MSE()])
run(job, args)
