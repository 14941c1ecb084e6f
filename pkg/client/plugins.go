package client

import (
	"bytes"
	"context"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Result is how a called plugin ended. Output is empty when WithOutput took it.
type Result struct {
	ExitCode       int
	Stdout, Stderr []byte
}

// String is the standard output.
func (r *Result) String() string { return string(r.Stdout) }

// PluginInfo is a plugin that this one may call.
type PluginInfo struct {
	Name, Version, Description, Backend string
	Commands                            []string
}

type callOptions struct {
	stdin          io.Reader
	blobs          []string
	stdout, stderr io.Writer
}

// CallOption changes a plugin call.
type CallOption func(*callOptions)

// WithStdin gives the called plugin r as standard input. A Read of r that blocks may outlive the call.
func WithStdin(r io.Reader) CallOption { return func(o *callOptions) { o.stdin = r } }

// WithBlobs lets the called plugin read blobs that the caller may read.
func WithBlobs(d ...Digest) CallOption {
	return func(o *callOptions) {
		for _, d := range d {
			o.blobs = append(o.blobs, string(d))
		}
	}
}

// WithOutput streams the output instead of collecting it; nil discards.
func WithOutput(stdout, stderr io.Writer) CallOption {
	return func(o *callOptions) {
		o.stdout, o.stderr = stdout, stderr
		if stdout == nil {
			o.stdout = io.Discard
		}
		if stderr == nil {
			o.stderr = io.Discard
		}
	}
}

// CallPlugin runs another plugin with args, the words after its name, and waits for it. A non-zero exit is
// an *ExitError together with the Result; collected output beyond the host's limit is ErrQuota.
func (c *Client) CallPlugin(ctx context.Context, name string, args []string, opts ...CallOption) (*Result, error) {
	var o callOptions
	for _, opt := range opts {
		opt(&o)
	}
	start := &hostv1lite.CallStart{Plugin: name, Args: args, Blobs: o.blobs}
	if len(args) > 0 && isCommand(args[0]) { // the word that plugins.call is granted for
		start.Command, start.Args = args[0], args[1:]
	}
	if d, ok := ctx.Deadline(); ok {
		start.Timeout = max(1, time.Until(d).Milliseconds())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := c.open(ctx, hostv1lite.PluginsCall, &hostv1lite.CallRequest{Start: start})
	if err != nil {
		return nil, err
	}
	defer st.close()
	st.feedStdin(o.stdin)
	out := collector{o: o}
	for {
		var e hostv1lite.CallEvent
		if err := st.recv(&e); err != nil {
			if err == io.EOF {
				err = classify(hostabi.Errorf(hostabi.ReasonProtocol, "plugin %s: the call ended without an exit code", name))
			}
			return nil, err
		}
		if e.Exit != nil {
			return out.result(e.Exit)
		}
		if err := out.take(&e); err != nil {
			return nil, err
		}
	}
}

func isCommand(word string) bool {
	return word != "" && word[0] != '-' && strings.IndexFunc(word, unicode.IsSpace) < 0
}

// feedStdin has r, which may be nil, sent as standard input and ended.
func (s *stream) feedStdin(r io.Reader) {
	if r == nil {
		_ = s.closeSend()
		return
	}
	buf := make([]byte, chunk)
	s.feed(func() bool {
		n, err := r.Read(buf)
		if n > 0 && s.send(&hostv1lite.CallRequest{Stdin: buf[:n]}) != nil {
			return false
		}
		if err != nil {
			_ = s.closeSend()
		}
		return err == nil
	})
}

// collector takes the output of a called plugin.
type collector struct {
	o              callOptions
	stdout, stderr bytes.Buffer
}

func (c *collector) take(e *hostv1lite.CallEvent) error {
	for _, out := range []struct {
		b   []byte
		w   io.Writer
		buf *bytes.Buffer
	}{{e.Stdout, c.o.stdout, &c.stdout}, {e.Stderr, c.o.stderr, &c.stderr}} {
		if out.w != nil {
			if _, err := out.w.Write(out.b); err != nil {
				return err
			}
			continue
		}
		if c.stdout.Len()+c.stderr.Len()+len(out.b) > hostabi.MaxOutput {
			return classify(hostabi.Errorf(hostabi.ReasonQuota, "the called plugin wrote more than %d MiB; stream it with WithOutput", hostabi.MaxOutput>>20))
		}
		out.buf.Write(out.b)
	}
	return nil
}

func (c *collector) result(exit *hostv1lite.CallExit) (*Result, error) {
	r := &Result{ExitCode: int(exit.Code), Stdout: c.stdout.Bytes(), Stderr: c.stderr.Bytes()}
	if exit.Signal != 0 && r.ExitCode == 0 {
		r.ExitCode = 128 + int(exit.Signal)
	}
	if r.ExitCode != 0 {
		return r, &ExitError{Code: r.ExitCode}
	}
	return r, nil
}

// Plugins lists the plugins that this one may call.
func (c *Client) Plugins(ctx context.Context) ([]PluginInfo, error) {
	var l hostv1lite.PluginList
	if err := c.invoke(ctx, hostv1lite.PluginsList, &hostv1lite.ListPluginsRequest{}, &l); err != nil {
		return nil, err
	}
	out := make([]PluginInfo, len(l.Plugins))
	for i, p := range l.Plugins {
		out[i] = PluginInfo{Name: p.Name, Version: p.Version, Description: p.Description, Backend: p.Backend, Commands: p.Commands}
	}
	return out, nil
}
