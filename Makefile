# The verbs of the project. Every line calls a tool; what is built stands in build/ and the .venv folders.

PYTHON ?= python3
DATA ?=
ARCHIVE ?= build/model/model.tar.gz
REPOSITORY ?=

# A variable that names a missing file makes every terraform command warn or fail.
ifneq ($(TF_CLI_CONFIG_FILE),)
ifeq ($(wildcard $(TF_CLI_CONFIG_FILE)),)
unexport TF_CLI_CONFIG_FILE
endif
endif

.PHONY: help setup prerequisites java package image demo test test-slow bench check clean distclean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/.ready .venv-hosting/.ready .venv-scan/.ready build/.provider  ## environments and the Terraform provider

# What pip cannot bring, named before anything long begins.
setup: | prerequisites
prerequisites:
	@command -v terraform >/dev/null || { echo "terraform is not on PATH: install Terraform 1.9 or newer" >&2; exit 1; }

java:
	@command -v java >/dev/null || { echo "java is not on PATH: install Java 11 or newer, which the servers compared with run on" >&2; exit 1; }

# One environment a requirements file: train and test, the hosting image's packages, the scanners.
.venv/.ready: requirements.txt model/requirements.txt ec2_userdata/requirements.txt lambda/requirements.txt
.venv-hosting/.ready: model/container/requirements.txt
.venv-scan/.ready: requirements-scan.txt
%/.ready:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": name another with make PYTHON=...")'
	$(PYTHON) -m venv $*
	$*/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The bench's peers, each with a toolkit of its own. They see .venv's packages, so that torch is there once.
.venv-bench/.ready: bench/requirements.txt model/container/requirements.txt .venv/.ready
.venv-torchserve/.ready: bench/requirements-torchserve.txt .venv/.ready
.venv-bench/.ready .venv-torchserve/.ready:
	$(PYTHON) -m venv $(@D)
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(@D)/lib/python3.*/site-packages)/main-environment.pth
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

build/.provider: .venv/.ready terraform/versions.tf terraform/.terraform.lock.hcl $(wildcard terraform/tests/*.tftest.hcl)
	mkdir -p build
	.venv/bin/python -m local.provider
	touch $@

package: .venv/.ready  ## build/lambda.zip and build/trainer-code.tar.gz, which terraform apply takes
	.venv/bin/python -m bundle

image: .venv/.ready  ## build, test and, with REPOSITORY=URL, push the hosting image; ARCHIVE=FILE to test it with
	.venv/bin/python -m bundle.image --archive "$(ARCHIVE)" $(if $(REPOSITORY),--push "$(REPOSITORY)")

demo: setup package  ## the main job end to end, without an AWS account; DATA=DIR for pictures of your own
	.venv/bin/python -m local.demo $(if $(DATA),--data "$(DATA)")

check: setup package  ## lint, terraform fmt, validate and the mocked module tests
	.venv/bin/ruff check .
	terraform -chdir=terraform fmt -check -recursive
	terraform -chdir=terraform validate
	terraform -chdir=terraform test

test: check  ## every fast test
	.venv/bin/python -m pytest -m "not slow"

test-slow: setup package  ## kills, a booted box, several hosts, and the demo itself
	.venv/bin/python -m pytest -m slow

bench: java setup package .venv-bench/.ready  ## every speed claim beside its peer: wants a quiet machine and Java 11 or newer
	-$(MAKE) .venv-torchserve/.ready
	.venv/bin/python -m bench

clean:  ## what was built, the environments apart
	rm -rf build

distclean: clean  ## the environments too
	rm -rf .venv .venv-* terraform/.terraform terraform/terraform.d
