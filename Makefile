# make figures   the embedded default: everything, then where the figures are
# make report    the same, as one HTML file
# make complete  the same of a longer run, in which all claims that can be tested here have data
# make reproduce figures again from nothing, compared number by number with results/ and with
#                resources/reference_results/
# make docs      the documentation as a site, in site/
# make test      lint and all tests, the smoke configuration of the workflow among them
#
# With another configuration than the default, for any of the first three:
#   make report CONFIG=configs/methods.yaml
#
# The first call makes .venv with pinned packages; later ones use it. Another Python:
#   make figures PYTHON=/path/to/python3.12

PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
$(foreach file,$(CONFIG),$(if $(wildcard $(file)),,$(error CONFIG: there is no $(file))))
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) $(if $(CONFIG),--configfile $(CONFIG))
# Where this configuration writes, and the folder of its reference results, if it has one.
RESULTS := $(lastword results $(shell sed -n 's/^results: *\([^ ]*\).*/\1/p' config.yaml $(CONFIG)))
REFERENCE := resources/reference_results/$(or $(basename $(notdir $(lastword $(CONFIG)))),default)

.PHONY: figures report complete reproduce docs test clean
.DELETE_ON_ERROR:

figures: .venv/ready
	@$(BIN)/python profiles/unlock.py
	$(SNAKEMAKE)
	@echo "Figures: $(RESULTS)/figures/   Tables: $(RESULTS)/tables/   (see results/README.md)"
	@echo "Does it hold? $(RESULTS)/index.html"

report: figures
	$(SNAKEMAKE) --report $(RESULTS)/report.html --report-stylesheet docs/report/report.css
	@$(BIN)/python -c "from ecc import files; files.seal('$(RESULTS)/report.html')"
	@echo "Report: $(RESULTS)/report.html"

complete:
	$(MAKE) report CONFIG="configs/eap.yaml configs/evolution.yaml configs/complete.yaml"

# The results that are here have to be the same to the last digit; those of another machine may differ.
reproduce: .venv/ready
	@[ -d $(RESULTS)/tables ] || [ -d $(REFERENCE) ] || \
	  { echo "There is nothing to compare with: neither $(RESULTS)/tables nor $(REFERENCE); make figures first"; exit 1; }
	rm -rf $(RESULTS)/reproduced
	$(SNAKEMAKE) --config results=$(RESULTS)/reproduced
	@status=0; compare="$(BIN)/python -m ecc.evidence.reproduction"; \
	[ ! -d $(RESULTS)/tables ] || $$compare $(RESULTS)/reproduced $(RESULTS) || status=1; \
	[ ! -d $(REFERENCE) ] || \
	$$compare $(REFERENCE) $(RESULTS)/reproduced/tables --accuracy 0.1 --relative 0.03 || status=1; \
	exit $$status

# The variable silences the theme's own announcement.
docs: .venv/ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Docs: site/index.html"

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
.venv/ready: envs/requirements.txt envs/lock.txt
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

.venv/ready-docs: .venv/ready envs/requirements-docs.txt
	$(BIN)/pip install --quiet -r envs/requirements-docs.txt
	@touch $@
