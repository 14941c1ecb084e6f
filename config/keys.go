package config

import (
	"slices"
	"strings"
)

// Type is the type of a key.
type Type string

// The types of values (config.md section 4).
const (
	TypeString   Type = "string"
	TypeEnum     Type = "enum"
	TypeBool     Type = "bool"
	TypeInt      Type = "int"
	TypeFloat    Type = "float"
	TypeSize     Type = "size"
	TypeDuration Type = "duration"
	TypePath     Type = "path"
	TypeList     Type = "list"
	TypeObjects  Type = "objects"
	TypeSecret   Type = "secret"
	TypeAny      Type = "any"
)

// Key is one configuration key.
type Key struct {
	Name     string
	Type     Type
	Default  string   // as text; <config>, <data>, <cache> and <state> stand for the directories
	Values   []string // of an enum
	Min, Max int64    // of an int or float, when Max > 0
	Fields   []string // of the maps in a list of objects
	Short    string   // field that a plain string in such a list sets
	Plain    []string // words that a path may be instead
	Secret   bool
	Doc      string
}

// Env is the variable that sets the key: DS_ and the name, upper case, with _ for . and -.
func (k *Key) Env() string {
	b := []byte("DS_" + k.Name)
	for i, c := range b {
		switch {
		case c == '.' || c == '-':
			b[i] = '_'
		case 'a' <= c && c <= 'z':
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// settingsPrefix is where the settings of plugins live.
const settingsPrefix = "plugins.settings."

// Keys lists every key, sorted by name.
func Keys() []Key {
	all := slices.Clone(keys)
	slices.SortFunc(all, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func findKey(name string) *Key {
	for i := range keys {
		if keys[i].Name == name {
			return &keys[i]
		}
	}
	return nil
}

// secretName reports whether the last segment of a settings key says that its value is a secret
// (capabilities.md section 5).
func secretName(name string) bool {
	last := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name[strings.LastIndexByte(name, '.')+1:]))
	for _, s := range []string{"password", "token", "secret", "secretkey", "accesskey", "privatekey"} { // also secret-key, secretKey
		if strings.HasSuffix(last, s) {
			return true
		}
	}
	return false
}

// keys is the one table: loading, variables, validation and documentation follow it.
var keys = []Key{
	{Name: "registry.default", Type: TypeString, Default: "ghcr.io/delivery-station", Doc: "base of short names; may be oci-layout:DIR"},
	{Name: "registry.mirrors", Type: TypeList, Doc: "mirrors of the host of registry.default, HOST[:PORT][/PREFIX]"},
	{Name: "registry.insecure_registries", Type: TypeList, Doc: "hosts allowed plain HTTP"},
	{Name: "registry.hosts", Type: TypeObjects, Fields: []string{"host", "mirrors", "plain_http", "insecure_tls", "ca_file", "cert_file", "key_file", "concurrency", "referrers", "token_hosts", "redirect_hosts"}, Doc: "per-host settings"},
	{Name: "registry.concurrency", Type: TypeInt, Default: "6", Min: 1, Max: 32, Doc: "blobs in flight per host"},
	{Name: "registry.offline", Type: TypeBool, Default: "false", Doc: "zero requests"},
	{Name: "registry.timeouts.dial", Type: TypeDuration, Default: "10s", Doc: "connecting to a registry"},
	{Name: "registry.timeouts.tls", Type: TypeDuration, Default: "10s", Doc: "TLS handshake"},
	{Name: "registry.timeouts.header", Type: TypeDuration, Default: "30s", Doc: "response headers"},
	{Name: "registry.timeouts.idle", Type: TypeDuration, Default: "30s", Doc: "no body byte for so long = cut and resume"},
	{Name: "registry.retry.attempts", Type: TypeInt, Default: "5", Min: 0, Max: 20, Doc: "repeats without progress"},
	{Name: "registry.retry.max_wait", Type: TypeDuration, Default: "60s", Doc: "longest Retry-After obeyed"},
	{Name: "auth.docker_config", Type: TypePath, Default: "~/.docker/config.json", Doc: "DOCKER_CONFIG is honoured when unset"},
	{Name: "auth.credentials", Type: TypeObjects, Fields: []string{"registry", "username", "password", "token"}, Secret: true, Doc: "{registry, username, password or token}"},
	{Name: "proxy.http_proxy", Type: TypeString, Doc: "a key set here wins over the standard variable"},
	{Name: "proxy.https_proxy", Type: TypeString, Doc: "likewise"},
	{Name: "proxy.no_proxy", Type: TypeList, Doc: "hosts, suffixes, CIDR; a comma string is accepted"},
	{Name: "cache.dir", Type: TypePath, Default: "<cache>", Doc: "content-addressed cache"},
	{Name: "cache.max_size", Type: TypeSize, Default: "10GiB", Doc: "evict above this; 0 = no limit"},
	{Name: "cache.ttl", Type: TypeDuration, Default: "7d", Doc: "entries unused for so long are removed; 0 = never"},
	{Name: "cache.auto_clean", Type: TypeBool, Default: "true", Doc: "evict during normal use, not only on request"},
	{Name: "cache.clean_threshold", Type: TypeFloat, Default: "0.9", Min: 0, Max: 1, Doc: "eviction goes down to this share of max_size"},
	{Name: "cache.verify", Type: TypeEnum, Default: "stamp", Values: []string{"stamp", "always"}, Doc: "always: re-hash before hand-out"},
	{Name: "cache.durability", Type: TypeEnum, Default: "lazy", Values: []string{"lazy", "fsync"}, Doc: "fsync makes every put durable"},
	{Name: "cache.remote.ref", Type: TypeString, Doc: "team cache: an OCI repository; empty = none"},
	{Name: "cache.remote.mode", Type: TypeEnum, Default: "read", Values: []string{"off", "read", "readwrite"}, Doc: "whether the team cache is read, and written to"},
	{Name: "cache.remote.share", Type: TypeList, Doc: "repository globs whose blobs may be written to the team cache"},
	{Name: "cache.remote.timeout", Type: TypeDuration, Default: "5s", Doc: "longest time without a byte, then the team cache is left out"},
	{Name: "cache.remote.max_blob", Type: TypeSize, Default: "1GiB", Doc: "larger blobs bypass the team cache; 0 = no limit"},
	{Name: "cache.remote.negative_ttl", Type: TypeDuration, Default: "60s", Doc: "how long a miss is remembered in a process; 0 = not at all"},
	{Name: "logging.level", Type: TypeEnum, Default: "warn", Values: []string{"trace", "debug", "info", "warn", "error"}, Doc: "records below it are dropped"},
	{Name: "logging.format", Type: TypeEnum, Default: "text", Values: []string{"text", "json"}, Doc: "form of log records"},
	{Name: "logging.output", Type: TypePath, Default: "stderr", Plain: []string{"stderr", "stdout"}, Doc: "stderr or a file (appended, 0600)"},
	{Name: "logging.show_caller", Type: TypeBool, Default: "false", Doc: "source position in each record"},
	{Name: "ui.format", Type: TypeEnum, Default: "table", Values: []string{"table", "wide", "json", "ndjson", "yaml", "name", "go-template="}, Doc: "form of structured output"},
	{Name: "ui.color", Type: TypeEnum, Default: "auto", Values: []string{"auto", "always", "never"}, Doc: "when output is coloured"},
	{Name: "ui.progress", Type: TypeEnum, Default: "auto", Values: []string{"auto", "plain", "json", "none"}, Doc: "how progress is shown"},
	{Name: "ui.input", Type: TypeEnum, Default: "auto", Values: []string{"auto", "never"}, Doc: "never: no prompts"},
	{Name: "ui.error_format", Type: TypeEnum, Default: "text", Values: []string{"text", "json"}, Doc: "form of errors on stderr"},
	{Name: "plugins.dir", Type: TypePath, Default: "<data>/plugins", Doc: "installed set"},
	{Name: "plugins.signature.mode", Type: TypeEnum, Default: "permissive", Values: []string{"strict", "permissive", "disabled"}, Doc: "strict: default: signature of trust.yaml; the others have no effect"},
	{Name: "plugins.signature.public_keys", Type: TypeList, Doc: "RSA public keys (PEM files) that sign packages of the original DS"},
	{Name: "plugins.signature.trust_store", Type: TypePath, Doc: "directory of such keys, beside trust/ in the configuration directory"},
	{Name: "plugins.extra_dirs", Type: TypeList, Default: "<config>/plugins", Doc: "hand-placed ds-NAME[.wasm], never written"},
	{Name: "plugins.timeout", Type: TypeDuration, Default: "0", Doc: "ceiling of a run; 0 = what the plugin manifest asks for"},
	{Name: "plugins.backend", Type: TypeEnum, Default: "auto", Values: []string{"auto", "wasm", "native"}, Doc: "which kind is installed and runs; auto = the manifest's run.prefer"},
	{Name: "plugins.max_depth", Type: TypeInt, Default: "8", Min: 1, Max: 8, Doc: "call-plugin chain"},
	{Name: "sandbox.native", Type: TypeEnum, Default: "auto", Values: []string{"auto", "require", "off"}, Doc: "confine native plugins; require: refuse where the kernel cannot"},
	{Name: "sandbox.memory_default", Type: TypeSize, Default: "256MiB", Doc: "WASM instance without a manifest limit"},
	{Name: "sandbox.memory_max", Type: TypeSize, Default: "1GiB", Doc: "ceiling for any manifest limit"},
	{Name: "sandbox.time_max", Type: TypeDuration, Default: "0", Doc: "ceiling for the time limit of any manifest; 0 = none"},
	{Name: "sandbox.compile_timeout", Type: TypeDuration, Default: "60s", Doc: "CPU time that compiling one module may take; small modules get less"},
	{Name: "sandbox.verify", Type: TypeEnum, Default: "stamp", Values: []string{"stamp", "full"}, Doc: "full: re-hash installed files at each start"},
	{Name: "events.backend", Type: TypeEnum, Default: "inproc", Values: []string{"inproc", "nats"}, Doc: "nats: events of all ds processes that use the same server"},
	{Name: "events.buffer", Type: TypeInt, Default: "100", Min: 1, Max: 10000, Doc: "ring per subscriber (drops oldest, counted)"},
	{Name: "events.log", Type: TypePath, Doc: "append every event to this file as a JSON line (CloudEvents)"},
	{Name: "state.backend", Type: TypeEnum, Default: "inproc", Values: []string{"inproc", "nats"}, Doc: "inproc: files below state.dir; nats: a JetStream bucket"},
	{Name: "state.dir", Type: TypePath, Default: "<state>", Doc: "state store, locks, crash files"},
	{Name: "state.default_ttl", Type: TypeDuration, Default: "0", Doc: "for entries written without one; 0 = never"},
	{Name: "nats.servers", Type: TypeList, Default: "nats://127.0.0.1:4222", Doc: "first reachable wins; tls:// for TLS"},
	{Name: "nats.creds_file", Type: TypePath, Doc: "NATS .creds file; wins over user and token"},
	{Name: "nats.user", Type: TypeString, Doc: "account"},
	{Name: "nats.password", Type: TypeSecret, Secret: true, Doc: "of nats.user"},
	{Name: "nats.token", Type: TypeSecret, Secret: true, Doc: "instead of user and password"},
	{Name: "nats.ca_file", Type: TypePath, Doc: "certificates that sign the server's; turns TLS on"},
	{Name: "nats.cert_file", Type: TypePath, Doc: "client certificate for TLS"},
	{Name: "nats.key_file", Type: TypePath, Doc: "its key"},
	{Name: "nats.prefix", Type: TypeString, Default: "ds", Doc: "of subjects, stream and bucket; one per team"},
	{Name: "nats.connect_timeout", Type: TypeDuration, Default: "2s", Doc: "for all servers together"},
	{Name: "nats.replicas", Type: TypeInt, Default: "1", Min: 1, Max: 5, Doc: "of stream and bucket when ds creates them"},
	{Name: "nats.event_retention", Type: TypeDuration, Default: "24h", Doc: "age limit of the event stream when ds creates it"},
}
