# make help lists the targets. Everything happens in .venv, with the Python that PYTHON names.
PYTHON ?= python3
TORCH ?= 2.13.0
EMIX_CUDA ?= AUTO
BIN := .venv/bin
INSTALLED := .venv/installed-torch-$(TORCH)-cuda-$(EMIX_CUDA)
SOURCES := $(shell find csrc cmake CMakeLists.txt pyproject.toml -type f 2>/dev/null)

TASK := lbf/Foraging-5x5-2p-1f-v3
RUNS ?= runs/$(shell date +%Y-%m-%d_%H-%M-%S)

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */make \1\t/' | expand -t 22
	@echo "variables: PYTHON=$(PYTHON) TORCH=$(TORCH) EMIX_CUDA=$(EMIX_CUDA) (AUTO, ON, OFF) JOBS=$(JOBS)"

.PHONY: help setup train test test-torch test-emulated sanitize bench fuzz gpu-check gpu-wheels journeys kill-test sc2-failures docs wheel lint format clean
setup: $(INSTALLED)  ## .venv with torch, an editable build of emix and every tool

$(INSTALLED): $(SOURCES)
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 10) else "emix needs Python 3.10 or newer, %s is %d.%d: make setup PYTHON=python3.11" % (sys.executable, *v))'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@echo "Installing torch $(TORCH), then building emix (two to three minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check torch==$(TORCH) 'scikit-build-core>=0.11' 'cmake>=3.26' ninja
	@EMIX_CUDA=$(EMIX_CUDA) $(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	@rm -f .venv/installed-* && touch $@

train: setup  ## SMIX(λ) on level-based foraging, two minutes
	$(BIN)/emix train smix@foraging $(TASK) --seed 1 --runs "$(RUNS)"

# In so many processes; a test that trains, kills or compiles takes seconds of waiting.
JOBS ?= 2
test: setup  ## all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# The CUDA kernels on the CPU, each thread a fiber (tests/emulator), under the ops' own tests, without those of what is Python alone; then in another thread
# order, and looking for data races, which takes several times as long: every op once, forward and backward, and those that pass memory between lanes.
KERNEL_TESTS := tests/ops tests/envs/battle/test_devices.py tests/cli/test_kernels.py
PYTHON_TESTS := tests/ops/test_transforms.py tests/ops/test_shared.py tests/ops/test_compile.py
RACE_TESTS := tests/ops/test_graph_capture.py tests/ops/test_returns.py tests/ops/test_mixing.py tests/ops/test_battle.py
test-emulated: setup  ## the ops' tests on the CUDA kernels, emulated on the CPU
	@$(BIN)/cmake -S . -B build/emulated -G Ninja -DEMIX_CUDA=EMULATED -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" > build-emulated.log || (cat build-emulated.log; false)
	@$(BIN)/cmake --build build/emulated && rm build-emulated.log
	EMIX_LIBRARY=build/emulated/libemix.so EMIX_EMULATOR_RACES=off $(BIN)/python -m pytest -n 2 $(KERNEL_TESTS) $(PYTHON_TESTS:%=--ignore %)
	EMIX_LIBRARY=build/emulated/libemix.so EMIX_EMULATOR_ORDER=shuffled:1 $(BIN)/python -m pytest -n 2 $(RACE_TESTS)

# What a student, an engineer with another code base and a maintainer would do first; the tests take the quick steps.
journeys: setup  ## what a student, an engineer and a maintainer would do first
	@for who in student engineer maintainer; do $(BIN)/python -m tests.journeys.$$who --all || exit 1; done

# Trainings that are killed by kill -9 at random moments, and at each write, fsync, rename and deletion in turn, and resumed: the same bytes.
SECONDS ?= 60
kill-test: setup  ## trainings that are killed and resumed, for SECONDS
	$(BIN)/python -m tests.fuzz.kills --seconds $(SECONDS)

# The CPU kernels with the address and undefined-behaviour sanitizers, once for each level of instructions that this machine has, under the ops' own tests.
# What they find ends the run. Leaks are not looked for: Python and torch keep what they have until the end.
SANITIZE_TESTS := tests/ops tests/envs/battle
SANITIZE_FLAGS := -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -DEMIX_ONE_LEVEL
LEVELS ?= $(if $(shell grep -m1 -ow avx512vl /proc/cpuinfo),x86-64-v4) $(if $(shell grep -m1 -ow avx2 /proc/cpuinfo),x86-64-v3) x86-64
sanitize: setup  ## the CPU kernels under the address and undefined-behaviour sanitizers
	@for level in $(LEVELS); do \
	  echo "sanitize: $$level"; \
	  $(BIN)/cmake -S . -B build/sanitize-$$level -G Ninja -DEMIX_CUDA=OFF -DCMAKE_CXX_FLAGS="$(SANITIZE_FLAGS) -march=$$level" -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
	    -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python > /dev/null && \
	  $(BIN)/cmake --build build/sanitize-$$level && \
	  EMIX_LIBRARY=build/sanitize-$$level/libemix.so LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/python -m pytest -n 2 -p no:cacheprovider $(SANITIZE_TESTS) || exit 1; \
	done

# StarCraft II's stand-in, which dies, is cut off, says nothing and says nonsense so many times while episodes are played.
COUNT ?= 100
sc2-failures: setup  ## StarCraft II's stand-in, failing COUNT times
	$(BIN)/python -m tests.sc2_standin.failures --count $(COUNT)

bench: setup  ## all benchmarks, beside what a user would take instead
	$(BIN)/python -m pytest benchmarks

# Random input for so long: tests/fuzz.
fuzz: setup  ## random input for SECONDS
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

# All that is to be done on a GPU, in eight minutes, by a Python that has torch (not .venv), without a network. PARTS: some of build tests
# train ops battle update sanitizer. OUT: the folder of the results. DEVICE=emulated: the emulated kernels in place of a GPU.
PARTS ?=
DEVICE ?= cuda
OUT ?= build/gpu-check/results
gpu-check:  ## all that is to be done on a GPU, in eight minutes, without a network
	@"$(PYTHON)" -m benchmarks.gpu_check --device $(DEVICE) --out "$(OUT)" $(if $(PARTS),--parts "$(PARTS)")

# Beforehand, with a network: the wheels that the GPU's machine lacks, into .wheels. What it has, GPU_HAS, is not fetched, nor what that needs.
GPU_PYTHON ?= 3.12
GPU_PLATFORM ?= manylinux_2_28_x86_64
GPU_HAS ?= torch==2.11.0 numpy==2.5.2 matplotlib==3.10.9 tensorboard==2.20.0 pillow==12.0.0 cmake==4.1.0 ninja==1.13.0
gpu-wheels:  ## the wheels that the machine of the GPU lacks
	@"$(PYTHON)" -m benchmarks.gpu_check.packages --python $(GPU_PYTHON) --platform $(GPU_PLATFORM) --there $(GPU_HAS)

# One wheel for every Python from 3.10 on and every torch from 2.10 on, into dist; then it is tried in fresh environments, of every Python at hand with torch
# 2.13 and of one with WHEEL_TORCH. RELEASE=OFF: CUDA code for this machine's GPU alone, or none (EMIX_CUDA=OFF), which is built sooner;
# a release without nvcc is an error.
RELEASE ?= ON
WHEEL_CUDA := $(if $(filter ON-AUTO,$(RELEASE)-$(EMIX_CUDA)),ON,$(EMIX_CUDA))
WHEEL_TORCH ?= 2.11 2.13 newest
wheel: setup  ## the wheel of a release, into dist, tried in fresh environments
	@rm -rf build/wheel dist
	EMIX_RELEASE=$(RELEASE) EMIX_CUDA=$(WHEEL_CUDA) $(BIN)/pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir build/wheel .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude libtorch_cpu.so --wheel-dir dist build/wheel/emix-*.whl
	"$(PYTHON)" -m tests.wheel dist/emix-*.whl --torch $(WHEEL_TORCH)

# The ops' and the package's tests against the wheel in dist, whatever it was built with, under another torch: make test-torch TORCH=2.11
test-torch:  ## the tests against dist's wheel under the torch that TORCH names
	@ls dist/emix-*.whl > /dev/null || (echo "make wheel comes first" && false)
	"$(PYTHON)" -m venv --clear build/torch-$(TORCH)
	build/torch-$(TORCH)/bin/pip install --quiet --disable-pip-version-check "torch==$(TORCH).*" "$$(ls dist/emix-*.whl)[test]"
	build/torch-$(TORCH)/bin/python -c 'import emix, torch; print("emix of", emix.__path__[0], "under torch", torch.__version__)'
	build/torch-$(TORCH)/bin/python -m pytest -n $(JOBS) --dist worksteal

# From docs/*.md and the docstrings; without a network, once .venv is there. A warning is an error.
docs: setup  ## the site, into build/docs/html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --jobs 2 -d build/docs/doctrees docs build/docs/html

CPP := $(shell find csrc tests/emulator -name '*.h' -o -name '*.cpp' -o -name '*.cu')
lint: setup  ## ruff, mypy, clang-format, clang-tidy
	$(BIN)/ruff check python tests benchmarks examples
	$(BIN)/ruff format --check python tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/cmake -S . -B build/tidy -G Ninja -DEMIX_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" > /dev/null
	@printf '%s\n' csrc/library.cpp $(shell find csrc -name cpu.cpp) | xargs -P $(JOBS) -n 1 $(BIN)/clang-tidy --quiet -p build/tidy

format: setup  ## mends what ruff and clang-format can mend
	$(BIN)/ruff check --fix python tests benchmarks examples
	$(BIN)/ruff format python tests benchmarks examples
	$(BIN)/clang-format -i $(CPP)

clean:  ## removes .venv and build
	rm -rf .venv build
