# `make train` and `make test` set everything up on a fresh Debian 12 with python3 and make, and do it only once.
# PYTHON=python3.12 make test    uses another interpreter, in a virtual environment of its own.

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
FASHION_MNIST := /usr/share/datasets/fashion-mnist
export PYTHON VENV

.PHONY: help train test lint docs setup mesos clean

help:
	@echo 'make train   LeNet-5 on Fashion-MNIST, on a real Mesos with two agents, two workers and two servers'
	@echo 'make test    every check: style, types, tests'
	@echo 'make lint    style and types only'
	@echo 'make docs    the pages of every public name of compute, in docs/api'
	@echo 'make setup   only what `make train` needs: packages, virtual environment, Mesos, data set'
	@echo 'make mesos   only Mesos, in .cache/mesos'
	@echo 'make clean   remove all of it but the system packages'

train: setup
	@$(VENV)/bin/mesograd run --master 'local[2]' --workers 2 --servers 2 \
	  examples/train_lenet.py -f $(FASHION_MNIST) -e 3

test: lint
	$(VENV)/bin/pytest

lint:
	@.ci/setup --test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs:
	@.ci/setup --test
	$(VENV)/bin/pdoc --docformat google --no-search -o docs/api compute '!compute.engines'

setup:
	@.ci/setup

mesos:
	@docker/mesos/build.sh .cache/mesos

clean:
	rm -rf docs/api .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	rm -rf proto/http-parser/build proto/http-parser/*.egg-info
	find scheduler executor proto compute tests -name __pycache__ -prune -exec rm -rf {} +
	rm -f proto/*_pb2.py proto/*_pb2.pyi
