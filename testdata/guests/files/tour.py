"""The acceptance program in Python for an interpreter that runs as WASM: nothing but files below /ds."""
import base64
import json
import os
import sys


class Refused(Exception):
    def __init__(self):
        with open("/ds/last_error.json") as f:
            status = json.load(f)
        self.code, self.message = status["code"], status["message"]
        self.reason = status["details"][0]["reason"]


def stream(method, *requests):
    """All answers to all requests."""
    path = "/ds/call/" + method
    try:
        with open(path, "w") as f:
            for r in requests:
                f.write(json.dumps(r) + "\n")
        with open(path) as f:
            return [json.loads(line) for line in f]
    except OSError:
        raise Refused from None


def call(method, **request):
    return stream(method, request)[0]


def to_text(data):
    return base64.b64encode(data).decode()


def put(data):
    sink = call("Cache/Create", mediaType="text/plain")
    with open(sink["path"], "wb") as f:
        f.write(data)
    return call("Cache/Commit", handle=sink["handle"])["digest"]


def get(digest):
    with open("/ds/blob/" + digest.replace(":", "/"), "rb") as f:
        return f.read()


def visits():
    try:
        entry = call("State/Get", key="visits")
    except Refused as e:
        if e.code != 5:
            raise
        return 0, 0
    return int(base64.b64decode(entry["value"])), entry["revision"]


def run(command, *args, stdin=b""):
    start = {"start": {"plugin": "demo", "command": command, "args": args}}
    events = stream("Plugins/Call", start, {"stdin": to_text(stdin)})
    return events[-1]["exit"].get("code", 0), b"".join(base64.b64decode(e.get("stdout", "")) for e in events)


def same(a, b):
    return "the same" if a == b else "SOMETHING ELSE"


def main(words):
    name = os.environ["DS_PLUGIN"]
    print("args: %d%s" % (len(words), "".join(" [%s]" % w for w in words)))
    data = sys.stdin.buffer.read()
    print("stdin: %d bytes, %s" % (len(data), data.split(b"\n")[0].decode()))
    with open("/ds/config.json") as f:
        print("config:", json.load(f)["greeting"])

    digest = put(data)
    print("cache: put", digest)
    print("cache: got", same(get(digest), data))

    count, revision = visits()
    call("State/Put", key="visits", value=to_text(b"%d" % (count + 1)), ifRevision=revision)
    print("state: visits =", visits()[0])

    event = json.dumps({"words": len(words)}, separators=(",", ":")).encode()
    call("Events/Publish", topic=name + ".done", contentType="application/json", data=to_text(event))
    print("event: published %s.done" % name)

    code, out = run("echo", stdin=data)
    print("call: demo echo ended with %d and gave %s" % (code, same(out, data)))
    print("call: demo exit ended with", run("exit", "3")[0])

    try:
        call("Registry/Resolve", ref="ghcr.io/acme/app:1.4.0")
    except Refused as e:
        print("denied: code %d, %s: %s" % (e.code, e.reason, e.message))
    return 7


sys.exit(main(sys.argv[1:]))
