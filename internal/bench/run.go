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
	"strconv"
	"strings"
	"time"
)

// errMissing says that a program is not there; for a contender that is no failure.
var errMissing = errors.New("not there")

// errNoServer says that the registry of the rows is not there, which is no failure of either side.
var errNoServer = errors.New("no registry")

// longest is how long one run of one side may take.
const longest = 5 * time.Minute

// once runs one side once and returns its metric. The side has proved that it did its work: exit code 0 and
// the output that its Spec wants.
func (f *fixture) once(ctx context.Context, s Spec, m Metric) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if f.server == nil && s.needsServer() {
		return 0, errNoServer
	}
	if s.Bench != "" {
		return f.bench(ctx, s, m)
	}
	if s.Clear != "" {
		if err := os.RemoveAll(f.expand(s.Clear)); err != nil {
			return 0, err
		}
	}
	argv := make([]string, len(s.Argv))
	for i, a := range s.Argv {
		argv[i] = f.expand(a)
	}
	if _, err := os.Stat(argv[0]); err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(argv[0]), errMissing)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = f.env(), f.tmp
	var stdout output
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	wall := time.Since(begin)
	if err == nil {
		want := s.Want
		want.Contains = f.expand(want.Contains)
		err = stdout.check(want)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, clip(stderr.String()))
	}
	switch m {
	case Wall:
		return float64(wall), nil
	case CPU:
		return float64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), nil
	case Peak:
		return peak(cmd.ProcessState), nil
	case Reported:
		return stdout.reported(s.Want)
	}
	return 0, fmt.Errorf("%s: a process has no metric %q", s.Label, m)
}

// output keeps the start of what a program prints and counts the rest.
type output struct {
	head bytes.Buffer
	n    int64
}

func (o *output) Write(p []byte) (int, error) {
	o.n += int64(len(p))
	o.head.Write(p[:min(len(p), 4096-min(4096, o.head.Len()))])
	return len(p), nil
}

// ReadFrom lets a pipe be drained in large pieces, so that the reader is not what is measured.
func (o *output) ReadFrom(r io.Reader) (total int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		_, _ = o.Write(buf[:n])
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (o *output) check(want Output) error {
	got := o.head.String()
	switch {
	case want.Bytes > 0 && o.n != want.Bytes:
		return fmt.Errorf("printed %d bytes, want %d", o.n, want.Bytes)
	case want.Bytes > 0:
		return nil
	case want.Contains != "":
		if !strings.Contains(got, want.Contains) {
			return fmt.Errorf("printed %q, want %q in it", clip(got), want.Contains)
		}
		return nil
	case want.Prefix && !strings.HasPrefix(got, want.Text), !want.Prefix && (got != want.Text || o.n != int64(len(want.Text))):
		return fmt.Errorf("printed %q, want %q", clip(got), want.Text)
	}
	return nil
}

// reported is the number after the wanted start of the only line.
func (o *output) reported(want Output) (float64, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(o.head.String(), want.Text), "\n")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v <= 0 {
		return 0, fmt.Errorf("printed %q where a time was expected", clip(text))
	}
	return v, nil
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
