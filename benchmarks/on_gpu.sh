#!/bin/sh
# All that needs a GPU, within nine minutes: the tests under -m gpu and the benchmarks of speed. Writes seven small files
# into $OUT (default benchmarks/results/gpu): what the tests said, a log, and five tables as CSV.
set -u
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/results/gpu}
python=${PYTHON:-python}
mkdir -p "$out"
rm -f benchmarks/results/*-cuda.csv
timeout 150 "$python" -m pytest -m gpu -q -p no:cacheprovider >"$out/tests.txt" 2>&1
: >"$out/log.txt"
one() {
    seconds=$1
    shift
    timeout "$seconds" "$python" "$@" --device cuda >>"$out/log.txt" 2>&1 || echo "failed or too slow: $*" >>"$out/log.txt"
}
one 90 benchmarks/step.py --images 512 --batch 64 --repeats 3
one 60 benchmarks/step.py --model convnext_tiny --images 512 --batch 64 --repeats 3
one 60 benchmarks/explain.py --images 512 --batch 64 --repeats 3
one 40 benchmarks/prune.py --images 512 --repeats 3
one 120 benchmarks/end_to_end.py --images 512 --batch 64 --epochs 10 --repeats 1
cp benchmarks/results/*-cuda.csv "$out/"
tail -n 3 "$out/tests.txt"
ls "$out"
