// Package stub is what the stub plugins of the original DS do: one Execute, whatever the generation of its wire
// is. Each stub speaks it through a generated protocol of its own.
package stub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Name and Version are what every stub calls itself in its manifest; its file is called otherwise.
const (
	Name    = "legacy"
	Version = "1.2.3"
)

// Commands are the operations that a stub declares, with one that nobody could type.
var Commands = map[string]string{"echo": "print the arguments", "config": "print a part of the configuration", "--bad": "a flag", "es\x1bc": "an escape"}

// Result is what Execute answers.
type Result struct {
	Stdout, Stderr, Error string
	Code                  int32
	Finalizers            []Finalizer
}

// Finalizer is a plugin to run afterwards.
type Finalizer struct {
	Name, Operation string
	Args            []string
}

// Plugin serves register, which gets the broker.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Register func(*plugin.GRPCBroker, *grpc.Server)
}

// GRPCServer implements plugin.GRPCPlugin.
func (p *Plugin) GRPCServer(b *plugin.GRPCBroker, s *grpc.Server) error {
	p.Register(b, s)
	return nil
}

// GRPCClient is for hosts.
func (*Plugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.ErrUnsupported
}

// Serve is main of a stub.
func Serve(register func(*plugin.GRPCBroker, *grpc.Server)) {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "plugins take no arguments, got", os.Args[1:])
		os.Exit(1)
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "DS_PLUGIN_MAGIC_COOKIE", MagicCookieValue: "delivery-station-plugin"},
		Plugins:         plugin.PluginSet{"ds-plugin": &Plugin{Register: register}},
		GRPCServer:      plugin.DefaultGRPCServer,
	})
}

// args are the pairs of protocol 1.
type args []string

func (a args) get(key string) string {
	for _, pair := range a {
		if k, v, ok := strings.Cut(pair, "="); ok && k == key {
			return v
		}
	}
	return ""
}

func (a args) number(key string) int {
	n, _ := strconv.Atoi(a.get(key))
	return n
}

// Execute is every operation of the stubs. config asks the host for the configuration, which comes first, as in
// all plugins of that time.
func Execute(ctx context.Context, operation string, pairs []string, config func() ([]byte, error)) (Result, error) {
	text, err := config()
	if err != nil {
		return Result{Code: 1, Error: "host config: " + err.Error()}, nil //nolint:nilerr // the result says it
	}
	var parsed map[string]any
	if err := json.Unmarshal(text, &parsed); err != nil || len(parsed) == 0 {
		return Result{Code: 1, Error: "host config is empty or no JSON"}, nil //nolint:nilerr // the result says it
	}
	a := args(pairs)
	switch operation {
	case "echo":
		return Result{Stdout: strings.Join(pairs, " "), Stderr: "echoed"}, nil
	case "config":
		return Result{Stdout: value(parsed, a.get("arg0"))}, nil
	case "env":
		list := os.Environ()
		sort.Strings(list)
		return Result{Stdout: strings.Join(list, "\n")}, nil
	case "exit":
		return Result{Code: int32(a.number("arg0"))}, nil
	case "fail":
		return Result{Code: int32(a.number("arg0")), Error: "it did not work"}, nil
	case "error":
		return Result{}, errors.New("a method that failed")
	case "logs":
		logs()
		return Result{Stdout: "done"}, nil
	case "finalize":
		return Result{Stdout: "pulled", Finalizers: finalizers(a)}, nil
	case "big":
		return Result{Stdout: strings.Repeat("x", a.number("arg0"))}, nil
	case "stdin":
		b, err := io.ReadAll(os.Stdin)
		return Result{Stdout: string(b)}, err
	case "wait": // until it is cancelled, and then it cleans up
		fmt.Fprintln(os.Stderr, "ready")
		<-ctx.Done()
		return Result{}, os.WriteFile(a.get("arg0"), []byte("cleaned up"), 0o600)
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "pwd":
		dir, err := os.Getwd()
		return Result{Stdout: filepath.Base(dir)}, err
	}
	return Result{Code: 2, Error: "unknown operation " + operation}, nil
}

// logs writes everything that a host has to tell apart: records, a record that made hosts panic, a long line,
// text, and output that is no result.
func logs() {
	fmt.Fprintln(os.NewFile(2, "2"), `{"@level":"warn","@message":"a record","@module":"stub","count":3,"list":[1,2]}`)
	fmt.Fprintln(os.NewFile(2, "2"), `{"@message":1}`)
	fmt.Fprintln(os.NewFile(2, "2"), "plain text")
	fmt.Fprintln(os.NewFile(2, "2"), "{"+strings.Repeat("y", 70_000))
	fmt.Fprintln(os.NewFile(1, "1"), "stray on descriptor 1")
	fmt.Println("stray on os.Stdout")
	fmt.Fprintln(os.Stderr, "stray on os.Stderr")
}

// finalizers: name=S3 repeats, other spellings of the same one, the plugin itself, and what is asked for.
func finalizers(a args) []Finalizer {
	name := a.get("name")
	f := Finalizer{Name: name, Operation: a.get("operation"), Args: strings.Fields(a.get("words"))}
	upper := f
	upper.Name, upper.Operation = strings.ToUpper(f.Name)+" ", strings.ToUpper(f.Operation)
	return []Finalizer{f, upper, {Name: a.get("self"), Operation: "echo"}, {Operation: "nameless"}}
}

// value is the part of v at a path of keys, as JSON.
func value(v any, path string) string {
	for key := range strings.SplitSeq(path, ".") {
		if m, ok := v.(map[string]any); ok && key != "" {
			v = m[key]
		}
	}
	b, _ := json.Marshal(v)
	return string(b)
}
