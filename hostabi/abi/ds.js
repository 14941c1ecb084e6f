'use strict'
// The host ABI ds.host.v1 for native plugins in Node: one file, nothing but Node itself.
//
// Copy it beside your program. It speaks frames on DS_HOST_FD (docs/abi.md) with messages as protobuf-JSON, that is
// as objects with the names of hostabi/hostv1/host.proto in camelCase; int64 and uint64 are strings, bytes are base64
// text. A verb for what most plugins do, and call() and stream() for the rest:
//
//	const ds = require('./ds')
//	console.log(await ds.config('settings.hello.greeting'))
//	for await (const tag of ds.each('Registry/ListTags', { repository: 'ghcr.io/acme/app' })) console.log(tag.name)
//
// What the host refuses is a ds.HostError. Nothing is connected before the first call, and the connection does not keep
// the program running.

const fs = require('fs')
const net = require('net')

const END = 1, CANCEL = 2, ACK = 4
const HEADER = 16
const CREDIT = 16 // messages of a stream that may be unacknowledged, each way
const CHUNK = 64 << 10

// HostError is what the host answered instead of a reply. code is a number, reason a word of docs/abi.md, fix a command.
class HostError extends Error {
  constructor (code, message, reason = '', metadata = {}) {
    super(`${reason || 'code ' + code}: ${message}`)
    Object.assign(this, { code, text: message, reason, metadata, fix: metadata.fix || '' })
  }
}

function statusError (code, body) {
  const status = body.length ? JSON.parse(body) : {}
  const info = (status.details || []).find(d => d['@type'].endsWith('/google.rpc.ErrorInfo')) || {}
  return new HostError(code, status.message || '', info.reason, info.metadata)
}

class Connection {
  constructor () {
    const fd = process.env.DS_HOST_FD
    if (!fd) throw new HostError(9, 'this program was not started by ds')
    this.live = new Map()
    this.last = 0
    this.pieces = []
    this.have = 0
    this.need = HEADER
    this.gone = null // the error of a connection that has ended
    this.socket = new net.Socket({ fd: Number(fd), readable: true, writable: true })
    this.socket.on('data', piece => this.read(piece))
    this.socket.on('error', () => {}) // close follows
    this.socket.on('close', () => this.end(new HostError(14, 'ds closed the connection')))
    this.socket.unref()
  }

  // open sends the first frame of a stream.
  open (stream, method, body, flags) {
    if (this.gone) throw this.gone
    stream.id = ++this.last
    this.live.set(stream.id, stream)
    this.socket.ref()
    this.write(stream.id, flags, body, 0, '/ds.host.v1.' + method)
  }

  write (id, flags, body = '', code = 0, method = '') {
    const head = Buffer.alloc(HEADER)
    const name = Buffer.from(method)
    body = Buffer.from(body)
    head[0] = head[1] = 1 // version, JSON
    head.writeUInt16LE(code, 2)
    head.writeUInt32LE(id, 4)
    head.writeUInt16LE(name.length, 8)
    head.writeUInt16LE(flags, 10)
    head.writeUInt32LE(body.length, 12)
    this.socket.write(Buffer.concat([head, name, body]))
  }

  read (piece) {
    this.pieces.push(piece)
    this.have += piece.length
    if (this.have < this.need) return
    let buf = Buffer.concat(this.pieces)
    for (;;) {
      this.need = buf.length < HEADER ? HEADER : HEADER + buf.readUInt32LE(12)
      if (buf.length < this.need) break
      this.take(buf.readUInt16LE(2), buf.readUInt32LE(4), buf.readUInt16LE(10), buf.subarray(HEADER, this.need))
      buf = buf.subarray(this.need)
    }
    this.pieces = [buf]
    this.have = buf.length
  }

  take (code, id, flags, body) {
    if (id === 0) return this.end(statusError(code, body))
    const stream = this.live.get(id)
    if (!stream) return // cancelled here; the host did not know yet
    if (flags & ACK) stream.unacknowledged -= code
    else if (body.length && !code) stream.messages.push(JSON.parse(body))
    if (flags & END) {
      this.forget(id)
      stream.finish(code ? statusError(code, body) : null)
    }
    stream.wake()
  }

  forget (id) {
    this.live.delete(id)
    if (this.live.size === 0) this.socket.unref() // only waiting keeps the program running
  }

  end (err) {
    if (this.gone) return
    this.gone = err
    for (const stream of this.live.values()) {
      stream.finish(err)
      stream.wake()
    }
    this.live.clear()
    this.socket.destroy()
  }
}

let connection = null

// Stream is one call that streams: use it up, or cancel it.
class Stream {
  constructor (method, first, end = false) {
    connection = connection || new Connection()
    Object.assign(this, { id: 0, messages: [], unacknowledged: 1, ended: false, error: null, closed: end, sleepers: [] })
    connection.open(this, method, JSON.stringify(first), end ? END : 0)
  }

  finish (err) { this.ended = true; this.error = err }

  wake () { for (const go of this.sleepers.splice(0)) go() }

  async until (ready) { while (!ready()) await new Promise(resolve => this.sleepers.push(resolve)) }

  // send sends one message and waits for credit. After the end of the stream it does nothing: recv has the result.
  async send (message) {
    await this.until(() => this.ended || this.unacknowledged < CREDIT)
    if (this.ended) return
    this.unacknowledged++
    connection.write(this.id, 0, JSON.stringify(message))
  }

  // close ends this side: no more messages are sent.
  close () {
    if (this.closed || this.ended) return
    this.closed = true
    connection.write(this.id, END)
  }

  // recv is the next message, null at the end.
  async recv () {
    await this.until(() => this.messages.length > 0 || this.ended)
    if (this.messages.length > 0) {
      if (!this.ended) connection.write(this.id, ACK, '', 1)
      return this.messages.shift()
    }
    if (this.error) throw this.error
    return null
  }

  cancel () {
    if (this.ended) return
    this.finish(new HostError(1, 'cancelled by the plugin'))
    connection.write(this.id, CANCEL)
    connection.forget(this.id)
    this.wake()
  }

  async * [Symbol.asyncIterator] () {
    try {
      for (let m; (m = await this.recv()) !== null;) yield m
    } finally {
      this.cancel() // of no effect after the end
    }
  }
}

// call is one call, call('Config/Get', { key }): the reply as an object.
async function call (method, request = {}) {
  const s = new Stream(method, request, true)
  await s.until(() => s.ended) // a unary reply comes with the end
  return (await s.recv()) || {}
}

// stream is a call that streams both ways; each are the messages that answer one request.
const stream = (method, first) => new Stream(method, first)
const each = (method, request = {}) => new Stream(method, request, true)

const describe = () => call('Meta/Describe')

// config is the value of a configuration key.
const config = async key => JSON.parse((await call('Config/Get', { key })).json)

// put puts a Buffer, or the pieces of an iterable or a readable stream, into the cache: its digest.
async function put (data, mediaType = '') {
  const sink = await call('Cache/Create', { mediaType })
  try {
    const out = await fs.promises.open(sink.path, 'r+')
    try {
      for await (const piece of Buffer.isBuffer(data) ? [data] : data) await out.appendFile(piece)
    } finally {
      await out.close()
    }
  } catch (err) {
    await call('Cache/Close', { handle: sink.handle })
    throw err
  }
  return (await call('Cache/Commit', { handle: sink.handle })).digest
}

// get is a blob as a Buffer.
async function get (digest) {
  const blob = await call('Cache/Open', { digest })
  const data = await fs.promises.readFile(blob.path)
  await call('Cache/Close', { handle: blob.handle })
  return data
}

// pull pulls an artifact into the cache, push pushes a graph that is there: the descriptor of the root.
const pull = (ref, options = {}, progress) => root('Registry/Pull', { ref, ...options }, progress)
const push = (ref, digest, tags = [], progress) => root('Registry/Push', { ref, digest, tags }, progress)

async function root (method, request, progress) {
  let last = {}
  for await (const event of each(method, request)) {
    if (event.root) last = event.root
    if (event.progress && progress) progress(event.progress)
  }
  return last
}

// run runs another plugin: its exit code, stdout and stderr as Buffers. options are fields of CallStart.
async function run (plugin, command, args = [], stdin = '', options = {}) {
  const s = stream('Plugins/Call', { start: { plugin, command, args, ...options } })
  const fed = feed(s, Buffer.from(stdin))
  const result = { code: null, stdout: [], stderr: [] }
  for await (const event of s) {
    for (const name of ['stdout', 'stderr']) if (event[name]) result[name].push(Buffer.from(event[name], 'base64'))
    if (event.exit) result.code = event.exit.code || 0
  }
  await fed
  return { code: result.code, stdout: Buffer.concat(result.stdout), stderr: Buffer.concat(result.stderr) }
}

async function feed (s, data) {
  for (let at = 0; at < data.length; at += CHUNK) await s.send({ stdin: data.subarray(at, at + CHUNK).toString('base64') })
  s.close()
}

// publish publishes an event whose data is JSON.
const publish = (topic, data, attributes = {}) => call('Events/Publish', {
  topic, contentType: 'application/json', data: Buffer.from(JSON.stringify(data)).toString('base64'), attributes
})

// stateGet is the value of a key of this plugin as a Buffer, null if there is none, and its revision.
async function stateGet (key) {
  try {
    const entry = await call('State/Get', { key })
    return { value: Buffer.from(entry.value || '', 'base64'), revision: entry.revision }
  } catch (err) {
    if (err.code !== 5) throw err
    return { value: null, revision: '0' }
  }
}

// statePut stores a Buffer or text: the new revision. options are ifRevision ('0' = must not exist) and ttl.
const statePut = async (key, value, options = {}) =>
  (await call('State/Put', { key, value: Buffer.from(value).toString('base64'), ...options })).revision

const log = (message, level = 0, attributes = {}) => call('Log/Write', { records: [{ level, message, attributes }] })

const progress = (id, current, total = 0, label = id, state = 'run') => call('Term/Report', { items: [{ id, label, current, total, state }] })

// rows is structured output in the user's --format.
const rows = (columns, items) => call('Term/Rows', { columns, rowsJson: items.map(i => JSON.stringify(i)), end: true })

module.exports = { HostError, call, stream, each, describe, config, put, get, pull, push, run, publish, stateGet, statePut, log, progress, rows }
