# Removes what a case left: containers, networks, volumes, and images but the one that all use.
ids=$(docker ps -aq) && [ -z "$ids" ] || docker rm -fv $ids >/dev/null 2>&1
docker network prune -f >/dev/null
volumes=$(docker volume ls -q) && [ -z "$volumes" ] || docker volume rm $volumes >/dev/null
docker images --format '{{.Repository}}:{{.Tag}}' | grep -v '^mooring-test/busybox:latest$' | grep -v '<none>' | xargs -r docker rmi -f >/dev/null 2>&1
docker images --digests --format '{{.Tag}} {{.Repository}}@{{.Digest}}' | sed -n 's/^<none> \(.*@sha256\)/\1/p' | xargs -r docker rmi >/dev/null
docker image inspect mooring-test/busybox >/dev/null || docker load -q -i "$ARCHIVES/busybox.docker.tar" >/dev/null
left=$(docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom)
[ -z "$left" ] || { echo "left: $left" >&2; exit 1; }
