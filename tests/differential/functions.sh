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

# What a container runs that stays until it is told to end, and ends at once then.
STAY='trap "exit 0" TERM; echo ready; while :; do sleep 1000 & wait $!; done'

# Waits until it has said COUNT times (1) that it can be told: NAME [COUNT].
ready() {
  until_so eval "[ \"\$(docker logs $1 2>&1 | grep -c ready)\" = ${2:-1} ]"
}

# Starts one: NAME [OPTIONS...].
stay() {
  local name=$1; shift
  docker run -d --name "$name" "$@" "$IMAGE" sh -c "$STAY" && ready "$name"
}
