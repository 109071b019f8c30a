# make figures   the embedded default: everything, then where the figures are
# make report    the same, as one HTML file
# make reproduce the same again from nothing, compared number by number with results/ and with
#                resources/reference_results/
# make test      lint and all tests, the smoke configuration of the workflow among them
#
# The first call makes .venv with pinned packages; later ones use it. Another Python:
#   make figures PYTHON=/path/to/python3.12

PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

.PHONY: figures report reproduce test clean
.DELETE_ON_ERROR:

figures: .venv/ready
	@$(BIN)/python profiles/unlock.py
	$(SNAKEMAKE)
	@echo "Figures: results/figures/   Tables: results/tables/   (see results/README.md)"

report: figures
	$(SNAKEMAKE) --report results/report.html
	@echo "Report: results/report.html"

# The results that are here have to be the same to the last digit; those of another machine may differ.
reproduce: .venv/ready
	rm -rf results/reproduced
	$(SNAKEMAKE) --config results=results/reproduced
	@status=0; compare="$(BIN)/python -m ecc.evidence.reproduction"; \
	[ ! -d results/tables ] || $$compare results/reproduced results || status=1; \
	$$compare resources/reference_results results/reproduced/tables --accuracy 0.03 --relative 0.01 \
	|| status=1; exit $$status

test: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

clean:
	rm -rf .venv

# Stamps: set-up is done again only where the requirements have changed.
.venv/ready: envs/requirements.txt
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "There is no $(PYTHON): install Python 3.11 or newer, or name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old: 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "$(PYTHON) has no venv: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r envs/requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready envs/requirements-dev.txt
	$(BIN)/pip install --quiet -r envs/requirements-dev.txt
	@touch $@
