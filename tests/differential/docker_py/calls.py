"""Makes calls and tells what came of each, one line a call; and knows which methods were not called."""

import functools
import inspect
import itertools
import json
import sys
import types

import docker

_called = set()


def watch(cls, names):
    """Notes calls of these methods that come from here, not from the library itself."""
    for name in names:
        original = inspect.getattr_static(cls, name)
        if isinstance(original, property):
            setattr(cls, name, property(_noting(cls, name, original.fget)))
        elif inspect.isfunction(original):
            setattr(cls, name, _noting(cls, name, original))


_depth = 0


def _noting(cls, name, function):
    @functools.wraps(function)
    def noted(*args, **kwargs):
        global _depth
        if _depth == 0:
            _called.add((cls.__name__, name))
        _depth += 1
        try:
            return function(*args, **kwargs)
        finally:
            _depth -= 1

    return noted


def plain(value):
    """A value as JSON has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (types.GeneratorType, list, tuple)) or hasattr(value, "__next__"):
        return [plain(v) for v in itertools.islice(value, 50)]
    if hasattr(value, "attrs"):
        return type(value).__name__ + " " + str(getattr(value, "name", ""))
    return type(value).__name__


def call(name, function, pick=lambda value: value):
    """Makes a call, tells its outcome, gives its value (None where it failed)."""
    try:
        value = function()
        outcome = plain(pick(value))
    except docker.errors.APIError as error:
        value, outcome = None, {"error": type(error).__name__, "status": error.status_code, "explanation": plain(error.explanation)}
    except (docker.errors.DockerException, TypeError, ValueError, AttributeError, KeyError, OSError) as error:
        value, outcome = None, {"error": type(error).__name__, "text": str(error)}
    print(name + "\t" + json.dumps(outcome if isinstance(outcome, (dict, list)) else {"value": outcome}, sort_keys=True))
    sys.stdout.flush()
    return value


def nothing(value):
    """For values of which only that they came is compared."""
    return type(value).__name__


def keys(value):
    return {key: True for key in value}


def finish(expected):
    """Fails where a documented method was never called."""
    missing = sorted(set(expected) - _called)
    if missing:
        print("never called: " + ", ".join(".".join(m) for m in missing), file=sys.stderr)
        sys.exit(1)
