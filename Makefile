# Two commands do everything on a fresh machine: `make book` and `make test`. `make` alone lists the rest.
# Needs GNU make and Python 3.11 or newer; everything else is installed into .venv from the lock, requirements.txt.

PYTHON    ?= python3
CHAPTER   ?= 02_octconv
PARAMS    ?=
PROFILE   ?=
DATA_ROOT ?=
UPGRADE   ?=

# The paper-scale latency records: one `python -m dynlib latency ... --record` a row.
LATENCY := \
  "wae --arch vgg16 --size 224 --batch 1" \
  "wae --arch vgg16 --size 224 --batch 1 -p variant=wavelet" \
  "wae --arch vgg16 --size 224 --batch 1 -p variant=downscaled" \
  "wae --arch resnet50 --size 224 --batch 1" \
  "wae --arch resnet50 --size 224 --batch 8" \
  "octconv --arch resnet50 --size 224 --batch 1 -p alpha=0.125" \
  "octconv --arch resnet50 --size 224 --batch 1 -p alpha=0.25" \
  "octconv --arch resnet50 --size 224 --batch 1 -p alpha=0.5" \
  "octconv --arch resnet50 --size 224 --batch 1 -p alpha=0.75" \
  "octconv --arch resnet50 --size 224 --batch 8 -p alpha=0.5" \
  "sampling --arch resnet50 --size 224 --batch 1 -p density=1 -p pruned=0.5" \
  "s2dnas --arch cifar_vgg16_bn --size 32 --batch 1 --shares 0.6,0.25,0.15" \
  "s2dnas --arch cifar_vgg16_bn --size 32 --batch 16 --shares 0.6,0.25,0.15" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 0.6,0.25,0.15" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 1,0,0" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 0,1,0" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 0,0,1" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 1,0,0 -p cuts=[[0,2,4,8],[0,2,5,8],[0,5,6,8]] -p reuse=[[1,0,0],[0,1,0],[1,1,1]]" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 0,1,0 -p cuts=[[0,2,4,8],[0,2,5,8],[0,5,6,8]] -p reuse=[[1,0,0],[0,1,0],[1,1,1]]" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 0,0,1 -p cuts=[[0,2,4,8],[0,2,5,8],[0,5,6,8]] -p reuse=[[1,0,0],[0,1,0],[1,1,1]]" \
  "s2dnas --arch cifar_resnet56 --size 32 --batch 1 --shares 0.6,0.25,0.15" \
  "drnet --arch resnet50 --size 224 --batch 1 --shares 0.3,0.25,0.45" \
  "drnet --arch resnet50 --size 224 --batch 8 --shares 0.3,0.25,0.45" \
  "drnet --arch resnet50 --size 224 --batch 1 -p candidates=[1.0]" \
  "drnet --arch resnet50 --size 168 --batch 1 -p candidates=[1.0]" \
  "drnet --arch resnet50 --size 112 --batch 1 -p candidates=[1.0]" \
  "wae --arch cifar_resnet20 --size 32 --batch 1" \
  "wae --arch cifar_resnet20 --size 32 --batch 1 -p variant=wavelet" \
  "wae --arch cifar_resnet20 --size 32 --batch 1 -p variant=downscaled" \
  "wae --arch cifar_resnet20 --size 20 --batch 1 -p variant=full" \
  "octconv --arch cifar_resnet20 --size 32 --batch 1 -p alpha=0.25" \
  "octconv --arch cifar_resnet20 --size 32 --batch 1 -p alpha=0.5" \
  "octconv --arch cifar_resnet20 --size 24 --batch 1 -p alpha=0" \
  "drnet --arch cifar_resnet20 --size 32 --batch 1 --shares 0.3,0.25,0.45 -p predictor_width=0.25 -p predictor_side=0.5" \
  "drnet --arch cifar_resnet20 --size 32 --batch 1 --shares 0,1,0 -p predictor_width=0.25 -p predictor_side=0.5" \
  "drnet --arch efficientnet_lite0 --size 224 --batch 1 --shares 0.8,0.2,0" \
  "s2dnas --arch cifar_resnet20 --size 32 --batch 1 --shares 0.1,0.2,0.7 -p cuts=[[0,2,4,8],[0,2,5,8],[0,5,6,8]] -p reuse=[[1,0,0],[0,1,0],[1,1,1]]" \
  "drnet --arch cifar_resnet20 --size 32 --batch 1 --shares 0.3,0.25,0.45 --octaves 0.25 -p predictor_width=0.25 -p predictor_side=0.5" \
  "drnet --arch resnet50 --size 224 --batch 1 --shares 0.3,0.25,0.45 --octaves 0.5 -p candidates=[1.0,0.7142857142857143,0.5714285714285714]" \
  "wae --arch vgg16 --size 224 --dtype int8" \
  "wae --arch resnet50 --size 224 --dtype int8" \
  "octconv --arch resnet50 --size 224 --dtype int8 -p alpha=0.5" \
  "drnet --arch resnet50 --size 224 --dtype int8 --shares 0.3,0.25,0.45" \
  "drnet --arch resnet50 --size 168 --dtype int8 -p candidates=[1.0]" \
  "s2dnas --arch cifar_vgg16_bn --size 32 --dtype int8 --shares 0.6,0.25,0.15" \
  "wae --arch vgg16 --size 224 --threads 2" \
  "octconv --arch resnet50 --size 224 --threads 2 -p alpha=0.5" \
  "drnet --arch resnet50 --size 224 --threads 2 --shares 0.3,0.25,0.45" \
  "sampling --arch resnet101 --size 992x1664 --batch 1 --repeats 7 -p density=0.1" \
  "sampling --arch resnet101 --size 992x1664 --batch 1 --repeats 7 -p density=0.25" \
  "sampling --arch resnet101 --size 992x1664 --batch 1 --repeats 7 -p density=0.5" \
  "sampling --arch resnet101_stage1 --size 248x416 --batch 1 --repeats 7 -p density=0.25" \
  "sampling --arch resnet101_stage3 --size 124x208 --batch 1 --repeats 7 -p density=0.25" \
  "sampling --arch resnet101_stage3 --size 124x208 --batch 1 --repeats 7 -p density=0.25 -p pruned=0.5"

PY       := .venv/bin/python
HTML     := _build/html/index.html
CHAPTERS := $(patsubst %,book/%,$(sort $(wildcard notebooks/*.ipynb)))
LIBRARY  := $(shell find dynlib -name '*.py')
PAGES    := _config.yml $(wildcard book/*.md book/*.yml book/*.bib book/_static/* data/surveys/coverage*.csv)

# What a chapter is made from besides its source and the library: settings, claims, studies, records and weights of its
# own paper; cover, comparison and the first chapter, which looks at rivals, have those of all. Folders stand in the list so that a removed record is noticed too.
key      = $(if $(filter comparison cover wae,$(word 2,$(subst _, ,$(1)))),*,$(word 2,$(subst _, ,$(1))))
evidence = $(wildcard notebooks/profiles/*/$(1).yml data/claims/orders.csv data/claims/$(call key,$(1)).csv \
             data/studies/$(call key,$(1)).yml data/surveys/$(call key,$(1)).csv data/weights/$(call key,$(1))/* \
             data/results/$(call key,$(1)) data/results/$(call key,$(1))/*.json)

# One word for the shell, whatever is in it.
quoted   = '$(subst ','\'',$(1))'

# Byte code is kept: without it every start compiles torch and Sphinx anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.PHONY: help book test lint chapter pdf latency lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

book: $(HTML) ## set-up, every chapter at smoke scale, the pages in _build/html
	@echo "The book: $(HTML)"

test: $(HTML) ## set-up, the book, unit tests, every notebook, the built pages
	@echo "Testing the library, the notebooks and the pages"
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadscope --nbval-lax tests notebooks

lint: .venv/ready ## ruff: lint and format, notebooks too
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

chapter: .venv/ready ## one chapter: CHAPTER=02_octconv PARAMS="alpha=0.25 seed=1" PROFILE=public DATA_ROOT=DIR
	@$(PY) -m dynlib run $(call quoted,$(CHAPTER)) $(foreach param,$(PARAMS),-p $(call quoted,$(param))) \
	  $(if $(PROFILE),--profile $(call quoted,$(PROFILE))) $(if $(DATA_ROOT),--data-root $(call quoted,$(DATA_ROOT)))

pdf: $(HTML) ## the book as one PDF, _build/book.pdf; needs an installed Chromium
	@$(PY) -m dynlib pdf

latency: .venv/ready ## measure the paper-scale CPU latency records of this machine; goes on where it was stopped
	@mkdir -p _build/latency; for row in $(LATENCY); do \
	  done=_build/latency/$$(echo "$$row" | cksum | cut -d' ' -f1); test -e $$done && continue; \
	  echo "Timing $$row"; $(PY) -m dynlib latency $$row --record && touch $$done || exit 1; \
	done; rm -r _build/latency

lock: .venv/uv ## resolve requirements.in into requirements.txt; UPGRADE=1 takes the newest versions
	@$(PY) -m uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --no-header \
	  $(if $(UPGRADE),--upgrade) requirements.in -o requirements.txt

clean: ## remove what is generated; .venv and data stay
	rm -rf _build book/notebooks book/api.md .pytest_cache .ruff_cache .hypothesis

$(HTML): $(CHAPTERS) $(PAGES) | .venv/ready
	@echo "Building the pages"
	@$(PY) -m dynlib pages

book/notebooks/%.ipynb: notebooks/%.ipynb $(LIBRARY) $$(call evidence,$$*) | .venv/ready
	@echo "Running chapter $*"
	@mkdir -p $(@D)
	@$(PY) -m dynlib run $* --out $@

.venv/ready: requirements.txt pyproject.toml | .venv/uv
	@echo "Installing the locked requirements into .venv (some 6 GB with the CUDA build of torch)"
	@$(PY) -m uv pip install -q -r requirements.txt
	@$(PY) -m uv pip install -q --no-deps -e .
	@touch $@

.venv/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This book needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@echo "Creating .venv"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install -q uv
	@touch $@
