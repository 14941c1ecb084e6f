// Package hosttest is the conformance kit of the host ABI: one set of cases (package cases) that every
// carrier runs, with the results that every carrier must give. Start with Run.
package hosttest

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hosttest/cases"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Carrier is one way from a guest to a session.
type Carrier struct {
	Name string
	// Start runs the case called name in a guest, against a session that it opens with w.Open, and closes the
	// session. The result is what the guest printed to w.Stdout, or returned.
	Start func(t testing.TB, w *World, name string) string
	// Cannot are cases that the carrier cannot express, with the reason.
	Cannot map[string]string
}

// Backend is manager.Backend.
type Backend interface {
	Run(ctx context.Context, p *plugin.Installed, b *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error
}

// InProcess runs the cases directly on the session: the reference.
func InProcess() Carrier {
	return Connected("in-process", func(_ testing.TB, s hostabi.Session) hostabi.Session { return s })
}

// Connected runs the cases in this process, over the session that connect makes of the host's; connect leaves
// its end to t.Cleanup.
func Connected(name string, connect func(t testing.TB, s hostabi.Session) hostabi.Session) Carrier {
	return Carrier{Name: name, Start: func(t testing.TB, w *World, name string) string {
		w.Installed.Program = &plugin.Program{Kind: plugin.Native}
		_, s := w.Open(w.Invocation(name))
		_, err := io.WriteString(w.Stdout, cases.Run(t.Context(), connect(t, s), name)+"\n")
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Errorf("close session: %v", err)
		}
		return w.Stdout.String()
	}}
}

// Program runs the kit's guest program (testdata/guests/go/kit and kitgoplugin) on a backend, with words before
// the name of the case.
func Program(name string, b Backend, program plugin.Program, words ...string) Carrier {
	return Carrier{Name: name, Start: func(t testing.TB, w *World, name string) string {
		p := program
		if p.File == nil {
			f, err := os.Open(p.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close() // only read
			p.File = f
		}
		if p.Dir == "" {
			p.Dir = filepath.Dir(p.Path)
		}
		w.Installed.Programs, w.Installed.Program = []plugin.Program{p}, &p
		inv := w.Invocation(append(slices.Clone(words), name)...)
		box, s := w.Open(inv)
		if err := b.Run(t.Context(), w.Installed, box, inv, s); err != nil {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
		return w.Stdout.String()
	}}
}

// Run runs every case over carrier c, each in a world of its own with the owners that build makes.
func Run(t *testing.T, c Carrier, build func(t testing.TB, s Setup) Owners) {
	for _, name := range cases.Names() {
		want, ok := expected[name]
		if !ok {
			t.Errorf("case %s: no expected result", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if why := c.Cannot[name]; why != "" {
				t.Skip(why)
			}
			w := NewWorld(t, build, want.setup)
			w.seed(t)
			w.granted = want.granted
			if want.before != nil {
				want.before(t, w)
			}
			text := want.text
			if want.from != nil {
				text = want.from(w)
			}
			got := strings.TrimSpace(c.Start(t, w, name))
			if got != strings.TrimSpace(text) {
				t.Errorf("over %s:\n--- got\n%s\n--- want\n%s", c.Name, got, strings.TrimSpace(text))
			}
			if want.after != nil {
				want.after(t, w)
			}
		})
	}
}

// result is what a case must give.
type result struct {
	text    string
	from    func(w *World) string // instead of text
	setup   Setup
	granted map[hostabi.Capability]sandbox.Scopes // in place of what the world grants
	before  func(t testing.TB, w *World)          // makes more than every world has
	after   func(t testing.TB, w *World)          // looks at the host's side
}

// openFunc opens the blobs of an artifact that is only in memory.
func openFunc(blobs map[hostabi.Digest][]byte) hostabi.OpenFunc {
	return func(_ context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		return nopCloser{strings.NewReader(string(blobs[d]))}, nil
	}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }
