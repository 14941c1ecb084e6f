//go:build unix

package native_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
)

func TestWorker(t *testing.T) {
	t.Parallel()
	b := native.New(native.Options{})
	limits := native.WorkerLimits{Wall: 20 * time.Second, CPU: 10 * time.Second, Memory: 512 << 20, Dir: t.TempDir()}
	out, err := b.Worker(t.Context(), []string{"echo"}, strings.NewReader("module"), limits)
	if string(out) != "0 module" || err != nil {
		t.Errorf("got %q, %v, want no variable and the input", out, err)
	}
	_, err = b.Worker(t.Context(), []string{"fail"}, nil, limits)
	var exit *plugin.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || !strings.Contains(err.Error(), `"no such thing"`) {
		t.Errorf("got %v", err)
	}
	if _, err = b.Worker(t.Context(), []string{"flood"}, nil, limits); hostabi.ReasonOf(err) != hostabi.ReasonQuota {
		t.Errorf("flood: got %v, want QUOTA", err)
	}
	short := limits
	short.Wall = 300 * time.Millisecond
	if _, err = b.Worker(t.Context(), []string{"hang"}, nil, short); hostabi.ReasonOf(err) != hostabi.ReasonTooLarge {
		t.Errorf("hang: got %v, want TOO_LARGE", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = b.Worker(ctx, []string{"hang"}, nil, limits); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("cancelled: got %v, want INTERRUPTED", err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	short = limits
	short.CPU = time.Second
	if _, err = b.Worker(t.Context(), []string{"loop"}, nil, short); hostabi.ReasonOf(err) != hostabi.ReasonTooLarge {
		t.Errorf("loop: got %v, want TOO_LARGE", err)
	}
	short = limits
	short.Memory = 128 << 20
	_, err = b.Worker(t.Context(), []string{"eat"}, nil, short)
	if err != nil && strings.Contains(err.Error(), "ThreadSanitizer") {
		return // with -race it is not the Go runtime that fails
	}
	if hostabi.ReasonOf(err) != hostabi.ReasonTooLarge {
		t.Errorf("eat: got %v, want TOO_LARGE", err)
	}
}
