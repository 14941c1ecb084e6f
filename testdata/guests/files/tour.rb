# The acceptance program in Ruby for an interpreter that runs as WASM: nothing but files below /ds.
require "json"

class Refused < StandardError
  attr_reader :code, :reason

  def initialize
    status = JSON.parse(File.read("/ds/last_error.json"))
    @code = status["code"]
    @reason = status["details"][0]["reason"]
    super(status["message"])
  end
end

# All answers to all requests.
def stream(method, *requests)
  path = "/ds/call/#{method}"
  File.open(path, "w") { |f| requests.each { |r| f.puts(JSON.generate(r)) } }
  File.open(path, "r") { |f| f.each_line.map { |line| JSON.parse(line) } }
rescue SystemCallError
  raise Refused.new
end

def call(method, request)
  stream(method, request)[0]
end

def to_text(data)
  [data].pack("m0")
end

def to_bytes(text)
  text.to_s.unpack1("m0")
end

def put(data)
  sink = call("Cache/Create", { mediaType: "text/plain" })
  File.open(sink["path"], "wb") { |f| f.write(data) }
  call("Cache/Commit", { handle: sink["handle"] })["digest"]
end

def get(digest)
  File.binread("/ds/blob/" + digest.sub(":", "/"))
end

def visits
  entry = call("State/Get", { key: "visits" })
  [to_bytes(entry["value"]).to_i, entry["revision"]]
rescue Refused => e
  raise unless e.code == 5
  [0, 0]
end

def run(command, *args, stdin: "")
  start = { start: { plugin: "demo", command: command, args: args } }
  events = stream("Plugins/Call", start, { stdin: to_text(stdin) })
  [events[-1]["exit"].fetch("code", 0), events.map { |e| to_bytes(e["stdout"]) }.join]
end

def same(a, b)
  a.b == b.b ? "the same" : "SOMETHING ELSE"
end

name = ENV.fetch("DS_PLUGIN")
puts "args: #{ARGV.size}#{ARGV.map { |w| " [#{w}]" }.join}"
data = $stdin.binmode.read
puts "stdin: #{data.bytesize} bytes, #{data.lines[0].to_s.chomp}"
puts "config: #{JSON.parse(File.read("/ds/config.json"))["greeting"]}"

digest = put(data)
puts "cache: put #{digest}"
puts "cache: got #{same(get(digest), data)}"

count, revision = visits
call("State/Put", { key: "visits", value: to_text((count + 1).to_s), ifRevision: revision })
puts "state: visits = #{visits[0]}"

event = JSON.generate({ words: ARGV.size })
call("Events/Publish", { topic: "#{name}.done", contentType: "application/json", data: to_text(event) })
puts "event: published #{name}.done"

code, out = run("echo", stdin: data)
puts "call: demo echo ended with #{code} and gave #{same(out, data)}"
puts "call: demo exit ended with #{run("exit", "3")[0]}"

begin
  call("Registry/Resolve", { ref: "ghcr.io/acme/app:1.4.0" })
rescue Refused => e
  puts "denied: code #{e.code}, #{e.reason}: #{e.message}"
end
exit 7
