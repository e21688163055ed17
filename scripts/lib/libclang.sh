# shellcheck shell=bash
# Finds libclang, which bindgen loads to read llama.cpp's headers. Sourced by scripts/lib/setup.sh.
#
# The search is the one of the clang-sys crate 1.9 (build/common.rs, build/dynamic.rs), so that what is found here is what
# bindgen will load: the same folders, names and order of preference. libclang-cpp, a library of another interface whose
# name also begins so, is left out.

# libclang_folders [ROOT]: the folders in which clang-sys looks, one per line. ROOT is put before each absolute path.
libclang_folders() {
  local root=${1:-} place prefix
  if prefix=$("${LLVM_CONFIG_PATH:-llvm-config}" --prefix 2>/dev/null); then
    printf '%s\n' "$prefix/bin" "$prefix/lib" "$prefix/lib64"
  fi
  if [ "$(uname)" = Darwin ] && prefix=$(xcode-select --print-path 2>/dev/null); then
    printf '%s\n' "$prefix/Toolchains/XcodeDefault.xctoolchain/usr/lib"
  fi
  tr ':' '\n' <<<"${LD_LIBRARY_PATH:-}:${LIBRARY_PATH:-}"
  if [ "$(uname)" = Darwin ]; then
    set -- "$root"/usr/local/opt/llvm*/lib/llvm*/lib "$root/Library/Developer/CommandLineTools/usr/lib" \
      "$root/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib" \
      "$root"/usr/local/opt/llvm*/lib
  else
    set -- "$root"/usr/local/llvm*/lib* "$root"/usr/local/lib*/*/* "$root"/usr/local/lib*/* "$root"/usr/local/lib* \
      "$root"/usr/lib*/*/* "$root"/usr/lib*/* "$root"/usr/lib*
  fi
  for place in "$@"; do
    if [ -d "$place" ]; then printf '%s\n' "$place"; fi
  done
}

# libclang_in FOLDER: the libraries in a folder that clang-sys would take, one per line.
libclang_in() {
  local file name class
  for file in "$1"/libclang.so "$1"/libclang-*.so "$1"/libclang.so.* "$1"/libclang-*.so.* "$1"/libclang.dylib; do
    name=${file##*/}
    case $name in *-cpp.*) continue ;; esac
    [ -f "$file" ] || continue
    if [ "$(uname)" != Darwin ]; then
      # An ELF file of this machine's word size: 1 stands for 32 bits, 2 for 64.
      class=$(od -An -tx1 -N5 "$file" 2>/dev/null | tr -d ' \n')
      [ "$class" = "7f454c460$(($(getconf LONG_BIT) / 32))" ] || continue
    fi
    printf '%s\n' "$file"
  done
}

# libclang_version NAME: the numbers in a library's name, padded so that they sort as text.
libclang_version() {
  local numbers=
  case $1 in
    libclang.so.*) numbers=${1#libclang.so.} ;;
    libclang-*) numbers=${1#libclang-} && numbers=${numbers%???} ;;
  esac
  local part padded=
  local IFS=.
  for part in $numbers; do
    case $part in *[!0-9]*) part=0 ;; esac
    padded+=$(printf '%05d.' "$((10#$part))")
  done
  printf '%s\n' "$padded"
}

# libclang_find [ROOT]: the libclang that clang-sys would choose; nothing where there is none.
libclang_find() {
  local folder file
  # The highest version wins, and of equals the first.
  {
    if [ -n "${LIBCLANG_PATH+set}" ]; then
      libclang_in "$(dirname "$LIBCLANG_PATH")" | grep -Fx "$LIBCLANG_PATH" || libclang_in "$LIBCLANG_PATH"
    else
      while read -r folder; do
        [ -z "$folder" ] || libclang_in "$folder"
      done < <(libclang_folders "${1:-}")
    fi
  } | while read -r file; do
    printf '%s\t%s\n' "$(libclang_version "${file##*/}")" "$file"
  done | LC_ALL=C sort -s -r -k 1,1 | sed -n 1p | cut -f 2
}

# libclang_works LIBRARY: true if it can be loaded and reads C headers, clang's own (stddef.h) among them.
libclang_works() {
  local folder works=0
  folder=$(mktemp -d) || return 1
  cc -o "$folder/probe" "$(dirname "${BASH_SOURCE[0]}")/libclang_probe.c" -ldl &&
    "$folder/probe" "$1" "$folder" || works=1
  rm -rf "$folder"
  return $works
} 2>/dev/null

# True if bindgen will find a libclang that works.
has_libclang() {
  local library
  library=$(libclang_find "")
  [ -n "$library" ] && libclang_works "$library"
}
