package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// instanceKey finds the instance in the context of _start: host functions are shared by all instances.
type instanceKey struct{}

// instance is one invocation of a module. It is used once: _start runs once, and leftover memory would cross
// grants. Everything that wazero was lent is closed here too, since wazero skips that on some paths.
type instance struct {
	backend *Backend
	plugin  *plugin.Installed
	inv     *plugin.Invocation
	session hostabi.Session
	stop    *stopper
	memory  *memory
	booked  int64
	argv    []string
	env     []string
	std     *stdio
	files   *fileTable
	mounts  []*mountFS
	tree    *dsTree

	busy     atomic.Bool
	panicked *panicError
	refused  *hostabi.Error // what the guest did and was ended for
	kept     []byte
	methods  map[string]string
	streams  map[uint32]hostabi.Stream
	opened   uint32
}

// instance prepares one run: memory, streams and mounts. It runs no guest code.
func (b *Backend) instance(
	p *plugin.Installed, box grants, inv *plugin.Invocation, s hostabi.Session, stop *stopper, e *engine,
) (in *instance, err error) {
	limit := min(box.Limits().Memory, maxPages*pageSize)
	if need := e.minMemory(); need > limit {
		return nil, hostabi.Errorf(hostabi.ReasonMemoryLimit, "module needs %s of memory, the limit is %s",
			size(uint64(need)), size(uint64(limit)))
	}
	if err := b.memory.take(limit); err != nil {
		return nil, err
	}
	in = &instance{
		backend: b, plugin: p, inv: inv, session: s, stop: stop, booked: limit,
		methods: make(map[string]string), streams: make(map[uint32]hostabi.Stream),
	}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	if in.memory, err = newMemory(uint64(limit)); err != nil {
		return nil, err
	}
	words, paths := box.Paths()
	if words == nil {
		words = inv.Args
	}
	inv.Paths = paths
	in.std = openStdio(inv, stop)
	in.files = &fileTable{note: in.note}
	in.mounts = openMounts(in, box)
	in.tree = newDSTree(in)
	in.argv = argv(p, words)
	in.env = environ(p, inv, box.Env(inv.Env), in.mounted("/cwd"))
	if b.prepared != nil {
		b.prepared(in)
	}
	return in, nil
}

// run runs the module to its end.
func (in *instance) run(e *engine) (err error) {
	defer recovered("engine", &err)
	ctx := context.WithValue(in.stop.guest, instanceKey{}, in)
	m, err := e.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, in.memory), e.code, in.config())
	if err != nil {
		return in.instantiateError(err)
	}
	defer func() {
		in.tree.ended = true // a guest that was stopped or trapped did not close its files
		_ = m.Close(ctx)     // reports only the status we have
	}()
	start := m.ExportedFunction("_start")
	if start == nil {
		return refused("module does not export _start")
	}
	if _, tty := in.std.in.(*os.File); tty {
		defer wakeThread(in.stop.wait)()
	}
	_, err = start.Call(ctx)
	return in.ended(err)
}

// instantiateError tells a stop and a trap of a data segment from a module that does not fit this ds.
func (in *instance) instantiateError(err error) error {
	if r := in.stop.why.Load(); r != nil {
		return stopped(r)
	}
	if _, ok := trapText(err); ok {
		return outcome(err)
	}
	return refused("module cannot be instantiated: %v", err)
}

// ended is the result of the run. The reason of a stop comes first: a guest whose sleep was cut short may
// exit 0, and a guest may exit with any number that the engine uses for itself. A guest that learns of the deadline
// by a host call may be faster with its own exit status than the timer of the stopper.
func (in *instance) ended(err error) error {
	if in.panicked != nil {
		return in.panicked
	}
	if r := in.stop.why.Load(); r != nil {
		return stopped(r)
	}
	if in.refused != nil {
		return in.refused
	}
	err = outcome(err)
	if d, limited := in.stop.wait.Deadline(); err != nil && limited && !time.Now().Before(d) {
		return stopped(&reason{timeout: true})
	}
	if err != nil && in.memory.refused {
		in.note(fmt.Sprintf("hint: memory limit %s reached; set limits.memory", size(in.memory.limit)))
	}
	return err
}

// config is what the module sees of the world beside ds_v1.
func (in *instance) config() wazero.ModuleConfig {
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithArgs(in.argv...).
		WithSysWalltime().WithSysNanotime().WithNanosleep(in.stop.sleep).WithOsyield(runtime.Gosched).WithRandSource(random{in.stop})
	for _, kv := range in.env {
		k, v := cutEnv(kv)
		cfg = cfg.WithEnv(k, v)
	}
	if in.std.in != nil {
		cfg = cfg.WithStdin(in.std.in)
	}
	if in.std.out != nil {
		cfg = cfg.WithStdout(in.std.out)
	}
	if in.std.err != nil {
		cfg = cfg.WithStderr(in.std.err)
	}
	fsc := wazero.NewFSConfig()
	for _, m := range in.mounts {
		fsc = fsc.(sysfs.FSConfig).WithSysFSMount(m, m.guest)
	}
	fsc = fsc.(sysfs.FSConfig).WithSysFSMount(in.tree, dsMount)
	if len(in.mounts) > 0 && in.mounts[0].guest == "/cwd" {
		fsc = fsc.(sysfs.FSConfig).WithSysFSMount(in.mounts[0], ".")
	}
	return cfg.WithFSConfig(fsc)
}

// random is the guest's source of random bytes, which it may ask for by the hundred MiB.
type random struct{ stop *stopper }

func (r random) Read(b []byte) (int, error) {
	const piece = 1 << 20
	for n := 0; n < len(b); n += piece {
		r.stop.check()
		if _, err := rand.Read(b[n:min(n+piece, len(b))]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// mounted reports whether a preopen of that name exists.
func (in *instance) mounted(guest string) bool {
	for _, m := range in.mounts {
		if m.guest == guest {
			return true
		}
	}
	return false
}

// note prints one line for the user, between what the guest prints.
func (in *instance) note(line string) {
	if in.std != nil && in.std.err != nil {
		_, _ = io.WriteString(in.std.err, line+"\n") // nobody to tell
	}
}

// close ends what the guest left open. It waits for its streams; handles belong to the session.
func (in *instance) close() {
	for _, st := range in.streams {
		_ = st.Close() // cancels
	}
	in.streams = nil
	if in.files != nil {
		in.files.close()
	}
	if in.tree != nil {
		in.tree.close()
	}
	for _, m := range in.mounts {
		if err := m.close(); err != nil && !errors.Is(err, os.ErrNotExist) {
			in.backend.o.Log.Warn("wasm: cannot remove the temporary directory of a guest", "error", err)
		}
	}
	if in.std != nil {
		in.std.close()
	}
	if in.memory != nil {
		in.memory.Free()
	}
	in.backend.memory.give(in.booked)
}
