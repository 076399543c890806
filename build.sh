#!/usr/bin/env bash
# Every command a person needs for this repository. `./build.sh help` lists them.
# Each command makes what it needs first (packages, .venv, the layer, AWS's emulator), says so on stderr, and is fast the second time.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

readonly VENV=.venv
readonly LOCK=requirements-dev.lock
readonly ASL_VALIDATOR=4.0.0
CACHE=${BACKSTOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lambda-backstop}
export BACKSTOP_CACHE=$CACHE
export PIP_DISABLE_PIP_VERSION_CHECK=1
started=$SECONDS

usage() {
    cat <<'TEXT'
usage: ./build.sh COMMAND [options]

  demo [--json]        a Node.js function fails in every way under AWS's own emulator; shows what arrived on the queue
  demo --redrive       the way back: it fails, is captured, is fixed, a canary passes, and its events are driven back
  test [--all] [ARGS]  build the layer, then run the tests; --all adds compiled languages and large seeds; ARGS go to pytest
  layer                build dist/backstop-layer-x86_64.zip
  bench [NAME ...]     measure start, memory, added time, delivery and size; prints JSON lines
  lint                 ruff, mypy --strict, shellcheck, cfn-lint, asl-validator
  update-lock          renew requirements-dev.lock from requirements-dev.in
  update-docs          renew the settings' tables in README.md and docs/settings.md
  help                 this text

The first run takes minutes: it compiles the layer's own Python interpreter, which is then kept in the cache folder
(BACKSTOP_CACHE, by default ~/.cache/lambda-backstop). Later runs take seconds.
TEXT
}

say() { printf '[%4ds] %s\n' "$((SECONDS - started))" "$*" >&2; }
die() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

# --- system packages ------------------------------------------------------------------------------------------------

# need PACKAGE...: installs Debian packages when root, or says what to install.
need() {
    (($# > 0)) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        die "please install: $* (on Debian or Ubuntu: sudo apt-get install $*), then run this again"
    fi
    say "installing Debian packages: $*"
    mkdir -p -- "$CACHE"
    local log=$CACHE/apt.log
    install_packages "$@" >"$log" 2>&1 && return
    say "refreshing the package lists first"
    { apt-get update -qq && install_packages "$@"; } >"$log" 2>&1 || {
        cat -- "$log" >&2
        return 1
    }
}

install_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# need_commands COMMAND:PACKAGE...: installs the packages whose command is missing.
need_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    need "${missing[@]}"
}

# --- the virtual environment ----------------------------------------------------------------------------------------

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.14; do
        if command -v "$name" >/dev/null && is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

make_venv() {
    local python version wanted
    python=$(find_python) || {
        need python3
        python=$(find_python) || die 'Python 3.11 or newer is needed (set PYTHON=/path/to/python3.x)'
    }
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    wanted="$version $(sha256sum <"$LOCK")"
    if [[ -f $VENV/.made-from && $(<"$VENV/.made-from") == "$wanted" ]]; then
        return
    fi
    mkdir -p -- "$CACHE"
    # Two commands started at once must not build it twice.
    exec 9>"$CACHE/venv.lock"
    flock 9
    if [[ ! -f $VENV/.made-from || $(<"$VENV/.made-from") != "$wanted" ]]; then
        # Debian splits the module that makes virtual environments from the interpreter.
        "$python" -c 'import ensurepip' 2>/dev/null || need "python$version-venv"
        say "making $VENV with Python $version (about a minute)"
        "$python" -m venv --clear "$VENV" >&2
        "$VENV/bin/python" -m pip install --quiet --no-input --require-hashes --only-binary :all: \
            --requirement "$LOCK" >&2
        printf '%s\n' "$wanted" >"$VENV/.made-from"
    fi
    flock -u 9
    exec 9>&-
}

# --- what the commands share ----------------------------------------------------------------------------------------

make_layer() {
    # Debian's base system has a perl without its library, which OpenSSL's build needs.
    perl -MFindBin -MIPC::Cmd -e 1 2>/dev/null || need perl
    say "the layer (the first build compiles its interpreter: minutes; later builds: seconds)"
    layer/build "$@" >&2
}

make_emulator() {
    say "AWS's Runtime Interface Emulator"
    "$VENV/bin/python" -m tests.e2e.harness.fetch >&2
}

# The functions of the language tests, each built once into the cache: those of interpreters, or, with --all, of every language.
make_functions() {
    if [[ " $* " == *' --all '* ]]; then
        say "the functions of the language tests in every language (the first build takes minutes)"
        "$VENV/bin/python" -m tests.languages.build >&2
        say "the sandbox's peers in Rust"
        "$VENV/bin/python" -m tests.sandbox.rust_peer >&2 ||
            die 'test --all needs Rust 1.92 or newer on PATH (Debian 13 has 1.85), for the crate lambda-simulator; ./build.sh test needs none'
    else
        say "the functions of the language tests"
        "$VENV/bin/python" -m tests.languages.build python bash >&2
    fi
}

# What the emulator runs in its own mount namespace, and the functions it runs there.
need_emulator_commands() {
    need_commands unshare:util-linux mount:mount curl:curl
    if ! command -v node >/dev/null; then
        # Node.js is the demo's main actor; without it, bash plays the part and the demo says so.
        (need nodejs) || say 'Node.js could not be installed: bash plays its part'
    fi
}

# --- the commands ---------------------------------------------------------------------------------------------------

demo() {
    make_venv
    need_emulator_commands
    make_layer
    make_emulator
    if [[ ${1:-} == --redrive ]]; then
        shift
        exec "$VENV/bin/python" -m tests.handlers.circle "$@"
    fi
    exec "$VENV/bin/python" -m tests.e2e.demo "$@"
}

run_tests() {
    make_venv
    need_emulator_commands
    make_layer
    make_emulator
    make_functions "$@"
    say "pytest $*"
    exec "$VENV/bin/python" -m pytest "$@"
}

bench() {
    make_venv
    need_commands unshare:util-linux mount:mount update-ca-certificates:ca-certificates
    make_layer
    exec "$VENV/bin/python" -m benchmarks "$@"
}

# sources: every file git knows or would add, or, without git, every file outside build output.
sources() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
            [[ -f $file ]] && printf '%s\0' "$file"
        done
    else
        find . \( -name .venv -o -name build -o -name dist -o -name '.*_cache' \) -prune -o -type f -print0
    fi
}

# check_scripts BIN FILE...: scripts without a suffix, which ruff does not find and of which mypy takes one at a time.
check_scripts() {
    local bin=$1 file status=0
    shift
    "$bin/ruff" check --quiet "$@" && "$bin/ruff" format --quiet --check "$@" || status=1
    for file in "$@"; do
        "$bin/mypy" --strict "$file" || status=1
    done
    return "$status"
}

# check_machines FILE...: AWS's linters for templates do not look into state machines (a dangling Next passes them); this one does.
check_machines() {
    local tool=$CACHE/asl-validator/$ASL_VALIDATOR file status=0
    if [[ ! -x $tool/node_modules/.bin/asl-validator ]]; then
        need_commands node:nodejs npm:npm
        say "fetching asl-validator $ASL_VALIDATOR"
        mkdir -p -- "$tool"
        npm install --prefix "$tool" --silent --no-audit --no-fund "asl-validator@$ASL_VALIDATOR" >&2 || return 1
    fi
    for file in "$@"; do
        "$tool/node_modules/.bin/asl-validator" --json-path "$file" >&2 || status=1
    done
    return "$status"
}

lint() {
    make_venv
    local bin=$VENV/bin file first status=0
    local -a shell=() python=() scripts=() templates=() machines=()
    while IFS= read -r -d '' file; do
        case ${file##*/} in
            *.sh) shell+=("$file") ;;
            *.py | *.pyi) python+=("$file") ;;
            *template*.yaml | *template*.yml) templates+=("$file") ;;
            *.asl.json) machines+=("$file") ;;
            *.*[a-z]) ;;
            *)
                first=
                IFS= read -r first <"$file" 2>/dev/null || true
                case $first in
                    '#!'*python*) scripts+=("$file") ;;
                    '#!'*sh | '#!'*sh' '*) shell+=("$file") ;;
                esac
                ;;
        esac
    done < <(sources)

    check() {
        local title=$1
        shift
        say "$title"
        "$@" || {
            status=1
            say "FAILED: $title"
        }
    }
    check 'ruff check' "$bin/ruff" check --quiet .
    check 'ruff format' "$bin/ruff" format --quiet --check .
    check "mypy --strict (${#python[@]} files)" "$bin/mypy" --strict "${python[@]}"
    if ((${#scripts[@]} > 0)); then
        check "Python scripts (${#scripts[@]} files)" check_scripts "$bin" "${scripts[@]}"
    fi
    check "shellcheck (${#shell[@]} files)" "$bin/shellcheck" "${shell[@]}"
    if ((${#templates[@]} > 0)); then
        check "cfn-lint (${#templates[@]} files)" "$bin/cfn-lint" --non-zero-exit-code informational "${templates[@]}"
    fi
    if ((${#machines[@]} > 0)); then
        check "asl-validator (${#machines[@]} files)" check_machines "${machines[@]}"
    fi
    ((status == 0)) || die 'lint failed'
    say 'lint is clean'
}

update_lock() {
    make_venv
    local tools=$CACHE/lock-tools
    [[ -x $tools/bin/uv ]] || {
        "$VENV/bin/python" -m venv "$tools" >&2
        "$tools/bin/python" -m pip install --quiet uv >&2
    }
    # --universal: one lock for Python 3.11 and newer. No index address may end up in the file.
    "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
        --no-emit-index-url --no-header --no-annotate requirements-dev.in --output-file "$LOCK"
    say "renewed $LOCK"
}

main() {
    local command=${1:-help}
    (($# == 0)) || shift
    case $command in
        demo) demo "$@" ;;
        test) run_tests "$@" ;;
        layer)
            make_venv
            make_layer "$@"
            ;;
        bench) bench "$@" ;;
        lint) lint ;;
        update-lock) update_lock ;;
        update-docs)
            make_venv
            "$VENV/bin/python" -m docs.settings_table
            ;;
        help | -h | --help) usage ;;
        *)
            usage >&2
            die "no such command: $command"
            ;;
    esac
}

main "$@"
