# shellcheck shell=bash
# Packs hearth for a GPU machine that has no Rust, and builds llama.cpp's CUDA backend as a module. Sourced by
# scripts/gpu-campaign, behind scripts/lib/setup.sh.

: "${root:?the root of the checkout, which setup.sh knows}"

# What some machines take at most.
UPLOAD=$((64 << 20))
# NVIDIA's toolkit on PyPI: since CUDA 13 all its parts lie in one folder.
PYPI_TOOLKIT='cuda-toolkit[nvcc,cudart,cublas,cccl,crt,nvvm]==13.0.2'

# capabilities LIST: 89,120 as cmake wants it.
capabilities() {
  [[ $1 =~ ^[0-9]{2,3}(,[0-9]{2,3})*$ ]] || wrong "--arch $1: a compute capability is a number such as 89 (RTX 4090), 90 (H100), 120 (RTX 5090) or 121 (GB10)"
  # Machine code alone: what another card could compile for itself would take as much space again.
  sed 's/,/-real;/g; s/$/-real/' <<<"$1"
}

# The sources of the pinned llama.cpp.
llama_sources() {
  local manifest platform
  platform=$(rustc -vV | sed -n 's/^host: //p')
  manifest=$(cargo metadata --format-version 1 --locked --filter-platform "$platform" |
    grep -o '"manifest_path":"[^"]*/llama-cpp-sys-2-[^"]*/Cargo.toml"' | head -n 1 | cut -d '"' -f 4)
  [ -n "$manifest" ] || die "cargo metadata does not say where llama-cpp-sys-2 is"
  printf '%s/llama.cpp\n' "$(dirname "$manifest")"
}

# toolkit_here [FOLDER]: the CUDA toolkit of this machine.
toolkit_here() {
  local folder
  for folder in "${1:-}" "${CUDAToolkit_ROOT:-}" "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /opt/cuda; do
    if [ -n "$folder" ] && [ -x "$folder/bin/nvcc" ]; then (cd "$folder" && pwd -P); return; fi
  done
  if folder=$(command -v nvcc); then dirname "$(dirname "$(readlink -f "$folder")")"; return; fi
  return 1
}

# toolkit_of_pypi FOLDER: installs NVIDIA's packages into an environment in FOLDER.
toolkit_of_pypi() {
  local toolkit library
  if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    install_packages "python3 python3-venv" python3 python python3 python3 python3 >&2
  fi
  if ! [ -e "$1/installed" ]; then
    say "fetching NVIDIA's CUDA toolkit from PyPI"
    python3 -m venv --clear "$1" >&2
    "$1/bin/pip" install --quiet --disable-pip-version-check "$PYPI_TOOLKIT" >&2
    touch "$1/installed"
  fi
  toolkit=$(echo "$1"/lib/python3*/site-packages/nvidia/cu13)
  [ -x "$toolkit/bin/nvcc" ] || die "there is no nvcc in $toolkit"
  # Packages for running have no names to link with, and toolkits that are installed have lib64.
  for library in "$toolkit"/lib/lib*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
  done
  ln -sfn lib "$toolkit/lib64"
  printf '%s\n' "$toolkit"
}

# module [--arch LIST] [--toolkit FOLDER] [--pypi] FILE
module() {
  local arch='' given='' pypi=false file='' toolkit build archs generator=()
  while [ $# -gt 0 ]; do
    case $1 in
      --arch) value "$1" $#; arch=$2; shift 2 ;;
      --toolkit) value "$1" $#; given=$2; shift 2 ;;
      --pypi) pypi=true; shift ;;
      -*) wrong "module has no option $1" ;;
      *) [ -z "$file" ] || wrong "module makes one file"; file=$1; shift ;;
    esac
  done
  [ -n "$file" ] || wrong "module needs the file to make, such as libggml-cuda.so"
  [ -n "$arch" ] || wrong "module needs --arch, the compute capability of the card: 89 for an RTX 4090 (nvidia-smi --query-gpu=compute_cap --format=csv)"
  archs=$(capabilities "$arch")
  mkdir -p "$(dirname "$file")"
  build=$(target_dir)/cuda-module
  if $pypi; then
    setup_compilers
    setup_rust
    toolkit=$(toolkit_of_pypi "$build/toolkit")
  else
    toolkit=$(toolkit_here "$given") ||
      die "no CUDA toolkit is here: neither nvcc in PATH, nor CUDA_HOME, nor /usr/local/cuda
  hint: --toolkit says where it is; --pypi takes NVIDIA's from PyPI, which needs 2 GB"
    setup_compilers
    setup_rust
  fi
  say "CUDA toolkit: $toolkit; compute capability $arch"
  command -v ninja >/dev/null && generator=(-G Ninja)
  # The backend alone, with nothing of the driver to link with, which this machine need not have.
  env PATH="$toolkit/bin:$PATH" CUDACXX="$toolkit/bin/nvcc" \
    cmake -S "$(llama_sources)" -B "$build/$arch" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SKIP_BUILD_RPATH=ON -DCUDAToolkit_ROOT="$toolkit" -DCMAKE_CUDA_ARCHITECTURES="$archs" \
    -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CUDA=ON -DGGML_CUDA_NO_VMM=ON \
    -DGGML_CUDA_NCCL=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >&2
  building "building the CUDA module for $arch" \
    cmake --build "$build/$arch" --target ggml-cuda --parallel "$(nproc)" >&2
  strip -o "$file" "$build/$arch/bin/libggml-cuda.so"
  say "$file: $(stat -c %s "$file") bytes"
}

# unpacked FILE: a module, which may be compressed, to standard output.
unpacked() {
  case $1 in
    *.gz) gzip -dc "$1" ;;
    *.xz) xz -dc "$1" ;;
    *.zst) zstd -dcq "$1" ;;
    *) cat "$1" ;;
  esac
}

# pack [--arch LIST] [--toolkit FOLDER] [--pypi] [--cuda-module FILE] [--no-module] FOLDER
pack() {
  local folder='' with='' ready='' none=false build=() arch='' release file bytes
  while [ $# -gt 0 ]; do
    case $1 in
      --arch) value "$1" $#; build+=("$1" "$2"); arch=$2; shift 2 ;;
      --toolkit) value "$1" $#; build+=("$1" "$2"); shift 2 ;;
      --pypi) build+=("$1"); shift ;;
      --cuda-module) value "$1" $#; ready=$2; shift 2 ;;
      --no-module) none=true; shift ;;
      -*) wrong "pack has no option $1" ;;
      *) [ -z "$folder" ] || wrong "pack fills one folder"; folder=$1; shift ;;
    esac
  done
  [ -n "$folder" ] || wrong "pack needs the folder to fill"
  [ "$(uname -s)" = Linux ] || die "kits are made for Linux, on Linux"
  [ -z "$ready" ] || [ -f "$ready" ] || wrong "--cuda-module $ready: there is no such file"
  case $none,$ready,$arch in
    true,,) with="no CUDA module" ;;
    false,?*,) with="the CUDA module $(basename "$ready")" ;;
    false,,?*) with="a CUDA module for $arch" ;;
    *) wrong "pack needs one of --arch (builds the CUDA module), --cuda-module (a ready one) and --no-module" ;;
  esac
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/hearth"
  if [ -n "$arch" ]; then
    module "${build[@]}" "$work/libggml-cuda.so"
  elif [ -n "$ready" ]; then
    unpacked "$ready" >"$work/libggml-cuda.so" || die "$ready cannot be unpacked"
  fi
  [ ! -e "$work/libggml-cuda.so" ] || is_module "$work/libggml-cuda.so" ||
    die "${ready:-the module} is no module of ggml: it has no function ggml_backend_init"

  # As scripts/test-gpu-path: other features of llama.cpp would be built over each other.
  CARGO_TARGET_DIR=$(target_dir)-kit
  HEARTH_FEATURES=dynamic-backends
  HEARTH_COMMIT=${HEARTH_COMMIT:-$(git describe --always --dirty --abbrev=12 2>/dev/null || true)}
  export CARGO_TARGET_DIR HEARTH_FEATURES HEARTH_COMMIT
  # llama.cpp would link to this system's OpenSSL, for downloads that hearth does not make.
  export CMAKE_DISABLE_FIND_PACKAGE_OpenSSL=TRUE
  command -v xz >/dev/null || install_packages xz-utils xz xz xz xz xz
  setup
  # The demo pair would be a third of the program.
  building "building hearth for a kit" \
    cargo build --release --locked --no-default-features --features dynamic-backends
  release=$(target_dir)/release
  strip -o "$work/hearth/hearth" "$release/hearth"
  # What the program and its modules link to, by the names that they say.
  for file in "$release"/lib*.so.[0-9] "$release"/libggml-cpu-*.so; do
    [ -e "$file" ] || continue
    strip -o "$work/hearth/$(basename "$file")" "$file"
  done
  borrow "$work/hearth"
  "$work/hearth/hearth" --version >/dev/null || die "what was packed does not run"
  [ ! -e "$work/libggml-cuda.so" ] || fits "$work/libggml-cuda.so" "$work/hearth"/libggml-base.so.[0-9] ||
    die "${ready:-the module} does not fit hearth's llama.cpp
  hint: \`module\` builds one that does"
  say "compressing"
  fill "$folder" "$work" "$with"
  bytes=$(find "$folder" -path "$folder/out" -prune -o -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
  say "$folder: $((bytes >> 20)) MiB, with $with; on the machine with the GPU: $folder/gpu-campaign check"
  [ "$bytes" -le $UPLOAD ] || say "that is more than the 64 MiB that some machines take"
}

# borrow FOLDER: adds the libraries of this system that its files link to, and that not every Linux has: GCC's for OpenMP, say.
borrow() {
  local file name path
  for file in "$1"/*; do
    while read -r name path; do
      [ -e "$1/$name" ] || cp -L "$path" "$1/$name"
    done < <(LD_LIBRARY_PATH=$1 ldd "$file" | sed -n 's/^[[:space:]]*\([^ ]*\) => \(\/[^ ]*\) .*/\1 \2/p' |
      grep -vE '^lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so\.')
  done
}

# fill FOLDER WORK WITH: makes a kit of WORK/hearth, the program with its libraries, and of WORK/libggml-cuda.so, if it is there.
# The modules for CPUs are much alike, and lie side by side: xz makes a quarter of them of what gzip does.
fill() {
  mkdir -p "$1/lib/gpu-campaign"
  tar -C "$2/hearth" --sort=name -c . | xz -9 >"$1/hearth.tar.xz"
  rm -f "$1/libggml-cuda.so.xz"
  [ ! -e "$2/libggml-cuda.so" ] || xz -9 <"$2/libggml-cuda.so" >"$1/libggml-cuda.so.xz"
  cp "$root/scripts/gpu-campaign" "$root/docs/gpu-campaign.md" "$1"
  cp "$root"/scripts/lib/gpu-campaign/{run.sh,parts.sh,summary.py} "$1/lib/gpu-campaign/"
  printf 'hearth %s, %s, packed %s on %s\n' "${HEARTH_COMMIT:-of no commit}" "$3" "$(date -u +%FT%TZ)" "$(uname -m)" \
    >"$1/kit.txt"
}

# Whether a file is a backend that ggml can load.
is_module() { nm -D --defined-only "$1" 2>/dev/null | grep -q ' ggml_backend_init$'; }

# fits MODULE BASE: whether a module's functions of ggml are in the library that it will be loaded beside; says which are not.
fits() {
  local without
  without=$(comm -23 <(symbols --undefined-only "$1") <(symbols --defined-only "$2"))
  [ -n "$without" ] || return 0
  say "the module calls what ggml does not have: $(head -n 5 <<<"$without" | paste -s -d ' ' -)"
  return 1
}

# symbols WHICH FILE: functions of ggml that a library has, or needs.
symbols() { nm -D --format=posix "$1" "$2" | sed 's/[ @].*//' | grep -E '^(ggml|gguf|quantize|dequantize)_' | sort -u; }
