//go:build !linux

package wasm

import (
	"context"
	"os"
)

// isTerminal is false where terminals cannot be opened anew: a read on the descriptor itself would block
// beyond every deadline.
func isTerminal(*os.File) bool { return false }

// reopen needs /proc.
func reopen(*os.File, int, bool) *os.File { return nil }

// wakeThread is needed for terminals only.
func wakeThread(context.Context) (release func()) { return func() {} }
