// The acceptance program in AssemblyScript: every language of testdata/guests has the same one.
import * as ds from "../../../hostabi/abi/ds";

// must is v; the program ends if the host refused it.
function must<T>(v: T | null): T {
  if (v == null) {
    process.stderr.write("tour: " + ds.failure.reason + ": " + ds.failure.message + "\n");
    process.exit(1);
  }
  return v!;
}

function same(got: Uint8Array, want: Uint8Array): string {
  let equal = got.length == want.length;
  for (let i = 0; equal && i < got.length; i++) equal = got[i] == want[i];
  return equal ? "the same" : "SOMETHING ELSE";
}

function stdin(): Uint8Array {
  const all = new ds.Message(), piece = new Uint8Array(4096);
  for (let n = process.stdin.read(piece.buffer); n > 0; n = process.stdin.read(piece.buffer)) all.append(piece.subarray(0, n));
  return all.bytes.subarray(0, all.length);
}

const name = process.env.get("DS_PLUGIN");
const words = process.argv.slice(1);
let line = "args: " + words.length.toString();
for (let i = 0; i < words.length; i++) line += " [" + words[i] + "]";
console.log(line);
const data = stdin();
console.log("stdin: " + data.length.toString() + " bytes, " + ds.decode(data).split("\n")[0]);
console.log("config: " + must<string>(ds.config("settings." + name + ".greeting")).slice(1, -1)); // without its quotes

const digest = must<string>(ds.put(data, "text/plain"));
console.log("cache: put " + digest);
console.log("cache: got " + same(must<Uint8Array>(ds.get(digest)), data));

const visits = must<ds.Entry>(ds.stateGet("visits"));
const count = visits.revision == 0 ? 0 : I32.parseInt(ds.decode(visits.value));
ds.statePut("visits", ds.encode((count + 1).toString()), visits.revision);
console.log("state: visits = " + ds.decode(must<ds.Entry>(ds.stateGet("visits")).value));

ds.publish(name + ".done", '{"words":' + words.length.toString() + "}", ["language", "any"]);
console.log("event: published " + name + ".done");

const echo = must<ds.Result>(ds.run("demo", "echo", [], data));
const out = echo.stdout.bytes.subarray(0, echo.stdout.length);
console.log("call: demo echo ended with " + echo.code.toString() + " and gave " + same(out, data));
console.log("call: demo exit ended with " + must<ds.Result>(ds.run("demo", "exit", ["3"], new Uint8Array(0))).code.toString());

if (ds.call("/ds.host.v1.Registry/Resolve", new ds.Message().text(1, "ghcr.io/acme/app:1.4.0")) == null) {
  console.log("denied: code " + ds.failure.code.toString() + ", " + ds.failure.reason + ": " + ds.failure.message);
}
process.exit(7);
