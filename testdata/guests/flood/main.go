// Command flood is the greedy plugin of tests: it takes as much of one thing as it gets. Under another name it is the
// plugin beside it, which measures how long its own calls take meanwhile.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/pkg/client"
)

func main() {
	client.Main(client.App{Name: "flood", Version: "0.1.0", Commands: []client.Command{
		{Name: "take", Args: []client.Arg{{Name: "what", Required: true}}, Run: take},
		{Name: "beside", Args: []client.Arg{{Name: "what", Required: true}, {Name: "time", Required: true}, {Name: "until"}}, Run: beside},
	}})
}

// floods are what can be taken. Each goes on until something refuses it.
var floods = map[string]func(ctx context.Context, in *client.Invocation) error{
	"nothing": func(context.Context, *client.Invocation) error { <-time.After(time.Hour); return nil },
	"time": func(context.Context, *client.Invocation) error {
		return endless(func(int) error { return nil })
	},
	"output": func(_ context.Context, in *client.Invocation) error { return fill(in.Stdout) },
	"errors": func(_ context.Context, in *client.Invocation) error { return fill(in.Stderr) },
	"logs": func(_ context.Context, in *client.Invocation) error {
		for log, text := in.Logger(), strings.Repeat("log ", 1000); ; {
			log.Info(text)
		}
	},
	"events": func(ctx context.Context, in *client.Invocation) error {
		return endless(func(int) error { return in.Publish(ctx, "flood.said", strings.Repeat("x", 32<<10)) })
	},
	"calls": func(ctx context.Context, in *client.Invocation) error {
		return endless(func(int) error { _, err := in.Plugins(ctx); return err })
	},
	"state": func(ctx context.Context, in *client.Invocation) error {
		return endless(func(i int) error { _, err := in.SetState(ctx, fmt.Sprint("k", i), make([]byte, 4<<10)); return err })
	},
	"blobs": func(ctx context.Context, in *client.Invocation) error {
		return endless(func(i int) error {
			_, err := in.Cache().Put(ctx, bytes.NewReader(append(fmt.Append(nil, i, time.Now().UnixNano()), make([]byte, 256<<10)...)))
			return err
		})
	},
	"descriptors": func(context.Context, *client.Invocation) error {
		dir, err := os.MkdirTemp("", "flood")
		if err != nil {
			return err
		}
		var open []*os.File
		return errors.Join(endless(func(i int) error {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			open = append(open, f)
			return err
		}), fmt.Errorf("%d files", len(open)))
	},
	"files": func(context.Context, *client.Invocation) error {
		dir, err := os.MkdirTemp("", "flood")
		if err != nil {
			return err
		}
		text := make([]byte, 64<<10)
		written := 0
		return errors.Join(endless(func(i int) error {
			if written++; written > 4096 { // 256 MiB: nothing limits a native plugin here
				<-time.After(time.Hour)
			}
			return os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), text, 0o600)
		}), fmt.Errorf("%d files", written))
	},
	"memory": func(context.Context, *client.Invocation) error {
		var all [][]byte
		return endless(func(int) error {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			return nil
		})
	},
	"processes": func(ctx context.Context, _ *client.Invocation) error {
		for i := range 200 { // the machine is not ours
			if err := exec.CommandContext(ctx, "/bin/sleep", "3607.25").Start(); err != nil {
				return fmt.Errorf("process %d: %w", i, err)
			}
		}
		<-time.After(time.Hour)
		return nil
	},
}

func fill(w io.Writer) error {
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	return endless(func(int) error { _, err := w.Write(block); return err })
}

func endless(do func(i int) error) error {
	for i := 0; ; i++ {
		if err := do(i); err != nil {
			return err
		}
	}
}

func take(ctx context.Context, in *client.Invocation) error {
	f := floods[in.Args[0]]
	if f == nil {
		return client.Usagef("no flood %q", in.Args[0])
	}
	return f(ctx, in)
}

// beside prints the time that most of its calls need, 99 of 100, alone and while the other plugin takes, and how the
// other one was refused. Then it starts the other one again and says so; whoever started it may look at the host, and
// interrupt.
func beside(ctx context.Context, in *client.Invocation) error {
	d, err := time.ParseDuration(in.Args[1])
	if err != nil {
		return err
	}
	alone := measure(ctx, in, time.Second, nil)
	ended := make(chan string, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := func() {
		go func() {
			var said head
			_, err := in.CallPlugin(ctx, "flood", []string{"take", in.Args[0]}, client.WithOutput(nil, &said))
			if err != nil {
				err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(said))
			}
			ended <- fmt.Sprintf("%.600q", fmt.Sprint(err))
		}()
	}
	start()
	refused := ""
	during := measure(ctx, in, d, func() {
		select {
		case refused = <-ended:
			start()
		default:
		}
	})
	if refused == "" && len(in.Args) > 2 { // until it is refused
		select {
		case refused = <-ended:
			start()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Fprintf(in.Stdout, "alone %d beside %d refused %s\n", alone.Microseconds(), during.Microseconds(), refused)
	for {
		select {
		case <-ended:
			start()
		case <-ctx.Done(): // somebody interrupts
			return ctx.Err()
		}
	}
}

// head keeps the first bytes that were written: there a program says what it died of.
type head []byte

func (h *head) Write(b []byte) (int, error) {
	*h = append(*h, b[:min(len(b), 500-len(*h))]...)
	return len(b), nil
}

// measure makes calls for a while.
func measure(ctx context.Context, in *client.Invocation, d time.Duration, between func()) time.Duration {
	var took []time.Duration
	for begin := time.Now(); time.Since(begin) < d; {
		call := time.Now()
		var s struct{}
		if err := in.Config(ctx, &s); err != nil {
			fmt.Fprintln(in.Stderr, "neighbour:", err)
		}
		took = append(took, time.Since(call))
		if between != nil {
			between()
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}
