//go:build !unix && !windows

package sandbox

import (
	"errors"
	"os"
)

// adminOnly cannot tell owners here, so a policy file stops everything.
func adminOnly(string, *os.File) error { return errors.ErrUnsupported }
