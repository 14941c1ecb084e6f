//go:build !linux && !darwin

package atomicfile

func bootID() string { return "" }
