# environment.sh RELEASE WORK UV PROGRAM PYTHON DISTRIBUTION VERSION BACKEND FAMILY GIB MIRROR GCC WITHOUT KEEP: the virtual
# environment RELEASE with exactly what WORK/environments/ pins in the requirements file of its name, checked, or nothing.
# PROGRAM is the interpreter, and empty for one of uv's own, fetched from MIRROR where that is not empty. PYTHON is the
# version that it has to be, VERSION that of the package DISTRIBUTION. PyTorch has to compute with BACKEND of release
# FAMILY. GIB is what it all takes on disk, 0 where nobody knows. GCC: see toolkit.sh.
# WITHOUT: names of distributions that are left out though packages ask for them. KEEP: the newest releases that stay.
# shellcheck disable=SC2154 # releases, name and staging are set by staging.sh, before this with toolkit.sh and older.sh

# uv does not read pip's configuration, where a host says which index it may use. Passed on as variables: an index may
# have a password in its URL, and everybody sees arguments.
pip_settings='
import ast, shlex, subprocess, sys

said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, check=True)
found = {}
for line in said.stdout.decode().splitlines():
    key, equals, value = line.partition("=")
    section, point, name = key.rpartition(".")
    found[section, name] = value

def told(name):
    for section in (":env:", "install", "global"):
        if (section, name) in found:
            return ast.literal_eval(found[section, name])
    return None

def pass_on(name, separator, *variables):
    value = told(name)
    if value is not None:
        for variable in variables:
            print("export %s=%s" % (variable, shlex.quote(separator.join(value.split()))))

pass_on("index-url", " ", "UV_DEFAULT_INDEX")
pass_on("extra-index-url", " ", "UV_INDEX")
pass_on("find-links", ",", "UV_FIND_LINKS")
pass_on("trusted-host", " ", "UV_INSECURE_HOST")
pass_on("cert", " ", "SSL_CERT_FILE")
pass_on("proxy", " ", "HTTPS_PROXY", "HTTP_PROXY")
# uv has no variable for this one; what pip takes for yes.
if (told("no-index") or "").lower() in ("y", "yes", "t", "true", "on", "1"):
    print("no_index=--no-index")
'

# A wheel for another backend installs without a word, and fails or computes on the CPU when it serves.
what_it_is='
import importlib.metadata, sys

python, distribution, version, backend, family = sys.argv[1:]
found = "%d.%d" % sys.version_info[:2]
if found != python:
    sys.exit("its Python is %s, planned is %s" % (found, python))
found = importlib.metadata.version(distribution)
if found != version:
    sys.exit("it has %s %s, planned is %s" % (distribution, found, version))
import torch

cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
found, release = ("cuda", cuda) if cuda else ("rocm", hip) if hip else ("cpu", "")
if found != backend or not (release + ".").startswith(family + "." if family else ""):
    computes = ("torch %s computes with %s %s" % (torch.__version__, found, release)).strip()
    sys.exit("%s, planned is %s" % (computes, (backend + " " + family).strip()))
'

said_so_far() {
  # Nothing is said of a folder that changes under its feet.
  fetched=$(du -sm "$UV_CACHE_DIR" 2>/dev/null | cut -f1)
  echo "${fetched:-some} MiB of packages fetched for $name"
}

# FOLDER MIB: refuse where its file system has less room.
enough() {
  free=$(df -Pm "$1" | awk 'NR==2 {print $4}')
  [ "$free" -ge "$2" ] || fail "not installed: $(df -Pm "$1" | awk 'NR==2 {print $6}') has $free MiB free, $2 MiB are needed for $name"
}

# Others go when a release becomes current, which one that was refused never did. They go before there is a look at the
# room, with what was fetched for them: that would count as fetched for this one.
drop_refused() {
  [ -n "$(drop_older "$releases" "$distribution" "$keep")" ] || return 0
  drop_compiled "$releases" "$distribution" "$work"
  drop_fetched "$uv" "$UV_CACHE_DIR" || fail "what uv has fetched is not dropped: $UV_CACHE_DIR"
}

# What an interrupted run has fetched, which no release links yet, need not be fetched again.
check_room() {
  need=$(( gib * 1024 ))
  left=$(find "$UV_CACHE_DIR" -type f -links 1 -printf '%s\n' | awk '{sum += $1} END {printf "%d", sum / 1048576}')
  if [ "$(stat -c %d "$UV_CACHE_DIR")" = "$(stat -c %d "$releases")" ]; then
    # Files are linked, not copied.
    enough "$releases" "$(( need - left ))"
  else
    enough "$UV_CACHE_DIR" "$(( need - left ))"
    enough "$releases" "$need"
  fi
}

configure() {
  settings=$("$uv/bin/python" -c "$pip_settings" 2>"$log") || fail "pip on this host does not tell its configuration: $(tail -n 3 "$log")"
  no_index=
  eval "$settings"
  # Python is not put on root's PATH, and nothing else on this host decides what uv does.
  export UV_NO_CONFIG=1 UV_NO_PROGRESS=1 UV_SYSTEM_CERTS=1 UV_PYTHON_INSTALL_BIN=0
  # Hash for hash the same packages, whichever of the indexes has them.
  export UV_INDEX_STRATEGY=unsafe-best-match UV_LINK_MODE=hardlink
  UV_PYTHON_INSTALL_DIR=$(dirname "$releases")/python
  export UV_PYTHON_INSTALL_DIR
  [ -z "$mirror" ] || export UV_PYTHON_INSTALL_MIRROR="$mirror"
}

make_environment() {
  if [ -n "$program" ]; then
    "$uv/bin/uv" venv --quiet --relocatable --no-python-downloads --python "$program" "$staging" >"$log" 2>&1
  else
    "$uv/bin/uv" venv --quiet --relocatable --managed-python --python "$python" "$staging" >"$log" 2>&1
  fi
}

# Bytecode is compiled now: services may not write there, and each of their processes would compile anew.
install() {
  if [ -n "$without" ]; then
    echo "$without" | tr ' ' '\n' >"$requirements.without"
    export UV_EXCLUDE="$requirements.without"
  fi
  # shellcheck disable=SC2086 # one option or none
  "$uv/bin/uv" pip install --quiet --python "$staging/bin/python" --require-hashes --no-build --compile-bytecode \
    $no_index --requirement "$requirements" >"$log" 2>&1
}

check() {
  "$staging/bin/python" -I -c "$what_it_is" "$python" "$distribution" "$version" "$backend" "$family" >"$log" 2>&1
}

complete() {
  [ -x "$release/bin/python" ] && { [ -x "$release/cuda/bin/nvcc" ] || ! has_nvcc "$release"; }
}

# Releases of rackserve's first version have none. Nothing else of theirs is touched, they may be serving.
add_toolkit() {
  make_toolkit "$release" "$staging" "$gcc" >"$log" 2>&1 || fail "no CUDA toolkit for $name: $(tail -n 3 "$log")"
  with_heartbeat writing on_disk || fail "not written to disk: $name"
  rm -rf "$release/cuda"
  mv -T "$staging" "$release/cuda"
  rm -f "$log"
}

main() {
  release=$1 work=$2 uv=$3 program=$4 python=$5 distribution=$6 version=$7 backend=$8 family=$9
  shift 9
  gib=$1 mirror=$2 gcc=$3 without=$4 keep=$5
  umask 022
  # One at a time also because each counts on the room that it finds.
  begin "$release" complete
  requirements=$work/environments/$name.txt
  log=$work/environments/$name.log
  if [ -x "$release/bin/python" ]; then add_toolkit; exit 0; fi
  export UV_CACHE_DIR="$work/uv"
  mkdir -p "$UV_CACHE_DIR"
  drop_refused
  check_room
  configure
  with_heartbeat said_so_far make_environment || fail "no environment with Python $python for $name: $(tail -n 5 "$log")"
  with_heartbeat said_so_far install || fail "not installed: $name: $(tail -n 12 "$log")"
  with_heartbeat said_so_far check || fail "not used: $name: $(tail -n 3 "$log")"
  if has_nvcc "$staging"; then
    make_toolkit "$staging" "$staging/cuda" "$gcc" >"$log" 2>&1 || fail "no CUDA toolkit for $name: $(tail -n 3 "$log")"
  fi
  mv "$requirements" "$staging/requirements.txt"
  rm -f "$log" "$requirements.without"
  finish
}

main "$@" </dev/null
