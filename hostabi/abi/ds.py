"""The host ABI ds.host.v1 for native plugins in Python: one file, nothing but the standard library.

Copy it beside your program. It speaks frames on DS_HOST_FD (docs/abi.md) with messages as protobuf-JSON: dictionaries
with the names of host.proto in camelCase, int64 and uint64 as strings, bytes as base64 text. There is a verb for what
most plugins do, and call() and stream() for the rest:

    import ds
    print(ds.config("settings.hello.greeting"))
    for tag in ds.each("Registry/ListTags", repository="ghcr.io/acme/app"):
        print(tag["name"])

What the host refuses is ds.Error. Nothing is connected before the first call. Each thread may have streams of its own.
"""
import base64
import collections
import io
import json
import os
import shutil
import socket
import struct
import threading

HEADER = struct.Struct("<BBHIHHI")  # ver enc code id mlen flags len
JSON, END, CANCEL, ACK = 1, 1, 2, 4
CREDIT, CHUNK = 16, 64 << 10  # messages of a stream that may be unacknowledged, each way; bytes of one


class Error(Exception):
    """What the host answered instead of a reply. code is a number, reason a word of docs/abi.md, fix a command."""

    def __init__(self, code, message, reason="", metadata=None):
        super().__init__("%s: %s" % (reason or "code %d" % code, message))
        self.code, self.message, self.reason, self.metadata = code, message, reason, metadata or {}
        self.fix = self.metadata.get("fix", "")


class _Connection:
    def __init__(self):
        fd = os.environ.get("DS_HOST_FD")
        if not fd:
            raise Error(9, "this program was not started by ds")
        self.socket = socket.socket(fileno=int(fd))
        self.socket.set_inheritable(False)
        self.reader = self.socket.makefile("rb")
        self.changed, self.writing = threading.Condition(), threading.Lock()
        self.live, self.last, self.busy = {}, 0, False

    def open(self, stream, method, body, flags):
        """Sends the first frame of a stream; ids must reach the host in order."""
        name = ("/ds.host.v1." + method).encode()
        with self.writing:
            self.last += 1
            stream.id = self.last
            self.live[stream.id] = stream
            self._write(HEADER.pack(1, JSON, 0, stream.id, len(name), flags, len(body)) + name + body)

    def write(self, id, flags, body=b"", code=0):
        with self.writing:
            self._write(HEADER.pack(1, JSON, code, id, 0, flags, len(body)) + body)

    def _write(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # the reader finds out why

    def wait(self, ready):
        """Waits until ready(). One of the waiting threads reads; each frame wakes the others."""
        with self.changed:
            while not ready():
                if self.busy:
                    self.changed.wait()
                    continue
                self.busy = True
                self.changed.release()
                try:
                    frame = self._read()
                finally:
                    self.changed.acquire()
                    self.busy = False
                    self.changed.notify_all()
                self._take(*frame)

    def _read(self):
        head = self.reader.read(HEADER.size)
        size = HEADER.unpack(head)[6] if len(head) == HEADER.size else -1
        body = self.reader.read(max(size, 0))
        if len(body) != size:
            raise Error(14, "ds closed the connection")
        return head, body

    def _take(self, head, body):
        _, _, code, id, _, flags, _ = HEADER.unpack(head)
        if id == 0:
            raise _error(code, body)
        stream = self.live.get(id)
        if stream is None:
            return  # cancelled here; the host did not know yet
        if flags & ACK:
            stream.unacknowledged -= code
            return
        if body and not code:
            stream.messages.append(json.loads(body))
        if flags & END:
            stream.error = _error(code, body) if code else None
            stream.ended = True
            del self.live[id]


class Stream:
    """One call that streams. Use it up, or end it with cancel(); as a context manager it cancels itself."""

    def __init__(self, method, first, end=False):
        self.connection = _connect()
        self.messages, self.unacknowledged = collections.deque(), 1
        self.ended, self.closed, self.error, self.id = False, end, None, 0
        self.connection.open(self, method, json.dumps(first).encode(), END if end else 0)

    def send(self, message):
        """Sends one message and waits for credit. After the end of the stream it does nothing: recv has the result."""
        self.connection.wait(lambda: self.ended or self.unacknowledged < CREDIT)
        if not self.ended:
            with self.connection.changed:
                self.unacknowledged += 1
            self.connection.write(self.id, 0, json.dumps(message).encode())

    def close(self):
        """Ends this side: no more messages are sent."""
        if not self.closed and not self.ended:
            self.closed = True
            self.connection.write(self.id, END)

    def recv(self):
        """The next message, None at the end."""
        self.connection.wait(lambda: self.messages or self.ended)
        if self.messages:
            message = self.messages.popleft()
            if not self.ended:
                self.connection.write(self.id, ACK, code=1)
            return message
        if self.error:
            raise self.error
        return None

    def cancel(self):
        if self.connection.live.pop(self.id, None):
            self.ended = True
            self.connection.write(self.id, CANCEL)

    def __iter__(self):
        return iter(self.recv, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()


_connection, _connecting = None, threading.Lock()


def _connect():
    global _connection
    with _connecting:
        if _connection is None:
            _connection = _Connection()
        return _connection


def _error(code, body):
    status = json.loads(body or b"{}")
    info = next((d for d in status.get("details", []) if d.get("@type", "").endswith("/google.rpc.ErrorInfo")), {})
    return Error(code, status.get("message", ""), info.get("reason", ""), info.get("metadata"))


def call(method, **request):
    """One call, call("Config/Get", key="…"): the reply as a dictionary."""
    with Stream(method, request, end=True) as s:
        return s.recv() or {}


def stream(method, **first):
    """A call that streams both ways."""
    return Stream(method, first)


def each(method, **request):
    """The messages that answer one request."""
    with Stream(method, request, end=True) as s:
        yield from s


def describe():
    return call("Meta/Describe")


def config(key):
    """The value of a configuration key, as Python has it."""
    return json.loads(call("Config/Get", key=key)["json"])


def put(data, media_type=""):
    """Puts bytes, or what a file object gives, into the cache: its digest."""
    sink = call("Cache/Create", mediaType=media_type)
    try:
        with open(sink["path"], "r+b") as out:
            shutil.copyfileobj(data if hasattr(data, "read") else io.BytesIO(data), out)
    except BaseException:
        call("Cache/Close", handle=sink["handle"])
        raise
    return call("Cache/Commit", handle=sink["handle"])["digest"]


def get(digest):
    """The bytes of a blob."""
    blob = call("Cache/Open", digest=digest)
    with open(blob["path"], "rb") as f:
        data = f.read()
    call("Cache/Close", handle=blob["handle"])
    return data


def pull(ref, progress=None, **options):
    """Pulls an artifact into the cache: the descriptor of its root. progress gets each report of the host."""
    return _last("Registry/Pull", progress, ref=ref, **options)


def push(ref, digest, tags=(), progress=None):
    """Pushes a graph that is in the cache: the descriptor of its root."""
    return _last("Registry/Push", progress, ref=ref, digest=digest, tags=list(tags))


def _last(method, progress, **request):
    root = {}
    for event in each(method, **request):
        root = event.get("root", root)
        if progress and "progress" in event:
            progress(event["progress"])
    return root


def run(plugin, command, *args, stdin=b"", **options):
    """Runs another plugin: its exit code, stdout and stderr."""
    out, err, code = bytearray(), bytearray(), None
    with stream("Plugins/Call", start=dict(plugin=plugin, command=command, args=list(args), **options)) as s:
        feeder = threading.Thread(target=_feed, args=(s, stdin), daemon=True)
        feeder.start()
        for event in s:
            out += base64.b64decode(event.get("stdout", ""))
            err += base64.b64decode(event.get("stderr", ""))
            if "exit" in event:
                code = event["exit"].get("code", 0)
        feeder.join()
    return code, bytes(out), bytes(err)


def _feed(s, data):
    for at in range(0, len(data), CHUNK):
        s.send({"stdin": base64.b64encode(data[at:at + CHUNK]).decode()})
    s.close()


def publish(topic, data, **attributes):
    """Publishes an event whose data is JSON."""
    text = json.dumps(data, separators=(",", ":")).encode()
    return call("Events/Publish", topic=topic, contentType="application/json", data=base64.b64encode(text).decode(), attributes=attributes)


def state_get(key):
    """The value of a key of this plugin, None if there is none, and its revision."""
    try:
        entry = call("State/Get", key=key)
    except Error as e:
        if e.code == 5:
            return None, 0
        raise
    return base64.b64decode(entry.get("value", "")), int(entry["revision"])


def state_put(key, value, if_revision=None, ttl=0):
    """Stores bytes: the new revision. if_revision 0 means that the key must not exist."""
    request = dict(key=key, value=base64.b64encode(value).decode(), ttl=ttl)
    if if_revision is not None:
        request["ifRevision"] = if_revision
    return int(call("State/Put", **request)["revision"])


def log(message, level=0, **attributes):
    call("Log/Write", records=[dict(level=level, message=message, attributes=attributes)])


def progress(id, current, total=0, label="", state="run"):
    call("Term/Report", items=[dict(id=id, label=label or id, current=current, total=total, state=state)])


def rows(columns, items):
    """Structured output in the user's --format; items are dictionaries."""
    call("Term/Rows", columns=list(columns), rowsJson=[json.dumps(i) for i in items], end=True)
