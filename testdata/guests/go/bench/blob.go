package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/pkg/client"
)

// piece is what a blob consists of, over and over, and the size of the buffer that it is read with.
const piece = 256 << 10

func pattern() []byte {
	b := make([]byte, piece)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// repeated yields the pattern n times.
func repeated(n int) io.Reader {
	b := pattern()
	rs := make([]io.Reader, n)
	for i := range rs {
		rs[i] = bytes.NewReader(b)
	}
	return io.MultiReader(rs...)
}

// openWays are how the bytes of a blob are reached.
var openWays = map[string]func(ctx context.Context, in *client.Invocation, d client.Digest, use func(io.Reader) error) error{ //nolint:gochecknoglobals // a constant
	"sdk": func(ctx context.Context, in *client.Invocation, d client.Digest, use func(io.Reader) error) error {
		b, err := in.Cache().Open(ctx, d)
		if err != nil {
			return err
		}
		return errors.Join(use(b), b.Close())
	},
	"path": func(ctx context.Context, in *client.Invocation, d client.Digest, use func(io.Reader) error) error {
		return opened(ctx, in, d, func(b *hostv1lite.OpenedBlob) error { return reading(b.Path, use) })
	},
	"handle": func(ctx context.Context, in *client.Invocation, d client.Digest, use func(io.Reader) error) error {
		return opened(ctx, in, d, func(b *hostv1lite.OpenedBlob) error {
			s, err := in.Session()
			if err != nil {
				return err
			}
			h, err := s.Handle(b.Handle)
			if err != nil {
				return err
			}
			return use(h)
		})
	},
}

// opened opens a blob at the host, without asking for a descriptor, for use.
func opened(ctx context.Context, in *client.Invocation, d client.Digest, use func(*hostv1lite.OpenedBlob) error) error {
	var b hostv1lite.OpenedBlob
	if err := invoke(ctx, in, hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: string(d)}, &b); err != nil {
		return err
	}
	err := use(&b)
	return errors.Join(err, invoke(ctx, in, hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: b.Handle}, &hostv1lite.Empty{}))
}

// blob puts a blob, which is not timed, and times opening it at the host and reading it one way.
func blob(ctx context.Context, in *client.Invocation) error {
	n, err := pieces(in)
	if err != nil {
		return err
	}
	way := openWays[in.Args[1]]
	if way == nil {
		return fmt.Errorf("no way %q to read", in.Args[1])
	}
	info, err := in.Cache().Put(ctx, repeated(n))
	if err != nil {
		return err
	}
	return timeReads(in.Stdout, n, func(use func(io.Reader) error) error { return way(ctx, in, info.Digest, use) })
}

// file is blob without a host: the contender.
func file(_ context.Context, in *client.Invocation) error {
	n, err := pieces(in)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "bench-file-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = io.Copy(f, repeated(n))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return timeReads(in.Stdout, n, func(use func(io.Reader) error) error { return reading(f.Name(), use) })
}

func pieces(in *client.Invocation) (int, error) {
	size, err := strconv.Atoi(in.Args[0])
	if err != nil || size <= 0 || size%piece != 0 {
		return 0, fmt.Errorf("bytes %q: not a multiple of %d", in.Args[0], piece)
	}
	return size / piece, nil
}

func reading(path string, use func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(use(f), f.Close())
}

// timeReads reads twice: once to compare every byte, which also makes the file hot, and once for the clock.
func timeReads(out io.Writer, n int, open func(use func(io.Reader) error) error) error {
	want, buf := pattern(), make([]byte, piece)
	err := open(func(f io.Reader) error {
		for range n {
			if _, err := io.ReadFull(f, buf); err != nil {
				return err
			}
			if !bytes.Equal(buf, want) {
				return errors.New("read other bytes than were written")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	total := 0
	at := time.Now()
	err = open(func(f io.Reader) error {
		for {
			k, err := f.Read(buf)
			total += k
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	took := time.Since(at)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "read %d ns %d\n", total, took.Nanoseconds())
	return err
}
