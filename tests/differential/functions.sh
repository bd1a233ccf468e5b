# What cases may use, beside docker. Sourced before each.
IMAGE=mooring-test/busybox

# A call of the API as it is: METHOD PATH [BODY]. The answer's body, then its status.
api() {
  local body=()
  [ $# -lt 3 ] || body=(-H 'Content-Type: application/json' -d "$3")
  curl -sS --max-time 60 --unix-socket "$SOCKET" -X "$1" "${body[@]}" -w '\nHTTP %{http_code}\n' "http://localhost/v1.41$2" | sed '/^$/d'
}

# The same, of a JSON answer only what this filter of jq makes of it: FILTER METHOD PATH [BODY].
api_jq() {
  local filter=$1; shift
  api "$@" | sed '$d' | jq -c "$filter"
}

# Waits until a command succeeds, for at most 60 seconds.
until_so() {
  local end=$((SECONDS + 60))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "not so within 60 s: $*" >&2; return 1; }
    sleep 0.1
  done
}

# A container that stays until it is told to end, and ends at once then: NAME [OPTIONS...].
stay() {
  local name=$1; shift
  docker run -d --name "$name" "$@" "$IMAGE" sh -c 'trap "exit 0" TERM; while :; do sleep 1000 & wait $!; done'
}
