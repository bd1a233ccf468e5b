"""python-on-whales, which drives the docker program and parses what it prints."""

import os

from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException, NoSuchContainer, NoSuchImage

docker = DockerClient(host=os.environ["DOCKER_HOST"])
IMAGE = "mooring-test/busybox"

assert docker.info().os_type == "linux"
assert docker.version().server.os == "linux"
assert docker.run(IMAGE, ["echo", "hello"], remove=True) == "hello"
assert [part for _, part in docker.run(IMAGE, ["echo", "streamed"], remove=True, stream=True)] == [b"streamed\n"]
try:
    docker.run(IMAGE, ["sh", "-c", "exit 3"], remove=True)
    raise AssertionError("exit 3 is an error")
except DockerException as error:
    assert error.return_code == 3

script = 'trap "exit 0" TERM; echo ready; while :; do sleep 1000 & wait $!; done'
container = docker.run(IMAGE, ["sh", "-c", script], detach=True, name="whale", labels={"a": "b"}, publish=[("127.0.0.1:18444", 80)], tty=False)
assert next(part for _, part in docker.logs(container, follow=True, stream=True)) == b"ready\n"
assert container.state.running and container.config.labels["a"] == "b"
assert container.network_settings.ports["80/tcp"][0]["HostPort"] == "18444"
assert [c.name for c in docker.ps(filters={"label": "a=b"})] == ["whale"]
assert docker.execute("whale", ["sh", "-c", "echo inside"]) == "inside"
container.pause()
assert container.state.paused
container.unpause()
container.rename("whale2")
container.stop(time=20)
assert container.state.exit_code == 0
container.remove()
try:
    docker.container.inspect("whale2")
    raise AssertionError("it is removed")
except NoSuchContainer:
    pass

network = docker.network.create("whale-network", labels={"a": "b"})
assert docker.network.list(filters={"label": "a=b"}) == [network]
network.remove()
volume = docker.volume.create("whale-volume", labels={"a": "b"})
assert docker.volume.inspect("whale-volume").labels == {"a": "b"}
assert docker.run(IMAGE, ["sh", "-c", "echo kept > /v/file; cat /v/file"], volumes=[(volume, "/v")], remove=True) == "kept"
volume.remove()

image = docker.image.inspect(IMAGE)
assert image.architecture == "amd64"
image.tag("whale:1")
assert any("whale:1" in i.repo_tags for i in docker.image.list())
docker.image.remove("whale:1")
try:
    docker.image.inspect("whale:1")
    raise AssertionError("it is removed")
except NoSuchImage:
    pass
assert docker.system.disk_free().images.total_count >= 1
print("python-on-whales: all good")
