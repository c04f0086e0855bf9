# shellcheck shell=sh disable=SC2034,SC2154 # a part of the programs beside it: they use what it sets, and set `program`
# Written by rackserve; changes here are overwritten by the next run.
# What the programs beside a service's daemon share. POSIX shell and curl: a bare macOS has no Python, only a program of
# that name that offers to install the developer tools.

# fail SENTENCE [CODE]
fail() {
  echo "$program: $1" >&2
  exit "${2:-1}"
}

# read_service NAME [ROOT]: the file of a service, a word and its value in each line. ROOT: of another file system.
read_service() {
  name=${1:-} root=${2:-}
  case $name in
    '' | *[!a-z0-9-]*) fail "usage: $program NAME" 64 ;;
  esac
  file=$root/etc/rackserve/services/$name.conf
  [ -r "$file" ] || fail "$file cannot be read: run deploys/serve.py" 66
  label='' account='' url='' health='' key_file='' start_s='' drain_s='' metrics='' metrics_key='' in_flight='' progress=''
  while read -r word value; do
    case $word in
      label) label=$value ;;
      account) account=$value ;;
      url) url=$value ;;
      health) health=$value ;;
      key_file) key_file=$root$value ;;
      start_s) start_s=$value ;;
      drain_s) drain_s=$value ;;
      metrics) metrics=$value ;;
      metrics_key) metrics_key=$value ;;
      in_flight) in_flight=$value ;;
      progress) progress=$value ;;
    esac
  done <"$file"
  case $url in
    http://*) ;;
    *) fail "$file is broken at url: run deploys/serve.py" 66 ;;
  esac
  if [ -z "$label" ] || [ -z "$start_s" ] || [ -z "$drain_s" ]; then
    fail "$file is broken at label, start_s or drain_s: run deploys/serve.py" 66
  fi
  [ -z "$key_file" ] || [ -r "$key_file" ] || fail "the key cannot be read: $key_file"
}

now() {
  date +%s
}

# look: read launchd's view of the daemon; fails where it has none.
look() {
  job=$(launchctl print "system/$label" 2>/dev/null)
}

# says KEY: what that view has in the line of KEY. Lines of blocks inside it begin with two tabs and mean other things.
says() {
  printf '%s\n' "$job" |
    awk -v start="	$1 = " 'found == 0 && index($0, start) == 1 { print substr($0, length(start) + 1); found = 1 }'
}

# The key goes to curl on standard input: everybody may read a command line.
key_header() {
  if [ -n "$key_file" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$(sed -n -e 's/[\\"]/\\&/g' -e 1p "$key_file")"
  fi
}

# ask SECONDS PATH KEY [BODY]: one request, with the key where KEY is yes; never through a proxy.
# status: of HTTP, 000 where no answer came; answer: what was said, or why nothing was; code: curl's own, 28 for too late.
ask() {
  code=0
  said=$(
    { [ "$3" != yes ] || key_header; } |
      curl -q --silent --show-error --noproxy '*' --max-time "$1" --header 'Content-Type: application/json' \
        ${4:+--data "$4"} --config - --write-out '\nrackserve-status %{http_code}\n' -- "$url$2" 2>&1
  ) || code=$?
  status=$(printf '%s\n' "$said" | sed -n 's/^rackserve-status //p' | tail -n 1)
  answer=$(printf '%s\n' "$said" | sed '/^rackserve-status /d')
}

# completion SECONDS: ask for one token. problem: what is wrong with the answer, empty where it is the named model's.
completion() {
  problem=''
  ask "$1" /v1/chat/completions yes \
    "{\"model\":\"$name\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"ping\"}]}"
  start=$(printf %.300s "$answer")
  case $status in
    200) ;;
    000 | '') problem="completion: no answer: $start" ;;
    *) problem="completion: HTTP $status $start" ;;
  esac
  [ -z "$problem" ] || return 0
  # Quotes inside of JSON's strings are escaped: what the model says cannot pass for one of these.
  bare=$(printf %s "$answer" | tr -d ' \t\r\n')
  case $bare in
    *"\"model\":\"$name\""*) ;;
    *) problem="completion: not answered by $name: $start" ;;
  esac
  case $bare in
    *'"completion_tokens":'[1-9]*) ;;
    *) problem="completion: no token in $start" ;;
  esac
}

# total METRIC...: of the metrics on standard input these, summed over all their label sets; nothing where none is told.
total() {
  awk -v names=" $* " '
    { name = $1; sub(/\{.*/, "", name) }
    index(names, " " name " ") { sum += $NF; found = 1 }
    END { if (found) printf "%.0f\n", sum }
  '
}
