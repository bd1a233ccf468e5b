"""Every documented method of docker-py's APIClient, which gives the API's answers as they are."""

import io
import os
import time

import docker

from calls import call, finish, keys, nothing, watch

IMAGE = "mooring-test/busybox"
EXPECTED = []
for cls in docker.APIClient.__mro__:
    if cls.__module__.startswith("docker.api."):
        # Those that only build arguments or a request are documented, but ask the host nothing.
        names = [n for n, v in vars(cls).items() if not n.startswith("_") and callable(v)]
        watch(cls, names)
        EXPECTED += [(cls.__name__, n) for n in names]
EXPECTED.remove(("APIClient", "get_adapter"))

REGISTRY = os.environ["REGISTRY"]
client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version=os.environ["DOCKER_API_VERSION"], timeout=120)

call("reload_config", lambda: client.reload_config())
call("ping", client.ping)
call("version", client.version, keys)
call("info", client.info, keys)
call("df", client.df, keys)
call("events", lambda: client.events(since=0, until=1, decode=True), list)
call("login", lambda: client.login("user", "secret", registry="http://127.0.0.1:1"))

# Containers.
host = call("create_host_config", lambda: client.create_host_config(port_bindings={80: ("127.0.0.1", 18322)}), nothing)
net = call("create_networking_config", lambda: client.create_networking_config({"bridge": client.create_endpoint_config()}), nothing)
call("create_endpoint_config", client.create_endpoint_config, nothing)
call("create_container_config", lambda: client.create_container_config(IMAGE, "true"), nothing)
command = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done"]
call("create_container", lambda: client.create_container(IMAGE, command, name="plain", ports=[80], host_config=host, networking_config=net, stdin_open=True, labels={"a": "b"}), keys)
call("create_container-wrong", lambda: client.create_container("nosuch"))
call("create_container_from_config", lambda: client.create_container_from_config({"Image": IMAGE, "Cmd": ["true"]}, name="plain2"), keys)
call("containers", lambda: client.containers(all=True, filters={"label": "a=b"}), lambda v: keys(v[0]))
call("start", lambda: client.start("plain"))
call("start-none", lambda: client.start("nosuch"))
call("inspect_container", lambda: client.inspect_container("plain"), keys)
call("port", lambda: client.port("plain", 80))
call("logs", lambda: next(client.logs("plain", stream=True, follow=True)))
call("attach", lambda: client.attach("plain", stream=True).close())
call("attach_socket", lambda: client.attach_socket("plain").close())
call("top", lambda: client.top("plain", "-o pid,args")["Titles"])
call("stats", lambda: client.stats("plain", stream=False), keys)
call("resize", lambda: client.resize("plain", 20, 80))
one = call("exec_create", lambda: client.exec_create("plain", "echo inside"), keys)
call("exec_start", lambda: client.exec_start(one["Id"]))
call("exec_inspect", lambda: client.exec_inspect(one["Id"]), lambda v: [keys(v), v["ExitCode"]])
two = client.exec_create("plain", "sleep 1000", tty=True)
client.exec_start(two["Id"], detach=True)
call("exec_resize", lambda: client.exec_resize(two["Id"], 20, 80))
call("update_container", lambda: client.update_container("plain", restart_policy={"Name": "no"}))
call("pause", lambda: client.pause("plain"))
call("unpause", lambda: client.unpause("plain"))
call("rename", lambda: client.rename("plain", "plain1"))
call("put_archive", lambda: client.put_archive("plain1", "/tmp", b"\0" * 1024))
call("get_archive", lambda: client.get_archive("plain1", "/etc/passwd"), lambda v: keys(v[1]))
call("diff", lambda: client.diff("plain1"))
call("export", lambda: client.export("plain1"), lambda v: len(next(v)) > 0)
call("commit", lambda: client.commit("plain1", "committed", "2"), keys)
call("kill", lambda: client.kill("plain1", "USR1"))
call("restart", lambda: client.restart("plain1", timeout=20))
while client.logs("plain1").count(b"ready") < 2:
    # Told to stop before it can be told, it would stay.
    time.sleep(0.1)
call("stop", lambda: client.stop("plain1", timeout=20))
call("wait", lambda: client.wait("plain1"))
call("remove_container", lambda: client.remove_container("plain1"))
call("remove_container-none", lambda: client.remove_container("nosuch"))
call("prune_containers", lambda: client.prune_containers(filters={"label": "nosuch"}))

# Images.
call("images", lambda: client.images(name=IMAGE), lambda v: keys(v[0]))
call("inspect_image", lambda: client.inspect_image(IMAGE), keys)
call("history", lambda: client.history(IMAGE), lambda v: keys(v[0]))
call("tag", lambda: client.tag(IMAGE, "plaintag", "1"))
call("get_image", lambda: sum(len(part) for part in client.get_image("plaintag:1")) > 1000)
call("remove_image", lambda: client.remove_image("plaintag:1"))
call("pull", lambda: client.pull(REGISTRY + "/mooring-test/busybox", tag="latest"), nothing)
call("push", lambda: list(client.push(REGISTRY + "/mooring-test/busybox", tag="latest", stream=True, decode=True))[-1].get("errorDetail", "pushed"))
call("inspect_distribution", lambda: client.inspect_distribution(REGISTRY + "/mooring-test/busybox"), keys)
call("load_image", lambda: client.load_image(open(os.environ["ARCHIVES"] + "/busybox.docker.tar", "rb")), list)
call("build", lambda: list(client.build(fileobj=io.BytesIO(b"FROM mooring-test/busybox\n"), tag="plainbuilt:1", decode=True)), nothing)
call("search", lambda: client.search("nosuch.invalid/nosuch"))
call("prune_images", client.prune_images)
call("prune_builds", client.prune_builds, keys)
call("import_image_from_data", lambda: client.import_image_from_data(b"\0" * 1024, "imported", "1"), nothing)
call("import_image_from_stream", lambda: client.import_image_from_stream(iter([b"\0" * 1024]), "imported", "2"), nothing)
with open("empty.tar", "wb") as file:
    file.write(b"\0" * 1024)
call("import_image_from_file", lambda: client.import_image_from_file("empty.tar", "imported", "3"), nothing)
call("import_image", lambda: client.import_image("empty.tar", "imported", "4"), nothing)
call("import_image_from_url", lambda: client.import_image_from_url("http://127.0.0.1:1/x", "imported", "5"), nothing)
call("import_image_from_image", lambda: client.import_image_from_image("nosuch.invalid/nosuch", "imported", "6"), nothing)

# Networks and volumes.
call("create_network", lambda: client.create_network("plainnet", labels={"a": "b"}), keys)
call("networks", lambda: client.networks(names=["plainnet"]), lambda v: keys(v[0]))
call("inspect_network", lambda: client.inspect_network("plainnet"), keys)
call("connect_container_to_network", lambda: client.connect_container_to_network("plain2", "plainnet"))
call("disconnect_container_from_network", lambda: client.disconnect_container_from_network("plain2", "plainnet"))
call("remove_network", lambda: client.remove_network("plainnet"))
call("prune_networks", lambda: client.prune_networks(filters={"label": "nosuch"}))
call("create_volume", lambda: client.create_volume("plainvolume", labels={"a": "b"}), keys)
call("volumes", lambda: client.volumes(filters={"label": "a=b"}), lambda v: keys(v["Volumes"][0]))
call("inspect_volume", lambda: client.inspect_volume("plainvolume"), keys)
call("remove_volume", lambda: client.remove_volume("plainvolume"))
call("prune_volumes", lambda: client.prune_volumes(filters={"label": "nosuch"}))

# The swarm is off.
call("create_swarm_spec", lambda: client.create_swarm_spec(), nothing)
call("init_swarm", lambda: client.init_swarm(advertise_addr="nosuch"))
call("join_swarm", lambda: client.join_swarm([], "x"))
call("leave_swarm", lambda: client.leave_swarm())
call("inspect_swarm", lambda: client.inspect_swarm())
call("update_swarm", lambda: client.update_swarm(1))
call("unlock_swarm", lambda: client.unlock_swarm("x"))
call("get_unlock_key", lambda: client.get_unlock_key())
call("nodes", lambda: client.nodes())
call("inspect_node", lambda: client.inspect_node("x"))
call("update_node", lambda: client.update_node("x", 1))
call("remove_node", lambda: client.remove_node("x"))
template = docker.types.TaskTemplate(docker.types.ContainerSpec(IMAGE))
call("create_service", lambda: client.create_service(template))
call("services", lambda: client.services())
call("inspect_service", lambda: client.inspect_service("x"))
call("update_service", lambda: client.update_service("x", 1, template))
call("remove_service", lambda: client.remove_service("x"))
call("service_logs", lambda: client.service_logs("x", stdout=True), nothing)
call("tasks", lambda: client.tasks())
call("inspect_task", lambda: client.inspect_task("x"))
for name in ("secret", "config"):
    call("create_" + name, lambda: getattr(client, "create_" + name)("x", b"y"))
    call(name + "s", lambda: getattr(client, name + "s")())
    call("inspect_" + name, lambda: getattr(client, "inspect_" + name)("x"))
    call("remove_" + name, lambda: getattr(client, "remove_" + name)("x"))

# Plugins.
call("plugins", lambda: client.plugins())
call("inspect_plugin", lambda: client.inspect_plugin("nosuch"))
call("plugin_privileges", lambda: client.plugin_privileges("127.0.0.1:1/nosuch"))
call("pull_plugin", lambda: list(client.pull_plugin("127.0.0.1:1/nosuch", [])), nothing)
call("create_plugin", lambda: client.create_plugin("x", os.environ["CASES"] + "/docker_py"))
call("configure_plugin", lambda: client.configure_plugin("nosuch", {"A": "b"}))
call("enable_plugin", lambda: client.enable_plugin("nosuch", timeout=1))
call("disable_plugin", lambda: client.disable_plugin("nosuch"))
call("push_plugin", lambda: client.push_plugin("nosuch"), nothing)
call("upgrade_plugin", lambda: list(client.upgrade_plugin("nosuch", "127.0.0.1:1/nosuch", [])), nothing)
call("remove_plugin", lambda: client.remove_plugin("nosuch"))

call("close", client.close)
finish(EXPECTED)
