# Each target does its own set-up (a virtual environment in .venv). Needs git, make and Python >= 3.11 with venv.
#   make experiment   run nbs/run_experiment.ipynb into runs/; OCC=random picks another occlusion,
#                     P="-p dataset cmu -p data_dir FOLDER" sets any other parameter, OUT= the executed notebook
#   make tune         random search of a model's learning rate and dropout, P= as above (MODEL=diffhpe-2d); called again, it continues
#   make lab          JupyterLab on the notebooks
#   make film         lift the example and draw the film that the README opens with, into runs/ (FILM=nbs/images writes the README's own)
#   make test         everything that must hold
#   make setup        the set-up alone
#   make export       write diffhpe/ from the notebooks
#   make clean-nbs    strip what a run leaves in the notebooks (execution counts, timings)
#   make readme       write README.md from nbs/index.ipynb
#   make refresh      all three, with every notebook but run_experiment, transfer, tune, benchmarks, calibration, lifter_weights, lifter_exam and stream_exam run from a fresh kernel
#   make refresh-experiment   run run_experiment with its default parameters, keep its outputs in nbs/
#   make weights      train the small models of diffhpe/weights/ from scratch (about an hour on two cores)
#   make transfer     MixSTE trained on each motion set, tested on all (DATA=folder of data_3d_<name>.npz; half an hour)
#   make calibration  whether the lifter's regions hold what they promise (DATA=as for transfer; five minutes; P="-p write True" writes calibration.json)
#   make grid         the experiments of the paper that are not in results/ yet (DATA=folder of data_3d_bandai.npz; P="--sections table2 --jobs 4"; hours on two cores)
#   make benchmark    how fast everything is on this machine, against the plain reference (ten minutes on two cores; keep it quiet)
#   make dist         the package's files for PyPI in dist/ (TAG=v0.2.0: fails unless that is the version)
#   make dist-check   the same, and each file is installed into a fresh environment, lifts from another folder, and runs its tests
#   make docs-check   every page of the docs site must build and show no error, broken link, stray Markdown or picture without words (in _html/, without Quarto)
#   make docs         the docs site in _docs/, a plain preview where Quarto is not installed; GIT_URL= the repository's address, for links to its files

# the first of these that is new enough; PYTHON=/path/to/python3.12 takes another
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit; }; done; echo python3)
VENV ?= .venv
BIN  := $(VENV)/bin
OCC  ?= consecutive
OUT  ?= runs/$(OCC).ipynb
P    ?=
FILM ?= runs
DATA ?=
MODEL ?= diffhpe-2d
# Where torch comes from. With an NVIDIA driver: PyPI, whose Linux build is the CUDA one (2.7 GB). Without: the CPU build (190 MB).
# TORCH_INDEX= takes PyPI's build anywhere, TORCH_INDEX=https://download.pytorch.org/whl/cu126 the one for an older driver.
TORCH_INDEX ?= $$(nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
# the kernel `python3` is this environment's, also where other places that Jupyter looks in have one of that name
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH

.PHONY: help setup test experiment tune lab film export clean-nbs readme refresh refresh-experiment weights transfer calibration grid benchmark dist dist-check docs-check docs
help:
	@sed -n 's/^#   //p' Makefile

experiment: setup
	@mkdir -p "$(dir $(OUT))"
	$(BIN)/papermill nbs/run_experiment.ipynb "$(OUT)" -p occ $(OCC) $(P) </dev/null
	@$(BIN)/python -c 'import sys, nbformat; [print("".join(o.data["text/markdown"])) for c in nbformat.read(sys.argv[1], 4).cells \
		if "ending" in c.metadata.get("tags", []) for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})]' "$(OUT)"

tune: setup
	@mkdir -p runs
	$(BIN)/papermill nbs/tune.ipynb "runs/tune-$(MODEL).ipynb" -p model $(MODEL) $(P) </dev/null

lab: setup
	PATH="$(abspath $(BIN)):$$PATH" jupyter lab $$(test "$$(id -u)" -ne 0 || echo --allow-root) $(P)

film: setup
	@mkdir -p runs "$(FILM)"
	$(BIN)/diffhpe_lift diffhpe/data/example.json --size 1920x1080 --layout coco --out runs/walk.npz --view runs/walk.html
	$(BIN)/python -c 'import sys; from diffhpe.film import write_story; from diffhpe.lifted_files import read_lifted; \
		[print(*write_story(read_lifted("runs/walk.npz"), f"{sys.argv[1]}/walk-{name}.gif", paper)) \
		for name, paper in (("light", "#ffffff"), ("dark", "#0d1117"))]' "$(FILM)"

# In this order: package = notebooks = clean and a small run as a user starts it, beside them the docs; the notebooks' own
# tests; pytest. So both cores of a small machine have work nearly to the end.
# these files begin first, so that no worker is left with one of them at the end
SLOWEST := run_experiment lifter peer_runs reliability resume speed grid parallel
test: export OMP_NUM_THREADS = 1
test: setup
	@( PATH="$(abspath $(BIN)):$$PATH" tests/check_sync.sh && tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
		$(BIN)/papermill --no-progress-bar nbs/run_experiment.ipynb "$$tmp/smoke.ipynb" -p occ consecutive -p preset smoke \
		-p results_dir "$$tmp" </dev/null ) & \
		run=$$!; $(BIN)/python tests/docs_check.py </dev/null; docs=$$?; wait $$run && exit $$docs
	$(BIN)/nbdev_test --n_workers 2 --skip_file_glob run_experiment.ipynb </dev/null
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(SLOWEST:%=tests/test_%.py) tests </dev/null

export: setup
	$(BIN)/nbdev_export

clean-nbs: setup
	$(BIN)/nbdev_clean

readme: setup
	$(BIN)/python tests/make_readme.py

EXECUTE = $(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace
refresh: setup
	$(BIN)/nbdev_export
	$(EXECUTE) $(filter-out nbs/run_experiment.ipynb nbs/transfer.ipynb nbs/tune.ipynb nbs/benchmarks.ipynb nbs/calibration.ipynb nbs/lifter_weights.ipynb nbs/lifter_exam.ipynb nbs/stream_exam.ipynb nbs/learning.ipynb nbs/hypotheses.ipynb,$(wildcard nbs/*.ipynb)) </dev/null
	$(BIN)/nbdev_clean
	$(BIN)/python tests/make_readme.py

refresh-experiment: setup
	$(EXECUTE) nbs/run_experiment.ipynb </dev/null
	$(BIN)/nbdev_clean

SCRATCH = papermill nbs/run_experiment.ipynb runs/scratch.ipynb -p from_scratch True
weights: setup
	@mkdir -p runs
	$(BIN)/$(SCRATCH) </dev/null
	$(BIN)/python -c 'from diffhpe.config import Experiment; from diffhpe.datasets import load_dataset; from diffhpe.results import run_folder, ship_weights; ship_weights(run_folder(Experiment(from_scratch=True)), "diffhpe/weights", "$(SCRATCH)", load_dataset("synthetic"))'

transfer: setup
	@mkdir -p runs
	$(BIN)/papermill nbs/transfer.ipynb runs/transfer.ipynb -p results_dir results -p data_dir '$(DATA)' </dev/null

calibration: setup
	@mkdir -p runs
	$(BIN)/papermill nbs/calibration.ipynb runs/calibration.ipynb $(if $(DATA),-p data_dir '$(DATA)') $(P) </dev/null

grid: setup
	$(BIN)/diffhpe_grid grids/paper.yaml -p results_dir results $(if $(DATA),-p data_dir '$(DATA)') $(P) </dev/null

benchmark: setup
	@mkdir -p runs
	$(BIN)/papermill nbs/benchmarks.ipynb runs/benchmarks.ipynb -p results_dir results $(P) </dev/null

dist: setup
	@version=$$(sed -n 's/^version = //p' settings.ini); test -z "$(TAG)" -o "$(TAG)" = "v$$version" || { echo "TAG=$(TAG), but the version in settings.ini is $$version" >&2; exit 1; }
	rm -rf dist
	$(BIN)/python -m build --outdir dist

dist-check: dist
	PIP_EXTRA_INDEX_URL="$(TORCH_INDEX)" $(BIN)/python tests/dist_check.py dist </dev/null

docs-check: setup
	$(BIN)/python tests/docs_check.py </dev/null

docs: setup
	PATH="$(abspath $(BIN)):$$PATH" GIT_URL="$(GIT_URL)" python tests/docs_preview.py </dev/null

setup: $(VENV)/.stamp
# torch first and alone: its index is for torch only, and where it cannot be reached pip goes on after a second
$(VENV)/.stamp: constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python >= 3.11 is needed, this is " + sys.version)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV), once: this takes some minutes"
	@index="$(TORCH_INDEX)"; $(PIP) --no-deps --retries 1 --timeout 15 $${index:+--extra-index-url "$$index"} -c constraints.txt torch
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
