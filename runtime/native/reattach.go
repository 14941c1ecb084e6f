package native

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"

	goplugin "github.com/hashicorp/go-plugin"
	gorunner "github.com/hashicorp/go-plugin/runner"

	"github.com/delivery-station/ds/hostabi"
)

// Reattach is a go-plugin server that runs already, below a debugger: ds talks to it, and neither starts nor ends
// it (native.md section 11).
type Reattach struct {
	Version int    `json:"version"` // of the plugin protocol, as the server's handshake line says
	Network string `json:"network"` // unix or tcp
	Addr    string `json:"addr"`
	Pid     int    `json:"pid,omitempty"` // for people
}

// ParseReattach reads DS_REATTACH: a JSON object of plugin names and their servers. The error has reason USAGE.
func ParseReattach(text string) (map[string]Reattach, error) {
	if text == "" {
		return nil, nil
	}
	bad := func(format string, a ...any) (map[string]Reattach, error) {
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "DS_REATTACH: "+format, a...)
	}
	var out map[string]Reattach
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return bad("%w", err)
	}
	for name, at := range out {
		if _, err := at.address(); err != nil || at.Version != 1 && at.Version != 2 {
			return bad("%s: want version 1 or 2, network unix or tcp, and addr", clean(name))
		}
	}
	return out, nil
}

func (at Reattach) address() (net.Addr, error) {
	switch at.Network {
	case "unix":
		if !filepath.IsAbs(at.Addr) {
			return nil, fmt.Errorf("%q is no absolute path", at.Addr)
		}
		return &net.UnixAddr{Name: at.Addr, Net: "unix"}, nil
	case "tcp":
		return net.ResolveTCPAddr("tcp", at.Addr)
	}
	return nil, fmt.Errorf("network %q", at.Network)
}

// attached is the server to talk to in place of starting the program.
func (r *run) attached() (at Reattach, yes bool) {
	at, yes = r.b.o.Reattach[string(r.p.Name)]
	return at, yes
}

// attach makes the Client one of a server that runs already.
func (s *server) attach(at Reattach) error {
	addr, err := at.address()
	if err != nil {
		return err
	}
	s.running = &attachedRunner{done: make(chan struct{})}
	s.config.RunnerFunc, s.config.UnixSocketConfig = nil, nil
	s.config.Plugins = s.config.VersionedPlugins[at.Version]
	s.config.Reattach = &goplugin.ReattachConfig{
		Protocol: goplugin.ProtocolGRPC, ProtocolVersion: at.Version, Addr: addr, Test: true,
		ReattachFunc: func() (gorunner.AttachedRunner, error) { return s.running, nil },
	}
	return nil
}

// reattachLine is what a user sets to reach a server again, with the words that a shell understands.
func reattachLine(name string, at Reattach) string {
	b, err := json.Marshal(map[string]Reattach{name: at})
	if err != nil { // strings and numbers only
		return ""
	}
	return "DS_REATTACH='" + string(b) + "'"
}

// attachedRunner is a process that is none of ours: it lasts as long as the run, and is not killed.
type attachedRunner struct{ done chan struct{} }

// Wait ends with the run.
func (a *attachedRunner) Wait(context.Context) error { <-a.done; return nil }

// Kill does nothing: whoever started the server ends it.
func (*attachedRunner) Kill(context.Context) error { return nil }

// ID is empty, which keeps go-plugin from killing it.
func (*attachedRunner) ID() string { return "" }

// PluginToHost is the identity: both live in one file system.
func (*attachedRunner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin is the identity.
func (*attachedRunner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
