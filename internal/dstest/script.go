package dstest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// ScriptCommands are the commands that scripts have beside the standard ones:
//
//	registry [-auth USER:PASSWORD] [-token] [-noreferrers] VAR   start a registry, VAR is its host
//	requests VAR METHOD PART N      the registry saw N requests with METHOD whose path contains PART
//	forget VAR                      forget the requests seen so far
//	fault VAR METHOD PART WHAT N    the next N matching requests (0 = all) go wrong: a status, flip, cut, stall or reset
//	heal VAR                        no more faults
//	exits CODE PROGRAM ARGS...      run PROGRAM, which must exit with CODE
//	paste                           run the command of the first hint on stderr, as a user would paste it
//	flip FILE                       change one byte in the middle of FILE, keep its times
//	poke FILE OFFSET BYTE           set one byte of FILE
//	module FILE NAMESPACE NAME      write a WASM module that imports one function
//	env-from VAR FILE               set VAR to the text of FILE, without its line end
//	nofiles DIR                     no file exists below DIR
//	push-legacy [-single] [-archive] [-key FILE] PROGRAM REPOSITORY TAG   push a package of the original DS
//	legacy GENERATION FILE          build a stub plugin of the original DS: field3, field4, metadata
func ScriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"registry":    startScriptRegistry,
		"requests":    countRequests,
		"forget":      func(ts *testscript.TestScript, _ bool, args []string) { scriptRegistry(ts, args, 1).Forget() },
		"fault":       injectFault,
		"heal":        func(ts *testscript.TestScript, _ bool, args []string) { scriptRegistry(ts, args, 1).Heal() },
		"exits":       exits,
		"paste":       paste,
		"flip":        flipByte,
		"poke":        pokeByte,
		"module":      writeModule,
		"nofiles":     noFiles,
		"env-from":    envFrom,
		"push-legacy": pushLegacy,
		"legacy": func(ts *testscript.TestScript, _ bool, args []string) {
			if len(args) != 2 {
				ts.Fatalf("usage: legacy GENERATION FILE")
			}
			ts.Check(BuildLegacy(args[0], ts.MkAbs(args[1])))
		},
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
	var r *RegistryServer
	var err error
	if program := ts.Getenv("TESTREG"); program != "" {
		r, err = startScriptStranger(ts, program)
	} else {
		r, err = StartRegistry(o)
	}
	ts.Check(err)
	ts.Defer(r.Close)
	ts.Setenv(args[0], r.Host)
	registries(ts)[args[0]] = r
}

// startScriptStranger makes a script run over a registry of another make that wants a login, which docker's file has.
func startScriptStranger(ts *testscript.TestScript, program string) (*RegistryServer, error) {
	r, err := StartStranger(program, "-auth", "token", "-user", "script", "-password", "script")
	if err != nil {
		return nil, err
	}
	file := ts.MkAbs("auth.json")
	ts.Setenv("REGISTRY_AUTH_FILE", file)
	auths := map[string]map[string]string{}
	for _, s := range append(slices.Collect(maps.Values(registries(ts))), r) {
		auths[s.Host] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("script:script"))}
	}
	b, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return nil, err
	}
	return r, os.WriteFile(file, b, 0o600)
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
	times, err := strconv.Atoi(args[4])
	ts.Check(err)
	f := Fault{Method: args[1], Path: args[2], Times: times}
	switch args[3] {
	case "flip":
		f.Flip = true
	case "cut":
		f.CutAt = 10
	case "stall":
		f.StallAt = 10
	case "reset":
		f.CutAt = -1
	default:
		f.Status, err = strconv.Atoi(args[3])
		ts.Check(err)
	}
	r.Inject(f)
}

// exits runs a program as exec does and compares its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// paste runs the command of the first hint that the last program printed.
func paste(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: paste")
	}
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		_, command, ok := strings.Cut(line, "hint   ")
		if !ok {
			_, command, ok = strings.Cut(line, "to allow: ")
		}
		if ok {
			ts.Check(ts.Exec("sh", "-c", command))
			return
		}
	}
	ts.Fatalf("no hint on stderr")
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

func pokeByte(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: poke FILE OFFSET BYTE")
	}
	offset, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	value, err := strconv.ParseUint(args[2], 0, 8)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte{byte(value)}, offset)
	ts.Check(errors.Join(err, f.Close()))
}

// writeModule writes a module with a memory, an empty _start and one import of type func().
func writeModule(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: module FILE NAMESPACE NAME")
	}
	text := func(s string) string { return string(rune(len(s))) + s } // all shorter than 128 bytes
	section := func(id byte, body string) string { return string(rune(id)) + text(body) }
	module := "\x00asm\x01\x00\x00\x00" +
		section(1, "\x01\x60\x00\x00") + // type 0: func()
		section(2, "\x01"+text(args[1])+text(args[2])+"\x00\x00") + // import of type 0
		section(3, "\x01\x00") + // one function of type 0
		section(5, "\x01\x00\x01") + // one memory of one page
		section(7, "\x02"+text("memory")+"\x02\x00"+text("_start")+"\x00\x01") +
		section(10, "\x01\x02\x00\x0b")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(module), 0o600))
}

func envFrom(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: env-from VAR FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
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
