# shellcheck shell=bash
# Runs the parts of a campaign. Sourced by scripts/gpu-campaign, from a checkout or from a kit.

: "${here:?the folder of the script}" "${lib:?the folder of its parts}"
# shellcheck source=scripts/lib/gpu-campaign/parts.sh
. "$lib/parts.sh"

PARTS=(check tokens placements sweep switches sanitize tests)
# Exit code of a part that cannot be run here, as automake has it.
LEFT_OUT=77

# limit_of PART: seconds that it may take.
limit_of() {
  case $1 in
    check) echo 180 ;;
    tests) echo 1800 ;;
    placements) echo 900 ;;
    *) echo 580 ;;
  esac
}

# hearth_of: the program that is measured.
hearth_of() {
  local built=${CARGO_TARGET_DIR:-$here/../target}/release/hearth
  if [ -n "$kit" ]; then
    unpack_kit
  elif [ -x "$built" ]; then
    realpath "$built"
  else
    command -v hearth || die "there is no hearth: neither $built nor in PATH
  hint: HEARTH_FEATURES=cuda scripts/build makes one, and --hearth says where one is"
  fi
}

# Unpacks the kit, once for each content; prints where hearth is.
unpack_kit() {
  local folder temporary
  folder=${TMPDIR:-/tmp}/hearth-kit-$(id -u)-$(cat "$kit"/*.xz "$kit/kit.txt" | cksum | cut -d ' ' -f 1)
  if ! [ -d "$folder" ]; then
    can_unpack || die "a kit needs xz or Python 3 to be unpacked, and neither is here
  hint: apt-get install xz-utils, dnf install xz"
    temporary=$(mktemp -d "$folder.XXXXXX")
    if ! unpack_xz "$kit/hearth.tar.xz" | tar -C "$temporary" -xf - ||
      { [ -f "$kit/libggml-cuda.so.xz" ] && ! unpack_xz "$kit/libggml-cuda.so.xz" >"$temporary/libggml-cuda.so"; }; then
      rm -rf "$temporary"
      die "the kit cannot be unpacked into ${TMPDIR:-/tmp}
  hint: it takes 120 MB there; TMPDIR names another folder"
    fi
    # Another call may have been quicker.
    mv -T "$temporary" "$folder" 2>/dev/null || rm -rf "$temporary"
  fi
  printf '%s\n' "$folder/hearth"
}

can_unpack() { command -v xz >/dev/null || python3 -c 'import lzma' 2>/dev/null; }

# unpack_xz FILE: to standard output.
unpack_xz() {
  if command -v xz >/dev/null; then
    xz -dc "$1"
  else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}

# Folders in which libraries of CUDA may be, one per line.
cuda_folders() {
  local folder python
  for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /opt/cuda; do
    [ -z "$folder" ] || printf '%s\n' "$folder/lib64" "$folder/targets/$(uname -m)-linux/lib"
  done
  printf '%s\n' /usr/local/cuda-*/lib64
  # NVIDIA's packages on PyPI, which PyTorch brings along.
  while read -r python; do
    printf '%s\n' "$python"/nvidia/*/lib
  done < <(python3 -c 'import site, sysconfig; print(sysconfig.get_paths()["purelib"], *site.getsitepackages(), site.getusersitepackages(), sep="\n")' 2>/dev/null)
}

# missing_libraries FILE: the names of libraries that the loader does not find.
missing_libraries() {
  LD_LIBRARY_PATH=$(dirname "$1")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ldd "$1" 2>/dev/null | sed -n 's/^[[:space:]]*\([^ ]*\) => not found$/\1/p' | sort -u
}

# loader_finds NAME: whether a program would find a library.
loader_finds() { [ -z "$(LD_PRELOAD=$1 /bin/true 2>&1)" ]; }

# Lets the loader find what lies beside hearth in a kit, the driver's libraries where containers and WSL have them, and those
# of CUDA that the module beside hearth links to.
find_libraries() {
  local beside name folder
  beside=$(dirname "$hearth")
  if ! loader_finds libcuda.so.1; then
    for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib; do
      if [ -e "$folder/libcuda.so.1" ]; then
        export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
        break
      fi
    done
  fi
  if [ -n "$kit" ] || [ -e "$beside/libggml-cuda.so" ]; then
    export LD_LIBRARY_PATH=$beside${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
  [ -e "$beside/libggml-cuda.so" ] || return 0
  for name in $(missing_libraries "$beside/libggml-cuda.so"); do
    while read -r folder; do
      if [ -e "$folder/$name" ]; then
        # They mostly lie together.
        [[ :$LD_LIBRARY_PATH: == *":$folder:"* ]] || LD_LIBRARY_PATH+=:$folder
        break
      fi
    done < <(cuda_folders)
  done
}

# one_part PART: in a process of its own, which has a limit.
one_part() {
  echo "$1, $(date -u +%FT%TZ), $("$hearth" --version 2>&1)"
  cd "$out" || return
  mkdir -p "$1"
  "part_$1"
}

# campaign [OPTION...] PART...
campaign() {
  local words=("$@") parts=() part code seconds start inner='' limit='' within='' archive='' results=() running='' version
  hearth=${CAMPAIGN_HEARTH:-} out='' layers=24 model='' vram='' device=gpu repeat=2 switches=()
  while [ $# -gt 0 ]; do
    case $1 in
      --hearth) value "$1" $#; hearth=$2; shift 2 ;;
      --out) value "$1" $#; out=$2; shift 2 ;;
      --model) value "$1" $#; model=$2; shift 2 ;;
      --vram) value "$1" $#; vram=$2; shift 2 ;;
      --layers) value "$1" $#; layers=$2; shift 2 ;;
      --limit) value "$1" $#; limit=$2; shift 2 ;;
      --within) value "$1" $#; within=$2; shift 2 ;;
      --repeat) value "$1" $#; repeat=$2; shift 2 ;;
      --archive) value "$1" $#; archive=$2; shift 2 ;;
      --switch) value "$1" $#; switches+=("$2"); shift 2 ;;
      --device) value "$1" $#; device=$2; shift 2 ;;
      --inner) value "$1" $#; inner=$2; shift 2 ;;
      -h | --help) usage; exit 0 ;;
      -*) wrong "run has no option $1" ;;
      all) parts+=("${PARTS[@]}"); shift ;;
      *) [[ " ${PARTS[*]} " == *" $1 "* ]] || wrong "there is no part \`$1\`"; parts+=("$1"); shift ;;
    esac
  done
  [ ${#parts[@]} -gt 0 ] || [ -n "$inner" ] || wrong "run needs a part: ${PARTS[*]} or all"
  [[ $layers =~ ^[1-9][0-9]*$ ]] || wrong "--layers $layers: not a number of layers"
  [ "$layers" -ge "$LEAST_LAYERS" ] || wrong "--layers $layers: the model needs $LEAST_LAYERS, as each fourth is one of attention"
  [[ $repeat =~ ^[1-9][0-9]*$ ]] || wrong "--repeat $repeat: not a number of rounds"
  [[ ${limit:-1} =~ ^[1-9][0-9]*$ ]] || wrong "--limit $limit: not a number of seconds"
  [[ ${within:-1} =~ ^[1-9][0-9]*$ ]] || wrong "--within $within: not a number of seconds"
  case $device in gpu | cpu) ;; *) wrong "--device is gpu or cpu" ;; esac
  for part in "${switches[@]}"; do [[ $part =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] || wrong "--switch $part: not NAME=VALUE"; done
  [ -z "$model" ] || [ -f "$model" ] || wrong "--model $model: there is no such file"
  [ -z "$model" ] || model=$(realpath "$model")
  [ -n "$hearth" ] || hearth=$(hearth_of)
  [ -x "$hearth" ] || wrong "--hearth $hearth: there is no such program"
  hearth=$(realpath "$hearth")
  if [ -z "$out" ]; then
    if [ -n "$kit" ]; then out=$kit/out; else out=${CARGO_TARGET_DIR:-$here/../target}/gpu-campaign; fi
  fi
  mkdir -p "$out"
  out=$(realpath "$out")
  # What it exports reaches the parts.
  [ -n "$inner" ] || find_libraries
  # Heat that other runs saved would be a head start for some.
  export HEARTH_CACHE=$out/.cache
  if [ -n "$inner" ]; then
    one_part "$inner"
    return
  fi

  version=$("$hearth" --version 2>&1) || die "$hearth does not run: $version
  hint: a program that was built on a newer system than this one does not; programs in a folder that forbids them do not
  either, then TMPDIR says where else a kit is unpacked"
  say "$version"
  [ -z "$archive" ] || mkdir -p "$(dirname "$archive")"
  # A part is in a process group of its own, which Ctrl-C does not reach.
  trap 'ended' INT TERM HUP
  for part in "${parts[@]}"; do
    seconds=${limit:-$(limit_of "$part")}
    start=$SECONDS code=0
    rm -rf "${out:?}/$part"
    if [ -n "$within" ] && [ $((within - SECONDS)) -lt "$seconds" ]; then seconds=$((within - SECONDS)); fi
    if [ "$seconds" -le 0 ]; then
      echo "no time is left of --within $within" | tee "$out/$part.log" | sed "s/^/==> $part: /" >&2
      results+=("$part $LEFT_OUT 0")
      keep
      continue
    fi
    say "$part, at most $seconds s; log: $out/$part.log"
    CAMPAIGN_HEARTH=$hearth timeout --kill-after 20 "$seconds" \
      "$here/gpu-campaign" run "${words[@]}" --inner "$part" >"$out/$part.log" 2>&1 </dev/null &
    running=$!
    wait $running || code=$?
    running=
    [ $code != 0 ] || say "$part: done"
    [ $code = 0 ] || tail -n 12 "$out/$part.log" | sed 's/^/    /' >&2
    results+=("$part $code $((SECONDS - start))")
    keep
  done
  command -v python3 >/dev/null || say "without python3 there is no summary.md; \`$0 summary\` makes it elsewhere"
  say "what came of it, in $out:"
  for part in "${results[@]}"; do
    # shellcheck disable=SC2086
    set -- $part
    printf '    %-12s %-22s %5d s\n' "$1" "$(meaning "$2")" "$3" >&2
  done
  if [ -d "$(models_in_memory)" ]; then
    say "random models are still in memory; to give it back: rm -r $(models_in_memory)"
  fi
  [ -z "$archive" ] || say "all of it, in one file: $archive"
  verdict "${results[@]}"
}

# verdict "PART CODE SECONDS"...: the exit code of the whole: 1 if a part failed, 77 if none could run here.
verdict() {
  local part code seconds best=$LEFT_OUT
  while read -r part code seconds; do
    case $code in
      0) best=0 ;;
      "$LEFT_OUT") ;;
      *) return 1 ;;
    esac
  done < <(printf '%s\n' "$@")
  return "$best"
}

# keep: writes what is known so far. After each part, so that there is something if the whole is ended from outside.
keep() {
  local file files=()
  [ ${#results[@]} = 0 ] || results_as_json "${results[@]}" >"$out/parts.json"
  ! command -v python3 >/dev/null || python3 "$lib/summary.py" "$out" >"$out/summary.md" || say "summary.md is not complete"
  [ -n "$archive" ] || return 0
  # By name: random models and the cache are there too.
  for file in summary.md parts.json "${PARTS[@]}" "${PARTS[@]/%/.log}"; do
    [ ! -e "$out/$file" ] || files+=("$file")
  done
  if tar -C "$out" -czf "$archive.part" "${files[@]}"; then mv "$archive.part" "$archive"; else say "$archive cannot be written"; fi
}

# ended: by a signal.
ended() {
  trap - INT TERM HUP
  if [ -n "$running" ]; then
    kill "$running" || true
    wait "$running" || true
    results+=("$part 130 $((SECONDS - start))")
  fi
  keep
  exit 130
}

# results_as_json "PART CODE SECONDS"...
results_as_json() {
  local before='[' part code seconds
  while read -r part code seconds; do
    printf '%s\n  {"part": "%s", "code": %d, "seconds": %d}' "$before" "$part" "$code" "$seconds"
    before=,
  done < <(printf '%s\n' "$@")
  printf '\n]\n'
}

# meaning CODE: of an exit code.
meaning() {
  case $1 in
    0) echo "done" ;;
    "$LEFT_OUT") echo "left out" ;;
    124 | 137) echo "over its limit ($1)" ;;
    130) echo "ended from outside" ;;
    *) echo "FAILED, exit code $1" ;;
  esac
}
