#!/usr/bin/env bash
# Measure everything that needs a GPU, in one call of at most nine minutes:
#
#   benchmarks/gpu.sh [OUT]             on a machine with one NVIDIA GPU; OUT defaults to runs/gpu
#   benchmarks/gpu.sh --smoke [OUT]     every part on the CPU with tiny sizes (143 s on 2 cores)
#   python benchmarks/gpu_report.py OUT --write     put the results into benchmarks/README.md
#
# Parts, in this order: tests (gpu_tests.py, 90 s), training steps (gpu_steps.py, 160 s), loader
# (gpu_loader.py, 50 s), overhead (gpu_overhead.py, 40 s), CIFAR-10 (gpu_cifar.py, what remains, at
# most 180 s). Each is a program of its own that writes OUT/PART.json after every measurement, so a
# part that fails or runs out of time keeps its results and the next one starts. OUT/gpu.log has the
# complete output.
#
# Environment variables:
#   CARRY     folder of input data (default: carry), see below
#   PYTHON    interpreter (default: .venv/bin/python if it exists, else python3)
#   COMMIT    commit to record, if the copy on the GPU machine has no .git folder
#   SEEDS     seeds of the CIFAR-10 runs (default: 0); several share the same time
#
# Exit status: 0 if every part succeeded or was skipped for lack of data, otherwise 1.
#
# The machine needs no network. Everything it lacks is in CARRY; every item is optional, and a part
# whose data is missing reports it and is skipped:
#   wheels/      packages that the machine does not have; installed only if importing smmix_pl fails:
#                  pip download --only-binary=:all: --python-version 3.12 \
#                    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
#                    --platform manylinux2014_x86_64 -d carry/wheels \
#                    'jsonargparse[signatures]' wandb pydantic simplejpeg hypothesis pytest-timeout
#                A first run with --smoke on the machine names what else is missing.
#   reference/   clone of github.com/ChenMnZ/SMMix, whose training step is timed in turn with ours
#   photos/      JPEG photographs of ImageNet size, in any folders; 50 to a few hundred
#   cifar10/     train/CLASS/*.jpg and test/CLASS/*.jpg, or one tar archive of both
set -uo pipefail

smoke=()
if [ "${1:-}" = --smoke ]; then
  smoke=(--smoke)
  shift
fi
mkdir -p "${1:-runs/gpu}"
out=$(cd "${1:-runs/gpu}" && pwd)
carry=$(realpath -m "${CARRY:-carry}")
cd "$(dirname "$0")/.."

limit=540 # seconds in total
grace=20  # seconds of a part outside its time limit: imports before, the last measurement after
failed=0
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # deterministic matrix products, for the test of resuming
export WANDB_MODE=offline
exec > >(tee "$out/gpu.log") 2>&1

# part NAME SECONDS [ARGUMENTS...]
part() {
  local name=$1 seconds=$2 start=$SECONDS status outcome
  shift 2
  echo "== $name, at most $seconds s"
  timeout --kill-after=5 $((seconds + grace)) "$PYTHON" "benchmarks/gpu_$name.py" \
    --out "$out" --carry "$carry" --seconds "$seconds" "${smoke[@]}" "$@"
  status=$?
  case $status in
    0) outcome=done ;;
    3) outcome=skipped ;;
    124 | 137) outcome="stopped by the time limit; see $name.json for what it measured" ;;
    *) outcome="FAILED with status $status" ;;
  esac
  [ "$status" = 0 ] || [ "$status" = 3 ] || failed=1
  echo "== $name: $outcome, $((SECONDS - start)) s"
}

imports="import smmix_pl.cli.main, smmix_pl.callbacks, pytest, hypothesis"
if ! "$PYTHON" -c "$imports" 2>/dev/null && ls "$carry"/wheels/*.whl >/dev/null 2>&1; then
  site=$(mktemp -d)
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$carry"/wheels/*.whl
  export PYTHONPATH="$PYTHONPATH:$site"
fi
"$PYTHON" -c "$imports" || echo "packages are missing; parts that need them will fail"

part tests 90
part steps 160
part loader 50
part overhead 40
remaining=$((limit - SECONDS - grace))
# shellcheck disable=SC2086 # several seeds are several arguments
part cifar $((remaining < 180 ? remaining : 180)) --seeds ${SEEDS:-0}
"$PYTHON" benchmarks/gpu_report.py "$out"
echo "== $SECONDS s in total; results in $out"
exit $failed
