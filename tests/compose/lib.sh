# For the checks of projects: `check` of each project is run with this read in, in the project's folder, once it is up.
# Set: COMPOSE_FILE, COMPOSE_PROJECT_NAME, DOCKER_HOST, DOCKER_CONFIG, REGISTRY.
set -euo pipefail

compose() { docker compose "$@"; }

# Where a service's port is published on this machine.
published() { compose port "$1" "$2"; } # SERVICE PORT

get() { curl --silent --show-error --fail --max-time 60 "$@"; }

fail() { echo "check: $*" >&2; exit 1; }

# The output of a command, which must hold a text.
holds() { # TEXT COMMAND...
  local text=$1 out; shift
  out=$("$@") || fail "$* failed: $out"
  [[ $out == *"$text"* ]] || fail "no '$text' in the output of $*: $out"
}

# Waits until a command's output holds a text; the test's own time-out ends it.
comes() { # TEXT COMMAND...
  local text=$1; shift
  until [[ $("$@" 2>&1) == *"$text"* ]]; do sleep 0.3; done
}
