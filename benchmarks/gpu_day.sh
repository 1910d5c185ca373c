#!/usr/bin/env bash
# All that a real GPU must show, in one go and under ten minutes. Run it in the root of a clone on a machine with a GPU:
#   STDECONV_DATA=FOLDER PYTHON=python3 benchmarks/gpu_day.sh
# Needs: pip install -e '.[test,cuda12]' (or cuda13). compute-sanitizer and ncu come with the CUDA toolkit; where one is
# missing its step says so and counts as failed. Every step that fails is named at the end, and the exit status is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

step() { # NAME SECONDS COMMAND...: run it for so long at most, say how it went
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    echo "== $name"
    if timeout "$limit" "$@"; then
        echo "== $name: ok, $((SECONDS - start)) s"
    else
        echo "== $name: FAILED with $?, $((SECONDS - start)) s"
        failed+=("$name")
    fi
}

day() { "$python" -W ignore benchmarks/gpu_day.py "$@"; }
export -f day
export python

step "the card" 20 nvidia-smi
step "a device is found" 30 "$python" -W ignore benchmarks/gpu_day.py card --json "$work/card.json"
if [ ${#failed[@]} -gt 0 ]; then
    echo "no usable GPU: nothing else is tried"
    exit 1
fi
step "tests" 120 "$python" -m pytest -q -m gpu tests
step "memcheck" 50 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -W ignore benchmarks/gpu_day.py kernels
step "racecheck" 50 compute-sanitizer --tool racecheck --error-exitcode 9 "$python" -W ignore benchmarks/gpu_day.py kernels
step "CPU against GPU on real sets" 90 bash -c 'day sets --json "$0"' "$work/sets.json"
step "times at scale" 180 bash -c 'day scale --json "$0"' "$work/scale.json"
step "fractions of the peak" 50 bash -c 'ncu --csv --metrics sm__throughput.avg.pct_of_peak_sustained_elapsed,gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed --launch-count 60 "$python" -W ignore benchmarks/gpu_day.py large > "$0"' "$work/ncu.csv"
step "results" 10 bash -c 'day join "$0"' "$work"

if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
echo "all steps ok, $SECONDS s"
