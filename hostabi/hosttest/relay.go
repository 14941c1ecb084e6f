package hosttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hosttest/cases"
	"github.com/delivery-station/ds/hostabi/hosttest/injson"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
)

// The operations of a relay: what a guest is asked to do with its SDK. A request is id u32, operation u8, handle u32,
// method length u32, body length u32, all little endian, then method and body. An answer is a zero byte, id u32, code
// u32 as imports give it, n u32, body length u32, then the body: a message, or the Status of an error. Anything else
// that the guest's standard output has is lines of text: the host may print there, too.
const (
	relayCall  = iota // method, request: the reply
	relayOpen         // method, first message: n is the guest's handle of the stream
	relaySend         // handle, message
	relayHalf         // handle
	relayRecv         // handle: a message
	relayClose        // handle
	relayPoll         // handle: n as poll of ds_v1 gives it; only modules
	relayRead         // handle of a blob: its next bytes; only modules
	relayWrite        // handle of a sink, bytes; only modules
)

// relayEnd is the code of a stream that ended well.
const relayEnd = 257

// Relayed runs the cases in this process and has a guest in any language do each host call of them. A native guest
// speaks JSON, does calls side by side and leaves blobs to who reads their paths; a module speaks protobuf and does one
// thing at a time.
func Relayed(name string, b Backend, program plugin.Program) Carrier {
	return Carrier{Name: name, Start: func(t testing.TB, w *World, name string) string {
		f, err := os.Open(program.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // only read
		p := program
		p.File, p.Dir = f, filepath.Dir(p.Path)
		w.Installed.Programs, w.Installed.Program = []plugin.Program{p}, &p

		in, out := io.Pipe()
		r := &relay{in: out, text: w.Stdout, module: p.Kind == plugin.WASM, waiting: make(map[uint32]chan answer), ended: make(chan struct{})}
		inv := w.Invocation(name)
		inv.Stdin, inv.Stdout = in, r
		box, s := w.Open(inv)
		go func() {
			defer close(r.ended)
			r.err = b.Run(t.Context(), w.Installed, box, inv, s)
			_ = in.Close() // nobody reads it any more
		}()
		var session hostabi.Session = r
		if !r.module {
			session = byPath{injson.Over(r, hostv1.File_host_proto)}
		}
		_, err = io.WriteString(w.Stdout, cases.Run(t.Context(), session, name)+"\n")
		_ = out.Close() // the guest ends
		<-r.ended
		if err := errors.Join(err, r.err, s.Close()); err != nil {
			t.Errorf("run: %v", err)
		}
		return w.Stdout.String()
	}}
}

// relay is the session of a guest, as operations on its standard input; it is its standard output, too.
type relay struct {
	module bool
	text   io.Writer // for what the guest prints beside its answers
	ended  chan struct{}
	err    error // of the run, after ended

	sending sync.Mutex
	in      io.Writer

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan answer
	rest    []byte // of standard output, not yet understood
}

// answer is the answer to one operation.
type answer struct {
	code, n uint32
	body    []byte
}

// do has the guest do one operation and waits for it. A code above those of gRPC is no error.
func (r *relay) do(op byte, handle uint32, method string, body []byte) (answer, error) {
	done := make(chan answer, 1)
	r.mu.Lock()
	r.last++
	id := r.last
	r.waiting[id] = done
	r.mu.Unlock()
	b := binary.LittleEndian.AppendUint32(nil, id)
	b = append(b, op)
	for _, n := range []uint32{handle, uint32(len(method)), uint32(len(body))} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = append(append(b, method...), body...)
	r.sending.Lock()
	_, err := r.in.Write(b)
	r.sending.Unlock()
	if err != nil {
		return answer{}, fmt.Errorf("the guest reads nothing: %w", err)
	}
	select {
	case a := <-done:
		if a.code == 0 || a.code > uint32(hostabi.Unauthenticated) {
			return a, nil
		}
		if r.module {
			return a, hostabi.ParseStatus(a.body)
		}
		return a, hostabi.ParseStatusJSON(a.body)
	case <-r.ended:
		return answer{}, errors.New("the guest ended")
	}
}

// Write takes what the guest or the host writes to standard output.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, p...)
	for len(r.rest) > 0 {
		n, err := r.take(r.rest)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		r.rest = r.rest[n:]
	}
	return len(p), nil
}

// take takes one answer or line at the beginning of b, 0 if it is not all there.
func (r *relay) take(b []byte) (n int, err error) {
	const head = 17
	if b[0] != 0 {
		n = bytes.IndexByte(b, '\n') + 1
		_, err = r.text.Write(b[:n])
		return n, err
	}
	if len(b) < head {
		return 0, nil
	}
	number := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if n = head + int(number(13)); len(b) < n {
		return 0, nil
	}
	done, ok := r.waiting[number(1)]
	if !ok {
		return 0, fmt.Errorf("the guest answers %d, which was not asked", number(1))
	}
	delete(r.waiting, number(1))
	done <- answer{number(5), number(9), bytes.Clone(b[head:n])}
	return n, nil
}

// Invoke implements hostabi.Session.
func (r *relay) Invoke(_ context.Context, c hostabi.Call) ([]byte, error) {
	a, err := r.do(relayCall, 0, c.Method, c.Req)
	return append(c.Dst, a.body...), err
}

// Stream implements hostabi.Session. The call starts with its first message.
func (r *relay) Stream(_ context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	st := &relayStream{r: r, method: method}
	if r.module {
		return relayPoller{st}, nil
	}
	return st, nil
}

// Handle implements hostabi.Session.
func (r *relay) Handle(id uint32) (io.ReadWriteCloser, error) {
	if !r.module {
		return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "native guests open paths")
	}
	return &relayBlob{r: r, id: id}, nil
}

// Close implements hostabi.Session.
func (r *relay) Close() error { return nil }

// byPath is a session of an SDK that opens blobs at their paths and asks for no descriptors.
type byPath struct{ hostabi.Session }

// Invoke implements hostabi.Session.
func (s byPath) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	if c.Method == hostv1.Cache_Open_FullMethodName {
		var req hostv1.OpenBlobRequest
		if err := proto.Unmarshal(c.Req, &req); err != nil {
			return c.Dst, err
		}
		req.WantFd = false
		var err error
		if c.Req, err = proto.Marshal(&req); err != nil {
			return c.Dst, err
		}
	}
	return s.Session.Invoke(ctx, c)
}

type relayStream struct {
	r      *relay
	method string
	id     uint32
	opened bool
	failed error // why it did not open
}

// Send implements hostabi.Stream.
func (st *relayStream) Send(msg []byte) error {
	if !st.opened {
		a, err := st.r.do(relayOpen, 0, st.method, msg)
		st.id, st.failed, st.opened = a.n, err, true
		return nil
	}
	a, err := st.do(relaySend, msg)
	if a.code == relayEnd {
		return io.EOF
	}
	return err
}

// CloseSend implements hostabi.Stream.
func (st *relayStream) CloseSend() error {
	_, err := st.do(relayHalf, nil)
	return err
}

// Recv implements hostabi.Stream.
func (st *relayStream) Recv() ([]byte, error) {
	a, err := st.do(relayRecv, nil)
	if a.code == relayEnd {
		return nil, io.EOF
	}
	return a.body, err
}

// Close implements hostabi.Stream.
func (st *relayStream) Close() error {
	if !st.opened {
		return nil
	}
	_, err := st.do(relayClose, nil)
	return err
}

func (st *relayStream) do(op byte, body []byte) (answer, error) {
	if st.failed != nil {
		return answer{}, st.failed
	}
	return st.r.do(op, st.id, "", body)
}

// relayPoller is a stream of a guest that does one thing at a time.
type relayPoller struct{ *relayStream }

// Poll implements hostabi.Poller.
func (st relayPoller) Poll() (recv, send bool) {
	a, err := st.do(relayPoll, nil)
	return err != nil || a.n&1 != 0, a.n&2 != 0
}

// relayBlob is a blob or sink of a module.
type relayBlob struct {
	r    *relay
	id   uint32
	rest []byte
}

// Read implements io.Reader.
func (h *relayBlob) Read(b []byte) (int, error) {
	if len(h.rest) == 0 {
		a, err := h.r.do(relayRead, h.id, "", nil)
		if err != nil {
			return 0, err
		}
		if len(a.body) == 0 {
			return 0, io.EOF
		}
		h.rest = a.body
	}
	n := copy(b, h.rest)
	h.rest = h.rest[n:]
	return n, nil
}

// Write implements io.Writer.
func (h *relayBlob) Write(b []byte) (int, error) {
	if _, err := h.r.do(relayWrite, h.id, "", b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close implements io.Closer. Handles are closed by Cache.Close.
func (*relayBlob) Close() error { return nil }
