package wasm

import (
	"bytes"
	"context"
	"io"
	"os"
	"runtime/debug"
	"unsafe"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
)

// importModule is the name of the module of host functions (host-abi.md section 6).
const importModule = "ds_v1"

// The codes that are no gRPC codes.
const (
	codeTruncated = 256
	codeEnd       = 257
)

// streamBase is the first stream id. Streams and blob handles share one table as guests see it: blob handles
// get their ids from the session, which counts from 1 and never reaches this number within one run.
const streamBase = 1 << 30

// maxMethods bounds the method names that one instance remembers.
const maxMethods = 256

// The flags of close.
const (
	closeRelease = iota
	closeHalf
	closeCancel
)

// importFunc is one function of ds_v1. Its parameters are i32 and it returns code << 32 | n.
type importFunc struct {
	arity int
	do    func(in *instance, mem api.Memory, a []uint64) (code, n uint32)
}

// imports is ds_v1. Signatures never change; functions may be added.
var imports = map[string]importFunc{
	"call":  {6, (*instance).call},
	"take":  {2, (*instance).take},
	"open":  {4, (*instance).open},
	"send":  {3, (*instance).send},
	"recv":  {3, (*instance).recv},
	"poll":  {1, (*instance).poll},
	"read":  {3, (*instance).read},
	"write": {3, (*instance).write},
	"close": {2, (*instance).closeHandle},
}

func (f importFunc) params() []api.ValueType { return i32s[:f.arity] }

func (importFunc) results() []api.ValueType { return []api.ValueType{api.ValueTypeI64} }

func (f importFunc) signature() string { return signatureOf(f.params(), f.results()) }

var i32s = []api.ValueType{
	api.ValueTypeI32, api.ValueTypeI32, api.ValueTypeI32, api.ValueTypeI32, api.ValueTypeI32, api.ValueTypeI32,
}

// Call implements api.GoModuleFunction. A panic of the host ends the guest and is reported as INTERNAL; it
// never ends ds.
func (f importFunc) Call(ctx context.Context, m api.Module, stack []uint64) {
	in := ctx.Value(instanceKey{}).(*instance)
	in.enter()
	defer in.returned()
	code, n := f.do(in, m.Memory(), stack)
	in.stop.check()
	stack[0] = uint64(code)<<32 | uint64(n)
}

// enter begins a call of the host; returned, deferred, ends it.
func (in *instance) enter() {
	if !in.busy.CompareAndSwap(false, true) {
		panic("wasm: two host calls at once in one instance")
	}
}

func (in *instance) returned() {
	in.busy.Store(false)
	r := recover()
	if r == nil {
		return
	}
	if _, ok := r.(*sys.ExitError); !ok {
		in.panicked = &panicError{what: "host function", value: r, stack: debug.Stack()}
		r = sys.NewExitError(stopCode)
	}
	panic(r)
}

// view is guest memory, checked in 64-bit arithmetic. It is valid until the import returns.
func view(mem api.Memory, ptr, size uint64) ([]byte, bool) {
	return mem.Read(uint32(ptr), uint32(size))
}

// call(m, mlen, req, reqlen, resp, cap)
func (in *instance) call(mem api.Memory, a []uint64) (uint32, uint32) {
	in.kept = nil
	method, ok1 := view(mem, a[0], a[1])
	req, ok2 := view(mem, a[2], a[3])
	resp, ok3 := view(mem, a[4], a[5])
	if !ok1 || !ok2 || !ok3 {
		return in.fail(errPointer)
	}
	if err := in.admit(method, req); err != nil {
		return in.fail(err)
	}
	reply, err := in.session.Invoke(in.stop.wait, hostabi.Call{Method: in.method(method), Req: req, Dst: resp[:0:len(resp)]})
	if err != nil {
		return in.fail(err)
	}
	return in.deliver(reply, resp)
}

// take(dst, cap)
func (in *instance) take(mem api.Memory, a []uint64) (uint32, uint32) {
	dst, ok := view(mem, a[0], a[1])
	if !ok {
		return in.fail(errPointer)
	}
	n := copy(dst, in.kept)
	in.kept = in.kept[n:]
	if len(in.kept) > 0 {
		return codeTruncated, uint32(n)
	}
	in.kept = nil
	return 0, uint32(n)
}

// open(m, mlen, req, reqlen)
func (in *instance) open(mem api.Memory, a []uint64) (uint32, uint32) {
	in.kept = nil
	method, ok1 := view(mem, a[0], a[1])
	req, ok2 := view(mem, a[2], a[3])
	if !ok1 || !ok2 {
		return in.fail(errPointer)
	}
	if err := in.admit(method, req); err != nil {
		return in.fail(err)
	}
	if len(in.streams) >= hostabi.MaxStreams {
		return in.fail(hostabi.Errorf(hostabi.ReasonTooMany, "more than %d open streams", hostabi.MaxStreams))
	}
	st, err := in.session.Stream(in.stop.wait, in.method(method), hostabi.EncProto)
	if err != nil {
		return in.fail(err)
	}
	// The stream may queue the message, and guest memory moves; a peer that has ended says why in recv.
	if err := st.Send(bytes.Clone(req)); err != nil && err != io.EOF {
		_ = st.Close() // it never worked
		return in.fail(err)
	}
	id := streamBase + in.opened
	in.opened++
	in.streams[id] = st
	return 0, id
}

// send(h, p, len)
func (in *instance) send(mem api.Memory, a []uint64) (uint32, uint32) {
	msg, ok := view(mem, a[1], a[2])
	if !ok {
		return in.fail(errPointer)
	}
	st, ok := in.streams[uint32(a[0])]
	if !ok {
		return in.fail(badHandle(a[0]))
	}
	if len(msg) > hostabi.MaxMessage {
		return in.fail(errTooLarge)
	}
	err := st.Send(bytes.Clone(msg))
	if err == io.EOF {
		return codeEnd, 0
	}
	if err != nil {
		return in.fail(err)
	}
	return 0, uint32(len(msg))
}

// recv(h, p, cap)
func (in *instance) recv(mem api.Memory, a []uint64) (uint32, uint32) {
	in.kept = nil
	dst, ok := view(mem, a[1], a[2])
	if !ok {
		return in.fail(errPointer)
	}
	st, ok := in.streams[uint32(a[0])]
	if !ok {
		return in.fail(badHandle(a[0]))
	}
	msg, err := st.Recv()
	if err == io.EOF { // itself: a failure may have it as its cause
		return codeEnd, 0
	}
	if err != nil {
		return in.fail(err)
	}
	return in.deliver(msg, dst)
}

// The bits of poll.
const (
	pollRecv = 1 << iota
	pollSend
)

// poll(h)
func (in *instance) poll(_ api.Memory, a []uint64) (uint32, uint32) {
	st, ok := in.streams[uint32(a[0])].(hostabi.Poller)
	if !ok {
		return in.fail(badHandle(a[0]))
	}
	n := uint32(0)
	recv, send := st.Poll()
	if recv {
		n |= pollRecv
	}
	if send {
		n |= pollSend
	}
	return 0, n
}

// read(h, p, cap)
func (in *instance) read(mem api.Memory, a []uint64) (uint32, uint32) {
	dst, ok := view(mem, a[1], a[2])
	if !ok {
		return in.fail(errPointer)
	}
	h, release, err := in.blob(a[0])
	if err != nil {
		return in.fail(err)
	}
	defer release()
	n, err := h.Read(dst)
	if err != nil && n == 0 && err != io.EOF {
		return in.fail(err)
	}
	return 0, uint32(n)
}

// write(h, p, len)
func (in *instance) write(mem api.Memory, a []uint64) (uint32, uint32) {
	src, ok := view(mem, a[1], a[2])
	if !ok {
		return in.fail(errPointer)
	}
	h, release, err := in.blob(a[0])
	if err != nil {
		return in.fail(err)
	}
	defer release()
	n, err := h.Write(src)
	if err == nil && n < len(src) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return in.fail(err)
	}
	return 0, uint32(n)
}

// close(h, flags)
func (in *instance) closeHandle(_ api.Memory, a []uint64) (uint32, uint32) {
	id, flags := uint32(a[0]), uint32(a[1])
	if flags > closeCancel {
		return in.fail(hostabi.Errorf(hostabi.ReasonUsage, "close: unknown flags %d", flags))
	}
	st, ok := in.streams[id]
	if !ok {
		return in.closeBlob(a[0], flags)
	}
	var err error
	switch flags {
	case closeRelease:
		delete(in.streams, id)
		_ = st.Close() // its result is what recv would have said
	case closeHalf:
		err = st.CloseSend()
	case closeCancel:
		_ = st.Close()
	}
	if err != nil && err != io.EOF {
		return in.fail(err)
	}
	return 0, 0
}

func (in *instance) closeBlob(id uint64, flags uint32) (uint32, uint32) {
	if flags != closeRelease {
		return in.fail(badHandle(id))
	}
	h, release, err := in.blob(id)
	if err != nil {
		return in.fail(err)
	}
	defer release()
	if err := h.Close(); err != nil {
		return in.fail(err)
	}
	return 0, 0
}

// blob is a handle of the session. A handle that is no file may wait for a peer: it is closed when waiting
// has to end.
func (in *instance) blob(id uint64) (h io.ReadWriteCloser, release func(), err error) {
	if n := uint32(id); n == 0 || n >= streamBase {
		return nil, nil, badHandle(id)
	}
	h, err = in.session.Handle(uint32(id))
	if err != nil {
		return nil, nil, err
	}
	if _, ok := h.(interface{ File() *os.File }); ok {
		return h, func() {}, nil
	}
	stop := context.AfterFunc(in.stop.wait, func() { _ = h.Close() })
	return h, func() { stop() }, nil
}

// admit checks what is bounded before anything runs.
func (in *instance) admit(method, req []byte) error {
	if len(method) > hostabi.MaxMethod {
		return hostabi.Errorf(hostabi.ReasonTooLarge, "method name of %d bytes, at most %d", len(method), hostabi.MaxMethod)
	}
	if len(req) > hostabi.MaxMessage {
		return errTooLarge
	}
	return nil
}

// method is the name as a string, without allocating for a name that was used before.
func (in *instance) method(name []byte) string {
	if m, ok := in.methods[string(name)]; ok {
		return m
	}
	m := string(name)
	if len(in.methods) < maxMethods {
		in.methods[m] = m
	}
	return m
}

// deliver hands msg to the guest's buffer dst. A message that does not fit is kept whole for take.
func (in *instance) deliver(msg, dst []byte) (uint32, uint32) {
	if len(msg) > len(dst) {
		in.kept = msg
		return codeTruncated, uint32(len(msg))
	}
	if unsafe.SliceData(msg) != unsafe.SliceData(dst) { //nolint:gosec // compares addresses only
		copy(dst, msg)
	}
	return 0, uint32(len(msg))
}

// fail keeps the status of err for take.
func (in *instance) fail(err error) (uint32, uint32) {
	e := hostabi.AsError(err)
	in.kept = e.AppendStatus(nil, hostabi.EncProto)
	code := uint32(e.Code)
	if code == 0 || code > uint32(hostabi.Unauthenticated) {
		code = uint32(hostabi.Internal)
	}
	return code, uint32(len(in.kept))
}

var (
	errPointer  = hostabi.Errorf(hostabi.ReasonBadPointer, "pointer and length leave the guest's memory")
	errTooLarge = hostabi.Errorf(hostabi.ReasonTooLarge, "message is over %d bytes", hostabi.MaxMessage)
)

func badHandle(id uint64) error {
	return hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d is unknown, closed or of another kind", uint32(id))
}
