#!/usr/bin/env bash
# What is to be measured once a GPU is at hand, within ten minutes: results go to FOLDER as JSON.
#
#   benchmarks/gpu_day.sh FOLDER [IMAGES] [SMALL]
#
# IMAGES: a folder, by default synthetic textures. SMALL: any word, for a trial on a CPU in minutes.
# The most important comes first, and each result is on disk when the next is begun.
set -uo pipefail
cd "$(dirname "$0")"
out="$(mkdir -p "$1" && cd "$1" && pwd)" images="${2:-}" small="${3:-}"
count=246 lanes=1,4,16,64,128 steps=()
[ -n "$small" ] && count=2 lanes=1 steps=(--steps=2)
input=()
[ -n "$images" ] && input=(--input="$images")

for precision in float32 bfloat16; do  # images a second, device busy, host stages, memory
  timeout 200 python throughput.py --images="$count" --precision="$precision" "${input[@]}" \
    "${steps[@]}" --json="$out/run_$precision.json" > "$out/run_$precision.log" 2>&1
  timeout 100 python lane_steps.py --lanes="$lanes" --precision="$precision" \
    --json="$out/lanes_$precision.json" > "$out/lanes_$precision.log" 2>&1
done
ls "$out"
