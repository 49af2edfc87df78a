# Makes .venv in the project's folder and installs pear into it, once for each state of its requirements.
# Sourced by the scripts beside it, with the extras to install as the argument: "" or "[test]".

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
    done
    fail "no python3 of version 3.11 or later on PATH; install one, or name it: PYTHON=/path/to/python3 bash $0"
}

make_environment() {
    local extras="$1" python stamp log
    python=$(find_python) || exit 1
    stamp=$({ cat pyproject.toml constraints.txt; echo "$extras"; pwd; "$python" --version; } | cksum)
    log=.venv/pip.log
    if [ -x .venv/bin/pear ] && grep -qxF "$stamp" .venv/pear-stamps 2>/dev/null; then
        return
    fi
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        "$python" -m venv --clear .venv ||
            fail "python3 -m venv failed; on Debian and Ubuntu it needs: apt-get install python3-venv"
    fi
    echo "$(basename "$0"): installing pear$extras into .venv (torch is large: some minutes the first time)" >&2
    if ! .venv/bin/python -m pip install --disable-pip-version-check -e ".$extras" -c constraints.txt >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "pip could not install pear; its whole log is in $log. Without network: fill a folder with" \
             "pip download -d wheels -e '.$extras' -c constraints.txt elsewhere, copy it here, and set PIP_FIND_LINKS=wheels"
    fi
    echo "$stamp" >>.venv/pear-stamps
}

make_environment "${1:-}"
