package natstest

import (
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// ScriptKey is where a script's Setup puts the map of its servers: env.Values[ScriptKey{}] = make(Servers).
type ScriptKey struct{}

// Servers are the servers of one script, by the variable that holds their address.
type Servers map[string]*Server

// ScriptCommands are the commands that scripts have for NATS:
//
//	nats [-auth USER:PASSWORD] VAR   start a server, VAR is HOST:PORT
//	nats-stop VAR                    stop it
//	nats-start VAR                   start it again with what it had
func ScriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"nats":       startScript,
		"nats-stop":  func(ts *testscript.TestScript, _ bool, args []string) { scriptServer(ts, args).Stop() },
		"nats-start": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(scriptServer(ts, args).Start()) },
	}
}

func startScript(ts *testscript.TestScript, _ bool, args []string) {
	var o Options
	if len(args) == 3 && args[0] == "-auth" {
		o.User, o.Password, _ = strings.Cut(args[1], ":")
		args = args[2:]
	}
	if len(args) != 1 {
		ts.Fatalf("usage: nats [-auth USER:PASSWORD] VAR")
	}
	s, err := New(filepath.Join(ts.Getenv("TMPDIR"), "nats-"+args[0]), o)
	ts.Check(err)
	ts.Defer(s.Stop)
	servers(ts)[args[0]] = s
	ts.Setenv(args[0], s.Addr())
}

func servers(ts *testscript.TestScript) Servers {
	return ts.Value(ScriptKey{}).(Servers) //nolint:forcetypeassert // what Setup has put there
}

func scriptServer(ts *testscript.TestScript, args []string) *Server {
	if len(args) != 1 || servers(ts)[args[0]] == nil {
		ts.Fatalf("name the variable of a server that runs")
	}
	return servers(ts)[args[0]]
}
