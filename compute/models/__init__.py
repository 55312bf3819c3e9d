"""Ready-made networks. Classifiers end in log-probabilities: train them with nn.NLLLoss.

Language models end in scores, whose vocabularies are large: train them with nn.CrossEntropyLoss.
"""

from compute.models.autoencoder import autoencoder
from compute.models.inception import inception_v1, inception_v2
from compute.models.lenet import lenet5
from compute.models.resnet import resnet18, resnet20, resnet34, resnet50, resnet56, resnet_cifar
from compute.models.rnn import lstm_language_model, simple_rnn
from compute.models.text_cnn import text_cnn
from compute.models.transformer import transformer, transformer_language_model
from compute.models.vgg import vgg16, vgg19, vgg_cifar10

__all__ = [
    "autoencoder",
    "inception_v1",
    "inception_v2",
    "lenet5",
    "lstm_language_model",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet_cifar",
    "simple_rnn",
    "text_cnn",
    "transformer",
    "transformer_language_model",
    "vgg16",
    "vgg19",
    "vgg_cifar10",
]
