# The verbs of the project. Every line calls a tool; what is built stands in build/ and the .venv folders.

PYTHON ?= python3
DATA ?=
UPGRADE ?=
SLOW ?=
ACCOUNT ?=
REPORTS ?=
ARCHIVE ?= build/model/model.tar.gz
REPOSITORY ?=

# A variable that names a missing file makes every terraform command warn or fail.
ifneq ($(TF_CLI_CONFIG_FILE),)
ifeq ($(wildcard $(TF_CLI_CONFIG_FILE)),)
unexport TF_CLI_CONFIG_FILE
endif
endif

.PHONY: help setup lock prerequisites java package sbom image demo test test-slow security deployer-policy bench check clean distclean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/.ready .venv-hosting/.ready .venv-scan/.ready .venv-supply/.ready build/.provider  ## environments and the Terraform provider

# What pip cannot bring, named before anything long begins.
setup: | prerequisites
prerequisites:
	@command -v terraform >/dev/null || { echo "terraform is not on PATH: install Terraform 1.9 or newer" >&2; exit 1; }

java:
	@command -v java >/dev/null || { echo "java is not on PATH: install Java 11 or newer, which the servers compared with run on" >&2; exit 1; }

# One environment a lock: train and test, the hosting image's packages, the scanners, what audits the locks.
.venv/.ready: requirements.lock
.venv-hosting/.ready: model/container/requirements.lock
.venv-scan/.ready: requirements-scan.lock
.venv-supply/.ready: requirements-supply.lock
%/.ready:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": name another with make PYTHON=...")'
	$(PYTHON) -m venv $*
	$*/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# The bench's peers, each with a toolkit of its own. They see .venv's packages, so that torch is there once.
.venv-bench/.ready: bench/requirements.lock .venv/.ready
.venv-torchserve/.ready: bench/requirements-torchserve.lock .venv/.ready
.venv-bench/.ready .venv-torchserve/.ready:
	$(PYTHON) -m venv $(@D)
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(@D)/lib/python3.*/site-packages)/main-environment.pth
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

build/.provider: .venv/.ready terraform/versions.tf terraform/.terraform.lock.hcl $(wildcard terraform/tests/*.tftest.hcl)
	mkdir -p build
	.venv/bin/python -m local.provider
	touch $@

# People write requirements*.txt; installed is what stands beside it, by its hash. Versions that still fit are kept.
# What is shipped, and what stands beside .venv, is of the versions that the tests run with.
LOCKED := requirements requirements-scan requirements-supply model/container/requirements
LOCKED_WITH_THE_TESTS := lambda/requirements model/requirements bench/requirements bench/requirements-torchserve
COMPILE := .venv-supply/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(if $(filter 1,$(UPGRADE)),--upgrade,$(addprefix --upgrade-package ,$(UPGRADE)))
lock: .venv-supply/.ready  ## requirements*.lock from requirements*.txt; UPGRADE=1 takes the newest of what is not pinned, UPGRADE="NAME ..." of these alone
	set -e; for file in $(LOCKED); do $(COMPILE) $$file.txt -o $$file.lock; done
	set -e; for file in $(LOCKED_WITH_THE_TESTS); do $(COMPILE) -c requirements.lock $$file.txt -o $$file.lock; done

package: .venv/.ready  ## build/lambda.zip and build/trainer-code.tar.gz, which terraform apply takes
	.venv/bin/python -m bundle

sbom: package .venv-supply/.ready  ## build/sbom/: what is shipped, as CycloneDX lists
	.venv/bin/python -m bundle.sbom

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
	.venv/bin/python -m pytest -m "not slow" --junitxml=build/tests/fast.xml

test-slow: setup package  ## kills, a booted box, several hosts, and the demo itself
	.venv/bin/python -m pytest -m slow --junitxml=build/tests/slow.xml

# REPORTS are of a `make test` and a `make test-slow` just done: what they have shown is counted, and not run again.
security: setup package sbom security/node/node_modules/.package-lock.json build/local/calls.jsonl  ## the figures of SECURITY.md, as one table; SLOW=1 for all; wants Node.js 20
	.venv/bin/python -m security all $(if $(SLOW),--slow) $(if $(REPORTS),--reports $(REPORTS))

# What the roles' own code calls, seen in the demo's run.
build/local/calls.jsonl: | setup package
	.venv/bin/python -m local.demo

deployer-policy: setup package  ## the least that whoever runs Terraform needs, as IAM's documents: ACCOUNT=ID
	.venv/bin/python -m security deployer-policy --account "$(ACCOUNT)"

security/node/node_modules/.package-lock.json: security/node/package-lock.json
	@command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node.js 20 or newer with npm is not on PATH: install it, the policy simulator runs on it" >&2; exit 1; }
	cd security/node && npm ci --ignore-scripts --no-audit --no-fund

bench: java setup package .venv-bench/.ready  ## every speed claim beside its peer: wants a quiet machine and Java 11 or newer
	-$(MAKE) .venv-torchserve/.ready
	.venv/bin/python -m bench

clean:  ## what was built, the environments apart
	rm -rf build

distclean: clean  ## the environments too
	rm -rf .venv .venv-* terraform/.terraform terraform/terraform.d
