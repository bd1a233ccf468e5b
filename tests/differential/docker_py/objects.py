"""Every documented method of docker-py's objects (docker.DockerClient and what it gives)."""

import io
import os
import tarfile
import time

import docker
from docker.models import configs, containers, images, networks, nodes, plugins, secrets, services, swarm, volumes

from calls import call, finish, keys, nothing, watch

IMAGE = "mooring-test/busybox"
OWN = {"id_attribute", "model", "prepare_model", "short_id", "collection"}
EXPECTED = []
for module in (containers, images, networks, volumes, swarm, services, nodes, secrets, configs, plugins):
    for cls in vars(module).values():
        if isinstance(cls, type) and cls.__module__ == module.__name__ and cls.__name__ != "ExecResult":
            names = [n for n, v in vars(cls).items() if not n.startswith("_") and n not in OWN and (callable(v) or isinstance(v, property))]
            watch(cls, names)
            EXPECTED += [(cls.__name__, n) for n in names]
names = [n for n in vars(docker.DockerClient) if not n.startswith("_") and n != "from_env"]
watch(docker.DockerClient, names)
EXPECTED += [("DockerClient", n) for n in names]


def archive(name, text):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return data.getvalue()


client = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version=os.environ["DOCKER_API_VERSION"], timeout=120)

# The client.
call("ping", client.ping)
call("version", client.version, lambda v: v["Os"])
call("info", client.info, lambda v: v["OSType"])
call("df", client.df, keys)
call("login", lambda: client.login("user", "secret", registry="http://127.0.0.1:1"))
feed = call("events", lambda: client.events(decode=True, since=0, until=1), list)
call("api", lambda: client.api.version()["Os"])

# Containers.
call("containers.run", lambda: client.containers.run(IMAGE, "echo hello", remove=True))
call("containers.run-fails", lambda: client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True))
call("containers.run-no-image", lambda: client.containers.run("nosuch.invalid/nosuch"))
call("containers.run-no-command", lambda: client.containers.run(IMAGE, "/nosuch", name="never"))
made = call("containers.create", lambda: client.containers.create(IMAGE, ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done"], name="py", labels={"a": "b"}, ports={"80/tcp": ("127.0.0.1", 18321)}, stdin_open=True, healthcheck={"test": ["CMD", "true"], "interval": 3600 * 10**9}))
call("containers.create-twice", lambda: client.containers.create(IMAGE, name="py"))
c = call("containers.get", lambda: client.containers.get("py"))
call("containers.get-none", lambda: client.containers.get("nosuch"))
call("containers.list", lambda: client.containers.list(all=True, filters={"label": "a=b"}))
call("containers.list-wrong", lambda: client.containers.list(filters={"nosuch": "1"}))
call("container.start", c.start)
call("container.reload", c.reload)
for name in ("name", "status", "labels", "ports"):
    call("container." + name, lambda: getattr(c, name))
call("container.id", lambda: len(c.id))
call("container.image", lambda: c.image.tags)
call("container.health", lambda: c.health in ("starting", "healthy"))
call("container.logs", lambda: next(c.logs(stream=True, follow=True)))
call("container.exec_run", lambda: c.exec_run("echo inside"))
call("container.exec_run-demux", lambda: c.exec_run(["sh", "-c", "echo a; echo b >&2; exit 4"], demux=True))
call("container.exec_run-fails", lambda: c.exec_run("nosuch"))
# docker-py loses what comes with the answer's head: the output must come after it.
call("container.exec_run-stream", lambda: c.exec_run(["sh", "-c", "sleep 0.5; echo streamed"], stream=True))
call("container.attach", lambda: c.attach(stream=True).close())
call("container.attach_socket", lambda: c.attach_socket(params={"stdin": 1, "stream": 1}).close())
call("container.top", lambda: c.top(ps_args="-o pid,args")["Titles"])
call("container.stats", lambda: c.stats(stream=False), keys)
call("container.resize", lambda: c.resize(20, 80))
call("container.update", lambda: c.update(restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}))
call("container.pause", c.pause)
call("container.pause-twice", c.pause)
call("container.unpause", c.unpause)
call("container.rename", lambda: c.rename("py2"))
call("container.put_archive", lambda: c.put_archive("/tmp", archive("file", b"words")))
call("container.get_archive", lambda: c.get_archive("/tmp/file"), lambda v: v[1]["name"])
call("container.get_archive-none", lambda: c.get_archive("/nosuch"), nothing)
call("container.diff", c.diff)
call("container.export", c.export, lambda v: len(next(v)) > 0)
call("container.commit", lambda: c.commit("committed", tag="1"), nothing)
call("container.kill", lambda: c.kill(signal="USR1"))
call("container.kill-wrong", lambda: c.kill(signal="NOSUCH"))
call("container.restart", lambda: c.restart(timeout=20))
while c.logs().count(b"ready") < 2:
    # Told to stop before it can be told, it would stay.
    time.sleep(0.1)
call("container.stop", lambda: c.stop(timeout=20))
call("container.wait", lambda: c.wait(timeout=60))
call("container.exec_run-stopped", lambda: c.exec_run("true"))
call("container.remove", c.remove)
call("container.remove-twice", c.remove)
call("containers.prune", lambda: client.containers.prune(filters={"label": "a=c"}))

# Images.
i = call("images.get", lambda: client.images.get(IMAGE))
call("images.get-none", lambda: client.images.get("nosuch"))
call("image.reload", i.reload)
call("image.labels", lambda: i.labels)
call("image.tags", lambda: i.tags)
call("image.history", i.history, lambda v: [keys(v[0]), len(v)])
call("image.tag", lambda: i.tag("tagged", tag="1"))
call("image.tag-wrong", lambda: i.tag("Not/Good"))
call("image.save", lambda: sum(len(part) for part in i.save()) > 1000)
call("images.list", lambda: client.images.list(name="tagged"))
call("images.list-filter", lambda: client.images.list(filters={"dangling": True}))
call("image.remove", lambda: client.images.get("tagged:1").remove(), nothing)
client.images.get(IMAGE).tag("tagged", tag="2")
call("images.remove", lambda: client.images.remove("tagged:2"))
call("images.remove-none", lambda: client.images.remove("nosuch"))
call("images.pull", lambda: client.images.pull(os.environ["REGISTRY"] + "/mooring-test/busybox", tag="latest"), nothing)
call("images.pull-none", lambda: client.images.pull(os.environ["REGISTRY"] + "/nosuch", tag="1"))
call("images.push", lambda: client.images.push(os.environ["REGISTRY"] + "/mooring-test/busybox", tag="latest", stream=True, decode=True), lambda v: list(v)[-1].get("errorDetail", "pushed"))
call("images.load", lambda: client.images.load(open(os.environ["ARCHIVES"] + "/busybox.docker.tar", "rb").read()))
call("images.build", lambda: client.images.build(fileobj=io.BytesIO(b"FROM mooring-test/busybox\nENV A=b\n"), tag="built:1", rm=True), nothing)
call("images.search", lambda: client.images.search("nosuch.invalid/nosuch"))
call("images.prune", lambda: client.images.prune(filters={"dangling": True}))
call("images.prune_builds", client.images.prune_builds, keys)
data = call("images.get_registry_data", lambda: client.images.get_registry_data(os.environ["REGISTRY"] + "/mooring-test/busybox"), nothing)
if data is None:
    # What it would give; the calls on it need no answer of the host but their own.
    data = images.RegistryData(image_name="127.0.0.1:1/x", attrs={"Descriptor": {"digest": "sha256:00"}, "Platforms": []}, client=client, collection=client.images)
call("registry_data.id", lambda: data.id.split(":")[0])
call("registry_data.has_platform", lambda: data.has_platform("linux/nosuch"))
call("registry_data.pull", lambda: data.pull(), nothing)
call("registry_data.reload", lambda: data.reload(), nothing)

# Networks.
n = call("networks.create", lambda: client.networks.create("pynet", labels={"a": "b"}, ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.77.0.0/24")])))
call("networks.get", lambda: client.networks.get("pynet"))
call("networks.get-none", lambda: client.networks.get("nosuch"))
call("networks.list", lambda: client.networks.list(names=["pynet"]))
c = client.containers.create(IMAGE, "sleep 1000", name="netted")
call("network.connect", lambda: n.connect(c, aliases=["alias"]))
call("network.reload", n.reload)
call("network.name", lambda: n.name)
call("network.containers", lambda: n.containers)
call("network.disconnect", lambda: n.disconnect(c))
call("network.disconnect-twice", lambda: n.disconnect(c))
call("network.remove", n.remove)
call("network.remove-twice", n.remove)
call("networks.prune", lambda: client.networks.prune(filters={"label": "nosuch"}))
c.remove()

# Volumes.
v = call("volumes.create", lambda: client.volumes.create("pyvolume", driver="local", labels={"a": "b"}))
call("volumes.get", lambda: client.volumes.get("pyvolume"))
call("volumes.get-none", lambda: client.volumes.get("nosuch"))
call("volumes.list", lambda: client.volumes.list(filters={"label": "a=b"}))
call("volume.name", lambda: v.name)
call("volume.reload", v.reload)
call("volume.remove", v.remove)
call("volume.remove-twice", v.remove)
call("volumes.prune", lambda: client.volumes.prune(filters={"label": "nosuch"}))

# The swarm is off; so is everything that needs one.
call("swarm.init", lambda: client.swarm.init(advertise_addr="nosuch"))
call("swarm.join", lambda: client.swarm.join(remote_addrs=[], join_token="x"))
call("swarm.leave", client.swarm.leave)
call("swarm.unlock", lambda: client.swarm.unlock("x"))
call("swarm.get_unlock_key", client.swarm.get_unlock_key)
call("swarm.reload", client.swarm.reload)
call("swarm.version", lambda: client.swarm.version)
call("swarm.update", lambda: client.swarm.update(force_new_cluster=False))
call("services.create", lambda: client.services.create(IMAGE, "true"))
call("services.get", lambda: client.services.get("nosuch"))
call("services.list", client.services.list)
s = services.Service(attrs={"ID": "nosuch", "Version": {"Index": 1}, "Spec": {"Name": "x", "Mode": {"Replicated": {"Replicas": 1}}, "TaskTemplate": {"ContainerSpec": {"Image": "x"}}}}, client=client, collection=client.services)
call("service.name", lambda: s.name)
call("service.version", lambda: s.version)
call("service.tasks", s.tasks)
call("service.logs", lambda: s.logs(stdout=True), nothing)
call("service.scale", lambda: s.scale(2))
call("service.force_update", s.force_update)
call("service.update", lambda: s.update(name="x"))
call("service.remove", s.remove)
call("service.reload", s.reload)
call("nodes.get", lambda: client.nodes.get("nosuch"))
call("nodes.list", client.nodes.list)
node = nodes.Node(attrs={"ID": "nosuch", "Version": {"Index": 1}}, client=client, collection=client.nodes)
call("node.version", lambda: node.version)
call("node.update", lambda: node.update({"Availability": "active"}))
call("node.remove", node.remove)
call("node.reload", node.reload)
for name, collection, model in (("secrets", client.secrets, secrets.Secret), ("configs", client.configs, configs.Config)):
    call(name + ".create", lambda: collection.create(name="x", data=b"y"))
    call(name + ".get", lambda: collection.get("nosuch"))
    call(name + ".list", collection.list)
    one = model(attrs={"ID": "nosuch", "Spec": {"Name": "x"}}, client=client, collection=collection)
    call(name[:-1] + ".name", lambda: one.name)
    call(name[:-1] + ".remove", one.remove)
    call(name[:-1] + ".reload", one.reload)

# Plugins.
call("plugins.list", client.plugins.list)
call("plugins.get", lambda: client.plugins.get("nosuch"))
call("plugins.install", lambda: client.plugins.install("127.0.0.1:1/nosuch:1"))
call("plugins.create", lambda: client.plugins.create("x", os.environ["CASES"] + "/docker_py"))
p = plugins.Plugin(attrs={"Id": "nosuch", "Name": "nosuch", "Enabled": False, "Settings": {}}, client=client, collection=client.plugins)
for name in ("name", "enabled", "settings"):
    call("plugin." + name, lambda: getattr(p, name))
call("plugin.configure", lambda: p.configure({"A": "b"}))
call("plugin.enable", lambda: p.enable(timeout=1))
call("plugin.disable", p.disable)
call("plugin.push", lambda: list(p.push()) if p.push() else None, nothing)
call("plugin.upgrade", lambda: list(p.upgrade()), nothing)
call("plugin.remove", p.remove)
call("plugin.reload", p.reload)

call("close", client.close)
finish(EXPECTED)
