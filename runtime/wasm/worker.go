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

// Compile is the body of the compile worker: it reads a module from in, checks, meters and compiles it into dir,
// which is empty and the only place it writes to, and prints entry.json without stamps to out. A refused
// module is MODULE_REFUSED or ABI_UNSUPPORTED.
func Compile(ctx context.Context, dir string, in io.Reader, out io.Writer) error {
	module, err := io.ReadAll(io.LimitReader(in, wasmcheck.MaxModule+1))
	if err != nil {
		return err
	}
	begin := time.Now()
	source := hostabi.DigestOf(module)
	if module, err = metered(module); err != nil {
		return err
	}
	e, err := newEngine(ctx, module, dir)
	if err != nil {
		return moduleError(err)
	}
	defer e.close(ctx)
	if err := os.WriteFile(filepath.Join(dir, moduleFile), module, 0o400); err != nil {
		return &writeError{err}
	}
	sum := sha256.Sum256(module)
	return json.NewEncoder(out).Encode(entryInfo{
		V: entryVersion, Source: source, SHA256: hex.EncodeToString(sum[:]), Engine: engineName(),
		OS: runtime.GOOS, Arch: runtime.GOARCH, Features: uint64(features), Meter: meterVersion, CompileMS: time.Since(begin).Milliseconds(),
	})
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
		out, err = b.o.Compile(ctx, []string{CompileCommand, stage}, bytes.NewReader(module), limitsOf(code, stage))
	} else {
		var buf bytes.Buffer
		err = Compile(ctx, stage, bytes.NewReader(module), &buf)
		out = buf.Bytes()
	}
	if err != nil {
		return err
	}
	var info entryInfo
	if err := json.Unmarshal(out, &info); err != nil {
		return fmt.Errorf("compile worker: answer: %w", err)
	}
	info.Source = hostabi.DigestOf(module)
	if err := b.entries.publish(stage, key, &info); err != nil {
		return &writeError{err}
	}
	return nil
}

// limitsOf bounds a compile by the size of the code section: 3 s and 170 MB of CPython's 12 MB fit well.
func limitsOf(code int64, dir string) CompileLimits {
	cpu := 2*time.Second + time.Duration(code>>20)*time.Second
	return CompileLimits{CPU: cpu, Wall: 4 * cpu, Memory: 256<<20 + 24*code, Dir: dir}
}

// writeError says that the cache directory could not be written; the module may still be fine.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }
