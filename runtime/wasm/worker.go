package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/wasmcheck"
)

// CompileCommand is the hidden command of cmd/ds whose body is Compile; its one argument is the directory.
const CompileCommand = "__wasm-compile"

// answer is what the worker prints: the entry that it made, or why there is none.
type answer struct {
	Entry     *entryInfo      `json:"entry,omitempty"`     // without stamps
	Refused   json.RawMessage `json:"refused,omitempty"`   // status of the *hostabi.Error that refuses the module
	Unwritten string          `json:"unwritten,omitempty"` // why the directory could not be written
}

// Compile is the body of the compile worker: it reads a module from in, checks, meters and compiles it into dir,
// which is empty and the only place it writes to, and prints to out what the parent needs to know: the entry, or
// that the module is refused, or that dir cannot be written. Only other trouble is an error.
func Compile(ctx context.Context, dir string, in io.Reader, out io.Writer) error {
	module, err := io.ReadAll(io.LimitReader(in, wasmcheck.MaxModule+1))
	if err != nil {
		return err
	}
	var a answer
	a.Entry, err = compileTo(ctx, dir, module)
	if e, ok := errors.AsType[*hostabi.Error](err); ok {
		a.Refused, err = e.AppendStatus(nil, hostabi.EncJSON), nil
	}
	if e, ok := errors.AsType[*writeError](err); ok {
		a.Unwritten, err = e.Error(), nil
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(a)
}

// compileTo makes the files of an entry in dir. The error is *hostabi.Error for a refused module and *writeError
// for a directory that cannot be written.
func compileTo(ctx context.Context, dir string, module []byte) (*entryInfo, error) {
	source := hostabi.DigestOf(module)
	begin := time.Now()
	module, err := metered(module)
	if err != nil {
		return nil, err
	}
	e, err := newEngine(ctx, module, dir)
	if err != nil {
		return nil, moduleError(err)
	}
	defer e.close(ctx)
	if err := os.WriteFile(filepath.Join(dir, moduleFile), module, 0o400); err != nil {
		return nil, &writeError{err}
	}
	sum := sha256.Sum256(module)
	return &entryInfo{
		V: entryVersion, Source: source, SHA256: hex.EncodeToString(sum[:]), Engine: engineName(),
		OS: runtime.GOOS, Arch: runtime.GOARCH, Features: uint64(features), Meter: meterVersion, CompileMS: time.Since(begin).Milliseconds(),
	}, nil
}

// entry is the entry that the worker has made of source, or why there is none.
func (a *answer) entry(source hostabi.Digest) (*entryInfo, error) {
	switch {
	case len(a.Refused) > 0:
		return nil, hostabi.ParseStatusJSON(a.Refused)
	case a.Unwritten != "":
		return nil, &writeError{errors.New(a.Unwritten)}
	case a.Entry == nil || a.Entry.Source != source:
		return nil, errors.New("compile worker: answer names another module")
	}
	return a.Entry, nil
}

// moduleError tells what the engine said about a module from trouble with the directory it writes to.
func moduleError(err error) error {
	e, ok := errors.AsType[*engineError](err)
	if !ok {
		return err
	}
	_, isPath := errors.AsType[*fs.PathError](e.err)
	_, isLink := errors.AsType[*os.LinkError](e.err)
	if isPath || isLink {
		return &writeError{e.err}
	}
	return refused("module does not compile: %v", e.err)
}

// compile makes the entry of key from module, in the worker if there is one, else in this process.
func (b *Backend) compile(ctx context.Context, key string, module []byte) error {
	code, err := inspect(module)
	if err != nil {
		return err
	}
	stage, err := b.entries.stage()
	if err != nil {
		return &writeError{err}
	}
	defer func() { _ = os.RemoveAll(stage) }() // gone already when it was published
	var out []byte
	if b.o.Compile != nil {
		lim := limitsOf(code, b.o.CompileTime, stage)
		out, err = b.o.Compile(ctx, []string{CompileCommand, stage}, bytes.NewReader(module), lim)
		if hostabi.ReasonOf(err) == hostabi.ReasonTooLarge {
			err = hostabi.Errorf(hostabi.ReasonTooLarge, "module is too expensive to compile: it needs more than %s of processor time or %d MiB of memory",
				lim.CPU, lim.Memory>>20)
		}
	} else {
		var buf bytes.Buffer
		err = Compile(ctx, stage, bytes.NewReader(module), &buf)
		out = buf.Bytes()
	}
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		return fmt.Errorf("compile worker: answer: %w", err)
	}
	info, err := a.entry(hostabi.DigestOf(module))
	if err != nil {
		return err
	}
	if err := b.entries.publish(stage, key, info); err != nil {
		return &writeError{err}
	}
	return nil
}

// limitsOf bounds a compile by the size of the code section. Of the modules in testdata/guests/corpus.txt Ruby needs
// most: 12 s of a busy processor and 530 MB for 5.8 MiB, where CPython takes 4 s and 210 MB for 4.8 MiB.
func limitsOf(code int64, most time.Duration, dir string) CompileLimits {
	cpu := 2*time.Second + 3*time.Duration(code>>20)*time.Second
	if most > 0 {
		cpu = min(cpu, most)
	}
	return CompileLimits{CPU: cpu, Wall: 4 * cpu, Memory: 256<<20 + 64*code, Dir: dir}
}

// writeError says that the cache directory could not be written; the module may still be fine.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }
