package native

import "golang.org/x/sys/unix"

// The calling convention that the filter is written for, and the first number of the other one of this
// processor, x32.
const (
	auditArch    = unix.AUDIT_ARCH_X86_64
	foreignCalls = 0x40000000
)
