#!/usr/bin/env node
// A stock go-plugin server that knows nothing of ds but its two .proto files: protocol 2 over a unix socket.
const fs = require('fs')
const path = require('path')
const grpc = require('@grpc/grpc-js')
const loader = require('@grpc/proto-loader')

if (process.env.DS_PLUGIN_MAGIC_COOKIE !== 'delivery-station-plugin') {
  console.error('this is a plugin of ds')
  process.exit(1)
}
const load = file => grpc.loadPackageDefinition(loader.loadSync(path.join(__dirname, file), { keepCase: true, longs: Number }))
const { Plugin } = load('plugin.proto').ds.plugin.v1
const { Config } = load('host.proto').ds.host.v1
const { GRPCBroker, GRPCController } = load('goplugin.proto').plugin

const server = new grpc.Server()
const hosts = new Map() // broker id to address, or to who waits for it
server.addService(GRPCBroker.service, {
  StartStream(stream) {
    stream.on('data', info => {
      const waiting = hosts.get(info.service_id)
      hosts.set(info.service_id, info.address)
      if (typeof waiting === 'function') waiting(info.address)
    })
    stream.on('end', () => stream.end())
  },
})
server.addService(GRPCController.service, {
  Shutdown(_, done) { done(null, {}); server.tryShutdown(() => process.exit(0)) },
})

// dial is a client of the host's services, once it has said where they are.
async function dial(id, Client) {
  let address = hosts.get(id)
  if (!address) address = await new Promise(found => hosts.set(id, found))
  return new Client('unix:' + address, grpc.credentials.createInsecure())
}

const commands = {
  words: async (call, start) => { call.write({ stdout: Buffer.from(JSON.stringify([start.args, start.vars.DS_PLUGIN]) + '\n') }) },
  exit: async (_, start) => Number(start.args[1]),
  config: async (call, start) => {
    const host = await dial(start.host_broker_id, Config)
    const value = await new Promise((ok, no) => host.Get({ key: start.args[1] }, (err, v) => err ? no(err) : ok(v)))
    call.write({ stdout: Buffer.from(JSON.parse(value.json) + '\n') })
    host.close()
  },
  denied: async (call, start) => {
    const host = await dial(start.host_broker_id, Config)
    const code = await new Promise(ok => host.Get({ key: 'registry.default' }, err => ok(err ? err.code : 0)))
    call.write({ stdout: Buffer.from('code ' + code + '\n') })
    host.close()
  },
  flood: async (call, start) => {
    const line = Buffer.from('0123456789abcdef'.repeat(4096))
    for (let left = Number(start.args[1]); left > 0; left -= line.length) {
      const more = call.write({ stdout: line.subarray(0, Math.min(left, line.length)) })
      if (!more) await new Promise(ok => call.once('drain', ok))
    }
  },
  stderr: async call => { process.stderr.write('{"@message":1}\n'); call.write({ stderr: Buffer.from('said\n') }) },
}

server.addService(Plugin.service, {
  Run(call) {
    call.on('data', async msg => {
      if (msg.signal) return finish(call, 40 + msg.signal)
      if (msg.stdin) return call.write({ stdout: msg.stdin })
      const name = msg.start.args[0]
      if (name === 'cat' || name === 'wait') { // until end of input, until interrupted
        const want = new grpc.Metadata()
        if (name === 'cat') want.set('ds-stdin', 'want')
        call.sendMetadata(want)
        if (name === 'wait') call.write({ stdout: Buffer.from('ready\n') })
        return
      }
      try {
        finish(call, await commands[name](call, msg.start) || 0)
      } catch (err) {
        call.write({ stderr: Buffer.from(String(err.message) + '\n') })
        finish(call, 1)
      }
    })
    call.on('end', () => finish(call, 0))
  },
})

// finish sends the result, which is the last event.
function finish(call, code) {
  if (call.finished) return
  call.finished = true
  call.write({ exit: { code } })
  call.end()
}

const socket = path.join(process.env.PLUGIN_UNIX_SOCKET_DIR || process.env.TMPDIR || '/tmp', 'node-' + process.pid)
server.bindAsync('unix:' + socket, grpc.ServerCredentials.createInsecure(), err => {
  if (err) throw err
  fs.writeSync(1, `1|2|unix|${socket}|grpc\n`)
})
