package wasm

import (
	"bytes"
	"io"
	"slices"
	"sync"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/hostabi"
)

// What the tree keeps of one run in the memory of the host. Requests that do not fit are refused; answers that
// nobody has read make room, the oldest first.
const (
	maxHeld  = 16 << 20 // bytes of requests and answers
	maxKept  = 64       // answers of calls that ran when their file was closed
	maxAhead = hostabi.MaxMessage
)

var errFull = hostabi.Errorf(hostabi.ReasonTooLarge, "requests and answers in files are over %d bytes together", maxHeld)

// callFile is an open call/SERVICE/METHOD. What is written to it is the request: one JSON text, or one a line for
// a stream. It runs at the first read after it, else when the file is closed; its answer is then kept for the next
// one who opens the name for reading.
type callFile struct {
	treeLeaf
	flag  experimentalsys.Oflag
	req   []byte
	asked bool  // something was written that has not run
	bad   error // why it cannot run
	ans   *callAnswer
	at    int // what was read of ans.head
	read  bool
}

// openCall opens a call without running anything. The failure of a kept answer shows here, because closing a file
// cannot fail.
func (d *dsTree) openCall(n node, flag experimentalsys.Oflag) (*callFile, experimentalsys.Errno) {
	f := &callFile{treeLeaf: treeLeaf{d: d, node: n}, flag: flag}
	if flag&accessMask != 0 {
		return f, 0
	}
	if a := d.kept[n.leaf]; a != nil {
		if a.err != nil && len(a.head) == 0 {
			return nil, d.fail(a.err)
		}
		f.ans = a.use()
	}
	return f, 0
}

func (f *callFile) writes() bool { return f.flag&accessMask != 0 }

func (f *callFile) reads() bool { return f.flag&accessMask != experimentalsys.O_WRONLY }

// IsAppend implements sys.File.
func (f *callFile) IsAppend() bool { return f.flag&experimentalsys.O_APPEND != 0 }

// Write implements sys.File: the first one begins a new request and ends the answer before it.
func (f *callFile) Write(b []byte) (int, experimentalsys.Errno) {
	f.d.in.stop.check()
	if !f.writes() {
		return 0, experimentalsys.EBADF
	}
	if len(b) == 0 {
		return 0, 0
	}
	if !f.asked {
		f.d.forget(f.node.leaf)
		f.leave()
		f.asked, f.read, f.bad = true, false, nil
	}
	if f.bad == nil && !f.d.room(len(b)) {
		f.bad = errFull
		f.reset()
	}
	if f.bad != nil {
		return 0, f.d.fail(f.bad)
	}
	f.req = append(f.req, b...)
	f.d.held += len(b)
	return len(b), 0
}

// Pwrite implements sys.File. A call has no positions.
func (f *callFile) Pwrite(b []byte, _ int64) (int, experimentalsys.Errno) { return f.Write(b) }

// Truncate implements sys.File. Text layers call it when they open a file for writing.
func (f *callFile) Truncate(int64) experimentalsys.Errno {
	if !f.writes() {
		return experimentalsys.EBADF
	}
	return 0
}

// Seek implements sys.File: before the first read the position is 0, then there is none.
func (f *callFile) Seek(offset, int) (offset, experimentalsys.Errno) {
	if f.read {
		return 0, experimentalsys.EINVAL
	}
	return 0, 0
}

// Read implements sys.File.
func (f *callFile) Read(b []byte) (n int, e experimentalsys.Errno) {
	f.d.in.stop.check()
	if !f.reads() {
		return 0, experimentalsys.EBADF
	}
	if len(b) == 0 {
		return 0, 0
	}
	f.read = true
	e = f.d.host(func() (err error) {
		if f.asked {
			f.ans = f.run()
		}
		if f.ans == nil {
			return hostabi.Errorf(hostabi.ReasonBadMessage, "%s: no request was written", f.node.leaf)
		}
		n, err = f.ans.read(b, &f.at)
		return err
	})
	return n, e
}

// Pread implements sys.File.
func (f *callFile) Pread(b []byte, _ int64) (int, experimentalsys.Errno) { return f.Read(b) }

// Close implements sys.File. It runs what was not run yet and keeps the answer; its failure shows when the name is
// opened for reading. A stream that somebody has begun to read ends here.
func (f *callFile) Close() experimentalsys.Errno {
	if f.asked && !f.d.ended {
		_ = f.d.host(func() error {
			a := f.run()
			a.ahead()
			f.d.keep(f.node.leaf, a)
			if len(a.head) == 0 {
				return a.err
			}
			return nil
		})
	}
	f.release()
	return f.treeLeaf.Close()
}

func (f *callFile) release() {
	f.reset()
	f.leave()
}

// reset drops what was written.
func (f *callFile) reset() {
	f.d.held -= len(f.req)
	f.req = nil
}

// leave gives the answer back.
func (f *callFile) leave() {
	if f.ans == nil {
		return
	}
	if f.read {
		f.ans.stop()
	}
	f.ans.leave()
	f.ans, f.at = nil, 0
}

// run makes the call. The answer belongs to the caller.
func (f *callFile) run() *callAnswer {
	a := &callAnswer{d: f.d, users: 1}
	req, bad := f.req, f.bad
	f.reset()
	f.asked, f.bad = false, nil
	switch s, ok := f.d.in.session.(streamer); {
	case bad != nil:
		a.err = bad
	case !f.d.room(hostabi.MaxMessage): // for the answer
		a.err = errFull
	case ok && s.Streaming(f.node.leaf):
		a.start(f.node.leaf, req)
	default:
		call := hostabi.Call{Method: f.node.leaf, Enc: hostabi.EncJSON, Req: bytes.TrimSpace(req)}
		reply, err := f.d.in.session.Invoke(f.d.in.stop.wait, call)
		if err != nil {
			a.err = err
			break
		}
		a.add(reply)
	}
	return a
}

// streamer is what sessions know of their methods; a file does not say whether it is a stream.
type streamer interface{ Streaming(method string) bool }

// room makes room for n more bytes.
func (d *dsTree) room(n int) bool {
	for d.held+n > maxHeld && len(d.order) > 0 {
		d.forget(d.order[0])
	}
	return d.held+n <= maxHeld
}

// keep takes over the answer of a method, in the place of the one before it.
func (d *dsTree) keep(method string, a *callAnswer) {
	d.forget(method)
	d.kept[method] = a
	d.order = append(d.order, method)
	for len(d.order) > maxKept || d.held > maxHeld && len(d.order) > 1 {
		d.forget(d.order[0])
	}
}

func (d *dsTree) forget(method string) {
	a := d.kept[method]
	if a == nil {
		return
	}
	delete(d.kept, method)
	d.order = slices.DeleteFunc(d.order, func(m string) bool { return m == method })
	a.leave()
}

// callAnswer is what a call gave: a reply, or the messages of a stream, each followed by a newline. Who uses it counts.
type callAnswer struct {
	d       *dsTree
	users   int
	head    []byte         // received and kept
	st      hostabi.Stream // the rest is still to come; nil: that was all
	sending sync.WaitGroup
	tail    []byte // of a message that was not kept, and is read once
	err     error  // how it ended, nil well
}

func (a *callAnswer) use() *callAnswer {
	a.users++
	return a
}

// leave ends the answer with its last user.
func (a *callAnswer) leave() {
	if a.users--; a.users > 0 {
		return
	}
	a.stop()
	a.d.held -= len(a.head)
	a.head, a.tail = nil, nil
}

// add keeps one message.
func (a *callAnswer) add(msg []byte) {
	a.head = append(append(a.head, msg...), '\n')
	a.d.held += len(msg) + 1
}

// start begins a stream. All requests are there already; they are sent beside the receiving, since the host may
// answer before it has read all.
func (a *callAnswer) start(method string, req []byte) {
	var lines [][]byte
	for line := range bytes.SplitSeq(req, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) > hostabi.MaxMessage {
			a.err = errTooLarge
			return
		} else if len(line) > 0 {
			lines = append(lines, line)
		}
	}
	st, err := a.d.in.session.Stream(a.d.in.stop.wait, method, hostabi.EncJSON)
	if err != nil {
		a.err = err
		return
	}
	a.st = st
	a.sending.Go(func() {
		for _, line := range lines {
			if st.Send(line) != nil {
				break // receiving tells why
			}
		}
		_ = st.CloseSend() // receiving tells
	})
}

// next receives a message; not ok is the end.
func (a *callAnswer) next() (msg []byte, ok bool) {
	if a.st == nil {
		return nil, false
	}
	msg, err := a.st.Recv()
	if err == nil {
		return msg, true
	}
	a.end()
	if err != io.EOF { // itself: a failure may have it as its cause
		a.err = err
	}
	return nil, false
}

// end gives the stream back. Sending ends with it.
func (a *callAnswer) end() {
	_ = a.st.Close() // its result is what receiving said
	a.sending.Wait()
	a.st = nil
}

// stop cancels a stream that has not ended.
func (a *callAnswer) stop() {
	if a.st != nil {
		a.end()
		a.err = hostabi.Errorf(hostabi.ReasonInterrupted, "the file was closed before the end of the stream")
	}
}

// ahead receives to the end, so that a call whose answer nobody reads runs to its end too; of a long answer the
// rest waits for who reads it.
func (a *callAnswer) ahead() {
	for len(a.head) < maxAhead {
		msg, ok := a.next()
		if !ok {
			return
		}
		a.add(msg)
	}
}

// read reads on at a position of head, and behind it what comes.
func (a *callAnswer) read(b []byte, at *int) (int, error) {
	if *at < len(a.head) {
		n := copy(b, a.head[*at:])
		*at += n
		return n, nil
	}
	if len(a.tail) == 0 {
		msg, ok := a.next()
		if !ok {
			return 0, a.err
		}
		a.tail = append(msg, '\n')
	}
	n := copy(b, a.tail)
	a.tail = a.tail[n:]
	return n, nil
}
