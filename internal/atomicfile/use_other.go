//go:build !unix

package atomicfile

import "os"

// share does nothing: such systems do not remove what is open.
func share(*os.File) error { return nil }
