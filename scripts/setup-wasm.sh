#!/usr/bin/env bash
# Finds or makes a Rust compiler for wasm32-unknown-unknown. Prints, as its only line on stdout, the folder with the `rustc` and `cargo` to put first on PATH.
#
#   1. the compiler on PATH, if it has the target
#   2. rustup, if it can add the target
#   3. Debian: the packages of its newest compiler, with the standard library built for the target from their sources
#
# Safe to repeat: what is there is used. HALFSTEP_WASM_TOOLCHAIN=rustup|debian leaves only that way; HALFSTEP_CACHE says where way 3 keeps its files.
set -euo pipefail

cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown
way="${HALFSTEP_WASM_TOOLCHAIN:-any}"
cache="${HALFSTEP_CACHE:-$PWD/.cache}/wasm"

say() { echo "setup-wasm: $*" >&2; }

has_target() {
  local libraries
  libraries="$("$1" --print target-libdir --target "$target" 2>/dev/null)" && compgen -G "$libraries/libcore-*.rlib" >/dev/null
}

use_rustup() {
  command -v rustc >/dev/null || return 1
  if ! has_target rustc; then
    command -v rustup >/dev/null || return 1
    say "adding $target by rustup"
    # Without a way to the download host this would wait for long.
    timeout 120 rustup target add "$target" >&2 || { say "rustup could not add $target"; return 1; }
    has_target rustc || return 1
  fi
  dirname "$(command -v rustc)"
}

install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  local root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { say "needs root to install ${missing[*]}"; return 1; }
    root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${root[@]}" apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# rustup's own linker does; else Debian's.
find_linker() {
  local candidate
  for candidate in "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*/lib/rustlib/"$1"/bin/rust-lld /usr/bin/wasm-ld /usr/bin/wasm-ld-*; do
    [ -x "$candidate" ] && { echo "$candidate"; return 0; }
  done
  return 1
}

# The standard library of the compiler in /usr/bin, for $target, into $1. Its vendored dependencies stand in for the registry.
build_standard_library() {
  local sysroot="$1" work vendor
  work="$(mktemp -d)"
  vendor="$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/vendor"
  mkdir -p "$work/empty/src"
  printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n\n[workspace]\n' >"$work/empty/Cargo.toml"
  : >"$work/empty/src/lib.rs"
  (
    cd "$work/empty"
    unset RUSTUP_TOOLCHAIN RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    # The packages hold a stable compiler; building std is unstable.
    RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_DIR="$work/target" /usr/bin/cargo build --release --offline --target "$target" \
      -Z build-std=std,panic_abort --config 'source.crates-io.replace-with="vendored"' --config "source.vendored.directory=\"$vendor\"" >&2
  ) || { rm -rf "$work"; return 1; }
  mkdir -p "$sysroot/lib/rustlib/$target/lib"
  rm -f "$work/target/$target/release/deps/libempty-"*
  cp "$work/target/$target/release/deps/"lib*.rlib "$sysroot/lib/rustlib/$target/lib/"
  rm -rf "$work"
}

# Wrappers that look for libraries in $1 and link with $2.
write_wrappers() {
  mkdir -p "$1/bin"
  cat >"$1/bin/rustc" <<END
#!/bin/sh
exec /usr/bin/rustc --sysroot '$1' "\$@"
END
  cat >"$1/bin/cargo" <<END
#!/bin/sh
unset RUSTUP_TOOLCHAIN
export RUSTC='$1/bin/rustc' CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER='$2'
exec /usr/bin/cargo "\$@"
END
  chmod +x "$1/bin/rustc" "$1/bin/cargo"
}

use_debian() {
  command -v apt-get >/dev/null || return 1
  install_packages rustc-web cargo-web rust-web-src || return 1
  local host release linker sysroot
  host="$(/usr/bin/rustc -vV | sed -n 's/^host: //p')"
  release="$(/usr/bin/rustc -vV | sed -n 's/^release: //p')"
  linker="$(find_linker "$host")" || { install_packages lld && linker="$(find_linker "$host")"; } || return 1
  sysroot="$cache/rust-$release"
  if [ ! -e "$sysroot/complete" ]; then
    say "building the standard library of Rust $release for $target"
    rm -rf "$sysroot"
    build_standard_library "$sysroot" || return 1
    # Build scripts and macros run on the host.
    ln -s "$(/usr/bin/rustc --print sysroot)/lib/rustlib/$host" "$sysroot/lib/rustlib/$host"
    : >"$sysroot/complete"
  fi
  # Written each time: the linker and the folder may have moved.
  write_wrappers "$sysroot" "$linker"
  echo "$sysroot/bin"
}

for one in rustup debian; do
  [ "$way" = any ] || [ "$way" = "$one" ] || continue
  if folder="$("use_$one")"; then
    echo "$folder"
    exit 0
  fi
done
say "no Rust compiler for $target. With rustup: rustup target add $target. On Debian: run as root, so that rustc-web, cargo-web and rust-web-src can be installed."
exit 1
