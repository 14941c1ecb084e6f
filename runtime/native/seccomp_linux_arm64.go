package native

import "golang.org/x/sys/unix"

// The calling convention that the filter is written for; there is no other one with its identifier.
const (
	auditArch    = unix.AUDIT_ARCH_AARCH64
	foreignCalls = 0
)
