//go:build unix

package native_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/goplugin"
	"github.com/delivery-station/ds/plugin"
)

// sdkApp is a plugin written with the SDK. The program serves it in both modes.
func sdkApp() client.App {
	return client.App{Name: "sdk", Version: "1.4.0", Commands: []client.Command{
		{Name: "flood", Args: []client.Arg{{Name: "n", Type: "int", Required: true}}, Run: func(_ context.Context, in *client.Invocation) error {
			n, err := strconv.ParseInt(in.Args[0], 10, 64)
			if err == nil {
				_, err = io.CopyN(in.Stdout, noise(), n)
			}
			return err
		}},
		{Name: "cat", Run: func(_ context.Context, in *client.Invocation) error {
			_, err := io.Copy(in.Stdout, in.Stdin)
			return err
		}},
		{Name: "tty", Run: func(_ context.Context, in *client.Invocation) error {
			_, err := fmt.Fprintf(in.Stdout, "%t%t%t", isTTY(0), isTTY(1), isTTY(2))
			return err
		}},
		{Name: "describe", Run: func(ctx context.Context, in *client.Invocation) error {
			d, err := in.Describe(ctx)
			if err == nil {
				fmt.Fprint(in.Stdout, d.ABI)
			}
			return err
		}},
		{Name: "wait", Run: func(ctx context.Context, in *client.Invocation) error {
			fmt.Fprintln(in.Stdout, "ready")
			<-ctx.Done()
			return ctx.Err()
		}},
		{Name: "panic", Run: func(context.Context, *client.Invocation) error { panic("boom") }},
	}}
}

func serveSDK() { goplugin.Main(sdkApp()) }

// TestSDK: one program of the SDK behaves alike in both modes.
func TestSDK(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"direct", "goplugin"} {
		sdk := func(words ...string) call { return call{mode: mode, name: "sdk", args: words} }
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			t.Run("no byte is lost", func(t *testing.T) {
				const size = 64 << 20
				want := digestOf(t, io.LimitReader(noise(), size))
				for i := range loops(t) {
					h := sha256.New()
					c := sdk("flood", strconv.Itoa(size))
					c.stdout = h
					if err := c.run(t.Context()); err != nil {
						t.Fatal(err)
					}
					if hex.EncodeToString(h.Sum(nil)) != want {
						t.Fatalf("loop %d: bytes were lost through a writer", i)
					}
					if inherited(t, sdk("flood", strconv.Itoa(size))) != want {
						t.Fatalf("loop %d: bytes were lost through a file", i)
					}
				}
			})
			t.Run("stdin", func(t *testing.T) {
				if out, code := with(sdk("cat"), strings.NewReader("to the end")).output(t); out != "to the end" || code != 0 {
					t.Errorf("got %q, %d", out, code)
				}
			})
			t.Run("exit codes", func(t *testing.T) {
				if _, code := sdk("nothing").output(t); code != 2 {
					t.Errorf("unknown command: got %d, want 2", code)
				}
				if _, code := sdk("panic").output(t); code == 0 {
					t.Error("a panic is no success")
				}
			})
			t.Run("terminal", func(t *testing.T) {
				ptmx, tty, err := pty.Open()
				if err != nil {
					t.Skip("no pseudo terminals here: ", err)
				}
				defer ptmx.Close()
				defer tty.Close()
				got := make(chan string, 1)
				go func() {
					b := make([]byte, len("truetruetrue"))
					n, _ := io.ReadFull(ptmx, b)
					got <- string(b[:n])
				}()
				c := sdk("tty")
				c.stdin, c.stdout, c.stderr = tty, tty, tty
				if err := c.run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s := <-got; s != "truetruetrue" {
					t.Errorf("got %q", s)
				}
			})
			t.Run("interrupt", func(t *testing.T) {
				out, done := newSyncBuffer(), make(chan error, 1)
				c := sdk("wait")
				c.stdout, c.signals = out, make(chan os.Signal, 1)
				go func() { done <- c.run(t.Context()) }()
				<-out.hit
				c.signals <- os.Interrupt
				var exit *plugin.ExitError
				if err := <-done; !errors.As(err, &exit) || exit.Code != 130 {
					t.Errorf("got %v, want exit 130", err)
				}
			})
		})
	}
	t.Run("host services over the broker", func(t *testing.T) {
		t.Parallel()
		if out, code := (call{mode: "goplugin", name: "sdk", args: []string{"describe"}}).output(t); out != hostabi.ABI || code != 0 {
			t.Errorf("got %q, %d", out, code)
		}
	})
}
