# shellcheck shell=bash
# The parts of a campaign. Sourced by scripts/lib/gpu-campaign/run.sh; each runs in the output folder, and has a folder of its
# name there.

: "${here:?}" "${hearth=}" "${out=}" "${layers=}" "${model=}" "${vram=}" "${device=}" "${repeat=}" "${LEFT_OUT=}"
[ -n "${switches+set}" ] || switches=()

# Three of four layers of Qwen3-Next are recurrent, and llama.cpp ends a process whose model has no other.
LEAST_LAYERS=4

models_in_memory() { printf '/dev/shm/hearth-gpu-campaign-%s\n' "$(id -u)"; }

# Available main memory in bytes.
available() { awk '/^MemAvailable:/ { printf "%d", $2 * 1024 }' /proc/meminfo; }

# synthetic FOLDER NAME OPTION...: makes a random model; prints its path.
synthetic() {
  local file=$1/$2.gguf
  mkdir -p "$1"
  if ! [ -f "$file" ]; then
    "$hearth" synthetic-gguf "${@:3}" --type q4_k_m --skew 0.5 --force -o "$file.part" >&2
    mv "$file.part" "$file"
  fi
  printf '%s\n' "$file"
}

# random_model LAYERS [OPTION...]: the path of a random Qwen3-Next with so many layers, or fewer where there is not the memory.
# In memory, if that has twice its size: weights may be read instead of mapped.
random_model() {
  local count=$1 size shape free folder
  shift
  while :; do
    shape=(--arch qwen3next --preset 80b-a3b --layers "$count" "$@")
    # One that is there already takes no more memory.
    for folder in "$(models_in_memory)" "$out/models"; do
      if [ -f "$folder/$(name_of "${shape[@]}").gguf" ]; then
        printf '%s\n' "$folder/$(name_of "${shape[@]}").gguf"
        return
      fi
    done
    "$hearth" synthetic-gguf "${shape[@]}" --type q4_k_m --header-only --force -o header.gguf 2>/dev/null
    size=$(stat -c %s header.gguf)
    rm header.gguf
    if [ "$size" -le $(($(available) * 6 / 10)) ] || [ "$count" -le $LEAST_LAYERS ]; then break; fi
    count=$((count * 3 / 4))
    [ "$count" -ge $LEAST_LAYERS ] || count=$LEAST_LAYERS
  done
  [ "$count" = "$layers" ] || echo "a random model of $count layers, $((size >> 20)) MiB" >&2
  folder=$(models_in_memory)
  free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { printf "%d", $4 * 1024 }')
  if ! [ -d /dev/shm ] || [ "${free:-0}" -lt "$size" ] || [ $((size * 2)) -gt "$(available)" ]; then
    folder=$out/models
  fi
  synthetic "$folder" "$(name_of "${shape[@]}")" "${shape[@]}"
}

# name_of OPTION...: a name for what the options make.
name_of() { printf '%s' "$*" | tr -c 'a-z0-9' '-' | sed 's/--*/-/g; s/^-//'; }

# the_model LAYERS [OPTION...]: what --model names, or a random one.
the_model() { if [ -n "$model" ]; then printf '%s\n' "$model"; else random_model "$@"; fi; }

# configured FILE MODEL EXPERTS DRAFT [SLOTS]: writes a configuration.
configured() {
  local experts=$3
  [ "$device" = gpu ] || experts=${experts/'placement = "cache"'/'placement = "cache", device = "cpu"'}
  cat >"$1" <<TOML
[[model]]
name = "m"
path = "$2"
context = 4096
parallel = ${5:-1}
experts = { $experts }
draft = { kind = "$4" }
TOML
}

# seen_gpu MODEL: whether hearth sees a GPU.
seen_gpu() {
  local plan
  plan=$("$hearth" plan --gguf "$1" 2>/dev/null) && [[ ${plan%%$'\n'*} != *"no GPU"* ]]
}

# gpu_bytes MODEL: what the GPU has of memory.
gpu_bytes() { "$hearth" plan --gguf "$1" --json | awk '/^ *"total": / { gsub(/[^0-9]/, ""); if (!seen++) print }'; }

# need_gpu: leaves the part out where hearth sees no GPU, before minutes go into a random model.
need_gpu() {
  [ "$device" = gpu ] || return 0
  seen_gpu "$(tiny)" && return 0
  echo "hearth sees no GPU; missing:"
  what_is_missing "$(tiny)" | sed 's/^/  /'
  echo "--device cpu keeps copies in main memory instead, to try the script"
  exit "$LEFT_OUT"
}

# tiny: the path of a small random model, with a head.
tiny() { synthetic "$out/models" tiny --arch qwen3next --preset tiny --mtp; }

# what_is_missing MODEL: what stands between hearth and a GPU, one thing per line.
what_is_missing() {
  local beside file name
  beside=$(dirname "$hearth")
  if ! command -v nvidia-smi >/dev/null || ! nvidia-smi >/dev/null 2>&1; then
    echo "the driver: nvidia-smi is not here, or finds no card"
  fi
  loader_finds libcuda.so.1 || echo "libcuda.so.1, which comes with the driver"
  for file in "$hearth" "$beside"/lib*.so*; do
    [ -e "$file" ] || continue
    for name in $(missing_libraries "$file"); do
      echo "the library $name, for $(basename "$file")"
    done
  done
  seen_gpu "$1" || if [ -e "$beside/libggml-cuda.so" ]; then
    echo "a GPU that hearth can use with libggml-cuda.so, which lies beside it"
  else
    echo "a GPU that hearth can use: build it with HEARTH_FEATURES=cuda (or vulkan), or put libggml-cuda.so beside it"
  fi
}

part_check() {
  local missing beside file
  beside=$(dirname "$hearth")
  echo "-- machine"
  uname -srm
  nproc
  # procps, with its \`free\`, is not everywhere.
  grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
  df -h /dev/shm "$out" || true
  echo "-- driver and cards"
  if command -v nvidia-smi >/dev/null && nvidia-smi; then
    nvidia-smi --format=csv --query-gpu=name,driver_version,compute_cap,memory.total,memory.used,pcie.link.gen.max,pcie.link.width.max,power.limit
  else
    [ -e /proc/driver/nvidia/version ] && cat /proc/driver/nvidia/version
    ls -l /dev/nvidia* /dev/dri 2>/dev/null || true
  fi
  echo "-- hearth"
  [ -z "$kit" ] || cat "$kit/kit.txt"
  echo "$hearth"
  echo "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
  [ -e "$beside/libggml-cuda.so" ] && ls -l "$beside/libggml-cuda.so"
  file=$(tiny)
  configured check/tiny.toml "$file" 'placement = "auto"' none
  "$hearth" doctor --config check/tiny.toml || true
  echo "-- plan"
  "$hearth" plan --gguf "$file"
  if ! seen_gpu "$file"; then
    "$hearth" generate x --model-path "$file" --raw --max-tokens 1 --log llama-cpp-2=debug 2>&1 |
      grep -iE 'cuda|vulkan|load_backend' || true
  fi
  "$hearth" plan --gguf "$file" --vram 1GiB >/dev/null
  echo "-- a short answer"
  "$hearth" generate "one two three" --model-path "$file" --raw --max-tokens 16 --temperature 0 --json | tee check/answer.json
  missing=$(what_is_missing "$file")
  if [ -n "$missing" ]; then
    echo "-- missing"
    printf '%s\n' "$missing"
    [ "$device" = cpu ] || return 1
  fi
}

# Prompts of several lengths, some of 9 to 16 tokens.
prompts() {
  printf '"%s"\n' "a" "The quick brown fox jumps" "one two three four five six seven eight nine" \
    "one two three four five six seven eight nine ten eleven twelve" \
    "The ferry left the harbour an hour late because the fog had not lifted, and nobody had told the passengers why." |
    sed 's/.*/{"prompt": &}/'
}

part_tokens() {
  local file way experts draft size shared line=0 first failed=0 known
  need_gpu
  file=$(the_model $((layers < 8 ? layers : 8)) --mtp)
  prompts >tokens/prompts.jsonl
  known=$("$hearth" plan --gguf "$file" | grep -c drafts) || true
  for way in gpu cpu cache cache-25 cache+waited gpu+drafts cpu+drafts cache+drafts; do
    case $way in
      gpu*) experts='placement = "gpu"' ;;
      cpu*) experts='placement = "cpu"' ;;
      cache-25) experts='placement = "cache", cache = "25%"' ;;
      cache*) experts='placement = "cache", cache = "50%"' ;;
    esac
    if [ "$device" = cpu ]; then
      # Without a GPU all is on the CPU anyway.
      case $way in gpu* | *+waited) continue ;; cpu*) experts='placement = "auto"' ;; esac
    fi
    draft=none
    case $way in *+drafts) draft=mtp ;; esac
    if [ $draft = mtp ] && [ "$known" = 0 ]; then
      echo "$way: left out, the model has no head for multi-token prediction"
      continue
    fi
    configured "tokens/$way.toml" "$file" "$experts" $draft
    if ! (
      # The older way of blocks, which tells whose fault it is if the other differs.
      case $way in *+waited) export HEARTH_EXPERT_HANDOVER=waited ;; esac
      "$hearth" generate --batch tokens/prompts.jsonl --config "tokens/$way.toml" --raw --max-tokens 64 --temperature 0 \
        >"tokens/$way.jsonl"
    ); then
      echo "$way: FAILED"
      failed=1
      continue
    fi
    # The text stands before what is counted and timed.
    sed 's/,"finish_reason".*//' "tokens/$way.jsonl" >"tokens/$way.texts"
    if [ -z "${first:-}" ]; then
      first=$way
      echo "$way: what the others are compared with"
      continue
    fi
    line=0
    while IFS= read -r size && IFS= read -r -u 3 expected; do
      line=$((line + 1))
      if [ "$size" = "$expected" ]; then
        echo "$way, prompt $line: the same"
        continue
      fi
      shared=$(beginning "$expected" "$size")
      echo "$way, prompt $line: the same for $shared of ${#expected} characters"
      # Rounding may turn one token of many into another; wrong experts would show in the first ones.
      [ "$shared" -ge 16 ] || failed=1
    done <"tokens/$way.texts" 3<"tokens/$first.texts"
  done
  return $failed
}

# beginning A B: characters at the beginning of two texts that are the same.
beginning() {
  local count=0
  while [ "${1:count:1}" = "${2:count:1}" ] && [ $count -lt ${#1} ]; do count=$((count + 1)); done
  echo $count
}

part_tests() {
  local root=$here/..
  if [ -n "$kit" ] || ! [ -x "$root/scripts/test-gpu-path" ] || ! command -v cargo >/dev/null; then
    echo "tests need a checkout of hearth, and Rust"
    return "$LEFT_OUT"
  fi
  if [ "$device" = cpu ]; then
    echo "tests of the GPU path without a GPU: scripts/test-gpu-path"
    return "$LEFT_OUT"
  fi
  HEARTH_FEATURES=${HEARTH_FEATURES:-cuda} "$root/scripts/test-gpu-path" --real
}

part_placements() {
  local file size
  need_gpu
  file=$(the_model "$layers" --mtp)
  size=$(stat -Lc %s "$file")
  # A card that holds a third of the model.
  [ -n "$vram" ] || if [ "$size" -gt $((12 << 30)) ]; then vram=8GiB; else vram=$((size / 3 + (512 << 20))); fi
  local configuration=(--model-path "$file" --vram "$vram")
  if [ "$device" = cpu ]; then
    configured placements/cpu.toml "$file" 'placement = "cache", cache = "25%"' auto 8
    configuration=(--config placements/cpu.toml)
  fi
  [ "$device" = gpu ] || configuration+=(--prompt-tokens '64,256' --generate 32 --concurrency '1,2')
  "$hearth" benchmark --placements "${configuration[@]}" --repeat "$repeat" --json >placements/placements.json
}

# short NAME: a short measurement of a configuration in the folder of the part, into NAME.json.
short() {
  local load=(--prompt-tokens 512 --generate 128)
  # Nobody wants to know how fast that is.
  [ "$device" = gpu ] || load=(--prompt-tokens 64 --generate 32)
  echo "-- $1"
  "$hearth" benchmark --config "$part/$1.toml" "${load[@]}" --concurrency 1 --repeat "$repeat" --json \
    >"$part/$1.json.part" && mv "$part/$1.json.part" "$part/$1.json"
}

# layers_for_card MODEL: layers of the random model of which the card holds all.
layers_for_card() {
  local bytes
  bytes=$(gpu_bytes "$1")
  # A layer of the random model takes 0.95 GiB; a fifth is for the rest.
  bytes=$((bytes * 8 / 10 / 1020054733))
  if [ "$bytes" -lt $LEAST_LAYERS ]; then echo $LEAST_LAYERS; elif [ "$bytes" -lt "$layers" ]; then echo "$bytes"; else echo "$layers"; fi
}

part_sweep() {
  local file share failed=0 part=sweep count=$layers
  need_gpu
  if [ "$device" = gpu ] && [ -z "$model" ]; then count=$(layers_for_card "$(tiny)"); fi
  # With the head, as in `placements`, so that one file does for both.
  file=$(the_model "$count" --mtp)
  "$hearth" inspect "$file" --json >sweep/model.inspect
  for share in 0 25 50 75 100; do
    configured "sweep/$share.toml" "$file" "placement = \"cache\", cache = \"$share%\"" none
    short "$share" || failed=1
  done
  if [ "$device" = gpu ]; then
    for share in gpu cpu; do
      configured "sweep/$share.toml" "$file" "placement = \"$share\"" none
      short "$share" || failed=1
    done
  fi
  return $failed
}

part_switches() {
  local file cores switch name failed=0 part=switches number=0
  need_gpu
  file=$(the_model "$layers" --mtp)
  cores=$(nproc)
  # Twice without any: what lies between the two is the machine's.
  for switch in none HEARTH_EXPERT_HANDOVER=waited GGML_CUDA_DISABLE_GRAPHS=1 GGML_CUDA_DISABLE_FUSION=1 GGML_CUDA_NO_PINNED=1 \
    "HEARTH_THREADS=$((cores > 1 ? cores - 1 : 1))" "HEARTH_THREADS=$((cores > 1 ? cores / 2 : 1))" "${switches[@]}" none; do
    number=$((number + 1))
    name=$number-$(name_of "${switch,,}")
    configured "switches/$name.toml" "$file" 'placement = "cache", cache = "30%"' none
    (
      [ "$switch" = none ] || export "${switch?}"
      short "$name"
    ) || failed=1
  done
  return $failed
}

# The path of NVIDIA's compute-sanitizer.
sanitizer_here() {
  local folder
  command -v compute-sanitizer && return
  for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-* /opt/cuda; do
    if [ -n "$folder" ] && [ -x "$folder/bin/compute-sanitizer" ]; then
      printf '%s\n' "$folder/bin/compute-sanitizer"
      return
    fi
  done
  return 1
}

part_sanitize() {
  local file sanitizer
  if [ "$device" = cpu ]; then
    echo "compute-sanitizer watches what runs on a GPU"
    return "$LEFT_OUT"
  fi
  need_gpu
  sanitizer=$(sanitizer_here) || {
    echo "compute-sanitizer is not here: neither in PATH, nor in CUDA_HOME, nor in /usr/local/cuda; it comes with CUDA's toolkit"
    return "$LEFT_OUT"
  }
  file=$(the_model $LEAST_LAYERS --experts 64)
  configured sanitize/cache.toml "$file" 'placement = "cache", cache = "30%"' none 2
  # The first round decodes, so that experts have copies when the prompts of the second arrive.
  "$sanitizer" --tool memcheck --target-processes all --error-exitcode 99 --log-file sanitize/memcheck.log \
    "$hearth" benchmark --config sanitize/cache.toml --prompt-tokens 9,12,16,100,300 --generate 12 --concurrency 1,2 --repeat 1 --json \
    >sanitize/benchmark.json || {
    tail -n 30 sanitize/memcheck.log
    return 1
  }
  tail -n 3 sanitize/memcheck.log
}
