//go:build unix

package frame

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
)

// rawConn is the descriptor behind conn if that is a unix socket, else nil.
func rawConn(conn io.ReadWriteCloser) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	unix := false
	err = rc.Control(func(fd uintptr) {
		name, err := syscall.Getsockname(int(fd))
		_, ok := name.(*syscall.SockaddrUnix)
		unix = ok && err == nil
	})
	if err != nil || !unix {
		return nil
	}
	return rc
}

func newSender(conn io.ReadWriteCloser) sender {
	if rc := rawConn(conn); rc != nil {
		return &fdSender{rc: rc, w: conn}
	}
	return nil
}

type fdSender struct {
	rc syscall.RawConn
	w  io.Writer
}

// send attaches f to what the first sendmsg takes, which includes the first byte.
func (s *fdSender) send(b []byte, f *os.File) error {
	var n int
	var sent error
	err := withFD(f, func(fd int) error {
		rights := syscall.UnixRights(fd)
		return s.rc.Write(func(sock uintptr) bool {
			for {
				n, sent = syscall.SendmsgN(int(sock), b, rights, nil, 0)
				if sent != syscall.EINTR {
					return sent != syscall.EAGAIN
				}
			}
		})
	})
	if err == nil {
		err = sent
	}
	if err == nil && n < len(b) {
		_, err = s.w.Write(b[n:])
	}
	return err
}

// now writes what the socket takes without waiting.
func (s *fdSender) now(b []byte) (n int, err error) {
	cerr := s.rc.Write(func(sock uintptr) bool {
		for {
			n, err = syscall.SendmsgN(int(sock), b, nil, nil, syscall.MSG_DONTWAIT)
			if err != syscall.EINTR {
				return true
			}
		}
	})
	switch {
	case cerr != nil:
		return 0, cerr
	case err == syscall.EAGAIN:
		return 0, nil
	}
	return n, err
}

// withFD calls f with the descriptor of file, which stays open and keeps its mode meanwhile.
func withFD(file *os.File, f func(fd int) error) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = rc.Control(func(fd uintptr) { inner = f(int(fd)) })
	if err != nil {
		return err
	}
	return inner
}

// fdReader reads a unix socket and keeps the descriptors that come with the bytes. The kernel ends a read
// behind bytes with descriptors, so they queue in the order of their frames.
type fdReader struct {
	rc  syscall.RawConn
	oob []byte // room for descriptors; none are taken without it

	mu    sync.Mutex
	files []int
}

// newReader is conn, or a reader of the unix socket that it is. With fds it receives descriptors too.
func newReader(conn io.ReadWriteCloser, fds bool) (io.Reader, *fdReader) {
	rc := rawConn(conn)
	if rc == nil {
		return conn, nil
	}
	r := &fdReader{rc: rc}
	if fds {
		r.oob = make([]byte, 64)
	}
	return r, r
}

// soon waits in the kernel for a moment until there is something to read, and reports whether there is. It is for
// callers that expect something at once: going through the runtime's poller wakes other threads.
func (r *fdReader) soon() (yes bool) {
	if r == nil {
		return false
	}
	err := r.rc.Read(func(fd uintptr) bool {
		yes = readableSoon(fd)
		return true
	})
	return yes && err == nil
}

func (r *fdReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var n, oobn int
	var read error
	err := r.rc.Read(func(fd uintptr) bool {
		for {
			n, oobn, read = recvmsg(int(fd), p, r.oob)
			if !errors.Is(read, syscall.EINTR) {
				return !errors.Is(read, syscall.EAGAIN)
			}
		}
	})
	if err == nil {
		err = read
	}
	if err != nil {
		return 0, err
	}
	if oobn > 0 {
		r.keep(r.oob[:oobn])
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *fdReader) keep(oob []byte) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		r.mu.Lock()
		r.files = append(r.files, fds...)
		r.mu.Unlock()
	}
}

// take is the descriptor of the frame in hand, nil if the host sent none.
func (r *fdReader) take() *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) == 0 {
		return nil
	}
	fd := r.files[0]
	r.files = r.files[1:]
	return os.NewFile(uintptr(fd), "blob")
}

// close closes what was never taken.
func (r *fdReader) close() {
	for f := r.take(); f != nil; f = r.take() {
		f.Close()
	}
}

func canPass(conn io.ReadWriteCloser) bool { return rawConn(conn) != nil }
