"""The library of oras against a registry: HOST, users' PASSWORD; file.txt is in the working folder."""

import os

import oras.client

host, password = os.environ["HOST"], os.environ["PASSWORD"]


def client(user, backend="token"):
    one = oras.client.OrasClient(hostname=host, auth_backend=backend)
    if user:
        one.auth.set_basic_auth(user, password)
    return one


def fails(call, *args, **named):
    try:
        answer = call(*args, **named)
    except Exception as error:
        return str(error)
    raise AssertionError(f"it should have failed: {answer}")


target = f"{host}/default-project/artifact:v1"
fails(client(None).push, target=target, files=["file.txt"])
fails(client("viewer").push, target=target, files=["file.txt"])
developer = client("developer")
answer = developer.push(target=target, files=["file.txt"])
assert answer.status_code in (200, 201), answer.text
assert client(None).get_tags(target) == ["v1"]
pulled = client(None).pull(target=target, outdir="pulled")
assert [open(path).read() for path in pulled] == ["a file as an artifact"], pulled

# It keeps its first token and asks for no other one when that is for pulls only: with the password each time.
private = f"{host}/private/artifact:v1"
answer = client("developer", "basic").push(target=private, files=["file.txt"])
assert answer.status_code in (200, 201), answer.text
fails(client(None).pull, target=private, outdir="stolen")
assert client("viewer").pull(target=private, outdir="seen")

fails(client("developer").delete_tags, target, ["v1"])
assert client(None).get_tags(target) == ["v1"]
assert client("devops-admin").delete_tags(target, ["v1"]) == ["v1"]
assert client(None).get_tags(target) == []
print("oras: all good")
