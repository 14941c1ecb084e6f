package wasmcheck_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// compilerEnv makes the test binary a compiler: what kills it must not kill the test.
const compilerEnv = "DS_WASMCHECK_COMPILER"

func TestMain(m *testing.M) {
	switch os.Getenv(compilerEnv) {
	case "":
	case "run":
		os.Exit(runBare(os.Stdin))
	case "peak":
		os.Exit(runPeak(os.Stdin, os.Stdout))
	default:
		os.Exit(serve(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// serve reads modules, each after its length, and answers each with one byte: 1 if the engine takes it, else 0.
func serve(in io.Reader, out io.Writer) int {
	ctx, r := context.Background(), bufio.NewReader(in)
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2))
	for {
		var size uint32
		if err := binary.Read(r, binary.LittleEndian, &size); errors.Is(err, io.EOF) {
			return 0
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return 3
		}
		answer := []byte{0}
		if cm, err := rt.CompileModule(ctx, b); err == nil {
			answer[0] = 1
			_ = cm.Close(ctx)
		}
		if _, err := out.Write(answer); err != nil {
			return 3
		}
	}
}

// compiler is a process that compiles.
type compiler struct {
	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser

	patience time.Duration // 0 = a minute
	ended    *os.ProcessState
}

// compile reports whether the engine takes b. The error says that it killed the engine, or took longer than patience;
// no loaded machine explains a minute.
func (c *compiler) compile(b []byte) (took bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		exe, err := os.Executable()
		if err != nil {
			return false, err
		}
		c.cmd = exec.Command(exe, "-test.run=^$")
		c.cmd.Env = append(os.Environ(), compilerEnv+"=1")
		c.in, _ = c.cmd.StdinPipe()
		c.out, _ = c.cmd.StdoutPipe()
		if err := c.cmd.Start(); err != nil {
			return false, err
		}
	}
	hang := time.AfterFunc(cmp.Or(c.patience, time.Minute), func() { _ = c.cmd.Process.Kill() })
	defer hang.Stop()
	answer := make([]byte, 1)
	_, err = c.in.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	if err == nil {
		_, err = io.ReadFull(c.out, answer)
	}
	if err != nil {
		_ = c.in.Close()
		err = errors.Join(err, c.cmd.Wait())
		c.cmd, c.ended = nil, c.cmd.ProcessState
		return false, err
	}
	return answer[0] == 1, nil
}

func (c *compiler) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != nil {
		_ = c.in.Close()
		_ = c.cmd.Wait()
		c.cmd, c.ended = nil, c.cmd.ProcessState
	}
}

// judge is what must hold for any bytes: no panic, and what passes Check and Meter does not kill an engine. A module
// that the engine takes must be taken after Meter too.
func judge(t testing.TB, c *compiler, b []byte) (passed bool) {
	t.Helper()
	if _, err := wasmcheck.Check(b, wasmcheck.Limits{}); err != nil {
		if _, err := wasmcheck.Meter(b); err == nil {
			t.Fatal("Meter takes what Check refuses")
		}
		return false
	}
	metered := meter(t, b)
	plain, err := c.compile(withoutCustom(b))
	if err != nil {
		t.Fatalf("engine died of a module that passed: %v\n%x", err, b[:min(len(b), 2000)])
	}
	after, err := c.compile(metered)
	if err != nil {
		t.Fatalf("engine died of a metered module: %v\n%x", err, b[:min(len(b), 2000)])
	}
	if plain != after {
		t.Fatalf("engine takes the module: %v, after Meter: %v\n%x", plain, after, b[:min(len(b), 2000)])
	}
	return true
}

// withoutCustom is a module without its custom sections, which Check does not read and Meter drops.
func withoutCustom(b []byte) []byte {
	out := b[:8:8]
	for at := 8; at < len(b); {
		size, n := binary.Uvarint(b[at+1:])
		end := at + 1 + n + int(size)
		if b[at] != 0 {
			out = append(out, b[at:end]...)
		}
		at = end
	}
	return out
}

// mutate is one module with up to four changes.
func mutate(r *rand.Rand, corpus [][]byte) []byte {
	b := append([]byte(nil), corpus[r.IntN(len(corpus))]...)
	for range 1 + r.IntN(4) {
		at := 8 + r.IntN(len(b)-8)
		switch r.IntN(7) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.Uint32())
		case 2: // a number that lies
			lies := [][]byte{{0xff, 0xff, 0xff, 0xff, 0x0f}, {0x80, 0x80, 0x80, 0x80, 0x08}, {0xff, 0xff, 0x03}, {0x80, 0x01}}
			copy(b[at:], lies[r.IntN(len(lies))])
		case 3:
			b = append(b[:at], append([]byte{byte(r.Uint32())}, b[at:]...)...)
		case 4:
			b = append(b[:at], b[min(at+1+r.IntN(4), len(b)):]...)
		case 5: // a piece of another
			o := corpus[r.IntN(len(corpus))]
			from := r.IntN(len(o))
			copy(b[at:], o[from:min(from+r.IntN(200), len(o))])
		case 6: // two sections change places
			b = swapSections(r, b)
		}
		if len(b) < 10 {
			break
		}
	}
	return b
}

func swapSections(r *rand.Rand, b []byte) []byte {
	var parts [][]byte
	for at := 8; at < len(b); {
		size, n := binary.Uvarint(b[at+1:])
		if n <= 0 || size > uint64(len(b)-at-1-n) {
			return b
		}
		end := at + 1 + n + int(size)
		parts = append(parts, b[at:end])
		at = end
	}
	if len(parts) < 2 {
		return b
	}
	i, j := r.IntN(len(parts)), r.IntN(len(parts))
	parts[i], parts[j] = parts[j], parts[i]
	return wasm(parts...)
}

func seeds(f *testing.F) {
	for _, text := range []string{killLocals, killNames, killType, growTable} {
		f.Add(unhex(f, text))
	}
	f.Add(build{}.bytes())
	f.Add(nestedLoops(5, 5))
	f.Add(manyIfs(5))
	f.Add(branchTables(2, 5))
	for seed := range uint64(20) {
		f.Add(generate(seed))
	}
}

// FuzzCheck: no panic, and nothing that passes kills an engine.
func FuzzCheck(f *testing.F) {
	seeds(f)
	c := &compiler{}
	f.Cleanup(c.close)
	f.Fuzz(func(t *testing.T, b []byte) { judge(t, c, b) })
}

// FuzzMeter: no panic, and what comes out passes Check, is the same every time, and runs as before if it runs at all.
func FuzzMeter(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := wasmcheck.Meter(b); err != nil {
			if _, ok := errors.AsType[*wasmcheck.Error](err); !ok {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		meter(t, b)
		if often, err := wasmcheck.MeterOften(b, 1); err != nil {
			t.Fatal(err)
		} else if _, err := wasmcheck.Check(often, wasmcheck.Limits{Metered: true}); err != nil {
			t.Fatal(err)
		}
	})
}
