# Every target makes .venv when it is missing: git, make and Python are all that is needed.
# `make study` installs what the study needs; the others add the tools of developers and the kernels.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY := $(VENV)/study
READY := $(VENV)/ready
KERNELS := $(VENV)/kernels
CONSTRAINTS := constraints.txt
INSTALL := ANYNORM_BUILD_KERNELS=0 $(BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS)
SOURCES := setup.py src/anynorm/phi.py $(wildcard src/anynorm/kernels/cpu/*)
SANITIZED := build/sanitized/anynorm/kernels/_kernels.so
SANITIZERS := -fsanitize=address,undefined
JOBS ?= 2
MINUTES ?= 5
# Another torch, with an environment of its own.
TORCH ?= 2.14.1
OTHER := build/torch-$(TORCH)
# Many containers set it. Every process would then compile all files that it imports again.
unexport PYTHONDONTWRITEBYTECODE
# The tests of the kernels, and those of what also works without kernels.
KERNEL_TESTS := $(wildcard tests/kernels tests/ops) --ignore-glob="*/test_gpu_*"
LAYER_TESTS := $(wildcard tests/ops tests/functional tests/nn)

.PHONY: study test test-all test-isa test-torch sanitize check format bench fuzz clean

study: $(STUDY)  ## The main job: which normalizer, and why.  Writes report.html.
	$(BIN)/anynorm study --report report.html

test: $(KERNELS)  ## All tests but the slow ones.
	$(BIN)/pytest -n $(JOBS) -m "not slow"

test-all: $(KERNELS)  ## All tests.
	$(BIN)/pytest -n $(JOBS)

test-isa: $(KERNELS)  ## The kernels' tests as on lesser machines: the lowest instruction set, no kernels.
	ANYNORM_ISA=baseline $(BIN)/pytest -n $(JOBS) -m "not slow" $(KERNEL_TESTS)
	ANYNORM_KERNELS=0 $(BIN)/pytest -n $(JOBS) -m "not slow" $(LAYER_TESTS)

# Its own Triton comes with it, so that of the constraints is left out too.
test-torch:  ## The tests under another torch: make test-torch TORCH=2.14.1.
	mkdir -p $(OTHER)
	sed -e '/^torch==/d' -e '/^triton==/d' constraints.txt > $(OTHER)/constraints.txt
	echo "torch==$(TORCH)" >> $(OTHER)/constraints.txt
	$(MAKE) test VENV=$(OTHER)/venv CONSTRAINTS=$(OTHER)/constraints.txt

# Python itself is not instrumented, so the sanitizer's library must be loaded before it, and that of
# C++ with it, whose exceptions the sanitizer follows; what Python never frees would count as leaks.
sanitize: $(SANITIZED)  ## The kernels' tests with AddressSanitizer and UBSan.
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	ANYNORM_KERNELS=1 ANYNORM_LIBRARY=$(abspath $(SANITIZED)) \
	$(BIN)/pytest -n $(JOBS) -m "not slow" $(KERNEL_TESTS) $(LAYER_TESTS)

$(SANITIZED): $(READY) $(SOURCES)
	ANYNORM_BUILD_KERNELS=1 CXX="$(CXX)" LDFLAGS="$(SANITIZERS)" \
	CXXFLAGS="-O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=undefined $(SANITIZERS)" \
	$(BIN)/python setup.py --quiet build_ext --build-lib build/sanitized --build-temp build/sanitized

check: $(READY)  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(KERNELS)  ## Speed, as ratios to torch and others measured side by side.
	$(BIN)/python -m benchmarks.speed --out benchmarks/results

fuzz: $(KERNELS)  ## Random cases against the formula in float64: make fuzz MINUTES=60.
	$(BIN)/python -m benchmarks.fuzz --minutes $(MINUTES)

# A mark is written last, so that an interrupted installation is begun again.
# The study runs without the kernels: building them takes longer than they could save on its small tensors.
# Compiling every installed file takes longer than installing it, and Python compiles those that are imported.
$(STUDY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[study]"
	touch $(STUDY)

# Compiled here, files give their SyntaxWarnings here, not in the tests, where warnings are errors.
$(READY): $(STUDY)
	$(INSTALL) --editable ".[dev]"
	$(BIN)/python -W ignore -m compileall -qq -j $(JOBS) $(VENV)/lib || true
	touch $(READY)

$(KERNELS): $(READY) $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $(KERNELS)

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/anynorm/kernels/_kernels.so src/anynorm/kernels/_why_not.txt
