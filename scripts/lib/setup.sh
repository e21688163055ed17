# shellcheck shell=bash
# Sets up what a build of hearth needs. Sourced by the scripts that build; does nothing where all is there.
#
# Needed: a C++ compiler, cmake, libclang (for the bindings to llama.cpp), and Rust.

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/lib/libclang.sh
. "$root/scripts/lib/libclang.sh"
# shellcheck source=scripts/lib/build.sh
. "$root/scripts/lib/build.sh"
rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

# Runs a command as root: directly, or by sudo after asking. In CI nobody can be asked.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif ! command -v sudo >/dev/null; then
    die "this needs root, and there is no sudo: $*"
  elif [ -n "${CI:-}" ]; then
    sudo "$@"
  else
    printf 'Run with sudo: %s\nGo on? [y/N] ' "$*" >&2
    read -r answer
    case $answer in
      y | Y | yes) sudo "$@" ;;
      *) die "not installed; install it by hand and try again" ;;
    esac
  fi
}

# install_packages DEBIAN FEDORA ARCH SUSE ALPINE BREW: each a list of names in that system's words.
install_packages() {
  if command -v apt-get >/dev/null; then
    as_root apt-get update -qq
    # Word splitting is wanted: a list of packages.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends $1
  elif command -v dnf >/dev/null; then
    # shellcheck disable=SC2086
    as_root dnf install -y $2
  elif command -v pacman >/dev/null; then
    # shellcheck disable=SC2086
    as_root pacman -S --needed --noconfirm $3
  elif command -v zypper >/dev/null; then
    # shellcheck disable=SC2086
    as_root zypper install -y $4
  elif command -v apk >/dev/null; then
    # shellcheck disable=SC2086
    as_root apk add $5
  elif command -v brew >/dev/null; then
    # shellcheck disable=SC2086
    brew install $6
  else
    die "no known package manager; install by hand: $1"
  fi
}

setup_compilers() {
  if ! command -v c++ >/dev/null || ! command -v make >/dev/null; then
    say "installing a C++ compiler"
    install_packages "g++ make" "gcc-c++ make" "base-devel" "gcc-c++ make" "build-base" "gcc make"
  fi
  if ! command -v cmake >/dev/null; then
    say "installing cmake"
    install_packages cmake cmake cmake cmake cmake cmake
  fi
  if ! has_libclang; then
    say "installing libclang"
    install_packages libclang-dev clang-devel clang clang-devel clang-dev llvm
    has_libclang ||
      say "libclang still cannot be loaded; if the build fails for it, set LIBCLANG_PATH to the folder of a libclang that works"
  fi
}

# True if cargo is there and new enough.
rust_is_good() {
  command -v cargo >/dev/null || return 1
  local have
  have=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ "$(printf '%s\n%s\n' "$rust_wanted" "$have" | sort -V | head -n 1)" = "$rust_wanted" ]
}

setup_rust() {
  PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  export PATH
  rust_is_good && return 0
  say "installing Rust (at least $rust_wanted) with rustup, for this user only"
  if ! command -v curl >/dev/null; then
    install_packages "curl ca-certificates" curl curl curl curl curl
  fi
  # The second address serves the same installer; some networks know only that one.
  local installer
  installer=$(curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs ||
    curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh) ||
    die "rustup could not be fetched; install Rust $rust_wanted or newer by hand: https://www.rust-lang.org/tools/install"
  sh -s -- -y --quiet --profile minimal --component rustfmt,clippy <<<"$installer" ||
    die "rustup failed; install Rust $rust_wanted or newer by hand: https://www.rust-lang.org/tools/install"
  rust_is_good || die "Rust is older than $rust_wanted; update it: rustup update stable"
}

# Installs what is missing, and makes the target directory fit for this processor.
setup() {
  setup_compilers
  setup_rust
  prepare_target
}
