package wasm

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// scale picks how much a row of reliability.md does: smoke within make test, more by DS_TORTURE=ci or full.
func scale(smoke, ci, full int) int {
	switch os.Getenv("DS_TORTURE") {
	case "ci":
		return ci
	case "full":
		return full
	}
	return smoke
}

// seed is where the random numbers of a row begin; DS_TORTURE_SEED repeats a run.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	if err != nil {
		n = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with DS_TORTURE=%s DS_TORTURE_SEED=%d go test -run '^%s$' ./runtime/wasm", os.Getenv("DS_TORTURE"), n, t.Name())
		}
	})
	return n
}
