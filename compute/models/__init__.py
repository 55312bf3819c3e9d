"""Ready-made networks. Classifiers end in log-probabilities: train them with nn.NLLLoss."""

from compute.models.autoencoder import autoencoder
from compute.models.inception import inception_v1, inception_v2
from compute.models.lenet import lenet5
from compute.models.resnet import resnet18, resnet20, resnet34, resnet50, resnet56, resnet_cifar
from compute.models.vgg import vgg16, vgg19, vgg_cifar10

__all__ = [
    "autoencoder",
    "inception_v1",
    "inception_v2",
    "lenet5",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet_cifar",
    "vgg16",
    "vgg19",
    "vgg_cifar10",
]
