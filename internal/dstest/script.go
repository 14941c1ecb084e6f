package dstest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// ScriptCommands are the commands that scripts have beside the standard ones:
//
//	registry [-auth USER:PASSWORD] [-token] [-noreferrers] VAR   start a registry, VAR is its host
//	requests VAR METHOD PART N      the registry saw N requests with METHOD whose path contains PART
//	forget VAR                      forget the requests seen so far
//	fault VAR METHOD PART STATUS N  the next N matching requests fail with STATUS
//	flip FILE                       change one byte in the middle of FILE, keep its times
//	nofiles DIR                     no file exists below DIR
func ScriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"registry": startScriptRegistry,
		"requests": countRequests,
		"forget":   func(ts *testscript.TestScript, _ bool, args []string) { scriptRegistry(ts, args, 1).Forget() },
		"fault":    injectFault,
		"flip":     flipByte,
		"nofiles":  noFiles,
	}
}

// ScriptKey is where a script's Setup puts the map of its registries: env.Values[ScriptKey{}] =
// make(map[string]*RegistryServer).
type ScriptKey struct{}

func registries(ts *testscript.TestScript) map[string]*RegistryServer {
	return ts.Value(ScriptKey{}).(map[string]*RegistryServer)
}

func startScriptRegistry(ts *testscript.TestScript, _ bool, args []string) {
	var o RegistryOptions
	for len(args) > 1 {
		switch args[0] {
		case "-auth":
			o.Username, o.Password, _ = strings.Cut(args[1], ":")
			args = args[1:]
		case "-token":
			o.Token = true
		case "-noreferrers":
			o.NoReferrers = true
		default:
			ts.Fatalf("registry: unknown word %s", args[0])
		}
		args = args[1:]
	}
	if len(args) != 1 {
		ts.Fatalf("usage: registry [-auth USER:PASSWORD] [-token] [-noreferrers] VAR")
	}
	r, err := StartRegistry(o)
	ts.Check(err)
	ts.Defer(r.Close)
	ts.Setenv(args[0], r.Host)
	registries(ts)[args[0]] = r
}

func scriptRegistry(ts *testscript.TestScript, args []string, want int) *RegistryServer {
	if len(args) != want {
		ts.Fatalf("want %d words after the command, got %d", want, len(args))
	}
	r := registries(ts)[args[0]]
	if r == nil {
		ts.Fatalf("no registry %s was started", args[0])
	}
	return r
}

func countRequests(ts *testscript.TestScript, neg bool, args []string) {
	r := scriptRegistry(ts, args, 4)
	want, err := strconv.Atoi(args[3])
	ts.Check(err)
	if got := r.Count(args[1], args[2]); (got == want) == neg {
		ts.Fatalf("registry %s saw %d %s requests with %s", args[0], got, args[1], args[2])
	}
}

func injectFault(ts *testscript.TestScript, _ bool, args []string) {
	r := scriptRegistry(ts, args, 5)
	status, err := strconv.Atoi(args[3])
	ts.Check(err)
	times, err := strconv.Atoi(args[4])
	ts.Check(err)
	r.Inject(Fault{Method: args[1], Path: args[2], Status: status, Times: times})
}

func flipByte(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	name := ts.MkAbs(args[0])
	if m, err := filepath.Glob(name); err == nil && len(m) == 1 {
		name = m[0]
	}
	info, err := os.Stat(name)
	ts.Check(err)
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Chmod(name, 0o600))
	ts.Check(os.WriteFile(name, b, 0o600))
	ts.Check(os.Chmod(name, info.Mode()))
	ts.Check(os.Chtimes(name, info.ModTime(), info.ModTime()))
}

func noFiles(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: nofiles DIR")
	}
	var found []string
	_ = filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return nil // a directory that is not there has no files
	})
	if (len(found) == 0) == neg {
		ts.Fatalf("files below %s: %v", args[0], found)
	}
}
