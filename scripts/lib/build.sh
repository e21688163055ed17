# shellcheck shell=bash
# Runs cargo: for which processor, and with what is going on told. Sourced by scripts/lib/setup.sh.
#
# By default everything is built for the processor of this machine (.cargo/config.toml). HEARTH_CPU names another one, as
# rustc and the C compiler know it, for binaries that travel: x86-64, x86-64-v2, x86-64-v3, x86-64-v4, or `generic` for
# the oldest of this architecture. Cargo keeps builds of different HEARTH_CPU apart.

: "${root:?the root of the checkout, which setup.sh knows}"

# Where cargo puts what it builds. A relative CARGO_TARGET_DIR counts from the root of the checkout, where cargo is run.
target_dir() {
  case ${CARGO_TARGET_DIR:-target} in
    /*) printf '%s\n' "$CARGO_TARGET_DIR" ;;
    *) printf '%s\n' "$root/${CARGO_TARGET_DIR:-target}" ;;
  esac
}

# The processor's features as the two compilers see them, one per line.
processor_features() {
  local flag=-march=native
  case $(uname -m) in arm* | aarch64) flag=-mcpu=native ;; esac
  {
    rustc --print cfg -C target-cpu=native | sed -n 's/^target_feature="\(.*\)"$/\1/p'
    c++ "$flag" -dM -E -x c++ /dev/null 2>/dev/null |
      sed -n -E 's/^#define (__(AMX|AVX|SSE|SSSE|BMI|FMA|F16C|GFNI|ARM_FEATURE)[A-Za-z0-9_]*) .*/\1/p'
  } | LC_ALL=C sort
}

# True if cargo's own record of a target directory says that it was filled for this processor's features.
cargo_filled_for() {
  local features
  # The record holds rustc's output as a JSON string.
  features=$(grep -v '^__' <<<"$1" | sed 's/.*/target_feature=\\"&\\"\\n/' | tr -d '\n')
  grep -oE '(target_feature=\\"[^"\\]*\\"\\n)+' "$2/.rustc_info.json" 2>/dev/null | grep -Fx -- "$features" >/dev/null
}

# Has llama.cpp built anew where cmake was told something else than .cargo/config.toml says now: neither cargo nor
# llama-cpp-sys-2 look at that again.
forget_other_settings() {
  local cache name value folder
  for cache in "$1"/release/build/llama-cpp-sys-2-*/out/build/CMakeCache.txt; do
    [ -f "$cache" ] || continue
    while IFS='=' read -r name value; do
      # A variable of the user's wins in cargo too.
      value=${!name:-$value}
      if [ "$(sed -n "s/^$name:[A-Z]*=//p" "$cache")" != "$value" ]; then
        say "llama.cpp is built anew: $name is now $value"
        folder=$(basename "${cache%/out/build/CMakeCache.txt}")
        rm -rf "$1/release/build/$folder" "$1/release/.fingerprint/$folder"
        break
      fi
    done < <(sed -n 's/^\(CMAKE_[A-Z_]*\) = "\(.*\)"$/\1=\2/p' "$root/.cargo/config.toml")
  done
}

# Removes links to llama.cpp's libraries that lead nowhere. llama-cpp-sys-2 makes them with `dynamic-backends`, takes them for
# absent when it is built again, and fails as they exist.
forget_dead_links() {
  local folder
  for folder in "$1"/release "$1"/release/examples "$1"/release/deps; do
    [ ! -d "$folder" ] || find "$folder" -maxdepth 1 -name 'lib*' -xtype l -exec rm {} +
  done
}

# Makes sure that what the target directory holds was built on a processor like this one. Build scripts and macros of the
# compiler are built for it too: elsewhere they would die of an illegal instruction in the middle of the build.
prepare_target() {
  local target stamp now
  target=$(target_dir)
  forget_other_settings "$target"
  forget_dead_links "$target"
  choose_processor
  [ -z "${HEARTH_CPU:-}" ] || return 0
  stamp=$target/hearth/processor
  now=$(processor_features)
  if [ -d "$target/release" ] || [ -d "$target/debug" ]; then
    if [ -f "$stamp" ]; then
      [ "$now" != "$(cat "$stamp")" ] || return 0
      say "$target was filled on another processor, so everything is built anew"
      say "  not there then: $(comm -13 "$stamp" - <<<"$now" | paste -s -d ' ' -)"
      say "  not here now: $(comm -23 "$stamp" - <<<"$now" | paste -s -d ' ' -)"
    elif cargo_filled_for "$now" "$target"; then
      # Filled by cargo alone, here.
      mkdir -p "$target/hearth"
      printf '%s\n' "$now" >"$stamp"
      return 0
    else
      say "nothing tells for which processor $target was filled, so everything is built anew"
    fi
    # Cargo remembers in .rustc_info.json which features `native` stands for.
    rm -rf "$target/release" "$target/debug" "$target/.rustc_info.json"
  fi
  mkdir -p "$target/hearth"
  printf '%s\n' "$now" >"$stamp"
}

# Tells cargo and llama.cpp's build of HEARTH_CPU.
choose_processor() {
  case ",${HEARTH_FEATURES:-}," in
    # ggml refuses to build its modules for one processor: each has its own.
    *,dynamic-backends,* | *' dynamic-backends '*) HEARTH_CPU=${HEARTH_CPU:-generic} ;;
  esac
  [ "${HEARTH_CPU:-}" != native ] || HEARTH_CPU=
  [ -n "${HEARTH_CPU:-}" ] || return 0
  local kind
  kind=$(uname -m)
  if [ "$HEARTH_CPU" = generic ]; then
    # Set, so that .cargo/config.toml is not asked.
    export RUSTFLAGS="${RUSTFLAGS:-}"
  elif [ "$kind" != x86_64 ]; then
    die "HEARTH_CPU=$HEARTH_CPU: on $kind there is only \`generic\`; HEARTH_FEATURES=dynamic-backends is fast on more"
  elif ! rustc --print target-cpus | grep -E "^ *$HEARTH_CPU( |\$)" >/dev/null; then
    die "HEARTH_CPU=$HEARTH_CPU: rustc knows no such processor; see rustc --print target-cpus"
  else
    export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-C target-cpu=$HEARTH_CPU"
  fi
  # What is not in the processor named must not be in llama.cpp either, whose own default is AVX2. llama-cpp-sys-2 turns
  # on again what is.
  if [ "$kind" = x86_64 ]; then
    export GGML_SSE42=OFF GGML_AVX=OFF GGML_AVX2=OFF GGML_BMI2=OFF GGML_FMA=OFF GGML_F16C=OFF
  fi
  say "building for $HEARTH_CPU"
}

# Builds the program, with what HEARTH_FEATURES names.
build_hearth() {
  building "building hearth" \
    cargo build --release --locked ${HEARTH_FEATURES:+--features "$HEARTH_FEATURES"}
}

# elapsed SECONDS: 3 min 10 s
elapsed() {
  if [ "$1" -lt 60 ]; then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}

# llama_builds: the folders in which llama.cpp was or is compiled.
llama_builds() {
  local folder
  for folder in "$(target_dir)"/release/build/llama-cpp-sys-2-*/; do
    [ ! -d "$folder/out/build" ] || printf '%s\n' "$folder"
  done
}

# phase MARKER: what a build that began with the file MARKER is at, as far as files tell.
phase() {
  local folder built all
  while read -r folder; do
    # Cargo writes `invoked.timestamp` when the compilation of llama.cpp begins, also one that goes on where another was cut
    # off, and `output` when it has ended.
    if [ -f "$folder/out/build/CMakeCache.txt" ] && [ "$folder/invoked.timestamp" -nt "$1" ] && ! [ "$folder/output" -nt "$1" ]; then
      built=$(find "$folder/out/build" -name '*.o' | wc -l)
      all=$(find "$folder/out/build" -name build.make -exec grep -ho '^[^ #:]*\.o:' {} + | sort -u | wc -l)
      printf 'compiling llama.cpp, %d of %d files' "$built" "$all"
      return
    fi
  done < <(llama_builds)
  printf 'at work'
}

# tick SECONDS MARKER: tells every half minute what is going on, until its input ends.
tick() {
  local last=$SECONDS
  # An end comes at once; until then each read lasts its half minute.
  while ! read -r -t 30 && [ $((SECONDS - last)) -ge 29 ]; do
    last=$SECONDS
    say "  $(phase "$2"), $(elapsed $((SECONDS - $1)))"
  done
}

# step NAME COMMAND...: runs a command, and says how long it took. Within COMMAND, `set -e` is off.
step() {
  local name=$1 start=$SECONDS status=0
  shift
  say "$name"
  # What is told meanwhile ends when this end of the pipe is closed, in whatever way this shell ends.
  exec 9> >(tick "$start" "$(target_dir)/hearth/started")
  "$@" 9>&- || status=$?
  exec 9>&-
  [ $status = 0 ] || return $status
  say "$name: $(elapsed $((SECONDS - start)))"
}

# building NAME COMMAND...: a step that builds. Says how long it took the last time too.
building() {
  local name=$1 start=$SECONDS record key=${1// /-}
  shift
  record=$(target_dir)/hearth
  if ! ls "$(target_dir)"/release/build/llama-cpp-sys-2-*/output >/dev/null 2>&1; then
    # Compiling llama.cpp takes most of the time, so that it is another number.
    key+=-with-llama.cpp
    name+=", llama.cpp first"
  fi
  mkdir -p "$record"
  touch "$record/started"
  if [ -f "$record/$key.seconds" ]; then name+=" (last time: $(elapsed "$(cat "$record/$key.seconds")"))"; fi
  step "$name" "$@"
  printf '%d\n' $((SECONDS - start)) >"$record/$key.seconds"
}
