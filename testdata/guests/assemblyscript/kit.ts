// The conformance kit's guest in AssemblyScript: does the host calls that stand on its standard input, one after the
// other. hosttest/relay.go has the other side.
import * as ds from "../../../hostabi/abi/ds";

const CALL = 0, OPEN = 1, SEND = 2, HALF = 3, RECV = 4, CLOSE = 5, POLL = 6, READ = 7, WRITE = 8;
const END = 257;

const streams = new Map<i32, ds.Stream>();

// Answer is code, n and body of an answer.
class Answer { constructor(public code: i32 = 0, public n: i32 = 0, public body: Uint8Array = new Uint8Array(0)) {} }

// refused is the Status of the last failure, of which the SDK keeps no metadata but the fix.
function refused(): Answer {
  const e = ds.failure;
  const info = new ds.Message().text(1, e.reason).text(2, "ds.host").pairs(3, ["fix", e.fix]);
  const any = new ds.Message().text(1, "type.googleapis.com/google.rpc.ErrorInfo").message(2, info);
  const status = new ds.Message().int(1, e.code).text(2, e.message).message(3, any);
  return new Answer(e.code, 0, status.bytes.slice(0, status.length));
}

function given(b: Uint8Array | null): Answer { return b == null ? refused() : new Answer(0, 0, b); }
function done(ok: bool): Answer { return ok ? new Answer() : refused(); }

function act(op: i32, handle: i32, method: string, body: Uint8Array): Answer {
  const message = new ds.Message().append(body);
  if (op == CALL) return given(ds.call(method, message));
  if (op == OPEN) {
    const opened = ds.Stream.open(method, message);
    if (opened == null) return refused();
    streams.set(streams.size + 1, opened);
    return new Answer(0, streams.size);
  }
  if (op == READ) {
    const b = new Uint8Array(256 << 10), n = ds.read(handle, b);
    return n < 0 ? refused() : new Answer(0, 0, b.subarray(0, n));
  }
  if (op == WRITE) return done(ds.write(handle, body));
  const s = streams.get(handle);
  if (op == SEND) return done(s.send(message));
  if (op == HALF) return done(s.halfClose());
  if (op == POLL) return new Answer(0, s.poll());
  if (op == CLOSE) s.release();
  if (op != RECV) return new Answer();
  const got = s.recv();
  return s.ended ? new Answer(END) : given(got);
}

// read fills b; false is the end of the input.
function read(b: Uint8Array): bool {
  for (let have = 0; have < b.length;) {
    const n = process.stdin.read(b.buffer, have);
    if (n <= 0) return false;
    have += n;
  }
  return true;
}

const head = new Uint8Array(17);
while (read(head)) {
  const at = head.dataStart;
  const method = new Uint8Array(load<i32>(at + 9)), body = new Uint8Array(load<i32>(at + 13));
  read(method);
  read(body);
  const a = act(head[4], load<i32>(at + 5), ds.decode(method), body);
  const reply = new Uint8Array(17 + a.body.length);
  store<i32>(reply.dataStart + 1, load<i32>(at));
  store<i32>(reply.dataStart + 5, a.code);
  store<i32>(reply.dataStart + 9, a.n);
  store<i32>(reply.dataStart + 13, a.body.length);
  reply.set(a.body, 17);
  process.stdout.write(reply.buffer);
}
